"""The codes of Azure's errors, and the kinds of its 429."""

from __future__ import annotations

import pytest

from llmgateway.records import UNKNOWN_QUOTA, Quota
from llmgateway.usage.error_codes import error_code, error_message, kind_of_limit

CALLS = "Requests to the ChatCompletions_Create Operation have exceeded call rate limit of your current OpenAI S0 tier."
TOKENS = "Your requests to gpt-4o have exceeded the token rate limit for your current AIServices S0 pricing tier."
DEMAND = "The system is currently experiencing high demand. It exceeds the maximum usage size during peak load."
LEFT = Quota(limit_tokens=120_000, remaining_tokens=3000)
LOWERED = Quota(limit_tokens=12_000, remaining_tokens=0)


@pytest.mark.parametrize(
    ("message", "quota", "most_tokens", "usual", "kind"),
    [
        (CALLS, UNKNOWN_QUOTA, 0, None, "rate_limit_requests"),
        (CALLS, LEFT, 4000, None, "rate_limit_requests"),
        (TOKENS, UNKNOWN_QUOTA, 4000, None, "rate_limit_tokens"),
        (TOKENS, LEFT, 4000, None, "rate_limit_estimate"),
        (TOKENS, LEFT, 100, None, "rate_limit_tokens"),
        (TOKENS, LEFT, 0, None, "rate_limit_tokens"),
        (TOKENS, LOWERED, 4000, LEFT, "rate_limit_lowered"),
        (TOKENS, LOWERED, 4000, None, "rate_limit_tokens"),
        (DEMAND, LEFT, 4000, None, "capacity"),
        ("", Quota(remaining_requests=0), 0, None, "rate_limit_requests"),
        ("", Quota(remaining_requests=5, remaining_tokens=0), 0, None, "rate_limit_tokens"),
        ("", UNKNOWN_QUOTA, 0, None, "rate_limit"),
    ],
)
def test_tells_the_kinds_of_429_apart(message, quota, most_tokens, usual, kind):
    """By text and headers, also if one of them is missing."""
    assert kind == kind_of_limit(message, quota, prompt_tokens=10, most_tokens=most_tokens, usual=usual)


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"error": {"code": "DeploymentNotFound", "message": "…"}}, "DeploymentNotFound"),
        ({"error": {"code": "429", "type": "Too Many Requests"}}, "Too Many Requests"),
        ({"error": {"code": "404", "message": "Resource not found"}}, None),
        ({"error": {"code": 400, "message": "…"}}, None),
        (
            {"error": {"code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
            "ResponsibleAIPolicyViolation",
        ),
        ({"object": "error", "type": "BadRequestError", "code": 400}, "BadRequestError"),
        ({"type": "error", "error": {"code": "server_error"}}, "server_error"),
        ({"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded"}}}, "rate_limit_exceeded"),
        ({"error": {"code": "a text of the client\nwith lines"}}, None),
        ({"error": {"code": "x" * 61}}, None),
        ({"error": "no object"}, None),
        ([], None),
    ],
)
def test_a_code_is_a_word(document, code):
    """The outermost one that says more than the status; never a text."""
    assert code == error_code(document)


def test_a_message_is_one_short_line():
    """However Azure has sent it."""
    assert "a b" == error_message({"error": {"message": "a\n b"}})
    assert 500 == len(error_message({"error": {"message": "x" * 1000}}))
    assert "" == error_message({"error": {}})


@pytest.mark.parametrize(
    ("now", "before", "lower"),
    [
        (Quota(limit_tokens=9), Quota(limit_tokens=10), True),
        (Quota(limit_requests=9, limit_tokens=10), Quota(limit_requests=10, limit_tokens=10), True),
        (Quota(limit_tokens=10), Quota(limit_tokens=10), False),
        (Quota(remaining_tokens=1), Quota(remaining_tokens=2), False),
        (UNKNOWN_QUOTA, Quota(limit_tokens=10), False),
        (Quota(limit_tokens=10), UNKNOWN_QUOTA, False),
    ],
)
def test_a_quota_is_lower_if_one_of_its_limits_is(now, before, lower):
    """What is left of it says nothing."""
    assert lower is now.is_lower_than(before)
