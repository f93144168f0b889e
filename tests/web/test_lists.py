"""Lists as admins read them: searched, filtered, sorted, page by page, with what was used."""

from __future__ import annotations

from datetime import timedelta

import pytest

from llmgateway.records import Batch, UsageRow, moment
from llmgateway.web.context import EXTENSION
from tests.parts import draft

from .test_limits import ask


@pytest.fixture
def class_of(call, new_key, clock):
    """Four keys of three people in two groups, made one after the other."""
    made = {}
    for user, name, fields in (
        ("Bob", "laptop", {"group": "physics"}),
        ("ada", "thesis", {"group": "ml", "email": "lovelace@example.org"}),
        ("ada", "Server", {"note": "in the cellar"}),
        ("eve", "phone", {"group": "ml", "active": False}),
    ):
        clock.advance(1)
        made[name] = new_key(user=user, name=name, **fields)["id"]
    return made


@pytest.fixture
def used(client, clock, class_of):
    """Store what was used: in dollars, by the name of the key, so many days ago."""

    def use(*usage: tuple[str, float, int]) -> None:
        users = {"laptop": ("Bob", "physics"), "thesis": ("ada", "ml"), "Server": ("ada", None), "phone": ("eve", "ml")}
        records = [
            draft(
                id=f"req_{number}",
                key_id=class_of[name],
                user=users[name][0],
                group=users[name][1],
                cost_usd=cost,
                timestamp=moment(clock()) - timedelta(days=days),
            )
            for number, (name, cost, days) in enumerate(usage)
        ]
        client.application.extensions[EXTENSION].usage_log.append(records, batch=Batch("test", 1))

    return use


def names(page) -> list[str]:
    return [item["name"] for item in page["items"]]


class TestKeys:
    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("q=ADA", ["thesis", "Server"]),
            ("q=lovelace%40EXAMPLE", ["thesis"]),
            ("q=cellar", ["Server"]),
            ("q=phys", ["laptop"]),
            ("q=ml&active=false", ["phone"]),
            ("q=.*", []),
            ("q=nobody", []),
            ("state=blocked", ["phone"]),
            ("state=active&group=ml", ["thesis"]),
            ("state=expired", []),
            ("sort=name", ["laptop", "phone", "Server", "thesis"]),
            ("sort=-created_at", ["phone", "Server", "thesis", "laptop"]),
            ("sort=user&q=l", ["thesis", "Server", "laptop", "phone"]),
            ("sort=-group", ["laptop", "phone", "thesis", "Server"]),
        ],
    )
    def test_are_found(self, call, class_of, query, found):
        page = call("GET", f"/keys?{query}")
        assert (found, len(found), None) == (names(page), page["total"], page["next"])

    def test_are_found_by_their_id(self, call, class_of):
        assert ["phone"] == names(call("GET", f"/keys?q={class_of['phone'][-12:]}"))

    @pytest.mark.parametrize("query", ["", "sort=name", "sort=-spent", "q=a", "q=a&sort=-user", "sort=last_used"])
    def test_pages_by_number_and_by_cursor_are_the_same(self, call, class_of, used, query):
        """They have every key once. Behind the last one there is nothing."""
        used(("phone", 1, 0), ("laptop", 2, 0))
        whole = call("GET", f"/keys?{query}")
        cursor, by_cursor, by_number = "", [], []
        for page in (1, 2, 3):
            numbered = call("GET", f"/keys?{query}&limit=2&page={page}")
            assert whole["total"] == numbered["total"]
            by_number += numbered["items"]
            if cursor is not None:
                following = call("GET", f"/keys?{query}&limit=2&cursor={cursor}")
                by_cursor, cursor = by_cursor + following["items"], following["next"]
        assert cursor is None
        assert whole["items"] == by_cursor == by_number

    @pytest.mark.parametrize(
        ("query", "at"),
        [
            ("sort=colour", "sort"),
            ("sort=--name", "sort"),
            ("state=asleep", "state"),
            ("page=0", "page"),
            ("page=two", "page"),
            ("page=2&cursor=2", "page"),
            ("sort=name&cursor=key_1", "cursor"),
            ("sort=name&cursor=-1", "cursor"),
            ("include=trends", "include"),
            ("q=a%0ab", "q"),
            (f"q={'a' * 201}", "q"),
        ],
    )
    def test_a_wrong_query_is_refused(self, call, query, at):
        refused = call("GET", f"/keys?{query}", status=422)
        assert [at] == [*refused["error"]["errors"]]

    def test_states(self, call, new_key, clock):
        """A key that expires soon is active, too."""
        now = moment(clock())
        new_key(name="soon", expires_at=(now + timedelta(days=13)).isoformat())
        new_key(name="late", expires_at=(now + timedelta(days=15)).isoformat())
        new_key(name="waits", starts_at=(now + timedelta(days=1)).isoformat())
        assert ["active", "expiring", "not_yet_valid"] == sorted(
            item["state"] for item in call("GET", "/keys?include=state")["items"]
        )
        assert ["late", "soon"] == sorted(names(call("GET", "/keys?state=active")))
        assert ["soon"] == names(call("GET", "/keys?state=expiring"))
        assert ["waits"] == names(call("GET", "/keys?state=not_yet_valid"))
        clock.advance(14 * 86_400)
        assert ["soon"] == names(call("GET", "/keys?state=expired"))

    def test_are_sorted_by_what_they_have_spent_this_month(self, call, used, clock):
        """Those that cost nothing come in the order of their requests; what is longer ago does not count."""
        clock.advance(86_400 * 20)
        used(("thesis", 0.5, 0), ("thesis", 0.5, 1), ("laptop", 2, 1), ("phone", 0, 0), ("Server", 99, 40))

        assert ["laptop", "thesis", "phone", "Server"] == names(call("GET", "/keys?sort=-spent"))
        assert ["Server", "phone", "thesis", "laptop"] == names(call("GET", "/keys?sort=spent"))
        assert ["laptop", "thesis"] == names(call("GET", "/keys?sort=-spent&state=active&limit=2"))
        assert ["thesis", "phone", "laptop", "Server"] == names(call("GET", "/keys?sort=-last_used"))
        assert ["Server", "laptop", "thesis", "phone"] == names(call("GET", "/keys?sort=last_used"))

    def test_a_trend_has_the_last_fourteen_days(self, call, used, clock):
        clock.advance(86_400 * 20)
        used(("thesis", 0.5, 0), ("thesis", 0.25, 0), ("thesis", 2, 13), ("thesis", 4, 14), ("laptop", 8, 3))

        trend = {item["name"]: item["trend"] for item in call("GET", "/keys?include=trend")["items"]}
        assert [2.0, *[0.0] * 12, 0.75] == trend["thesis"]["cost_usd"]
        assert [1, *[0] * 12, 2] == trend["thesis"]["requests"]
        assert (moment(clock()) - timedelta(days=13)).date().isoformat() == trend["thesis"]["start"]
        assert [8.0] == [cost for cost in trend["laptop"]["cost_usd"] if cost]
        assert [0] * 14 == trend["phone"]["requests"]

    def test_a_filtered_list_is_exported(self, call, class_of):
        lines = call("GET", "/keys?q=ml&sort=-name&format=csv").splitlines()
        assert ['"thesis"', '"phone"'] == [line.split(",")[2] for line in lines[1:]]

    def test_an_admin_of_a_group_finds_its_keys_alone(self, client, call, class_of, used):
        """Whatever the query is, also in the total."""
        used(("laptop", 5, 0), ("phone", 1, 0))
        made = call("POST", "/admins", json={"name": "g", "role": "group", "groups": ["ml"]}, status=201)
        for query in ("q=a", "sort=-spent", "sort=user", "page=1", "state=active", "q=physics", "include=trend"):
            answer = client.get(f"/admin/keys?{query}", headers={"AdminKey": made["key"]})
            assert answer.status_code == 200
            assert {"ml"} >= {item["group"] for item in answer.json["items"]}
            assert answer.json["total"] == len(answer.json["items"]) <= 2


class TestPeople:
    def test_are_found_by_name_and_address(self, call, class_of):
        """With the number of all their keys; also those for whom only limits are set."""
        call("PUT", "/users/adam", json={"limits": {"parallel_requests": 2}})

        def found(query: str) -> dict[str, int]:
            page = call("GET", f"/users?{query}")
            assert page["total"] == len(page["items"])
            return {item["user"]: item["key_count"] for item in page["items"]}

        assert {"ada": 2, "adam": 0} == found("q=AD")
        assert {"ada": 2} == found("q=lovelace")
        assert {} == found("q=cellar")
        assert ["Bob", "ada", "adam", "eve"] == [*found("")]
        assert ["eve", "Bob", "adam", "ada"] == [*found("sort=-user")]
        assert ["ada", "Bob", "eve", "adam"] == [*found("sort=-key_count")]

    def test_pages(self, call, class_of):
        for query in ("", "sort=user"):
            first = call("GET", f"/users?{query}&limit=2")
            second = call("GET", f"/users?{query}&limit=2&cursor={first['next']}")
            assert (3, 3, None) == (first["total"], second["total"], second["next"])
            assert second == call("GET", f"/users?{query}&limit=2&page=2")
            assert 3 == len({item["user"] for item in first["items"] + second["items"]})

    def test_have_what_was_used_and_left(self, call, used):
        used(("thesis", 0.5, 0), ("Server", 0.25, 0), ("phone", 3, 0))
        call("PUT", "/users/ada", json={"limits": {"budget": {"amount": 2, "unit": "usd", "period": "month"}}})

        page = call("GET", "/users?sort=-spent&include=spent,trend,remaining,groups")
        assert ["eve", "ada", "Bob"] == [item["user"] for item in page["items"]]
        ada = page["items"][1]
        assert (0.75, 2) == (ada["spent"]["cost_usd"], ada["spent"]["requests"])
        assert [*[0] * 13, 2] == ada["trend"]["requests"]
        assert (1.25, ["ml"]) == (ada["remaining"]["budget"]["left"], ada["groups"])
        assert (None, []) == (page["items"][0]["remaining"]["budget"], page["items"][2]["groups"][1:])
        assert "spent" not in call("GET", "/users")["items"][0]


class TestGroups:
    def test_are_found_and_sorted(self, call, class_of, used):
        call("PUT", "/groups/empty", json={"cost_centre": "Café 4711", "expires_at": "2100-01-01"})
        used(("laptop", 1, 0), ("thesis", 2, 0))

        def found(query: str) -> list[str]:
            page = call("GET", f"/groups?{query}")
            assert page["total"] >= len(page["items"])
            return names(page)

        assert ["empty", "ml", "physics"] == found("")
        assert ["empty"] == found("q=CAFÉ 47") == found("sort=expires_at&limit=1")
        assert ["physics", "ml"] == found("sort=-name&limit=2")
        assert ["empty"] == found("sort=-name&limit=2&page=2") == found("sort=-name&limit=2&cursor=2")
        assert ["ml", "physics", "empty"] == found("sort=-spent") == found("sort=-key_count")
        assert [] == found("q=nothing")

    def test_have_what_was_used_and_how_large_they_are(self, call, used):
        used(("thesis", 2, 0), ("phone", 0.5, 1))
        ml, physics = call("GET", "/groups?include=spent,trend,key_count,user_count")["items"]
        assert (2, 2, 1) == (ml["key_count"], ml["user_count"], physics["key_count"])
        assert 2 == sum(ml["trend"]["requests"])
        assert 2.0 == ml["trend"]["cost_usd"][-1]
        assert UsageRow(by={}).requests == physics["spent"]["requests"]
        assert ml["key_count"] == call("GET", "/groups/ml?include=key_count")["key_count"]
        assert "spent" not in call("GET", "/groups/ml")
        assert ["remaining" in item for item in call("GET", "/groups?remaining=false")["items"]] == [False, False]


def test_a_search_counts_the_requests_that_have_just_ended(client, call, new_key):
    """They are still in the journal when somebody asks."""
    key = new_key(user="ada")
    assert 200 == ask(client, key["key"]).status_code
    assert 1 == call("GET", "/users?q=ada&include=spent")["items"][0]["spent"]["requests"]
