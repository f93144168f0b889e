"""What admins let people make themselves."""

from __future__ import annotations

import pytest

NO_LIMITS = dict.fromkeys(("requests_per_minute", "tokens_per_minute", "parallel_requests", "budget"))
MADE = {"keys": 2, "days": None, "models": None, "limits": NO_LIMITS}


def test_a_group_says_what_its_members_may_make(call):
    """Replaced as a whole, and left alone by other changes."""
    assert call("PUT", "/groups/ml", json={})["self_service"] is None
    offered = {"keys": 2, "days": 180, "models": ["a"], "limits": {"parallel_requests": 3}}
    assert (
        offered | {"limits": NO_LIMITS | {"parallel_requests": 3}}
        == (call("PATCH", "/groups/ml", json={"self_service": offered})["self_service"])
    )
    assert MADE == call("PATCH", "/groups/ml", json={"self_service": {"keys": 2}})["self_service"]

    assert MADE == call("PATCH", "/groups/ml", json={"note": "Tuesdays"})["self_service"]
    assert MADE == call("GET", "/groups")["items"][0]["self_service"]
    assert call("PATCH", "/groups/ml", json={"self_service": None})["self_service"] is None


@pytest.mark.parametrize(
    ("offered", "field"),
    [
        ({}, "keys"),
        ({"keys": 0}, "keys"),
        ({"keys": 101}, "keys"),
        ({"keys": "many"}, "keys"),
        ({"keys": 1, "days": 0}, "days"),
        ({"keys": 1, "days": 1.5}, "days"),
        ({"keys": 1, "days": 10**9}, "days"),
        ({"keys": 1, "models": []}, "models"),
        ({"keys": 1, "models": ["gpt-4o", "o1"]}, "models"),
        ({"keys": 1, "user": "eve"}, "user"),
        ({"keys": 1, "limits": {"requests_per_minute": 61}}, "limits"),
        ({"keys": 1, "limits": {"budget": {"amount": 101, "unit": "usd", "period": "day"}}}, "limits"),
    ],
)
def test_nothing_above_the_group_is_offered(call, offered, field):
    """Whether it is sent with the group or later."""
    group = {
        "models": ["gpt-4o"],
        "limits": {"requests_per_minute": 60, "budget": {"amount": 100, "unit": "usd", "period": "month"}},
    }
    call("PUT", "/groups/ml", json=group)

    for method, sent in (("PATCH", {}), ("PUT", group)):
        refused = call(method, "/groups/ml", json=sent | {"self_service": offered}, status=422)
        assert [field] == [*refused["error"]["errors"]["self_service"]]
    assert call("GET", "/groups/ml")["self_service"] is None


def test_what_is_changed_at_once_belongs_together(call):
    """The group gets a model, and its members may use it."""
    call("PUT", "/groups/ml", json={"models": ["a"]})

    changed = {"models": ["a", "b"], "self_service": {"keys": 1, "models": ["b"]}}
    assert ["b"] == call("PATCH", "/groups/ml", json=changed)["self_service"]["models"]


def test_keys_outside_of_all_groups(call):
    assert {"without_group": None} == call("GET", "/self-service")
    assert {"without_group": MADE} == call("PUT", "/self-service", json={"without_group": {"keys": 2}})
    assert {"without_group": MADE} == call("GET", "/self-service")
    for wrong in ({}, {"keys": 2}, {"without_group": {"keys": -1}}, {"without_group": []}):
        call("PUT", "/self-service", json=wrong, status=422)
    assert {"without_group": None} == call("PUT", "/self-service", json={"without_group": None})


def test_no_admin_says_that_somebody_else_made_a_key(call, new_key):
    """The field is shown and cannot be sent."""
    made = call("POST", "/keys", status=201, json={"user": "ada"})
    assert made["self_made"] is False
    call("POST", "/keys", status=422, json={"user": "ada", "self_made": True})
    call("PATCH", f"/keys/{made['id']}", status=422, json={"self_made": True})
