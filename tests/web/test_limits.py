"""Limits, groups and dates as admins set them: what is taken, what is kept, what is refused."""

from __future__ import annotations

import pytest

from tests.stores.contract import at_once

NO_LIMITS = {"requests_per_minute": None, "tokens_per_minute": None, "parallel_requests": None, "budget": None}
BUDGET = {"amount": 5, "unit": "usd", "period": "month"}
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}


def ask(client, key: str, **fields: object):
    return client.post("/v1/chat/completions", json=CHAT | fields, headers={"Authorization": f"Bearer {key}"})


def me(client, key: str):
    return client.get("/v1/me", headers={"Authorization": f"Bearer {key}"}).json


def as_set(call, path: str) -> dict[str, object]:
    """Return what is set there, without what is left of it."""
    return {name: value for name, value in call("GET", path).items() if name != "remaining"}


class TestOfAKey:
    def test_parts_that_are_sent_are_set_and_the_others_stay(self, call, new_key):
        """null removes a part, or all of them; a budget is one part."""
        made = new_key(limits={"requests_per_minute": 30, "budget": BUDGET})
        assert NO_LIMITS | {"requests_per_minute": 30, "budget": BUDGET} == made["limits"]

        def patched(limits):
            return call("PATCH", f"/keys/{made['id']}", json={"limits": limits})["limits"]

        assert NO_LIMITS | {"parallel_requests": 2, "budget": BUDGET} == patched(
            {"parallel_requests": 2, "requests_per_minute": None}
        )
        tokens = {"amount": 1000, "unit": "tokens", "period": "total"}
        assert NO_LIMITS | {"parallel_requests": 2, "budget": tokens} == patched({"budget": tokens})
        assert NO_LIMITS | {"parallel_requests": 2, "budget": tokens} == patched({})
        assert NO_LIMITS == patched(None)

    def test_changes_at_once_all_hold(self, call, new_key, many_at_once):
        """Two admins who change different limits of one key do not undo each other's change."""
        for _ in range(20):
            path = f"/admin/keys/{new_key(limits={'parallel_requests': 3})['id']}"

            many_at_once(
                ("PATCH", path, {"limits": {"requests_per_minute": 5}}),
                ("PATCH", path, {"limits": {"budget": BUDGET}}),
            )

            expected = {"requests_per_minute": 5, "parallel_requests": 3, "budget": BUDGET}
            assert NO_LIMITS | expected == call("GET", path.removeprefix("/admin"))["limits"]

    def test_hold_for_the_next_request(self, client, call, new_key):
        """Those of the key's next request are the ones that were set last."""
        made = new_key(limits={"requests_per_minute": 1})
        assert [200, 429] == [ask(client, made["key"]).status_code for _ in range(2)]

        call("PATCH", f"/keys/{made['id']}", json={"limits": {"requests_per_minute": 2}})

        assert [200, 429] == [ask(client, made["key"]).status_code for _ in range(2)]

    @pytest.mark.parametrize(
        ("limits", "path"),
        [
            ({"requests_per_minute": -1}, ["requests_per_minute"]),
            ({"requests_per_minute": 0}, ["requests_per_minute"]),
            ({"requests_per_minute": 1.5}, ["requests_per_minute"]),
            ({"requests_per_minute": "30"}, ["requests_per_minute"]),
            ({"requests_per_minute": True}, ["requests_per_minute"]),
            ({"tokens_per_minute": 10**30}, ["tokens_per_minute"]),
            ({"requests_per_hour": 5}, ["requests_per_hour"]),
            ({"budget": {"amount": -5, "unit": "usd", "period": "month"}}, ["budget", "amount"]),
            ({"budget": {"amount": 0, "unit": "usd", "period": "month"}}, ["budget", "amount"]),
            ({"budget": {"amount": 1e300, "unit": "usd", "period": "month"}}, ["budget", "amount"]),
            ({"budget": {"amount": "NaN", "unit": "usd", "period": "month"}}, ["budget", "amount"]),
            ({"budget": {"amount": 2.5, "unit": "tokens", "period": "month"}}, ["budget", "amount"]),
            ({"budget": {"amount": 5, "unit": "eur", "period": "month"}}, ["budget", "unit"]),
            ({"budget": {"amount": 5, "unit": "usd", "period": "year"}}, ["budget", "period"]),
            ({"budget": {"amount": 5, "unit": "usd"}}, ["budget", "period"]),
            ({"budget": 5}, ["budget"]),
            ("none", []),
        ],
        ids=str,
    )
    def test_that_make_no_sense_are_refused_by_their_name(self, call, new_key, limits, path):
        """Of a key, a group and the organisation alike; nothing is stored."""
        made = new_key(limits={"parallel_requests": 3})
        for method, address in (("POST", "/keys"), ("PATCH", f"/keys/{made['id']}"), ("PUT", "/groups/new")):
            problem = call(method, address, json={"user": "eve", "limits": limits}, status=422)["error"]["errors"]
            assert problem["limits"]
            problem = problem["limits"]
            for name in path:
                problem = problem[name]
            assert problem
        if isinstance(limits, dict):
            call("PUT", "/limits", json=limits, status=422)

        assert [{name: value for name, value in made.items() if name != "key"}] == call("GET", "/listkeys")
        assert [] == call("GET", "/groups")["items"]
        assert NO_LIMITS == as_set(call, "/limits")

    def test_zero_is_told_what_to_do_instead(self, call):
        """A limit that lets nothing through is a blocked key."""
        problem = call("POST", "/keys", json={"user": "eve", "limits": {"parallel_requests": 0}}, status=422)

        assert "block the key" in problem["error"]["errors"]["limits"]["parallel_requests"][0]


@pytest.fixture
def many_at_once(client, admin):
    """Make several calls at the same moment; returns their statuses."""

    def call(*calls):
        def send(method, path, body):
            fresh = client.application.test_client()
            return lambda: fresh.open(path, method=method, json=body, headers=admin).status_code

        return at_once(*[send(*sent) for sent in calls])

    return call


class TestOfTheOrganisation:
    def test_can_be_changed_in_parts(self, call):
        """What is sent is set, null lifts a limit, the others stay."""
        call("PUT", "/limits", json={"tokens_per_minute": 900_000, "budget": BUDGET})

        changed = call("PATCH", "/limits", json={"parallel_requests": 9, "budget": None})

        assert NO_LIMITS | {"tokens_per_minute": 900_000, "parallel_requests": 9} == changed == as_set(call, "/limits")
        assert changed == call("PATCH", "/limits", json={})

    def test_changes_at_once_all_hold(self, call, many_at_once):
        """Two admins who change different limits do not undo each other's change."""
        for _ in range(20):
            call("PUT", "/limits", json={})

            many_at_once(
                ("PATCH", "/admin/limits", {"requests_per_minute": 5}), ("PATCH", "/admin/limits", {"budget": BUDGET})
            )

            assert NO_LIMITS | {"requests_per_minute": 5, "budget": BUDGET} == as_set(call, "/limits")

    def test_are_replaced_whole(self, call):
        """A part that is not sent is none afterwards."""
        assert NO_LIMITS == as_set(call, "/limits")
        first = call("PUT", "/limits", json={"tokens_per_minute": 900_000, "budget": BUDGET})
        assert NO_LIMITS | {"tokens_per_minute": 900_000, "budget": BUDGET} == first == as_set(call, "/limits")

        assert NO_LIMITS | {"parallel_requests": 9} == call("PUT", "/limits", json={"parallel_requests": 9})
        assert NO_LIMITS == call("PUT", "/limits", json={})

    def test_hold_for_everybody_together(self, client, call, new_key):
        """Whose limit it was is in the answer."""
        call("PUT", "/limits", json={"requests_per_minute": 2})

        answers = [ask(client, new_key(user=user)["key"]) for user in ("ada", "alan", "eve")]

        assert [200, 200, 429] == [answer.status_code for answer in answers]
        assert "organisation.requests_per_minute" == answers[-1].headers["x-llmgateway-limit"]


class TestGroups:
    def test_are_replaced_whole(self, call):
        """What is not sent is nothing afterwards, but for the day they were made and their prompt."""
        fields = {
            "note": "Tuesdays",
            "starts_at": "2026-01-01T00:00:00+00:00",
            "expires_at": "2026-07-01T00:00:00+00:00",
            "models": ["gpt-4o"],
            "limits": NO_LIMITS | {"tokens_per_minute": 5000},
        }
        made = call("PUT", "/groups/Physik 1", json=fields)
        assert {"name": "Physik 1", **fields}.items() <= made.items()
        call("PUT", "/prompt?group=Physik 1", json={"prompt": "Be kind."})

        empty = call("PUT", "/groups/Physik 1", json={})

        nothing = dict.fromkeys(("note", "starts_at", "expires_at", "models")) | {"limits": NO_LIMITS}
        assert made | nothing == empty == as_set(call, "/groups/Physik 1")
        assert {"items": [call("GET", "/groups/Physik 1")], "total": 1, "next": None} == call("GET", "/groups")
        assert "Be kind." == call("GET", "/prompt?group=Physik 1")["prompt"]

    def test_can_be_changed_in_parts(self, call):
        """Fields and limits that are sent are set, null clears one, the others stay."""
        call("PATCH", "/groups/ml", json={"note": "x"}, status=404)
        fields = {"note": "Tuesdays", "models": ["gpt-4o"], "limits": {"tokens_per_minute": 5000, "budget": BUDGET}}
        made = call("PUT", "/groups/ml", json=fields)

        changes = {"note": None, "expires_at": "2026-07-01T00:00:00+00:00", "limits": {"budget": None}}
        changed = call("PATCH", "/groups/ml", json=changes)

        expected = changes | {"limits": NO_LIMITS | {"tokens_per_minute": 5000}}
        assert made | expected == changed == as_set(call, "/groups/ml")
        assert changed == call("PATCH", "/groups/ml", json={})
        assert NO_LIMITS == call("PATCH", "/groups/ml", json={"limits": None})["limits"]
        assert None is call("PATCH", "/groups/ml", json={"models": None})["models"]
        call("PATCH", "/groups/ml", json={"expires_at": "2025-07-01"}, status=422)

    def test_changes_at_once_all_hold(self, call, many_at_once):
        """Of a group's limits and its prompt none is lost, whoever changes them at the same moment."""
        for _ in range(20):
            call("PUT", "/groups/ml", json={"limits": {"parallel_requests": 3}})

            many_at_once(
                ("PATCH", "/admin/groups/ml", {"limits": {"requests_per_minute": 5}}),
                ("PATCH", "/admin/groups/ml", {"limits": {"budget": BUDGET}}),
                ("PUT", "/admin/prompt?group=ml", {"prompt": "Be kind."}),
            )

            expected = {"requests_per_minute": 5, "parallel_requests": 3, "budget": BUDGET}
            assert NO_LIMITS | expected == call("GET", "/groups/ml")["limits"]
            assert "group:ml" == call("GET", "/prompt?group=ml")["scope"]
            call("DELETE", "/prompt?group=ml")

    def test_have_no_key_when_they_are_removed_at_the_same_moment(self, call, new_key, many_at_once):
        """The key's call is refused, or the removal, or both are."""
        for number in range(10):
            call("PUT", f"/groups/{number}", json={})
            made = new_key()["id"]

            *joins, removal = many_at_once(
                ("POST", "/admin/keys", {"user": "ada", "group": str(number)}),
                ("PATCH", f"/admin/keys/{made}", {"group": str(number)}),
                ("DELETE", f"/admin/groups/{number}", None),
            )

            joined = [status for status in joins if status < 300]
            assert removal == (409 if joined else 204)
            assert {status for status in joins if status >= 300} <= {404, 422}
            assert len(joined) == len(call("GET", f"/keys?group={number}")["items"])

    def test_that_were_removed_do_not_come_back_with_a_prompt(self, call, many_at_once):
        """Whoever sets the prompt of a group that is removed at the same moment makes no group."""
        for _ in range(10):
            call("PUT", "/groups/ml", json={})

            assert (
                204
                == many_at_once(
                    ("DELETE", "/admin/groups/ml", None), ("PUT", "/admin/prompt?group=ml", {"prompt": "Be kind."})
                )[0]
            )

            assert [] == call("GET", "/groups")["items"]

    def test_share_limits_and_models(self, client, call, new_key):
        """All keys together; a key may use what it and its group allow."""
        call("PUT", "/groups/ml", json={"limits": {"requests_per_minute": 2}, "models": ["gpt-4o-mini"]})
        first, second = new_key(group="ml"), new_key(group="ml", models=["gpt-4o-mini", "gpt-4o"])

        assert 403 == ask(client, second["key"], model="gpt-4o").status_code
        models = client.get("/v1/models", headers={"Authorization": f"Bearer {second['key']}"}).json["data"]
        assert ["gpt-4o-mini"] == [model["id"] for model in models] == me(client, second["key"])["models"]
        answers = [ask(client, key["key"]) for key in (first, second, first)]
        assert [200, 200, 429] == [answer.status_code for answer in answers]
        assert "group.requests_per_minute" == answers[-1].headers["x-llmgateway-limit"]

    def test_revoked_at_once(self, client, call, new_key):
        """Every key of the group and no other; how many were not blocked before."""
        keys = [new_key(group="ml"), new_key(group="ml"), new_key(group="ml", active=False)]
        other = new_key()

        assert {"revoked": 2} == call("POST", "/groups/ml/revoke")

        assert [401, 401, 401, 200] == [ask(client, key["key"]).status_code for key in (*keys, other)]
        call("PATCH", f"/keys/{keys[0]['id']}", json={"active": True})
        assert 200 == ask(client, keys[0]["key"]).status_code

    def test_begin_and_end_by_themselves(self, client, call, new_key, clock):
        """Outside of the group's dates none of its keys works."""
        call("PUT", "/groups/ml", json={"starts_at": "2026-01-02", "expires_at": "2026-01-02"})
        key = new_key(group="ml")["key"]
        statuses = []
        for _ in range(3):
            statuses.append(ask(client, key).status_code)
            clock.advance(86_400)

        assert [401, 200, 401] == statuses
        # What is over may be sent back as it was read.
        call("PUT", "/groups/ml", json={"starts_at": "2026-01-02", "expires_at": "2026-01-02", "note": "over"})

    def test_are_kept_while_keys_are_in_them(self, call, new_key):
        """A key would otherwise lose its group's limits."""
        made = new_key(group="ml")
        call("DELETE", "/groups/ml", status=409)
        call("PATCH", f"/keys/{made['id']}", json={"group": None})

        call("DELETE", "/groups/ml", status=204)
        call("DELETE", "/groups/ml", status=404)
        call("POST", "/groups/ml/revoke", status=404)

    @pytest.mark.parametrize("name", ["x" * 101, "x" * 10_000, "two\nlines", " ml", "ml "])
    def test_with_a_name_that_is_none_are_refused(self, call, name):
        """With the reason, and nothing stored."""
        problem = call("PUT", f"/groups/{name.replace(chr(10), '%0A').replace(' ', '%20')}", json={}, status=422)

        assert ["name"] == list(problem["error"]["errors"])
        assert [] == call("GET", "/groups")["items"]


class TestDates:
    @pytest.mark.parametrize(
        ("dates", "field"),
        [
            ({"expires_at": "2025-12-31"}, "expires_at"),
            ({"expires_at": "2026-01-01T00:00:00Z"}, "expires_at"),
            ({"starts_at": "2026-03-01", "expires_at": "2026-02-01"}, "expires_at"),
            ({"starts_at": "2026-03-01T00:00:00"}, "starts_at"),
        ],
    )
    def test_that_cannot_be_meant_are_refused(self, call, new_key, dates, field):
        """In the past, the wrong way round, without a zone: of a key and of a group."""
        made = new_key()
        calls = (
            ("POST", "/keys", {"user": "eve"}),
            ("PATCH", f"/keys/{made['id']}", {}),
            ("PUT", "/groups/ml", {}),
        )
        for method, path, body in calls:
            assert [field] == list(call(method, path, json=body | dates, status=422)["error"]["errors"])

        assert 1 == len(call("GET", "/listkeys"))

    def test_are_compared_with_those_that_stay(self, call, new_key):
        """One date may be changed alone, if it fits the other."""
        made = new_key(starts_at="2026-02-01", expires_at="2026-03-01")
        path = f"/keys/{made['id']}"
        for field, value in (("expires_at", "2026-01-15"), ("starts_at", "2026-04-01")):
            assert [field] == list(call("PATCH", path, json={field: value}, status=422)["error"]["errors"])

        call("PATCH", path, json={"starts_at": None, "expires_at": "2026-01-15"})

    def test_one_that_is_over_can_still_be_noted(self, call, new_key, clock):
        """A change of something else does not ask for a new date."""
        made = new_key(expires_at="2026-02-01")
        clock.advance(40 * 86_400)

        call("PATCH", f"/keys/{made['id']}", json={"note": "finished", "expires_at": "2026-02-01"})


def test_a_group_has_to_be_there_first(call, new_key):
    """A misspelt name would be a key without limits; those it has may stay."""
    made = new_key()
    for method, path in (("POST", "/keys"), ("PATCH", f"/keys/{made['id']}")):
        problem = call(method, path, json={"user": "eve", "group": "nobody's"}, status=422)["error"]
        assert ["group"] == list(problem["errors"])
        assert "PUT /admin/groups" in problem["errors"]["group"][0]

    assert 1 == len(call("GET", "/listkeys"))


class TestRotation:
    def test_replaces_a_key_at_once(self, client, call, new_key):
        """All that belongs to it stays."""
        made = new_key(note="thesis", limits={"requests_per_minute": 3})
        rotated = call("POST", f"/keys/{made['id']}/rotate", json={})

        assert made | {"key": rotated["key"]} == rotated
        assert [401, 200] == [ask(client, key).status_code for key in (made["key"], rotated["key"])]
        assert rotated["key"] not in str(call("GET", "/listkeys"))

    def test_lets_both_work_for_a_while(self, client, call, new_key, clock):
        """Until retires_at; both count for the same limits."""
        made = new_key(limits={"requests_per_minute": 2})
        rotated = call("POST", f"/keys/{made['id']}/rotate", json={"overlap_seconds": 3600})
        assert "2026-01-01T01:00:00+00:00" == rotated["retires_at"]

        both = [made["key"], rotated["key"]]
        assert [200, 200, 429] == [ask(client, key).status_code for key in (*both, both[0])]
        clock.advance(3600)
        assert [401, 200] == [ask(client, key).status_code for key in both]

    @pytest.mark.parametrize("body", [{"overlap_seconds": -1}, {"overlap_seconds": 30 * 86_400 + 1}, {"overlap": 5}])
    def test_refuses_an_overlap_that_is_none(self, client, call, new_key, body):
        """And the key stays as it is."""
        made = new_key()
        call("POST", f"/keys/{made['id']}/rotate", json=body, status=422)
        call("POST", "/keys/nobody/rotate", json={}, status=404)

        assert 200 == ask(client, made["key"]).status_code


class TestOnesOwnView:
    def test_shows_limits_and_what_is_left(self, client, call, new_key):
        """The key's own, and those it shares with its group and with everybody."""
        call("PUT", "/groups/ml", json={"limits": {"requests_per_minute": 10}})
        call("PUT", "/limits", json={"budget": {"amount": 100, "unit": "requests", "period": "total"}})
        key = new_key(group="ml", limits={"requests_per_minute": 5, "budget": BUDGET})["key"]
        other = new_key(group="ml")["key"]
        answers = [ask(client, one) for one in (key, other)]
        headers = [answers[0].headers[f"x-ratelimit-{what}-requests"] for what in ("limit", "remaining", "reset")]
        assert ["5", "4", "61s"] == headers

        shown = me(client, key)

        assert NO_LIMITS | {"requests_per_minute": 5, "budget": BUDGET} == shown["limits"]
        budget = shown["remaining"].pop("budget")
        assert 4.99 < budget < 5
        assert {"requests_per_minute": 4, "tokens_per_minute": None, "parallel_requests": None} == shown["remaining"]
        assert 8 == shown["shared"]["group"]["remaining"]["requests_per_minute"]
        assert shown["shared"]["organisation"]["remaining"]["budget"] is None

    def test_is_empty_where_nothing_is_limited(self, client, new_key):
        """null everywhere, and nobody to share with."""
        shown = me(client, new_key()["key"])

        assert (NO_LIMITS, NO_LIMITS) == (shown["limits"], shown["remaining"])
        assert {"group": None, "organisation": None} == shown["shared"]
        assert (None, None) == (shown["person"], shown["member"])


@pytest.mark.parametrize("field", ["user", "name", "group", "note", "email"])
def test_a_name_of_ten_thousand_characters_is_refused(call, field):
    """By its field."""
    problem = call("POST", "/keys", json={"user": "ada", field: "x" * 10_000}, status=422)["error"]

    assert [field] == list(problem["errors"])
    assert len(str(problem)) < 1000
    assert [] == call("GET", "/listkeys")


@pytest.mark.parametrize(
    "key", ["short", "x" * 19, "x" * 513, "with a space in the middle", "ümlaut-ümlaut-ümlaut-ümlaut"]
)
def test_a_key_of_ones_own_has_to_be_long_enough(call, key):
    """20 characters; the answer does not repeat it."""
    for path in ("/addapikey", "/keys"):
        problem = call("POST", path, json={"user": "ada", "key": key}, status=422)["error"]
        assert "20 to 512" in problem["errors"]["key"][0]
        assert key not in str(problem)
