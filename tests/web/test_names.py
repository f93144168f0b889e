"""Names can be told apart by looking at them, and spreadsheets take none for a formula."""

from __future__ import annotations

import csv
import io
import re

import pytest
from flask import Flask
from hypothesis import example, given
from hypothesis import strategies as st

from llmgateway.records import Prices
from llmgateway.web.context import EXTENSION
from llmgateway.web.schemas.names import problem_of_name
from llmgateway.web.tables import csv_table, has_formula, no_formula, original

GOOD = [
    "ada", "Zoë", "Müller-Lüdenscheidt, Jr.", "O'Hara", "山田 太郎", "山田　太郎", "أحمد", "דוד", "नेहा", "gpt-4o (EU)",
    "ml/2026",    "می‌خواهم", "क्‍ष", "e\u0301va", "🙂", "=ada", "x;=cmd|' C calc'!A0",  # new names have no slash
]  # fmt: skip
BAD = [
    " ", "\u3000", " ada", "ada ", "a\u00a0", "a\tb", "a\nb", "a\x00b", "a\x85b", "\ufeffada", "a\u200bda",
    "ada\u202etxt", "\u2066ada\u2069",
    "ad\u00ada", "a\u2060b", "\u3164", "ada\u200d", "\u200cada", "a\u200c b", "a\u200c\u200cb", "1\u200d2",
    "👩\u200d💻", "a\ufe0f", "a\u2028b", "a\U000e0041", "\u2800", "ad\u034fa", "\u061cada",
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_takes_names_of_every_script(name):
    """With the joiners that some scripts need between letters."""
    assert problem_of_name(name) is None


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_refuses_what_nobody_sees(name):
    """And says which character it is, by its number."""
    assert problem_of_name(name)


def test_says_which_character_it_is():
    """By its place and its number, since it cannot be seen."""
    assert "character 3 is U+200B" in problem_of_name("ad\u200ba")


@pytest.mark.parametrize("bad", ["ad\u200ba", "a\u202eb"], ids=ascii)
def test_new_names_are_checked_everywhere(client, admin, new_key, bad):
    """Of users, keys, groups and models, whichever call brings them."""
    key = new_key()["id"]
    prices = {"prices": {"prompt": 1, "cached": 1, "completion": 1}}
    for method, path, body, field in (
        ("POST", "/keys", {"user": bad}, "user"),
        ("POST", "/keys", {"user": "ada", "name": bad}, "name"),
        ("POST", "/keys", {"user": "ada", "models": ["gpt-4o", bad]}, "models"),
        ("POST", "/addapikey", {"user": bad}, "user"),
        ("PATCH", f"/keys/{key}", {"user": bad}, "user"),
        ("PATCH", f"/keys/{key}", {"name": bad}, "name"),
        ("PATCH", f"/keys/{key}", {"models": [bad]}, "models"),
        ("PUT", f"/groups/{bad}", {}, "name"),
        ("PUT", "/groups/ml", {"models": [bad]}, "models"),
        ("PUT", f"/models/{bad}", prices, "name"),
    ):
        answer = client.open(f"/admin{path}", method=method, json=body, headers=admin)
        assert 422 == answer.status_code, (method, path)
        assert "U+20" in str(answer.json["error"]["errors"][field]), (method, path)
    answer = client.post("/admin/keys/import", data=f"user\n{bad}\n", headers=admin, content_type="text/csv")
    assert "U+20" in answer.json["error"]["errors"]["line 2"]["user"][0]


def test_stored_names_stay_usable(client, admin):
    """An earlier edition took them: keys and groups can be changed, and get company."""
    used = client.application.extensions[EXTENSION]
    old = "ad\u200ba"
    used.groups.put(old, models=(old,))
    record, _ = used.keys.create(user=old, name=old, group=old, models=(old,))
    used.policy.set_model(old, {"prices": Prices(prompt=1, cached=1, completion=1)})

    for method, path, body in (
        (
            "PATCH",
            f"/keys/{record.id}",
            {"user": old, "name": old, "group": old, "models": [old, "gpt-4o"], "note": "x"},
        ),
        ("PUT", f"/groups/{old}", {"models": [old], "note": "x"}),
        ("PATCH", f"/groups/{old}", {"models": [old]}),
        ("POST", "/keys", {"user": old, "group": old}),
        ("POST", "/addapikey", {"user": old}),
        ("PUT", f"/models/{old}", {"prices": {"prompt": 2, "cached": 2, "completion": 2}}),
        ("POST", f"/keys/{record.id}/rotate", {}),
        ("DELETE", f"/keys/{record.id}", None),
    ):
        answer = client.open(f"/admin{path}", method=method, json=body, headers=admin)
        assert answer.status_code in (200, 201, 204), (method, path, answer.text)
    answer = client.post(
        "/admin/keys/import?existing=add", data=f"user,group\n{old},{old}\n", headers=admin, content_type="text/csv"
    )
    assert 201 == answer.status_code


@given(st.text("=+-@;,\t\r\n' \"ax\uff1d", max_size=12))
@example('x;"=1+1;y')
def test_no_part_of_a_cell_is_a_formula(text):
    """Wherever a spreadsheet ends a cell; and reading gives back what was written."""
    cell = no_formula(text)

    assert not any(re.match(r"\s*[=+\-@\uff1d]", part) for part in re.split("[;,\t\r\n]", cell))
    assert [] == [part for part in _parts_of_csv(cell) if re.match(r"\s*[=+\-@\uff1d]", part)]
    assert text == original(cell)
    assert (text != cell) == has_formula(text)


def _parts_of_csv(cell):
    """Return the cells that spreadsheets show, whatever separator they split the line at."""
    with Flask("spreadsheets").app_context():
        table = csv_table([{"id": "1", "text": cell}], ["id", "text"], name="x.csv", verbatim=("text",))
        file = table.get_data(as_text=True)
    readers = (csv.reader(io.StringIO(file, newline=""), delimiter=separator) for separator in ",;\t")
    return [part for reader in readers for line in reader for part in line]


def test_every_cell_is_quoted(client, admin, new_key):
    """In the report, and in the answer of an import."""
    new_key(user="x;=1+1")
    report = client.get("/admin/usage?by=user&format=csv", headers=admin).text
    keys = client.post("/admin/keys/import", data="user\ny;=1+1\n", headers=admin, content_type="text/csv").text

    for table in (report, keys):
        for line in table.splitlines():
            assert re.fullmatch(r'"[^"]*"(,"[^"]*")*', line), line
    assert '"y;\'=1+1"' in keys


NAMES = [
    "=1+1",
    "'=1",
    "''=1",
    "x;=cmd|' C calc'!A0",  # new names have no slash
    "a, -b",
    "-",
    "'",
    "a;'+b",
    "@x",
    'say "x;=1"',
    'x;"=1+1',
    "plain",
    "\uff1d1",
]


def test_an_import_of_our_own_table_gives_the_same_names(make_app, admin):
    """The answer of one gateway is the file of another: users, names, groups, notes and models."""
    here, there = make_app().test_client(), make_app().test_client()
    for client in (here, there):
        for name in NAMES:
            client.application.extensions[EXTENSION].groups.put(name)
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["user", "name", "group", "note", "models"])
    models = 'gpt-4o "x;=cmd" "with ""quotes"", and more" =m'
    table.writerows([name] * 4 + [models] for name in map(no_formula, NAMES))

    made = here.post("/admin/keys/import", data=text.getvalue(), headers=admin, content_type="text/csv")
    again = there.post("/admin/keys/import", data=made.get_data(), headers=admin, content_type="text/csv")

    assert (201, 201) == (made.status_code, again.status_code), (made.text, again.text)
    for client in (here, there):
        keys = client.get("/admin/listkeys", headers=admin).json
        stored = sorted((key["user"], key["name"], key["group"], key["note"]) for key in keys)
        assert sorted((name,) * 4 for name in NAMES) == stored
        assert [["gpt-4o", "x;=cmd", 'with "quotes", and more', "=m"]] * len(NAMES) == [key["models"] for key in keys]


def test_keys_of_ones_own_holdno_formula(client, admin):
    """They are written as they are, so one in the middle is refused, too."""
    file = 'user,key\nada,"a-key-of-my-own-choice;=1+1"\n'
    answer = client.post("/admin/keys/import", data=file, headers=admin, content_type="text/csv")

    assert "formula" in answer.json["error"]["errors"]["line 2"]["key"][0]


@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_that_clients_take_out_of_addresses_is_refused(client, admin, name):
    """requests, curl and browsers send DELETE /admin/users/.. as DELETE /admin/."""
    for path in ("groups", "users", "models"):
        body = {"max_output_tokens": 1} if path == "models" else {}
        answer = client.put(f"/admin/{path}/{name}", json=body, headers=admin)
        assert 422 == answer.status_code, (path, answer.text)
        assert "addresses" in answer.text
    answer = client.post("/admin/keys", json={"user": name}, headers=admin)
    assert ["user"] == [*answer.json["error"]["errors"]]


def test_a_persons_name_has_the_length_of_that_in_a_key(client, admin):
    for name, status in (("x" * 200, 200), ("x" * 201, 422), ("x" * 5000, 422)):
        for method, path, body in (
            ("PUT", "", {"limits": {"requests_per_minute": 1}}),
            ("PATCH", "", {"limits": {"requests_per_minute": 2}}),
            ("POST", "/raise", {"limits": {"requests_per_minute": 3}, "until": "2026-02-01"}),
        ):
            answer = client.open(f"/admin/users/{name}{path}", method=method, json=body, headers=admin)
            assert status == answer.status_code, (method, answer.text)
