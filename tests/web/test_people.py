"""People as admins see them: limits of all keys of a person, of each member of a group, raises, the time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from llmgateway.ratelimit.periods import LocalDay
from llmgateway.records import Period, moment
from llmgateway.web.context import EXTENSION

from .test_limits import BUDGET, NO_LIMITS, ask, me

FIVE = {"requests_per_minute": 5}


def until(clock, **ahead: float) -> str:
    return (moment(clock()) + timedelta(**ahead)).isoformat()


def statuses(client, *keys: str) -> list[int]:
    return [ask(client, key).status_code for key in keys]


@pytest.fixture
def adas(new_key, clock) -> list[str]:
    """Two keys of ada in two groups, and one in none, made one after the other."""
    keys = []
    for group in ({"group": "ml"}, {"group": "nlp"}, {}):
        clock.advance(1)
        keys.append(new_key(user="ada", **group)["key"])
    return keys


def of_raises(call) -> list[tuple[object, object]]:
    """The requests per minute before and after each raise in the audit log, newest first."""
    shown = [entry for entry in call("GET", "/audit")["items"] if entry["action"].endswith(".raise")]
    return [
        tuple(raised and raised["limits"]["requests_per_minute"] for raised in (entry["before"], entry["after"]))
        for entry in shown
    ]


class TestLimitsOfAPerson:
    def test_hold_for_all_keys_together(self, client, call, adas, new_key):
        """And for nobody else; they are in force with the next request."""
        assert [200] * 3 == statuses(client, *adas)
        call("PUT", "/users/ada", json={"limits": {"requests_per_minute": 2}})

        assert [200, 200, 429] == statuses(client, *adas)
        refused = ask(client, adas[0])
        assert "person.requests_per_minute" == refused.headers["x-llmgateway-limit"]
        assert "Your account" in refused.json["error"]["message"]
        assert [200, 200, 200] == statuses(client, *[new_key(user="Ada")["key"]] * 3)

        call("DELETE", "/users/ada", status=204)
        assert [200] * 3 == statuses(client, *adas)

    def test_a_budget_knows_what_was_used_before_it_was_set(self, client, call, adas):
        """By all keys, also by one that is gone; not by a namesake."""
        assert [200] * 3 == statuses(client, *adas)
        gone = call("GET", "/users/ada")["keys"][2]
        call("DELETE", f"/keys/{gone['id']}", status=204)
        call("PUT", "/users/ada", json={"limits": {"budget": {"amount": 4, "unit": "requests", "period": "week"}}})

        assert 1 == call("GET", "/users/ada")["remaining"]["budget"]["left"]
        assert [200, 429] == statuses(client, *adas[:2])
        refused = ask(client, adas[0])
        assert ("insufficient_quota", "person.budget") == (
            refused.json["error"]["code"],
            refused.headers["x-llmgateway-limit"],
        )

    def test_parts_are_patched_and_put_replaces(self, call, adas):
        assert NO_LIMITS | FIVE == call("PUT", "/users/ada", json={"limits": FIVE})["limits"]
        assert (
            NO_LIMITS | FIVE | {"budget": BUDGET}
            == call("PATCH", "/users/ada", json={"limits": {"budget": BUDGET}})["limits"]
        )
        assert (
            NO_LIMITS | {"budget": BUDGET}
            == call("PATCH", "/users/ada", json={"limits": {"requests_per_minute": None}})["limits"]
        )
        assert NO_LIMITS == call("PATCH", "/users/ada", json={"limits": None})["limits"]
        assert NO_LIMITS == call("PATCH", "/users/ada", json={})["limits"]

    def test_a_person_is_shown_with_everything(self, client, call, adas):
        """Keys, limits, what is left, and usage."""
        call("PATCH", "/groups/ml", json={"member_limits": {"requests_per_minute": 3}})
        call("PUT", "/users/ada", json={"limits": FIVE})
        statuses(client, *adas)

        shown = call("GET", "/users/ada")

        assert ["ml", "nlp", None] == [key["group"] for key in shown["keys"]]
        assert ("ada", NO_LIMITS | FIVE, None) == (shown["user"], shown["limits"], shown["raise"])
        left = {part: one and (one["limit"], one["used"], one["left"]) for part, one in shown["remaining"].items()}
        assert NO_LIMITS | {"requests_per_minute": (5, 3, 2)} == left
        (member,) = shown["member_of"]
        assert ("ml", 3, 2) == (
            member["group"],
            member["limits"]["requests_per_minute"],
            member["remaining"]["requests_per_minute"]["left"],
        )
        client.application.extensions[EXTENSION].journal.flush()
        usage = call("GET", "/users/ada")["usage"]
        assert {"today": 3, "month": 3, "total": 3} == {name: sums["requests"] for name, sums in usage.items()}

    def test_people_are_listed_page_by_page(self, call, new_key):
        """Those who have keys, and those who have limits only, each once."""
        for user in ("ada", "ada", "zoë", "Ada"):
            new_key(user=user)
        for user in ("grace", "zoë"):
            call("PUT", f"/users/{quote(user)}", json={"limits": FIVE})

        everybody = call("GET", "/users")["items"]
        assert [("Ada", 1), ("ada", 2), ("grace", 0), ("zoë", 1)] == [
            (one["user"], one["key_count"]) for one in everybody
        ]
        assert [None, None, 5, 5] == [one["limits"]["requests_per_minute"] for one in everybody]

        pages, query = [], {"limit": 1}
        while query is not None:
            page = call("GET", "/users", query_string=query)
            pages += [one["user"] for one in page["items"]]
            query = {"limit": 1, "cursor": page["next"]} if page["next"] else None
        assert ["Ada", "ada", "grace", "zoë"] == pages

    @pytest.mark.parametrize(
        ("user", "problem"), [("a/b", "slash"), ("a\u200bb", "U+200B"), ("ada ", "blank"), ("%20", "can be seen")]
    )
    def test_new_names_are_checked(self, call, user, problem):
        """Whoever has keys may have any name."""
        path = f"/users/{user if user.startswith('%') else quote(user, safe='/')}"
        refused = call("PUT", path, json={"limits": FIVE}, status=422)
        assert problem in refused["error"]["errors"]["user"][0]
        assert (
            problem
            in call("POST", f"{path}/raise", json={"limits": FIVE, "until": "2099-01-01"}, status=422)["error"][
                "errors"
            ]["user"][0]
        )
        call("GET", path, status=404)
        call("DELETE", path, status=404)

    def test_new_keys_name_people_without_a_slash(self, client, call, admin):
        refused = call("POST", "/keys", json={"user": "a/b"}, status=422)
        assert "slash" in refused["error"]["errors"]["user"][0]

        services = client.application.extensions[EXTENSION]
        services.keys.create(user="a/b", name="old")  # of an older version
        call("PUT", "/users/a/b", json={"limits": FIVE})
        assert 5 == call("GET", "/users/a/b")["remaining"]["requests_per_minute"]["left"]
        call("POST", "/users/a/b/raise", json={"limits": {"requests_per_minute": 6}, "until": "2099-01-01"})
        assert 6 == call("GET", "/users/a%2Fb")["remaining"]["requests_per_minute"]["left"]
        call("DELETE", "/users/a/b/raise", status=204)
        call("POST", "/keys", json={"user": "a/b"}, status=201)

    def test_every_wrong_limit_is_named(self, call):
        wrong = {"requests_per_minute": 0, "budget": {"amount": 1, "unit": "usd", "period": "year"}, "nonsense": 1}

        errors = call("PUT", "/users/ada", json={"limits": wrong}, status=422)["error"]["errors"]["limits"]

        assert {"requests_per_minute", "budget", "nonsense"} == errors.keys()
        assert "week" in str(errors["budget"]["period"])
        call("GET", "/users/ada", status=404)


class TestLimitsOfMembers:
    def test_hold_for_each_person_in_the_group(self, client, call, adas, new_key):
        """For the person's keys in it, and not for those elsewhere."""
        second, alans = new_key(user="ada", group="ml")["key"], new_key(user="alan", group="ml")["key"]
        call("PATCH", "/groups/ml", json={"member_limits": {"requests_per_minute": 2}})

        assert [200, 200, 429, 200, 200, 200] == statuses(client, adas[0], second, adas[0], adas[1], adas[2], alans)
        assert "member.requests_per_minute" == ask(client, second).headers["x-llmgateway-limit"]
        assert "'ml'" in ask(client, second).json["error"]["message"]

    def test_a_budget_counts_what_was_used_in_the_group(self, client, call, adas, clock):
        """And begins anew with the week."""
        assert [200, 200] == statuses(client, adas[0], adas[1])
        budget = {"amount": 2, "unit": "requests", "period": "week"}
        call("PATCH", "/groups/ml", json={"member_limits": {"budget": budget}})

        assert [200, 429, 200] == statuses(client, adas[0], adas[0], adas[1])
        clock.advance(7 * 24 * 3600)
        assert [200, 200, 429] == statuses(client, adas[0], adas[0], adas[0])

    def test_parts_are_patched_and_put_replaces(self, call):
        shown = call("PUT", "/groups/ml", json={"limits": {"parallel_requests": 9}, "member_limits": FIVE})
        assert (9, 5) == (shown["limits"]["parallel_requests"], shown["member_limits"]["requests_per_minute"])
        patched = call("PATCH", "/groups/ml", json={"member_limits": {"budget": BUDGET}, "limits": {}})
        assert NO_LIMITS | FIVE | {"budget": BUDGET} == patched["member_limits"]
        assert NO_LIMITS == call("PATCH", "/groups/ml", json={"member_limits": None})["member_limits"]
        call("PATCH", "/groups/ml", json={"member_limits": FIVE})
        assert NO_LIMITS == call("PUT", "/groups/ml", json={"note": "x"})["member_limits"]


class TestRaises:
    @pytest.mark.parametrize("what", ["key", "group", "user"])
    def test_a_limit_is_raised_until_it_ends_by_itself(self, client, call, new_key, clock, what):
        """Only what is named is raised; the audit has it; the answers show it as long as it lasts."""
        limits = {"limits": {"requests_per_minute": 1, "parallel_requests": 3}}
        made = new_key(user="ada", group="ml")
        path = {"key": f"/keys/{made['id']}", "group": "/groups/ml", "user": "/users/ada"}[what]
        call("PUT" if what == "user" else "PATCH", path, json=limits)
        raised = {"limits": {"requests_per_minute": 3}, "until": until(clock, hours=1)}

        shown = call("POST", f"{path}/raise", json=raised)

        assert {"limits": NO_LIMITS | {"requests_per_minute": 3}, "until": raised["until"]} == shown["raise"]
        assert NO_LIMITS | limits["limits"] == shown["limits"]
        assert shown["raise"] == call("GET", path)["raise"]
        assert [200, 200, 200, 429] == statuses(client, *[made["key"]] * 4)
        clock.advance(3600)
        assert [200, 429] == statuses(client, *[made["key"]] * 2)
        assert call("GET", path)["raise"] is None
        assert [(None, 3)] == of_raises(call)

    @pytest.mark.parametrize("what", ["key", "group", "user"])
    def test_a_raise_can_be_ended(self, client, call, new_key, clock, what):
        made = new_key(user="ada", group="ml")
        path = {"key": f"/keys/{made['id']}", "group": "/groups/ml", "user": "/users/ada"}[what]
        call("PUT" if what == "user" else "PATCH", path, json={"limits": {"requests_per_minute": 1}})
        call("POST", f"{path}/raise", json={"limits": FIVE, "until": until(clock, days=2)})

        clock.advance(1)
        call("DELETE", f"{path}/raise", status=204)
        call("DELETE", f"{path}/raise", status=204)

        assert call("GET", path)["raise"] is None
        assert [200, 429] == statuses(client, *[made["key"]] * 2)
        assert [(5, None), (None, 5)] == of_raises(call)

    def test_a_persons_raise_takes_the_place_of_member_limits(self, client, call, adas, clock):
        """Also if the person has no limits of their own."""
        call("PATCH", "/groups/ml", json={"member_limits": {"requests_per_minute": 1}})
        assert [200, 429] == statuses(client, adas[0], adas[0])

        call("POST", "/users/ada/raise", json={"limits": {"requests_per_minute": 3}, "until": until(clock, hours=1)})

        assert [200, 200, 429] == statuses(client, *[adas[0]] * 3)
        assert 3 == call("GET", "/users/ada")["member_of"][0]["limits"]["requests_per_minute"]
        call("DELETE", "/users/ada", status=204)
        assert 429 == ask(client, adas[0]).status_code

    def test_a_budget_goes_on_counting(self, client, call, new_key, clock):
        """A raised budget has what was used of it before, and so has the budget after the raise."""
        budget = {"amount": 2, "unit": "requests", "period": "month"}
        made = new_key(limits={"budget": budget})
        path = f"/keys/{made['id']}"
        assert [200, 200, 429] == statuses(client, *[made["key"]] * 3)
        call(
            "POST", f"{path}/raise", json={"limits": {"budget": budget | {"amount": 3}}, "until": until(clock, hours=1)}
        )

        assert [200, 429] == statuses(client, *[made["key"]] * 2)
        clock.advance(3601)
        assert 429 == ask(client, made["key"]).status_code

    @pytest.mark.parametrize(
        ("sent", "field", "problem"),
        [
            ({"limits": {"requests_per_minute": 9}}, "requests_per_minute", "more than the present limit, which is 10"),
            ({"limits": {"requests_per_minute": 10}}, "requests_per_minute", "more than"),
            ({"limits": {"parallel_requests": 3}}, "parallel_requests", "nothing to raise"),
            ({"limits": {"nonsense": 3}}, "nonsense", "Unknown"),
            ({"limits": {"budget": BUDGET | {"amount": 4}}}, "budget", "more than the present budget of 5"),
            ({"limits": {"budget": BUDGET | {"amount": 9, "period": "week"}}}, "budget", "same period (month)"),
            ({"limits": {"budget": BUDGET | {"amount": 9, "unit": "tokens"}}}, "budget", "same unit (usd)"),
            ({"limits": {}}, None, "one or more of requests_per_minute"),
            ({"limits": {"requests_per_minute": None}}, None, "one or more of"),
            ({}, None, "Missing"),
        ],
    )
    @pytest.mark.parametrize("what", ["key", "group", "user"])
    def test_what_raises_nothing_is_refused(self, call, new_key, what, sent, field, problem):
        """By field, with the reason, and nothing is stored."""
        made = new_key(user="ada", group="ml")
        path = {"key": f"/keys/{made['id']}", "group": "/groups/ml", "user": "/users/ada"}[what]
        limits = {"limits": {"requests_per_minute": 10, "budget": BUDGET}}
        call("PUT" if what == "user" else "PATCH", path, json=limits)

        errors = call("POST", f"{path}/raise", json={"until": "2099-01-01"} | sent, status=422)["error"]["errors"]

        assert problem in str(errors["limits"] if field is None else errors["limits"][field])
        assert call("GET", path)["raise"] is None

    @pytest.mark.parametrize("end", ["2025-12-31", "2026-01-01T00:00:00Z", "soon", "2026-13-01", 5, None])
    def test_an_end_in_the_past_is_refused(self, call, new_key, end, clock):
        made = new_key(limits={"requests_per_minute": 1, "parallel_requests": 5})
        clock.advance(60)
        sent = {"limits": {"requests_per_minute": 2, "parallel_requests": 4}, "until": end}

        errors = call("POST", f"/keys/{made['id']}/raise", json=sent, status=422)["error"]["errors"]

        assert "until" in errors
        if isinstance(end, str) and end < "2026-01-02":
            assert {"until", "limits"} == errors.keys()  # everything that is wrong at once

    def test_a_day_is_meant_to_its_end(self, call, new_key):
        """In the organisation's time zone."""
        made = new_key(limits={"requests_per_minute": 1})
        shown = call("POST", f"/keys/{made['id']}/raise", json={"limits": FIVE, "until": "2099-03-01"})
        assert "2099-03-02T00:00:00+00:00" == shown["raise"]["until"]

    def test_nobodys_limits_are_not_raised(self, call):
        sent = {"limits": FIVE, "until": "2099-01-01"}
        for path in ("/keys/nobody", "/groups/nobody"):
            call("POST", f"{path}/raise", json=sent, status=404)
            call("DELETE", f"{path}/raise", status=404)
        call("POST", "/users/nobody/raise", json=sent, status=422)


class TestTimeZone:
    def test_a_change_holds_from_the_next_midnight_on(self, client, call, clock):
        """Until then it is pending, and another one replaces it."""
        shown = call("GET", "/settings")
        assert ("UTC", None) == (shown["timezone"], shown["pending"])
        call("PUT", "/settings", json={"timezone": "America/New_York"})
        clock.advance(1)
        sent = call("PUT", "/settings", json={"timezone": "Asia/Tokyo"})
        pending = {"timezone": "Asia/Tokyo", "since": sent["pending"]["since"]}

        assert shown | {"pending": pending} == sent == call("GET", "/settings")
        assert pending["since"].endswith("T00:00:00+09:00")
        clock.advance((datetime.fromisoformat(pending["since"]) - moment(clock())).total_seconds())
        assert shown | {"timezone": "Asia/Tokyo"} == call("GET", "/settings")
        entry = call("GET", "/audit", query_string={"limit": 1})["items"][0]
        assert ("settings.set", "America/New_York", "Asia/Tokyo") == (
            entry["action"],
            entry["before"]["pending"]["timezone"],
            entry["after"]["pending"]["timezone"],
        )

    def test_the_present_zone_takes_a_change_back(self, call):
        shown = call("GET", "/settings")
        call("PUT", "/settings", json={"timezone": "Asia/Tokyo"})

        assert shown == call("PUT", "/settings", json={"timezone": "UTC"})

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("Berlin", "Did you mean Europe/Berlin?"),
            ("europe/berlin", "Did you mean Europe/Berlin?"),
            ("Europe/Berlinn", "Did you mean Europe/Berlin?"),
            ("New York", "Did you mean America/New_York?"),
            ("+02:00", "IANA"),
            ("", "IANA"),
            ("../etc/passwd", "IANA"),
            ("localtime", "IANA"),
        ],
    )
    def test_other_names_are_refused(self, call, name, hint):
        errors = call("PUT", "/settings", json={"timezone": name}, status=422)["error"]["errors"]

        assert hint in errors["timezone"][0]
        assert call("GET", "/settings")["pending"] is None

    @pytest.mark.parametrize("body", [{}, {"timezone": None}, {"timezone": 1}, {"timezone": "UTC", "zone": "UTC"}])
    def test_other_bodies_are_refused(self, call, body):
        call("PUT", "/settings", json=body, status=422)

    def test_the_environment_has_that_of_a_new_store(self, make_app, admin, clock):
        """Until an admin sets one, and budgets go by it."""
        client = make_app(LLMGATEWAY_TIMEZONE="Asia/Tokyo").test_client()
        assert "Asia/Tokyo" == client.get("/admin/settings", headers=admin).json["timezone"]

        key = client.post(
            "/admin/keys",
            json={"user": "ada", "limits": {"budget": {"amount": 1, "unit": "requests", "period": "day"}}},
            headers=admin,
        ).json["key"]
        assert [200, 429] == statuses(client, key, key)
        message = ask(client, key).json["error"]["message"]
        zones = client.application.extensions[EXTENSION].policy.time_zones()
        end = LocalDay.at(moment(clock()), zones).end(Period.DAY)
        assert f"It renews at {end.astimezone(zones.at(end)):%Y-%m-%d} 00:00:00 +09:00." in message
        clock.advance((end - moment(clock())).total_seconds())
        assert [200, 429] == statuses(client, key, key)

    def test_days_of_23_and_25_hours_have_one_budget(self, client, call, new_key, clock):
        """The budget of the day on which the clocks change renews at midnight, neither before nor after."""
        call("PUT", "/settings", json={"timezone": "Europe/Berlin"})
        clock.advance(3 * 24 * 3600)
        budget = {"amount": 1, "unit": "requests", "period": "day"}
        key = new_key(limits={"budget": budget})["key"]
        for start, hours in (("2026-03-29T00:00:00+01:00", 23), ("2026-10-25T00:00:00+02:00", 25)):
            begin = datetime.fromisoformat(start).astimezone(UTC)
            clock.advance((begin - moment(clock())).total_seconds())
            assert [200, 429] == statuses(client, key, key)
            clock.advance(hours * 3600 - 1)
            assert [429] == statuses(client, key)
            clock.advance(1)
            assert [200, 429] == statuses(client, key, key)


def test_what_me_shows_is_the_keys_own(client, call, adas):
    """With a raise of it."""
    call("PUT", "/users/ada", json={"limits": FIVE})
    assert NO_LIMITS == me(client, adas[2])["limits"]
