"""What admins do: keys, the prompt, Azure's key, reports."""

from __future__ import annotations

import csv
import io

import pytest

from llmgateway.web import examples
from llmgateway.web.context import EXTENSION

CHAT = "/v1/chat/completions"
HELLO = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}


def ask(client, key: str, **fields: object):
    return client.post(CHAT, json=HELLO | fields, headers={"Authorization": f"Bearer {key}"})


@pytest.fixture
def shipped(client):
    """Bring what has ended into the usage log."""
    return client.application.extensions[EXTENSION].journal.flush


class TestKeys:
    def test_the_three_calls_of_old_scripts(self, client, call):
        """A key that is added works, is listed without itself, and works no more when it is removed."""
        added = call("POST", "/addapikey", json={"user": "ada", "name": "laptop"}, status=201)
        assert 200 == ask(client, added["key"]).status_code

        (listed,) = call("GET", "/listkeys")
        assert listed == {name: value for name, value in added.items() if name != "key"}
        assert "digest" not in listed

        assert {"id": added["id"], "removed": True} == call("POST", "/removeapikey", json={"key": added["key"]})
        assert 401 == ask(client, added["key"]).status_code
        assert [] == call("GET", "/listkeys")
        call("POST", "/removeapikey", json={"key": added["key"]}, status=404)

    def test_a_key_of_ones_own(self, client, call):
        """An existing key goes on working; it can be handed out once."""
        call("POST", "/addapikey", json={"user": "ada", "key": "my-own-key-since-2019"}, status=201)

        assert 200 == ask(client, "my-own-key-since-2019").status_code
        refused = call("POST", "/addapikey", json={"user": "bob", "key": "my-own-key-since-2019"}, status=409)
        assert "my-own-key-since-2019" not in refused["error"]["message"]

    def test_changes_hold_for_the_next_request(self, client, call, new_key):
        """Fields that are sent are set, null clears one, the others stay."""
        made = new_key(note="until June", models=["gpt-4o-mini"])
        assert 403 == ask(client, made["key"], model="gpt-4o").status_code

        changed = call("PATCH", f"/keys/{made['id']}", json={"models": None, "note": None})

        assert (
            {name: value for name, value in made.items() if name != "key"}
            | {
                "models": None,
                "note": None,
            }
            == changed
            == call("GET", f"/keys/{made['id']}")
        )
        assert 200 == ask(client, made["key"], model="gpt-4o").status_code
        call("PATCH", f"/keys/{made['id']}", json={"active": False})
        assert 401 == ask(client, made["key"]).status_code
        assert changed | {"active": False} == call("PATCH", f"/keys/{made['id']}", json={})

    def test_pages(self, call, new_key):
        """Every key is on one page, the oldest first, and the last page says so."""
        made = [new_key(name=str(number))["id"] for number in range(5)]
        seen: list[str] = []
        cursor = ""
        while cursor is not None:
            page = call("GET", f"/keys?limit=2&cursor={cursor}")
            assert len(page["items"]) <= 2
            seen += [item["id"] for item in page["items"]]
            cursor = page["next"]

        assert sorted(made) == seen

    def test_a_full_last_page_is_the_last(self, call, new_key):
        """As many keys as fit on a page need no second one."""
        for _ in range(2):
            new_key()

        assert call("GET", "/keys?limit=2")["next"] is None

    def test_filters(self, call, new_key):
        """By user, group and whether they are active, together."""
        new_key(user="ada", group="physics")
        new_key(user="bob", group="physics", active=False)
        new_key(user="eve")

        def users(query: str) -> list[str]:
            return [item["user"] for item in call("GET", f"/keys?{query}")["items"]]

        assert ["ada"] == users("user=ada")
        assert ["ada", "bob"] == sorted(users("group=physics"))
        assert ["bob"] == users("group=physics&active=false")
        assert [] == users("user=eve&group=physics")

    def test_every_address_needs_the_admin_key(self, client, user):
        """No admin path answers without it, not even with a user's key."""
        rules = [rule for rule in client.application.url_map.iter_rules() if rule.rule.startswith("/admin")]
        assert len(rules) > 10
        for rule in rules:
            path = rule.rule.replace("<key_id>", "x").replace("<path:name>", "x")
            for method in rule.methods - {"OPTIONS", "HEAD"}:
                answer = client.open(path, method=method, headers=user, environ_base={"REMOTE_ADDR": f"{path}{method}"})
                assert (401, "invalid_admin_key") == (answer.status_code, answer.json["error"]["code"])


def test_the_prompt(azure, call, client, user):
    """It is in front of the next conversation, has versions, and an empty one takes it away."""
    first = call("POST", "/setprompt", json={"prompt": "Be brief."})
    assert (1, "Be brief.") == (first["version"], first["prompt"])
    azure.reset()
    client.post(CHAT, json=HELLO, headers=user)
    assert b"Be brief." in azure.served[0].body

    second = call("PUT", "/prompt", json={"prompt": ""})
    azure.reset()
    client.post(CHAT, json=HELLO, headers=user)
    assert b"system" not in azure.served[0].body
    assert second == call("GET", "/prompt")
    assert [each | {"set_by": "ADMIN_KEY"} for each in (second, first)] == call("GET", "/prompt/versions")["items"]


def test_azures_key(make_app, azure, admin):
    """What an admin stores is used from the next request on, wins over the environment, and is in no answer."""
    client = make_app(LLM_API_KEY="wrong").test_client()
    key = client.post("/admin/addapikey", json={"user": "ada"}, headers=admin).json["key"]
    assert (502, "upstream_credentials") == (ask(client, key).status_code, ask(client, key).json["error"]["code"])

    wrong = client.post("/admin/setllmkey", json={"key": "also-wrong"}, headers=admin).json
    assert (True, 401) == (wrong["stored"], wrong["azure"]["status"])
    assert "degraded" == client.get("/readyz").json["status"]
    assert "refused" in client.get("/readyz").json["checks"]["azure_key"]
    azure.reset()

    stored = client.post("/admin/setllmkey", json={"key": "web-tests-azure-key"}, headers=admin)

    assert (200, examples.CREDENTIAL_ACCEPTED) == (stored.status_code, stored.json)
    [trial] = azure.served
    assert (400, None) == (trial.status, trial.billed)
    assert "ok" == client.get("/readyz").json["checks"]["azure_key"]
    assert 200 == ask(client, key).status_code
    assert "web-tests-azure-key" not in client.get("/admin/status", headers=admin).text


class TestReports:
    @pytest.fixture(autouse=True)
    def used(self, client, new_key, clock, shipped):
        """Ada asks twice on the first day, Bob once on the second, and once in vain."""
        ada, bob = new_key(user="ada", group="physics"), new_key(user="=bob()", name="x")
        for _ in range(2):
            assert 200 == ask(client, ada["key"]).status_code
        clock.advance(86_400)
        assert 200 == ask(client, bob["key"], model="gpt-4o").status_code
        assert 400 == ask(client, bob["key"], model="gpt-4o", temperature="hot", stream_options={}).status_code
        assert shipped()

    def test_sum_by_what_was_asked(self, call):
        """Rows for each value, and a total of all."""
        report = call("GET", "/usage?by=day,user")

        assert [("2026-01-01", "ada", 2, 0), ("2026-01-02", "=bob()", 2, 1)] == [
            (row["day"], row["user"], row["requests"], row["errors"]) for row in report["rows"]
        ]
        assert report["total"]["total_tokens"] == sum(row["total_tokens"] for row in report["rows"]) > 0
        assert report["total"]["cost_usd"] == pytest.approx(sum(row["cost_usd"] for row in report["rows"]))

    def test_as_a_table(self, call):
        """For a spreadsheet: a header, a line for each row."""
        rows = list(csv.DictReader(io.StringIO(call("GET", "/usage?by=group,model&format=csv"))))

        assert [("", "gpt-4o", "2"), ("physics", "gpt-4o-mini", "2")] == [
            (row["group"], row["model"], row["requests"]) for row in rows
        ]

    def test_a_table_holds_no_formulas(self, call):
        """A name that a spreadsheet would run is text there."""
        rows = csv.DictReader(io.StringIO(call("GET", "/usage?by=user&format=csv")))

        assert ["'=bob()", "ada"] == [row["user"] for row in rows]

    def test_as_a_table_without_groupings(self, call):
        """One line with the sums."""
        (row,) = csv.DictReader(io.StringIO(call("GET", "/usage?format=csv")))

        assert "4" == row["requests"]
