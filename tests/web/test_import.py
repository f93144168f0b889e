"""Keys for a whole class: what spreadsheets write, what is said about it, and what comes back."""

from __future__ import annotations

import csv
import io

import pytest

HEADER = ["id", "user", "name", "group", "email", "note", "active", "starts_at", "expires_at", "models"]
HEADER += ["requests_per_minute", "tokens_per_minute", "parallel_requests", "budget_amount", "budget_unit"]
HEADER += ["budget_period", "key"]


@pytest.fixture
def send(client, admin):
    """Send a file; returns the rows of the answer, or the error."""

    def send(file: str | bytes, *, status: int = 201, content_type: str = "text/csv"):
        answer = client.post("/admin/keys/import", data=file, headers=admin, content_type=content_type)
        assert status == answer.status_code, answer.text
        if status != 201:
            return answer.json["error"]
        assert "text/csv" == answer.mimetype
        assert "attachment; filename=keys.csv" == answer.headers["Content-Disposition"]
        return list(csv.DictReader(io.StringIO(answer.get_data().decode(), newline="")))

    return send


@pytest.fixture
def keys(client, admin):
    """The keys there are."""
    return lambda: client.get("/admin/listkeys", headers=admin).json


def test_hands_out_a_key_for_every_line(client, admin, send, keys):
    """With every field that a key has; the keys of the answer work."""
    client.put("/admin/groups/ml", json={}, headers=admin)
    file = (
        "user,name,group,email,note,active,starts_at,expires_at,models,requests_per_minute,tokens_per_minute,"
        "parallel_requests,budget_amount,budget_unit,budget_period,key\n"
        "ada,thesis,ml,ada@example.org,tall,true,2025-01-01,2027-01-01T00:00:00+01:00,gpt-4o-mini;gpt-4o,30,4000,2,"
        "2.5,usd,month,adas-very-own-key-of-old\n"
        "alan,,,,,,,,,,,,,,,\n"
    )

    rows = send(file)

    assert [HEADER] * 2 == [list(row) for row in rows]
    ada, alan = rows
    assert ("adas-very-own-key-of-old", "gpt-4o-mini gpt-4o") == (ada["key"], ada["models"])
    assert ("2.5", "usd", "month") == tuple(ada[f"budget_{part}"] for part in ("amount", "unit", "period"))
    assert alan["key"].startswith("llmgw-")
    stored = {key["user"]: key for key in keys()}
    assert ["gpt-4o-mini", "gpt-4o"] == stored["ada"]["models"]
    assert {"amount": 2.5, "unit": "usd", "period": "month"} == stored["ada"]["limits"]["budget"]
    assert ("ml", "2026-12-31T23:00:00+00:00") == (stored["ada"]["group"], stored["ada"]["expires_at"])
    assert ("default", None, True) == tuple(stored["alan"][name] for name in ("name", "group", "active"))
    for row in rows:
        answer = client.get("/v1/me", headers={"Authorization": f"Bearer {row['key']}"})
        assert (row["id"], row["user"]) == (answer.json["id"], answer.json["user"])


@pytest.mark.parametrize(
    "file",
    [
        "user,name\nada,thesis\nälan,x\n",
        "user;name\nada;thesis\nälan;x\n",
        "user\tname\nada\tthesis\nälan\tx\n",
        "\ufeffuser;name\r\nada;thesis\r\nälan;x\r\n",
        "User , NAME\nada,thesis\n\n\nälan,x",
        'user,name\n"ada","thesis"\n"älan","x"\n',
        "\nuser,name,,\nada,thesis,,\n,,,\nälan,x,,\n",
        "name,user\rthesis,ada\rx,älan\r",
    ],
    ids=["commas", "semicolons", "tabs", "Excel", "empty lines", "quotes", "empty columns", "old Macs"],
)
def test_takes_what_spreadsheets_write(send, file):
    """Whatever separates cells and lines, with or without a byte order mark."""
    assert [("ada", "thesis"), ("älan", "x")] == [(row["user"], row["name"]) for row in send(file.encode())]


def test_a_cell_may_have_lines_and_separators_in_it(send, keys):
    """If it is quoted; lines are numbered as the file has them."""
    send('user,note\nada,"first, ""second""\nthird"\n')
    assert 'first, "second"\nthird' == keys()[0]["note"]

    error = send('user,note,email\nada,"one\ntwo\nthree",\nalan,,nobody\n', status=422)
    assert ["line 2", "line 5"] == list(error["errors"])  # ada is there already


@pytest.mark.parametrize(
    ("line", "column", "word"),
    [
        ("ada,,,,nobody,,", "email", "valid email"),
        (",thesis,,,,,", "user", "Missing"),
        ("x" * 10_000 + ",,,,,,", "user", "200"),
        ("ada,,nobody's,,,,", "group", "PUT /admin/groups"),
        ("ada,,,2020-01-01,,,", "expires_at", "in the future"),
        ("ada,,,31.12.27,,,", "expires_at", "all four"),
        ("ada,,,,,-3,", "requests_per_minute", "from 1"),
        ("ada,,,,,many,", "requests_per_minute", "whole number"),
        ("ada,,,,,,short", "key", "20 to 512"),
        ("ada,,,,,,=cmd|'/c calc'!A1.......", "key", "20 to 512"),
        ("ada,,,,,,=HYPERLINK(evil.example)", "key", "formula"),
        ("ada,,,,,,,more", "line", "cells"),
        ('ada,"x"y,,,,,', "line", "Cannot be read as CSV"),
        ('ada,"x,,,,,', "line", "quote"),
        ("ada," + "x" * 200_000 + ",,,,,", "line", "field limit"),
    ],
)
def test_names_the_line_and_the_column(make_app, admin, line, column, word):
    """With the remedy; nothing of the whole file is stored."""
    client = make_app(LLMGATEWAY_MAX_BODY_BYTES="1000000").test_client()
    file = f"user,name,group,expires_at,email,requests_per_minute,key\neve,,,,,,\n{line}\n"
    answer = client.post("/admin/keys/import", data=file.encode(), headers=admin, content_type="text/csv")

    assert 422 == answer.status_code
    assert ["line 3"] == list(answer.json["error"]["errors"])
    assert word in str(answer.json["error"]["errors"]["line 3"][column])
    assert len(answer.text) < 1000
    assert [] == client.get("/admin/listkeys", headers=admin).json


@pytest.mark.parametrize(
    ("columns", "cells", "column"),
    [
        ("budget_amount", "5", "budget_unit"),
        ("budget_amount,budget_unit,budget_period", '"1,234",usd,month', "budget_amount"),
        ("budget_amount,budget_unit,budget_period", "-5,usd,month", "budget_amount"),
        ("budget_amount,budget_unit,budget_period", "5,eur,month", "budget_unit"),
        ("models", "x" * 200, "models"),
        ("models", "; ;", "models"),
        ("active", "vielleicht", "active"),
    ],
)
def test_names_columns_where_the_api_has_parts(send, columns, cells, column):
    """People see columns, whatever the body of a request would look like."""
    error = send(f"user,{columns}\nada,{cells}\n", status=422)

    assert column in error["errors"]["line 2"]


@pytest.mark.parametrize(
    ("file", "word"),
    [
        ("ada,thesis\nalan,x\n", "Must name the columns"),
        ("user,usr\nada,x\n", "There is no column 'usr'"),
        ("user,hunter2-hunter2-hunter2\nada,x\n", "There is no column number 2."),
        ("user,correct-horse-battery\nada,x\n", "There is no column number 2."),
        ("user,user\nada,x\n", "twice: 'user'"),
        ("name,email\nx,ada@example.org\n", "Must have the column 'user'"),
        ("user,digest\nada,key_1\n", "no column 'digest'"),
    ],
)
def test_says_what_is_wrong_with_the_first_line(send, keys, file, word):
    """And which columns there are."""
    error = send(file, status=422)

    assert word in error["errors"]["line 1"]["line"][0]
    assert [] == keys()


@pytest.mark.parametrize(
    ("file", "word"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf\r\n", "empty"),
        (b"user\n", "nobody"),
        (b"user\nAndr\x81\n", "UTF-8"),
        (b"\xff\xfeu\x00s\x00e\x00r\x00\n", "UTF-16"),
        (b"\x00\x01\x02\x00\x00", "text file"),
        (b"PK\x03\x04\x00\x00", "damaged"),
        (b"%PDF-1.7\n", "PDF"),
        (b"user\n" + b"ada\n" * 10_001, "10,000"),
    ],
)
def test_says_what_is_wrong_with_the_file(send, keys, file, word):
    """With what to do in Excel."""
    assert word in send(file, status=422)["errors"]["file"][0]
    assert [] == keys()


def test_names_every_bad_line(send, keys):
    """All of them, up to a hundred; the message says how many there are."""
    file = "user,email\n" + "".join(f"u{number},{'nobody' if number % 2 else ''}\n" for number in range(300))

    error = send(file, status=422)

    assert error["message"].startswith("150 lines (3, 5, 7,")
    assert [f"line {number}" for number in range(3, 203, 2)] == list(error["errors"])
    assert [] == keys()


def test_a_key_is_handed_out_once(send, keys, new_key):
    """In the file and before it; the key is not repeated."""
    new_key(key="a-key-that-is-there-already")
    file = "user,key\nada,{}\nalan,\neve,{}\n"

    twice = send(file.format("one-and-the-same-key-twice", "one-and-the-same-key-twice"), status=422)
    taken = send(file.format("a-key-that-is-there-already", "another-very-own-key"), status=422)

    assert ["line 2", "line 4"] == list(twice["errors"])
    assert ["line 2"] == list(taken["errors"])
    assert "lines 2, 4" in twice["errors"]["line 4"]["key"][0]
    assert "already" in taken["errors"]["line 2"]["key"][0]
    assert "a-key-that-is" not in str(taken)
    assert 1 == len(keys())


def test_nothing_in_the_answer_is_a_formula(send):
    """A name that a spreadsheet would run is text there."""
    [row] = send('user,name,note\n"=cmd|x","@sum","+1"\n')

    assert ("'=cmd|x", "'@sum", "'+1") == (row["user"], row["name"], row["note"])


def test_is_not_kept_by_anybody_on_the_way(client, admin):
    """Keys are in it."""
    answer = client.post("/admin/keys/import", data="user\nada\n", headers=admin, content_type="text/csv")

    assert "no-store" == answer.headers["Cache-Control"]
