"""The books: one record for each request that reached Azure, with Azure's own counts."""

from __future__ import annotations

import csv
import io
import secrets
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from llmgateway.settings import Settings
from llmgateway.simulator import FILTERED_PHRASE, Script
from llmgateway.stores import open_stores
from tests.servers import wait_until
from tests.stores.contract import append, usage

TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")
FIELDS = {
    "id",
    "timestamp",
    "key_id",
    "user",
    "group",
    "model",
    "model_known",
    "deployment",
    "endpoint",
    "stream",
    "status",
    "outcome",
    *TOKENS,
    "usage_source",
    "cost_usd",
    "prompt_version",
    "content_filter",
    "filter_severities",
    "ttft_ms",
    "duration_ms",
    "upstream_request_id",
    "region",
    "client_address",
    "attempts",
    "response_id",
    "stored_ids",
    "stored_at",
    "service_tier",
    "spilled_over",
    "error_code",
    "tool_uses",
    "admitted_ms",
    "sent_ms",
    "limits",
}


def counts(thing):
    """The token counts of a record, a row or the simulator's usage."""
    if isinstance(thing, dict):
        return {name: thing[name] for name in TOKENS}
    return {name: getattr(thing, name) for name in TOKENS}


def summed(served):
    usages = [one.usage for one in served if one.usage]
    return {name: sum(getattr(usage, name) for usage in usages) for name in TOKENS}


@pytest.mark.parametrize("stream", [False, True])
def test_books_what_azure_counted(gateway, key, azure, records, stream):
    """A completion leaves one record, with Azure's tokens, cached and reasoning ones included."""
    azure.script(Script(tokens=30, cached_tokens=2, reasoning_tokens=64))

    answer = gateway.chat(key, stream=stream)

    [record] = records(gateway, key)
    assert 200 == answer.status
    assert counts(azure.served[0].usage) == counts(record)
    assert ("ok", "upstream", 200, stream) == (
        record["outcome"],
        record["usage_source"],
        record["status"],
        bool(record["stream"]),
    )
    assert ("gpt-4o-mini", "gpt-4o-mini") == (record["model"], record["deployment"])
    assert "/v1/chat/completions" == record["endpoint"]
    assert "East US 2" == record["region"]
    assert answer.header("apim-request-id") == record["upstream_request_id"]
    assert record["cost_usd"] > 0
    assert 0 < record["admitted_ms"] <= record["sent_ms"] < record["duration_ms"]
    assert stream == (record["ttft_ms"] is not None)


def test_has_the_promised_fields_and_no_text(gateway, key, records):
    """The record has exactly the fields of the contract; nothing that anybody wrote is in it."""
    gateway.chat(key, "a very private question")

    [record] = records(gateway, key)
    assert FIELDS == record.keys()
    assert "private" not in repr(record)
    assert key not in repr(record)


def test_tells_time_in_utc(gateway, key, stores, records):
    """The timestamp is the arrival's, in MongoDB a date that other programs understand."""
    before = datetime.now(UTC)
    gateway.chat(key)
    after = datetime.now(UTC)

    [record] = records(gateway, key)
    timestamp = record["timestamp"]
    if stores.mongo is None:
        timestamp = datetime.fromtimestamp(timestamp / 1000, UTC)
    assert before - timedelta(milliseconds=1) <= timestamp <= after


@pytest.mark.parametrize("fault", ["server_error", "token_rate_limit", "deployment_not_found", "unauthorized"])
def test_books_an_error_of_azures(gateway, key, azure, records, fault):
    """A request that Azure answered with an error costs nothing and leaves a record with the status."""
    azure.script(Script(fault=fault))

    gateway.chat(key)

    [record] = records(gateway, key)
    assert ("upstream_error", "none", 0) == (record["outcome"], record["usage_source"], record["total_tokens"])
    assert azure.served[0].status == record["status"]


@pytest.mark.parametrize("stream", [False, True])
def test_books_a_filtered_prompt(gateway, key, records, stream):
    """Azure bills the prompt, so its estimate is booked; the record names the categories that fired."""
    gateway.chat(key, f"Please {FILTERED_PHRASE}.", stream=stream)

    [record] = records(gateway, key)
    assert ("upstream_error", "estimated", 400) == (record["outcome"], record["usage_source"], record["status"])
    assert 0 < record["prompt_tokens"] == record["total_tokens"]
    assert record["cost_usd"] > 0
    assert "sexual" in record["content_filter"]
    assert "violence" not in record["content_filter"]


@pytest.mark.parametrize(
    ("kind", "stream", "category"),
    [("completion", False, "hate"), ("completion", True, "hate"), ("late_block", True, "protected_material_text")],
)
def test_books_a_filtered_completion(gateway, key, azure, records, kind, stream, category):
    """A completion that was blocked is billed, and the record names the category."""
    azure.script(Script(filter=kind))

    gateway.chat(key, stream=stream)

    [record] = records(gateway, key)
    assert ("ok", "upstream") == (record["outcome"], record["usage_source"])
    assert counts(azure.served[0].usage) == counts(record)
    assert category in record["content_filter"]


def test_books_a_stream_that_broke(gateway, key, azure, records):
    """What was sent until then, and what can have been on its way, is estimated: Azure bills it."""
    azure.script(Script(tokens=20, cut_after_events=12))

    gateway.chat(key, stream=True)

    [record] = records(gateway, key)
    assert ("broken", "estimated", 200) == (record["outcome"], record["usage_source"], record["status"])
    assert 10 + 150 <= record["completion_tokens"] <= 10 + 151 + 300 * record["duration_ms"] / 1000
    assert record["prompt_tokens"] > 0


def test_books_what_a_client_left(gateway, key, azure, records):
    """A client that leaves in the middle is client_closed, with an estimate, and Azure is left, too."""
    azure.script(Script(tokens=2000, gap=0.01))
    connection = gateway.connect()
    connection.request(
        "POST",
        "/v1/chat/completions",
        body=b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"a b c"}],"stream":true}',
        headers={"Authorization": f"Bearer {key}"},
    )
    response = connection.getresponse()
    response.read(1000)
    response.close()
    connection.close()

    [served] = azure.wait_for(lambda served: served[0].peer_left)
    [record] = records(gateway, key)
    assert ("client_closed", "estimated") == (record["outcome"], record["usage_source"])
    assert served.events_sent < 2000
    assert 0 < record["completion_tokens"] <= served.events_sent + 151 + 300 * record["duration_ms"] / 1000


def test_books_nothing_that_was_refused(gateway, key, azure):
    """A request that never reached Azure leaves no record."""
    narrow = gateway.key(models=["gpt-4o"])
    refused = [
        gateway.chat(narrow),
        gateway.chat(key, messages="no list"),
        gateway.chat(key, model=3),
        gateway.request("POST", "/v1/chat/completions", key=key, body=b"{"),
        gateway.request("POST", "/v1/chat/completions", key=key, body=b"x" * 200_000),
        gateway.chat("nobodys"),
    ]
    assert [403, 400, 400, 400, 413, 401] == [answer.status for answer in refused]
    gateway.chat(key)

    wait_until(lambda: total_of(gateway, key)["requests"], what="the record of the last request")
    assert 1 == total_of(gateway, key)["requests"]
    assert 0 == total_of(gateway, narrow)["requests"]
    assert 1 == len(azure.served)


def total_of(gateway, key):
    return gateway.request("GET", "/v1/me", key=key).json()["usage"]["total"]


def test_tells_users_what_they_used(gateway, key, azure):
    """/v1/me has the sums of today, the month and ever, and not the key."""
    for stream in (False, True, True):
        gateway.chat(key, stream=stream)
    wait_until(lambda: total_of(gateway, key)["requests"] == 3, what="three records")

    answer = gateway.request("GET", "/v1/me", key=key)

    usage = answer.json()["usage"]
    whose = {"id", "user", "name", "group", "expires_at", "models"}
    assert whose | {"limits", "remaining", "person", "member", "shared", "usage"} == answer.json().keys()
    assert summed(azure.served) == counts(usage["total"])
    assert usage["total"] == usage["month"] == usage["today"]
    assert key.encode() not in answer.body


GROUPINGS = (
    ["day"],
    ["month"],
    ["user"],
    ["key"],
    ["group"],
    ["model"],
    ["deployment"],
    ["user", "model"],
    ["day", "group", "key"],
    [],
)


def report_of(gateway, by, query=""):
    return gateway.admin("GET", f"/admin/usage?by={','.join(by)}{query}").json()


@pytest.fixture
def busy(gateway, azure):
    """Three keys of two users in one group and none, with different models and ends, all in the books."""
    # Records are shipped in their order: with this one in the books, those of earlier tests are, too.
    last = gateway.key()
    gateway.chat(last)
    wait_until(lambda: total_of(gateway, last)["requests"], what="the records of before")
    before = reports_that_agree(gateway)
    mark = secrets.token_hex(4)
    group = f"group-{mark}"
    owners = [(f"ada-{mark}", group), (f"ada-{mark}", None), (f"bob-{mark}", group)]
    keys = [gateway.new_key(user=user, group=member) for user, member in owners]
    by_key = {}
    for number, key in enumerate(keys):
        served = len(azure.served)
        azure.script(Script(tokens=10 + number))
        gateway.chat(key["key"], stream=True)
        azure.script(Script(tokens=20 + number))
        gateway.chat(key["key"], model="gpt-4o")
        azure.script(Script(fault="server_error"))
        gateway.chat(key["key"])
        by_key[key["id"]] = azure.served[served:]
    wait_until(lambda: sum(total_of(gateway, key["key"])["requests"] for key in keys) == 9, what="nine records")
    return keys, by_key, before


def reports_that_agree(gateway):
    """A report by each grouping; MongoDB may be about to add a record to some of the sums."""
    found = {}

    def agree():
        found.update({tuple(by): report_of(gateway, by) for by in GROUPINGS})
        return 1 == len({report["total"]["requests"] for report in found.values()})

    wait_until(agree, what="reports that agree")
    return found


def grown(before, after, by):
    """The rows of a report that were not in the one *before*, or by how much they have grown."""
    old = {tuple(row[name] for name in by): row for row in before}
    for row in after:
        known = old.get(tuple(row[name] for name in by), {})
        new = {name: value if name in by else value - known.get(name, 0) for name, value in row.items()}
        if new["requests"]:
            yield new


def groups_of(busy, by):
    """What the simulator served, by the values of the groupings that a report has."""
    keys, by_key, _ = busy
    groups = {}
    for key in keys:
        for served in by_key[key["id"]]:
            model = "gpt-4o" if b'"gpt-4o"' in served.body else "gpt-4o-mini"
            today = datetime.now(UTC)
            value = {
                "day": f"{today:%Y-%m-%d}",
                "month": f"{today:%Y-%m}",
                "user": key["user"],
                "group": key["group"],
                "key": key["id"],
                "model": model,
                "deployment": model,
            }
            groups.setdefault(tuple(value[name] for name in by), []).append(served)
    return groups


def text_of(value, *, is_name):
    """How a table shows a value: numbers have all digits and no exponent, which spreadsheets and people misread."""
    if is_name:
        return str(value or "")
    return format(Decimal(repr(value)), "f") if isinstance(value, float) else str(value)


@pytest.mark.parametrize("by", GROUPINGS)
def test_reports_by_every_grouping(gateway, busy, azure, by):
    """JSON and CSV agree with the simulator's own books, row by row and in total."""
    _, by_key, before = busy

    report = report_of(gateway, by)
    answer = gateway.admin("GET", f"/admin/usage?by={','.join(by)}&format=csv")

    expected = groups_of(busy, by)
    old = before[tuple(by)]
    rows = [*grown(old["rows"] if by else [old["total"]], report["rows"] if by else [report["total"]], by)]
    [total] = grown([old["total"]], [report["total"]], [])
    assert len(expected) == len(rows)
    for row in rows:
        served = expected[tuple(row[name] for name in by)]
        assert summed(served) == counts(row)
        assert len(served) == row["requests"]
        assert sum(one.status >= 400 for one in served) == row["errors"]
    assert summed(one for served in by_key.values() for one in served) == counts(total)
    assert (9, 3) == (total["requests"], total["errors"])
    assert total["cost_usd"] == pytest.approx(sum(row["cost_usd"] for row in rows))
    assert answer.header("content-type").startswith("text/csv")
    table = [*csv.DictReader(io.StringIO(answer.body.decode()))]
    rows = report["rows"] if by else [report["total"]]
    assert [{name: text_of(row[name], is_name=name in by) for name in row} for row in rows] == table


def test_reports_models_that_azure_does_not_know_as_one(gateway, azure, records):
    """150 made-up names are one row; the record has the name, cut to 100 characters."""
    user = f"user-{secrets.token_hex(4)}"
    key = gateway.key(user=user)

    answers = [gateway.chat(key, model=f"made-up-{number:03}-{'x' * 100}") for number in range(150)]

    assert {404} == {answer.status for answer in answers}
    made_up = records(gateway, key, count=150)
    assert {f"made-up-{number:03}-".ljust(100, "x") for number in range(150)} == {record["model"] for record in made_up}

    def rows() -> list[tuple[str, int]]:
        found = report_of(gateway, ["user", "model"])["rows"]
        return [(row["model"], row["requests"]) for row in found if row["user"] == user]

    wait_until(lambda: [("unknown", 150)] == rows(), what="one row")


def test_reports_a_period(gateway, busy):
    """Both days are included, whole; the days before the first record and after the last are empty."""
    rows = report_of(gateway, ["day"])["rows"]
    by_day = {date.fromisoformat(row["day"]): row["requests"] for row in rows}
    # More than one, if the tests of this gateway began before midnight.
    first, last = min(by_day), max(by_day)
    day = timedelta(days=1)

    def requests(query=""):
        return gateway.admin("GET", f"/admin/usage?{query}").json()["total"]["requests"]

    everything = busy[2][()]["total"]["requests"] + 9
    assert everything == requests()
    assert everything == requests(f"start={first}&end={last}")
    assert everything == requests(f"start={first - day}&end={last + day}")
    assert by_day[first] == requests(f"end={first}")
    assert by_day[last] == requests(f"start={last}&end={last}")
    assert 0 == requests(f"start={last + day}")
    assert 0 == requests(f"end={first - day}")


@pytest.mark.parametrize(
    "query",
    [
        "by=nothing",
        "by=user,user",
        "start=yesterday",
        "format=xml",
        "start=2026-02-01&end=2026-01-01",
        "start=2026-02-01T00:00:00Z",
        "end=2026-02-30",
        "end=20260228",
    ],
)
def test_refuses_a_report_that_makes_no_sense(gateway, query):
    """The answer is 422 and says which field is wrong."""
    answer = gateway.admin("GET", f"/admin/usage?{query}")

    assert 422 == answer.status
    assert answer.error["errors"].keys() <= {"by", "start", "end", "format"}


def test_keeps_the_usage_of_a_key_that_is_gone(gateway, key, azure, records):
    """Reports go on to name it."""
    gateway.chat(key)
    [record] = records(gateway, key)

    gateway.admin("DELETE", f"/admin/keys/{record['key_id']}")

    rows = gateway.admin("GET", "/admin/usage?by=key").json()["rows"]
    assert [1] == [row["requests"] for row in rows if row["key"] == record["key_id"]]


def test_shows_single_records(gateway, busy, azure):
    """Newest first, page by page, filtered; the fields are the contract's, and nothing of the stores' own."""
    keys, by_key, _ = busy
    served = by_key[keys[0]["id"]]

    def page(query):
        answer = gateway.admin("GET", f"/admin/logs?{query}")
        assert 200 == answer.status
        return answer.json()

    first = page(f"key={keys[0]['id']}&limit=2")
    second = page(f"key={keys[0]['id']}&limit=2&cursor={first['next']}")
    items = [*first["items"], *second["items"]]

    assert second["next"] is None
    assert [one.client_request_id for one in reversed(served)] == [item["id"] for item in items]
    assert all(item.keys() == {*FIELDS, "kind"} for item in items)
    assert summed(served) == {name: sum(item[name] for item in items) for name in TOKENS}
    assert [500, 200, 200] == [item["status"] for item in items]
    assert [False, False, True] == [item["stream"] for item in items]
    failed = page(f"user={keys[0]['user']}&outcome=upstream_error")
    assert 2 == len(failed["items"])
    assert [] == page(f"key={keys[0]['id']}&until={items[-1]['timestamp'][:19]}Z")["items"]
    since = items[1]["timestamp"].replace("+", "%2B")
    assert items[:2] == page(f"key={keys[0]['id']}&since={since}")["items"]


@pytest.mark.parametrize(
    "query",
    [
        "outcome=fine",
        "usage_source=guessed",
        "limit=0",
        "limit=1001",
        "since=yesterday",
        "since=2026-02-01&until=2026-01-01",
    ],
)
def test_refuses_a_page_of_records_that_makes_no_sense(gateway, query):
    """The answer is 422 and says which field is wrong."""
    answer = gateway.admin("GET", f"/admin/logs?{query}")

    assert 422 == answer.status
    assert answer.error["errors"].keys() <= {"outcome", "usage_source", "limit", "since", "until"}


def test_keeps_single_records_as_long_as_it_is_told(start_gateway, stores):
    """Older ones go by themselves, in any store; the sums in reports stay."""
    user, now = f"user-{secrets.token_hex(4)}", datetime.now(UTC)
    old, young = (
        usage(id=f"{user}-{days}", user=user, timestamp=now - timedelta(days=days), total_tokens=1) for days in (3, 1)
    )
    environ = {"ADMIN_KEY": "unused", "LLM_BASE_URL": "https://unused.invalid/openai/v1", **stores.environ}
    settings = Settings.from_env(environ)
    settings.make_instance_folder()
    opened = open_stores(settings, clock=time.time)
    append(opened.usage_log, [old, young])
    for backend in opened.backends:
        backend.close()

    gateway = start_gateway(LLMGATEWAY_LOG_DAYS="2")

    def listed():
        return [item["id"] for item in gateway.admin("GET", f"/admin/logs?user={user}").json()["items"]]

    wait_until(lambda: listed() == [young.id], what="the end of the old record")
    rows = gateway.admin("GET", "/admin/usage?by=user").json()["rows"]
    assert [2] == [row["requests"] for row in rows if row["user"] == user]
    gateway.stop()
