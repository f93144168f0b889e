"""Azure's bill is compared with the usage by whoever may read reports; a file that is too much is refused."""

from __future__ import annotations

import gzip
import io

import pytest

from llmgateway.records import Batch, moment
from llmgateway.web.admin import reconcile
from llmgateway.web.context import EXTENSION
from tests.reconcile.samples import Charge, table
from tests.stores.contract import usage

BILL = table([Charge("gpt-4o-mini-0718-Inp-glbl", 1000, day="2026-10-30", deployment="gpt-4o-mini")], "focus").encode()


@pytest.fixture
def send(client, admin):
    """Send files to be compared, each a pair of its content and its name."""

    def post(*files, status=200, headers=admin, **fields):
        sent = {"file": [(io.BytesIO(content), name) for content, name in files]} | fields
        answer = client.post("/admin/reconcile", data=sent, headers=headers, content_type="multipart/form-data")
        assert status == answer.status_code, answer.text
        return answer.json

    return post


def test_says_what_both_sides_have(client, send):
    """By deployment, kind and day."""
    services = client.application.extensions[EXTENSION]
    at = moment(1_793_361_600.0)  # 2026-10-30T12:00Z
    services.usage_log.append([usage(1, timestamp=at, deployment="gpt-4o-mini", prompt_tokens=7)], batch=Batch("a", 1))

    found = send((BILL, "bills/october.csv"), threshold="1")

    assert {"start": "2026-10-30", "end": "2026-10-30"} == found["period"]
    assert ["october.csv"] == [each["name"] for each in found["files"]]
    prompt = next(each for each in found["days"] if each["kind"] == "prompt")
    assert ("gpt-4o-mini", 7.0) == (prompt["name"], prompt["ours"])
    assert prompt["gap"] == prompt["ours"] - prompt["azure"] != 0
    assert prompt in found["beyond"]


def test_takes_parts_and_what_is_compressed(send):
    other = BILL.replace(b"2026-10-30", b"2026-10-31")

    found = send((gzip.compress(BILL), "part_0.csv.gz"), (other, "part_1.csv"))

    assert ["part_0.csv", "part_1.csv"] == [each["name"] for each in found["files"]]
    assert "2026-10-31" == found["period"]["end"]


@pytest.mark.parametrize(
    ("files", "fields", "wrong"),
    [
        ([], {}, "file"),
        ([(b"", "empty.csv")], {}, "file"),
        ([(b"a,b\n1,2\n", "sums.csv")], {}, "file"),
        ([(b"\x00\xff" * 999, "noise")], {}, "file"),
        ([(BILL, "a.csv"), (BILL, "b.csv")], {}, "file"),
        ([(BILL, "a.csv")], {"threshold": "-1"}, "threshold"),
        ([(BILL, "a.csv")], {"threshold": "nan"}, "threshold"),
        ([(BILL, "a.csv")], {"model": "gpt-4o"}, "model"),
        ([(BILL, "a.csv")], {"meter": "x=gpt-4o"}, "meter"),
    ],
)
def test_says_what_is_wrong(send, files, fields, wrong):
    assert [wrong] == list(send(*files, status=422, **fields)["error"]["errors"])


def test_takes_what_somebody_says_about_names(send):
    send((BILL, "a.csv"), model="team-a=gpt-4o\nteam-b=gpt-4o", meter=["x=gpt-4o:prompt", ""])


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_refuses_more_than_the_setting_allows(make_app, admin, name):
    """Also if it is small before it is unpacked."""
    content = BILL + BILL.splitlines(keepends=True)[1] * 20
    client = make_app(LLMGATEWAY_RECONCILE_BYTES="2048").test_client()
    sent = gzip.compress(content) if name.endswith(".gz") else content

    answer = client.post("/admin/reconcile", data={"file": (io.BytesIO(sent), name)}, headers=admin)

    assert 422 == answer.status_code
    assert "LLMGATEWAY_RECONCILE_BYTES" in str(answer.json["error"]["errors"])


def test_compares_one_at_a_time(send):
    with reconcile._running:
        busy = send((BILL, "a.csv"), status=503)
    assert "overloaded" == busy["error"]["code"]
    send((BILL, "a.csv"))


def test_is_no_form_without_the_type_of_one(client, admin):
    assert 415 == client.post("/admin/reconcile", data=BILL, headers=admin, content_type="text/csv").status_code
    cut = client.post(
        "/admin/reconcile", data=b"--x\r\n", headers=admin, content_type="multipart/form-data; boundary=x"
    )
    assert 400 == cut.status_code
