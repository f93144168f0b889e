"""The page on which admins say what people may make themselves."""

from __future__ import annotations

import re


def test_keys_outside_of_all_groups_are_offered_and_taken_back(owner, call):
    """And the groups that offer some are listed."""
    call("PUT", "/groups/ml", json={"self_service": {"keys": 7, "days": 180}})
    page = owner.open("self-service")
    assert 'groups/group?name=ml"' in page

    offered = {"keys": "2", "days": "90", "models": "gpt-4o, o1", "limits.requests_per_minute": "9"}
    owner.send("self-service", **offered)
    found = call("GET", "/self-service")["without_group"]
    assert (2, 90, ["gpt-4o", "o1"]) == (found["keys"], found["days"], found["models"])
    refused = owner.send("self-service", status=422, keys="many")
    assert 'value="many"' in refused.text
    assert "Not a valid integer" in refused.text
    owner.send("self-service", keys="")
    assert {"without_group": None} == call("GET", "/self-service")


def test_two_admins_at_once_notice_each_other(owner, call):
    """The second one sees what the first has stored, and what was typed."""
    etag = re.search(r'name="etag" value="([^"]+)"', owner.open("self-service"))[1]
    call("PUT", "/self-service", json={"without_group": {"keys": 5}})

    refused = owner.send("self-service", status=412, keys="3", etag=etag).text
    assert "Somebody else has changed this" in refused
    assert 'value="3"' in refused
    assert 5 == call("GET", "/self-service")["without_group"]["keys"]


def test_those_who_may_only_read_see_no_form(named, call):
    call("PUT", "/self-service", json={"without_group": {"keys": 5}})
    viewer = named("viewer")

    assert "may have 5 keys" in viewer.open("self-service")
    viewer.send("self-service", status=403, keys="9")
