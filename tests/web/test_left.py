"""What is used and left, as admins and users see it: in answers, in headers, in messages, and what is hidden."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from llmgateway.app import put_into_force
from llmgateway.web.context import EXTENSION

EVERYTHING = "spent,remaining,last_used"
BUDGET = {"amount": 100, "unit": "requests", "period": "month"}
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
MONTH_ENDS = "2026-02-01T00:00:00+00:00"


def of(key) -> dict[str, str]:
    return {"Authorization": f"Bearer {key['key']}"}


def ask(client, key, **fields):
    return client.post("/v1/chat/completions", json=CHAT | fields, headers=of(key))


def rest(answer) -> dict[str, str | None]:
    """What the headers say of requests."""
    return {what: answer.headers.get(f"x-ratelimit-{what}-requests") for what in ("limit", "remaining")}


class TestKeys:
    def test_say_more_if_they_are_asked(self, client, call, new_key, clock):
        """What is spent, what is left of every limit and when it renews, and when the key was used last."""
        limits = {"requests_per_minute": 10, "parallel_requests": 3, "budget": BUDGET}
        key = new_key(limits=limits)
        clock.advance(1)
        unused = new_key(user="alan")
        for _ in range(2):
            assert 200 == ask(client, key).status_code
        clock.advance(20)

        used, other = call("GET", f"/keys?include={EVERYTHING}")["items"]

        in_41_seconds = datetime.fromtimestamp(clock() + 41, UTC).isoformat()
        assert {
            "requests_per_minute": {"limit": 10, "used": 2, "left": 8, "renews_at": in_41_seconds},
            "tokens_per_minute": None,
            "parallel_requests": {"limit": 3, "used": 0, "left": 3, "renews_at": None},
            "budget": {
                "limit": 100,
                "used": 2,
                "left": 98,
                "renews_at": MONTH_ENDS,
                "unit": "requests",
                "period": "month",
            },
        } == used["remaining"]
        assert 2 == used["spent"]["requests"]
        assert 0 < used["spent"]["cost_usd"] < 0.01
        assert "2026-01-01T00:00:01" == used["last_used"][:19]
        assert [used] == call("GET", f"/keys?user=ada&include={EVERYTHING}")["items"]
        assert used == call("GET", f"/keys/{key['id']}?include={EVERYTHING}")
        assert dict.fromkeys(limits | {"tokens_per_minute": 1}) == other["remaining"]
        assert {"requests": 0, "total_tokens": 0, "cost_usd": 0.0} == other["spent"]
        assert (unused["id"], None) == (other["id"], other["last_used"])

    @pytest.mark.parametrize("include", ["", "spent", "remaining", "last_used", "last_used, spent"])
    def test_say_what_they_are_asked(self, call, new_key, include):
        """Nothing is read that nobody wants to know."""
        plain = new_key()
        asked = {name.strip() for name in include.split(",") if name}

        for found in (
            call("GET", "/keys", query_string={"include": include})["items"][0],
            call("GET", f"/keys/{plain['id']}", query_string={"include": include}),
        ):
            assert asked == found.keys() - plain.keys()

    @pytest.mark.parametrize("path", ["/keys", "/keys/key_1"])
    def test_name_what_cannot_be_asked(self, call, path):
        """By its name, and with what can be."""
        error = call("GET", f"{path}?include=spent,colour,digest", status=422)["error"]

        assert ["Any of spent, remaining, last_used, trend, state, separated by commas; not colour, digest."] == (
            error["errors"]["include"]
        )

    def test_are_paged_as_before(self, call, new_key, clock):
        """Each page has its own numbers."""
        keys = []
        for number in (1, 2, 3):
            keys.append(new_key(limits={"requests_per_minute": number}))
            clock.advance(1)

        first = call("GET", "/keys?include=remaining&limit=2")
        second = call("GET", f"/keys?include=remaining&limit=2&cursor={first['next']}")

        found = [*first["items"], *second["items"]]
        assert [key["id"] for key in keys] == [key["id"] for key in found]
        assert [1, 2, 3] == [key["remaining"]["requests_per_minute"]["left"] for key in found]


class TestGroupsAndTheOrganisation:
    def test_show_what_all_keys_have_used(self, client, call, new_key):
        """Of each group alone, and of everybody."""
        for name in ("ml", "physics"):
            call("PUT", f"/groups/{name}", json={"limits": {"budget": BUDGET, "tokens_per_minute": 9000}})
        call("PUT", "/groups/free", json={})
        call("PUT", "/limits", json={"budget": BUDGET})
        for name in ("ml", "ml", "physics"):
            assert 200 == ask(client, new_key(group=name)).status_code

        shown = {group["name"]: group["remaining"] for group in call("GET", "/groups")["items"]}

        left = {name: remaining["budget"] and remaining["budget"]["left"] for name, remaining in shown.items()}
        assert {"free": None, "ml": 98, "physics": 99} == left
        assert MONTH_ENDS == shown["ml"]["budget"]["renews_at"]
        assert 9000 > shown["ml"]["tokens_per_minute"]["left"] > 8000
        assert shown["ml"] == call("GET", "/groups/ml")["remaining"]
        everybody = call("GET", "/limits")
        assert (BUDGET, 97) == (everybody["budget"], everybody["remaining"]["budget"]["left"])

    def test_what_was_read_can_be_sent_back(self, call):
        """A script that reads the limits, changes one and puts them all need not know what else there is."""
        call("PUT", "/limits", json={"budget": BUDGET})
        limits = call("GET", "/limits")

        after = call("PUT", "/limits", json=limits | {"requests_per_minute": 7})

        assert (7, BUDGET) == (after["requests_per_minute"], after["budget"])
        call("PUT", "/limits", json={"remaining_": 1}, status=422)
        call("POST", "/keys", json={"user": "ada", "limits": {"remaining": {}}}, status=422)


class TestHeaders:
    def test_are_on_every_answer_to_a_key(self, client, call, new_key):
        """Also on lists, on one's own view, on refusals and on what is not found."""
        call("PUT", "/limits", json={"requests_per_minute": 7})
        key = new_key(models=["gpt-4o-mini"])

        answers = [
            client.get("/v1/models", headers=of(key)),
            client.get("/v1/models/gpt-4o-mini", headers=of(key)),
            client.get("/v1/models/gpt-5", headers=of(key)),
            client.get("/v1/me", headers=of(key)),
            client.get("/openai/deployments?api-version=1", headers=of(key)),
            client.get("/openai/models", headers=of(key)),
            client.get("/v1/responses/resp_1", headers=of(key)),
            ask(client, key, messages="Hello"),
            ask(client, key, model="gpt-4o"),
            ask(client, key),
        ]

        assert [200, 200, 404, 200, 200, 200, 404, 400, 403, 200] == [answer.status_code for answer in answers]
        assert [{"limit": "7", "remaining": left} for left in [*"7777776665"]] == [*map(rest, answers)]

    def test_of_a_key_without_limits_there_are_none(self, client, new_key):
        """No limit, no header."""
        key = new_key(limits={"parallel_requests": 2})

        for answer in (client.get("/v1/me", headers=of(key)), ask(client, key), ask(client, key, messages=1)):
            assert [] == [name for name, _ in answer.headers if name.startswith("x-ratelimit")]

    def test_are_not_for_those_who_have_no_key(self, client, call, new_key):
        """What the organisation has left is nobody's business who is not let in."""
        call("PUT", "/limits", json={"requests_per_minute": 7})
        blocked = new_key(active=False)

        for headers in ({}, of({"key": "llmgw-nobodys"}), of(blocked)):
            answer = client.get("/v1/models", headers=headers)
            assert (401, None) == (answer.status_code, rest(answer)["limit"])


class TestWhatIsShared:
    @pytest.fixture
    def member(self, call, new_key):
        call("PUT", "/groups/ml", json={"limits": {"budget": BUDGET | {"amount": 2}, "requests_per_minute": 50}})
        call("PUT", "/limits", json={"budget": BUDGET | {"amount": 777}})
        return new_key(group="ml", limits={"budget": BUDGET | {"amount": 3}})

    def test_is_not_told(self, client, member):
        """Neither what is left of a shared budget nor how large it is; but whose it is, and when it renews."""
        for _ in range(2):
            ask(client, member)

        shown = client.get("/v1/me", headers=of(member)).json
        refused = ask(client, member)

        assert (3, 1) == (shown["limits"]["budget"]["amount"], shown["remaining"]["budget"])
        for scope in ("group", "organisation"):
            budget = shown["shared"][scope]["limits"]["budget"]
            assert {"amount": None, "unit": "requests", "period": "month"} == budget
            assert shown["shared"][scope]["remaining"]["budget"] is None
        assert 50 == shown["shared"]["group"]["limits"]["requests_per_minute"]
        assert 48 == shown["shared"]["group"]["remaining"]["requests_per_minute"]
        assert "777" not in str(shown)
        assert "Your group 'ml' has used its budget. It renews at 2026-02-01" in refused.json["error"]["message"]
        assert "group.budget" == refused.headers["x-llmgateway-limit"]

    def test_is_told_if_the_admin_says_so(self, make_app, client, member):
        """From the moment in which the setting is read again, without a restart."""
        ask(client, member)
        used = client.application.extensions[EXTENSION].settings

        put_into_force(client.application, used.reloaded(replace(used, show_shared="on")))
        shown = client.get("/v1/me", headers=of(member)).json["shared"]
        ask(client, member)
        refused = ask(client, member).json["error"]["message"]
        put_into_force(client.application, used.reloaded(replace(used, show_shared="off")))

        assert (2, 1) == (shown["group"]["limits"]["budget"]["amount"], shown["group"]["remaining"]["budget"])
        assert (777, 776) == (
            shown["organisation"]["limits"]["budget"]["amount"],
            shown["organisation"]["remaining"]["budget"],
        )
        assert "Your group 'ml' has used its budget of 2 requests per month." in refused
        assert client.get("/v1/me", headers=of(member)).json["shared"]["group"]["remaining"]["budget"] is None


class TestPeople:
    def test_see_what_they_have_left_with_all_of_their_keys(self, client, call, new_key):
        """As a person, and as a member of the group: both are their own, so they are shown; the headers know them."""
        limits = {"requests_per_minute": 20, "budget": BUDGET | {"amount": 30}}
        call("PUT", "/groups/ml", json={"member_limits": {"requests_per_minute": 9, "budget": BUDGET | {"amount": 5}}})
        call("PUT", "/users/ada", json={"limits": limits})
        first, second = new_key(group="ml"), new_key()
        for key in (first, second, second):
            answer = ask(client, key)

        shown = client.get("/v1/me", headers=of(first)).json

        assert {"limit": "20", "remaining": "17"} == rest(answer)
        assert {"limit": "9", "remaining": "8"} == rest(client.get("/v1/models", headers=of(first)))
        assert (30, 27, 17) == (
            shown["person"]["limits"]["budget"]["amount"],
            shown["person"]["remaining"]["budget"],
            shown["person"]["remaining"]["requests_per_minute"],
        )
        assert (5, 4) == (shown["member"]["limits"]["budget"]["amount"], shown["member"]["remaining"]["budget"])
        assert client.get("/v1/me", headers=of(second)).json["member"] is None

        person = call("GET", "/users/ada")
        budget = {"limit": 30, "used": 3, "left": 27, "renews_at": MONTH_ENDS, "unit": "requests", "period": "month"}
        assert budget == person["remaining"]["budget"]
        (member,) = person["member_of"]
        assert (5, 1, 4) == tuple(member["remaining"]["budget"][name] for name in ("limit", "used", "left"))

    def test_a_raised_limit_is_what_is_left_of(self, call, new_key):
        """Of the limit that is in force now."""
        key = new_key(limits={"requests_per_minute": 5})
        call("POST", f"/keys/{key['id']}/raise", json={"limits": {"requests_per_minute": 50}, "until": "2027-01-01"})

        assert 50 == call("GET", f"/keys/{key['id']}?include=remaining")["remaining"]["requests_per_minute"]["limit"]


class TestMetrics:
    def test_have_the_budgets_of_groups_and_of_the_organisation(self, client, admin, call, new_key, clock):
        """Limit, spent and left, by scope, name, unit and period; those of a removed group go."""
        call("PUT", "/groups/ml", json={"limits": {"budget": {"amount": 10, "unit": "usd", "period": "total"}}})
        call("PUT", "/limits", json={"budget": BUDGET})
        ask(client, new_key(group="ml"))
        watch = client.application.extensions[EXTENSION].budgets

        assert [] == _budgets(client, admin)
        watch.turn()

        group = 'name="ml",period="total",scope="group",unit="usd"'
        everybody = 'name="",period="month",scope="organisation",unit="requests"'
        found = dict(_budgets(client, admin))
        assert 6 == len(found)
        numbers = [found[f"llmgateway_budget_{name}{{{everybody}}}"] for name in ("limit", "spent", "left")]
        assert ["100.0", "1.0", "99.0"] == numbers
        spent, left = (float(found[f"llmgateway_budget_{name}{{{group}}}"]) for name in ("spent", "left"))
        assert 10 == pytest.approx(spent + left)
        assert 0 < spent < 0.01

        clock.advance(60)
        call("PUT", "/groups/ml", json={})
        watch.turn()
        assert 3 == len(_budgets(client, admin))


def _budgets(client, admin) -> list[tuple[str, str]]:
    lines = client.get("/metrics", headers=admin).text.splitlines()
    return [tuple(line.rsplit(" ", 1)) for line in lines if line.startswith("llmgateway_budget")]
