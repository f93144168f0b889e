"""Keys for a whole class: a preview of every line, and the keys once."""

from __future__ import annotations

import base64
import csv
import io
import re

import pytest

from tests.web.dashboard.conftest import SAME_SITE

KEY = re.compile(r"llmgw-[\w-]{43}")
LIST = "user;email;group\nZoë Ärmel;zoe@example.org;ml\nalan;alan@example.org;ml\n"


@pytest.fixture
def group(call):
    return call("PUT", "/groups/ml", json={"limits": {"requests_per_minute": 60}})


def upload(person, text=LIST, *, status=200, **fields):
    body = text if isinstance(text, bytes) else text.encode()
    data = {"step": "preview", "existing": "refuse", "file": (io.BytesIO(body), "list.csv"), **fields}
    answer = person.client.post("/dashboard/class-lists", data=data, headers=SAME_SITE)
    assert status == answer.status_code, answer.text
    return answer.text


def sent_again(page, **fields):
    """The fields that the preview carries along."""
    found = dict(re.findall(r'<input type="hidden" name="(kept|once)" value="([^"]*)"', page))
    return {"existing": "refuse", "step": "import", **found, **fields}


def test_a_class_gets_its_keys_once(owner, group, call, client):
    """Nothing is stored by the preview; the file comes out of the page itself."""
    page = upload(owner)
    assert "Zoë Ärmel" in page
    assert "Make 2 keys" in page
    assert [] == call("GET", "/keys")["items"]

    made = owner.send("class-lists", status=201, **sent_again(page)).text
    rows = [*csv.DictReader(io.StringIO(file_in(made)))]

    assert ["Zoë Ärmel", "alan"] == [row["user"] for row in rows]
    for row in rows:
        assert row["key"] in made
        assert row["user"] == client.get("/v1/me", headers={"api-key": row["key"]}).json["user"]
    assert [] == KEY.findall(owner.open("class-lists"))


def file_in(page):
    assert 'download="keys.csv"' in page
    return base64.b64decode(re.search(r'href="data:text/csv;charset=utf-8;base64,([^"]+)"', page)[1]).decode(
        "utf-8-sig"
    )


def test_a_list_that_is_sent_again_makes_no_more_keys(owner, group, call):
    fields = sent_again(upload(owner), existing="add")
    owner.send("class-lists", status=201, **fields)
    again = owner.send_and_follow("class-lists", **fields)

    assert "sent before" in again
    assert 2 == len(call("GET", "/keys")["items"])


def test_a_line_that_is_not_right_is_named_and_nothing_is_stored(owner, group, call):
    """With its column; the lines that are not right come first, and there is no button."""
    bad = LIST + "eve;no address;ml\n;nobody@example.org;ml\nbob;bob@example.org;art\n"
    page = upload(owner, bad)

    assert "3 lines are not right" in page
    assert page.index("Not a valid email") < page.index("Zoë Ärmel")
    assert 'value="import"' not in page
    refused = owner.send("class-lists", status=422, **sent_again(page)).text
    assert "Not a valid email" in refused
    assert [] == call("GET", "/keys")["items"]


def test_the_file_is_read_as_the_admin_says(owner, group, call):
    """Columns with other names; what was said stays in the form, and the file needs no second choice."""
    page = upload(owner, "Benutzer,Raum\nada,7\n", status=422)
    assert "Benutzer" in page

    told = {"map": "user=Benutzer", "ignore_other_columns": "yes", "group": "ml"}
    page = owner.send("class-lists", status=200, **sent_again(page, step="preview", **told)).text
    assert "Make 1 key" in page
    assert "user=Benutzer" in page
    owner.send("class-lists", status=201, **sent_again(page, **told))
    assert [("ada", "ml")] == [(key["user"], key["group"]) for key in call("GET", "/keys")["items"]]


def test_people_who_have_a_key_are_left_out(owner, group, call, new_key):
    new_key(user="alan", group="ml")
    assert "1 line is not right" in upload(owner)

    page = upload(owner, existing="skip")
    assert "Make 1 key<" in page
    made = owner.send("class-lists", status=201, **sent_again(page, existing="skip")).text
    assert "1 left out" in made
    assert 1 == len(set(KEY.findall(made)))


def test_what_happens_meanwhile_is_noticed(owner, group, call, new_key):
    """Somebody else makes one of the keys between the preview and the import."""
    page = upload(owner)
    new_key(user="alan", group="ml")

    refused = owner.send("class-lists", status=422, **sent_again(page)).text
    assert "1 line is not right" in refused
    assert 1 == len(call("GET", "/keys")["items"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "Choose a file."),
        ({"kept": "no base64"}, "has not come back whole"),
        ({"kept": base64.b64encode(b"no zlib").decode()}, "has not come back whole"),
        ({"kept": base64.b64encode(b"x\x9c\xed").decode()}, "has not come back whole"),
    ],
)
def test_a_file_is_needed(owner, fields, message):
    assert message in owner.send("class-lists", status=422, step="preview", **fields).text


def test_a_file_that_unpacks_to_too_much_is_refused(owner):
    import zlib

    kept = base64.b64encode(zlib.compress(b"user\n" + b"a" * 10_000_000, 9)).decode()
    assert "has not come back whole" in owner.send("class-lists", status=422, step="import", kept=kept).text


def test_names_are_shown_as_text(owner, group):
    page = upload(owner, "user,group\n<script>alert(1)</script>,<b>art</b>\n")

    assert "<script>alert" not in page
    assert "<b>art" not in page


def test_an_admin_of_groups_fills_own_groups_only(named, call, group):
    call("PUT", "/groups/art", json={})
    tutor = named("group", "ml")

    assert 'value="art"' not in tutor.open("class-lists")
    assert "1 line is not right" in upload(tutor, "user,group\nada,art\n")
    page = upload(tutor, "user\nada\n", group="ml")
    assert "Make 1 key" in page


def test_those_who_may_not_write_see_no_page(named):
    named("viewer").open("class-lists", status=403)
