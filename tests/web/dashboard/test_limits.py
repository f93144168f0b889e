"""The page of the limits of everybody together."""

from __future__ import annotations

from tests.web.dashboard.reading import etag_of

LIMITS = {
    "limits.requests_per_minute": "1,200",
    "limits.tokens_per_minute": "",
    "limits.budget.amount": "500.5",
    "limits.budget.unit": "usd",
    "limits.budget.period": "month",
}


def test_limits_are_set_and_shown_with_what_is_left(owner, call):
    page = owner.send_and_follow("limits", etag=etag_of(owner.open("limits")), **LIMITS)

    assert "$500.50" in page
    assert 'value="1200"' in page
    limits = call("GET", "/limits")
    assert (1200, None, 500.5) == (
        limits["requests_per_minute"],
        limits["tokens_per_minute"],
        limits["budget"]["amount"],
    )
    owner.send_and_follow("limits")
    assert call("GET", "/limits")["budget"] is None


def test_what_is_no_limit_is_said_at_its_field(owner, call):
    """What was typed stays in the form, and nothing is stored."""
    page = owner.send(
        "limits", status=422, **LIMITS | {"limits.tokens_per_minute": "1.5", "limits.budget.amount": "-1"}
    )

    assert 'id="limits.tokens_per_minute-wrong"' in page.text
    assert 'id="limits.budget.amount-wrong"' in page.text
    assert 'value="1,200"' in page.text
    assert call("GET", "/limits")["requests_per_minute"] is None


def test_two_admins_on_one_form(owner, call):
    tag = etag_of(owner.open("limits"))
    call("PUT", "/limits", json={"parallel_requests": 7})

    page = owner.send("limits", status=412, etag=tag, **LIMITS).text

    assert "Somebody else has changed this" in page
    assert "<dt>parallel_requests</dt><dd>7</dd>" in page
    assert 'value="1,200"' in page
    assert 7 == call("GET", "/limits")["parallel_requests"]


def test_a_viewer_looks_and_a_groups_admin_does_not(named, call):
    viewer = named("viewer")
    assert "Set the limits" not in viewer.open("limits")
    viewer.send("limits", status=403, **LIMITS)
    call("PUT", "/groups/ml", json={})
    named("group", "ml").open("limits", status=403)
    assert call("GET", "/limits")["requests_per_minute"] is None
