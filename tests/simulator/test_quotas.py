"""Tokens and requests per minute, as Azure counts them."""

from __future__ import annotations

import pytest

from llmgateway.simulator import Simulator
from llmgateway.simulator.quotas import Quota, estimate

from .calls import CHAT, CLASSIC, call


@pytest.mark.parametrize(
    ("characters", "max_tokens", "answers", "tokens"),
    [(0, None, 1, 16), (9, 100, 1, 103), (8, 100, 3, 302)],
)
def test_an_arrival_is_estimated(characters, max_tokens, answers, tokens):
    """A quarter of the prompt's characters and everything that may be answered."""
    assert estimate(characters, max_tokens=max_tokens, answers=answers) == tokens


def test_requests_are_counted_in_windows_of_ten_seconds(clock):
    """A burst fails although the minute has room, and its failures count."""
    quota = Quota(tokens_per_minute=None, requests_per_minute=12, clock=clock)
    results = [quota.take(1)[1] for _ in range(4)]

    assert [refusal and refusal.what for refusal in results] == [None, None, "call", "call"]
    clock.advance(4)
    assert quota.take(1)[1].retry_after == 6
    clock.advance(6)
    assert quota.take(1)[1] is None


def test_tokens_are_counted_until_the_minute_is_over(clock):
    """What was refused is not counted."""
    quota = Quota(tokens_per_minute=10_000, requests_per_minute=6000, clock=clock)

    assert quota.take(9_000) == ((6000, 10_000, 5999, 1_000, 10_000, 60_000), None)
    clock.advance(20)
    assert quota.take(2_000)[1] == ("token", 40)
    assert quota.take(1_000)[1] is None
    clock.advance(40)
    assert quota.take(10_000)[1] is None


def test_six_requests_come_with_every_thousand_tokens(clock):
    """The ratio that Azure gives a deployment."""
    quota = Quota(tokens_per_minute=2_000, requests_per_minute=None, clock=clock)
    results = [quota.take(1)[1] for _ in range(3)]

    assert [refusal and refusal.what for refusal in results] == [None, None, "call"]


def test_a_deployment_over_its_limit_answers_429(clock):
    """With the text and the headers that clients read; the next minute serves again."""
    with Simulator(tokens_per_minute=1_000, requests_per_minute=600, clock=clock) as azure:
        first = call(azure, {**CHAT, "max_tokens": 900}, path=CLASSIC)
        clock.advance(15)
        refused = call(azure, {**CHAT, "max_tokens": 900}, path=CLASSIC)
        clock.advance(45)
        later = call(azure, {**CHAT, "max_tokens": 900}, path=CLASSIC)

    assert [first.status, refused.status, later.status] == [200, 429, 200]
    assert first.headers["x-ratelimit-remaining-tokens"] == "97"
    assert "have exceeded token rate limit" in refused.json["error"]["message"]
    assert "retry after 45 seconds" in refused.json["error"]["message"]
    assert refused.headers["retry-after"] == "45"
    assert refused.headers["x-ratelimit-limit-tokens"] == "1000"
    assert refused.headers["x-ratelimit-remaining-tokens"] == "0"


def test_every_answer_of_several_is_reserved(clock):
    """max_tokens counts n times."""
    with Simulator(tokens_per_minute=1_000, clock=clock) as azure:
        assert call(azure, {**CHAT, "max_tokens": 600, "n": 2}).status == 429


def test_a_call_that_has_too_many_tokens_is_still_a_call(clock):
    """What one limit refuses counts toward the other."""
    quota = Quota(tokens_per_minute=10, requests_per_minute=6, clock=clock)

    assert [quota.take(100)[1].what, quota.take(1)[1].what] == ["token", "call"]


def test_an_image_is_no_text(clock):
    """The data of an image does not count as characters of the prompt."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    body = {**CHAT, "messages": [{"role": "user", "content": [picture]}]}
    with Simulator(tokens_per_minute=1_000, clock=clock) as azure:
        assert call(azure, body).status == 200


def test_a_failed_request_counts(clock):
    """A request that is refused for its content has used one of the calls."""
    with Simulator(requests_per_minute=6, clock=clock) as azure:
        assert [call(azure, {**CHAT, "messages": []}).status, call(azure).status] == [400, 429]
