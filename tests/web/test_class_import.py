"""Class lists: what happens to every line, to people who are there already, and to two imports at once."""

from __future__ import annotations

import io
import json
from threading import Barrier, Thread

import openpyxl
import pytest

from tests.web.conftest import ADMIN_KEY

ADMIN = {"AdminKey": ADMIN_KEY}
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
LIST = "user,email,note\nada,ada@x.example,first\nbob,bob@x.example,\n"


@pytest.fixture
def send(client):
    """Send a file; returns the JSON of the answer."""

    def send(file: str | bytes, *, status: int = 201, content_type: str = "text/csv", **query: object):
        answer = client.post(
            "/admin/keys/import",
            data=file,
            headers=ADMIN,
            content_type=content_type,
            query_string={"format": "json", **query},
        )
        assert status == answer.status_code, answer.text
        return answer.json

    return send


@pytest.fixture
def keys(client):
    """The keys there are, by user."""

    def keys(**query: str):
        items = client.get("/admin/keys", headers=ADMIN, query_string=query).json["items"]
        return {key["user"]: key for key in items}

    return keys


@pytest.fixture(autouse=True)
def group(client):
    client.put("/admin/groups/ml", json={}, headers=ADMIN)


def actions(answer):
    return [(line["line"], line["action"], line["user"]) for line in answer["lines"]]


def test_a_dry_run_shows_the_plan_and_stores_nothing(client, send, keys):
    """Each line with what would happen to it; no key is made up, and nothing is written down."""
    send(LIST, group="ml")
    before, audit = keys(), client.get("/admin/audit", headers=ADMIN).json

    plan = send(
        "user;email;note\nada;ada@x.example;first\nbob;new@x.example;\neve;e@x.example;\nmal;nobody;\neve;;\n",
        status=200,
        group="ml",
        existing="update",
        dry_run="true",
    )

    assert [
        (2, "skip", "ada"),
        (3, "update", "bob"),
        (4, "refuse", "eve"),
        (5, "refuse", "mal"),
        (6, "refuse", "eve"),
    ] == (actions(plan))
    assert {"create": 0, "skip": 1, "update": 1, "refuse": 3} == plan["counts"]
    ada, bob, eve, mal, _ = plan["lines"]
    assert ("Is like this already.", before["ada"]["id"]) == (ada["reason"], ada["id"])
    assert (["email"], before["bob"]["id"], "ml") == (bob["changes"], bob["id"], bob["group"])
    assert "lines 4, 6" in eve["problems"]["user"][0]
    assert ["email"] == list(mal["problems"])
    assert plan["dry_run"] is True
    assert {"separator": ";", "encoding": "utf-8", "format": "csv", "export": None}.items() <= plan["file"].items()
    new = send("user\nzoe\n", status=200, dry_run="true")["lines"]
    assert [(None, None)] == [(line["id"], line["key"]) for line in new]
    assert (before, audit) == (keys(), client.get("/admin/audit", headers=ADMIN).json)


def test_nobody_is_doubled_silently(send, keys):
    """The same list again is refused by line, and says what can be done."""
    send(LIST, group="ml")

    error = send(LIST, group="ml", status=422)["error"]

    assert ["line 2", "line 3"] == list(error["errors"])
    problem = error["errors"]["line 2"]["user"][0]
    for word in ("group 'ml'", keys()["ada"]["id"], "existing=skip", "existing=update"):
        assert word in problem
    send("user\nada\n")  # the same person outside the group, and one with another name
    send("user\nAda\n", group="ml")
    assert {"ada", "bob", "Ada"} == keys().keys()


def test_who_is_there_is_skipped(send, keys):
    """And keeps everything; the others are created. Blocked keys count."""
    send(LIST, group="ml")
    before = keys()["ada"]

    answer = send(LIST.replace("bob,bob", "eve,eve").replace("first", "changed"), group="ml", existing="skip")

    assert [(2, "skip", "ada"), (3, "create", "eve")] == actions(answer)
    assert before == keys()["ada"]
    assert ([None], ["llmgw-"]) == (
        [answer["lines"][0]["key"]],
        [line["key"][:6] for line in answer["lines"] if line["key"]],
    )


def test_who_is_there_is_updated(client, send, keys):
    """The fields that the line names, and no others; the key stays, is not shown, and the change is in the audit."""
    made = send("user,email,note,requests_per_minute,parallel_requests\nada,a@x.example,first,30,2\n", group="ml")
    key = made["lines"][0]["key"]
    before = keys()["ada"]

    answer = send("user,email,note,requests_per_minute\nada,new@x.example,,60\nbob,,,\n", group="ml", existing="update")

    assert [(2, "update", "ada"), (3, "create", "bob")] == actions(answer)
    assert (["email", "limits.requests_per_minute"], None) == (
        answer["lines"][0]["changes"],
        answer["lines"][0]["key"],
    )
    after = keys()["ada"]
    limits = before["limits"] | {"requests_per_minute": 60}
    assert before | {"email": "new@x.example", "limits": limits} == after
    me = client.get("/v1/me", headers={"Authorization": f"Bearer {key}"}).json
    assert (before["id"], 60) == (me["id"], me["limits"]["requests_per_minute"])
    entries = client.get("/admin/audit", headers=ADMIN).json["items"]
    [entry] = [entry for entry in entries if entry["action"] == "key.import" and entry["before"]]
    assert "a@x.example" == entry["before"]["updated"][before["id"]]["email"]
    assert "new@x.example" == entry["after"]["updated"][before["id"]]["email"]
    assert 1 == entry["after"]["keys"]
    again = send("user,email\nada,new@x.example\n", group="ml", existing="update", status=200)
    assert [(2, "skip", "ada")] == actions(again)


@pytest.mark.parametrize(
    ("line", "column", "word"),
    [
        ("ada,,,a-key-of-my-very-own", "key", "Cannot be changed"),
        ("ada,,2026-02-01,", "expires_at", "end before it starts"),
        ("two,,,", "name", "Has 2 keys"),
        ("two,third,,", "name", "'first', 'second'"),
    ],
)
def test_updates_that_are_not_possible(client, send, keys, line, column, word):
    """They are refused by line, and nothing else of the file is done."""
    send("user,starts_at\nada,2026-03-01\n", group="ml")
    for name in ("first", "second"):
        client.post("/admin/keys", json={"user": "two", "name": name, "group": "ml"}, headers=ADMIN)
    before = keys()

    error = send(f"user,name,expires_at,key\n{line}\nnew,,,\n", group="ml", existing="update", status=422)["error"]

    assert word in error["errors"]["line 2"][column][0]
    assert before == keys()


def test_one_of_several_keys_is_updated_by_its_name(client, send):
    """If the line says which."""
    for name in ("first", "second"):
        client.post("/admin/keys", json={"user": "two", "name": name, "group": "ml"}, headers=ADMIN)

    send("user,name,note\ntwo,second,changed\n", group="ml", existing="update", status=200)

    items = client.get("/admin/keys?user=two", headers=ADMIN).json["items"]
    assert {"first": None, "second": "changed"} == {key["name"]: key["note"] for key in items}


def test_further_keys_only_if_somebody_says_so(send, client):
    """Then also several of one person in a file, with different names."""
    send("user\nada\n", group="ml")

    send("user,name\nada,thesis\nada,course\n", group="ml", existing="add")
    twice = send("user,name\nada,x\nada,x\n", group="ml", existing="add", status=422)["error"]

    items = client.get("/admin/keys?user=ada", headers=ADMIN).json["items"]
    assert {"default", "thesis", "course"} == {key["name"] for key in items}
    assert "lines 2, 3" in twice["errors"]["line 2"]["user"][0]


def test_of_two_imports_at_once_one_creates(make_app):
    """The other finds everybody there: nobody gets two keys."""
    app = make_app()
    people = "user\n" + "".join(f"user-{number}\n" for number in range(40))
    together, statuses = Barrier(2), []

    def send():
        client = app.test_client()
        together.wait()
        statuses.append(
            client.post("/admin/keys/import", data=people, headers=ADMIN, content_type="text/csv").status_code
        )

    threads = [Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [201, 422] == sorted(statuses)
    assert 40 == len(app.test_client().get("/admin/keys", headers=ADMIN).json["items"])


def test_all_that_is_wrong_is_named(send, keys):
    """Lines that are wrong by themselves, and those that are there already, in one answer."""
    send("user\nada\n", group="ml")

    error = send("user,email,group\nada,,ml\nbob,nobody,ml\neve,,nobody's\n", status=422)["error"]

    assert {"line 2": ["user"], "line 3": ["email"], "line 4": ["group"]} == {
        line: [*problems] for line, problems in error["errors"].items()
    }
    assert {"ada"} == keys().keys()


def test_a_workbook(send, keys):
    """Whatever type the client says it is."""
    book = openpyxl.Workbook()
    book.active.append(["Benutzer", "Gültig bis"])
    book.active.append(["Zoë", "31.03.2036"])
    file = io.BytesIO()
    book.save(file)

    for content_type in (XLSX, "application/octet-stream", "text/csv"):
        answer = send(file.getvalue(), content_type=content_type, existing="add")
        assert ("xlsx", "Sheet") == (answer["file"]["format"], answer["file"]["sheet"])
    assert "2036-04-01T00:00:00+00:00" == keys()["Zoë"]["expires_at"]


def test_columns_days_and_numbers_as_the_query_says(send, keys):
    """Several columns joined, the month first, a comma for the decimals."""
    file = "Vorname\tName\tEnde\tBetrag\tEinheit\tZeitraum\tFach\nAda\tLovelace\t3/4/2036\t1,234\tusd\tmonth\tx\n"
    query = {"map": ["user=Vorname+Name", "expires_at=Ende"], "dates": "mdy", "decimal": "comma"}

    assert {"expires_at", "budget_amount"} == send(file, status=422)["error"]["errors"]["line 2"].keys()
    assert ["Fach"] == send(file, **query)["file"]["ignored"]

    ada = keys()["Ada Lovelace"]
    assert ("2036-03-05T00:00:00+00:00", 1.234) == (ada["expires_at"], ada["limits"]["budget"]["amount"])


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"existing": "double"}, "existing"),
        ({"map": "Benutzer"}, "map"),
        ({"map": "benutzer=user"}, "map"),
        ({"map": "note=Fach"}, "map"),
        ({"dates": "ymd"}, "dates"),
        ({"decimal": "."}, "decimal"),
        ({"sheet": "Liste"}, "sheet"),
        ({"group": "nobody's"}, "group"),
        ({"format": "xml"}, "format"),
        ({"dry_run": "perhaps"}, "dry_run"),
        ({"dryrun": "true"}, "dryrun"),
    ],
)
def test_says_which_part_of_the_query_is_wrong(send, keys, query, field):
    """And stores nothing."""
    error = send("user\nada\n", status=422, **query)["error"]

    assert [field] == list(error["errors"])
    assert {} == keys()


def test_csv_answers_say_in_a_header_what_was_done(client):
    """With the encoding that was found, so that somebody can check the names."""
    body = "user;note\nZoë;x\n".encode("cp1252")

    made = client.post("/admin/keys/import", data=body, headers=ADMIN, content_type="text/csv")
    again = client.post("/admin/keys/import?existing=skip", data=body, headers=ADMIN, content_type="text/csv")

    told = json.loads(made.headers["X-LLMGateway-Import"])
    assert (1, 0, "cp1252", ";") == (told["create"], told["skip"], told["encoding"], told["separator"])
    assert "Windows-1252" in told["notes"][0]
    assert (201, 200) == (made.status_code, again.status_code)
    assert 1 == len(again.text.splitlines())  # the names of the columns
    assert 1 == json.loads(again.headers["X-LLMGateway-Import"])["skip"]


def test_other_media_types_are_refused(client):
    """JSON and forms are no files."""
    for content_type in ("application/json", "multipart/form-data"):
        answer = client.post("/admin/keys/import", data="{}", headers=ADMIN, content_type=content_type)
        assert 415 == answer.status_code
