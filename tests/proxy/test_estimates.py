"""What a request is estimated to use before it is sent."""

from __future__ import annotations

import json

import pytest

from llmgateway.accounts.principal import Principal
from llmgateway.azure.endpoint import Endpoint
from llmgateway.proxy.estimates import estimate_use
from llmgateway.ratelimit.rules import Estimate
from llmgateway.records import (
    UNLIMITED,
    Budget,
    Group,
    KeyRecord,
    Limits,
    ModelSettings,
    Organisation,
    Period,
    Prices,
    Unit,
)
from llmgateway.usage.models import LONGEST_ANSWER
from tests.parts import NEW_YEAR, draft
from tests.proxy.requests import prepared

PROMPT_TOKENS = 10
ENDPOINT = Endpoint.parse("https://x.openai.azure.com/openai/v1")
DOLLARS = Limits(budget=Budget(amount=1, unit=Unit.USD, period=Period.DAY))


def principal(
    key: Limits = UNLIMITED, group: Limits = UNLIMITED, everybody: Limits = UNLIMITED, **organisation: object
) -> Principal:
    record = KeyRecord(id="key_1", digest="0", user="ada", name="x", created_at=NEW_YEAR, group="ml", limits=key)
    groups = {"ml": Group(name="ml", created_at=NEW_YEAR, limits=group)}
    return Principal(record, Organisation(limits=everybody, groups=groups, **organisation))


def estimate(
    who: Principal | None = None,
    *,
    model: str = "gpt-4o",
    endpoint: Endpoint = ENDPOINT,
    model_name: str | None = None,
    usual_tokens: int = 256,
    mean_tokens: float | None = None,
    **fields: object,
) -> Estimate:
    """The estimate for a body with *fields*."""
    messages = [{"role": "user", "content": "Hello"}]
    body = json.dumps({"model": model, "messages": messages, **fields}).encode()
    chat = prepared(body, endpoint=endpoint)
    return estimate_use(
        draft(prompt_tokens=PROMPT_TOKENS),
        chat,
        who or principal(),
        chat.asked,
        model_name=model_name,
        usual_tokens=usual_tokens,
        mean_tokens=mean_tokens,
    )


def tokens(found: Estimate) -> tuple[int, int, int, int]:
    """The tokens of the estimate's answer: at most, likely, at least, and per minute."""
    return tuple(
        number - PROMPT_TOKENS
        for number in (found.most.tokens, found.likely.tokens, found.least.tokens, found.per_minute)
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 100}, 100),
        ({"max_completion_tokens": 100}, 100),
        ({"max_tokens": 100, "max_completion_tokens": 50}, 100),
        ({"max_tokens": 100, "n": 3}, 300),
        ({"max_tokens": 1, "n": 128}, 128),
        ({"max_tokens": 1}, 1),
        ({"max_tokens": 100.0}, 100),
        ({"max_tokens": 16_385}, 16_384),
        ({"max_tokens": 10**9}, 16_384),
        ({"max_tokens": 10**6, "n": 2}, 32_768),
    ],
)
def test_the_limit_of_the_client_is_reserved_everywhere(fields, expected):
    """For each choice, and never more than the model can write."""
    found = estimate(**fields)

    assert (expected,) * 4 == tokens(found)
    assert found.choices is None


@pytest.mark.parametrize("fields", [{}, {"max_tokens": None}, {"n": None}])
def test_without_a_limit_the_model_decides(fields):
    """The longest answer of the model, the least for shared budgets, and a short one where nothing is known."""
    found = estimate(**fields)

    assert (16_384, 2048, 256, 256) == tokens(found)
    assert 1 == found.choices


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-5", (128_000, 2048, 256, 256)),
        ("gpt-4-turbo", (4096, 2048, 256, 256)),
        ("nobody-knows-it", (LONGEST_ANSWER, 2048, 256, 256)),
    ],
)
def test_models_differ(model, expected):
    """A model that is not in the table is assumed to write the longest answers of all."""
    assert expected == tokens(estimate(model=model))


def test_what_admins_set_for_a_model_counts():
    """Also if it is less than any of the other estimates."""
    settings = {"gpt-4o": ModelSettings(max_output_tokens=100)}

    assert (100, 100, 100, 100) == tokens(estimate(principal(models=settings), usual_tokens=500, mean_tokens=5000))


def test_choices_are_multiplied():
    """128 answers may be 128 times as long."""
    found = estimate(n=128)

    assert tuple(128 * each for each in (16_384, 2048, 256, 256)) == tokens(found)
    assert 128 == found.choices


def test_absurd_numbers_can_be_counted():
    """Every counter can hold the most that a request can ask for, and its price."""
    found = estimate(principal(DOLLARS, models={"gpt-4o": ModelSettings(max_output_tokens=10**9)}), n=128)

    assert 128 * 10**9 == tokens(found)[0]
    assert found.most.cost_usd * 10**9 < 2**53


@pytest.mark.parametrize(("mean", "expected"), [(None, 2048), (511.9, 2048), (1000.1, 4001), (10_000, 16_384)])
def test_a_shared_budget_is_reserved_by_the_mean(mean, expected):
    """Four times the mean of recent answers, at least 2,048 and at most what the model can write."""
    assert (16_384, expected, 256, 256) == tokens(estimate(mean_tokens=mean))


def test_limits_per_minute_are_reserved_by_the_keys_own_answers():
    """As long as they usually are, and at most what the model can write."""
    assert (16_384, 2048, 256, 700) == tokens(estimate(usual_tokens=700))
    assert 16_384 == tokens(estimate(usual_tokens=50_000))[3]


def test_the_name_in_azures_answer_says_more_than_the_deployments():
    """A deployment can have any name."""
    assert 16_384 == tokens(estimate(model="my-bot", model_name="gpt-4o-2024-08-06"))[0]
    assert 128_000 == tokens(estimate(model="gpt-4o", model_name="gpt-5-2025-08-07"))[0]


def test_a_client_cannot_choose_a_smaller_model_for_the_estimate():
    """If the deployment is a part of the address, Azure ignores the name that the client sends."""
    address = "https://x.openai.azure.com/openai/deployments/my-bot/chat/completions?api-version=2024-10-21"

    assert LONGEST_ANSWER == tokens(estimate(model="gpt-4-turbo", endpoint=Endpoint.parse(address)))[0]


def priced(who: Principal, prices: Prices) -> Principal:
    """The same with a price of gpt-4o."""
    models = {"gpt-4o": ModelSettings(prices=prices)}
    return Principal(
        who.key, Organisation(limits=who.organisation.limits, groups=who.organisation.groups, models=models)
    )


@pytest.mark.parametrize("who", [principal(DOLLARS), principal(UNLIMITED, DOLLARS), principal(everybody=DOLLARS)])
def test_budgets_in_dollars_are_reserved_at_the_price(who):
    """Prompt and answer, for each of the three amounts."""
    who = priced(who, Prices(prompt=1, cached=1, completion=10))

    found = estimate(who)

    assert [163_850, 20_490, 2570] == [round(use.cost_usd * 10**6) for use in (found.most, found.likely, found.least)]


DEAR = Prices(
    prompt=1,
    completion=10,
    audio_prompt=20,
    audio_completion=80,
    tiers={"priority": Prices(prompt=2, completion=20), "flex": Prices(prompt=0.5, completion=5)},
)
HEARD = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "A" * 10_000, "format": "wav"}}]}]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 1010),
        ({"service_tier": "priority"}, 2020),
        ({"service_tier": "flex"}, 1010),
        ({"service_tier": "auto"}, 1010),
        ({"service_tier": ["priority"]}, 1010),
        ({"modalities": ["text", "audio"]}, 8010),
        ({"modalities": ["text"]}, 1010),
        ({"modalities": "audio"}, 1010),
        ({"messages": HEARD}, 1200),
        ({"messages": HEARD, "modalities": ["audio"]}, 8200),
        ({"messages": HEARD, "modalities": ["audio"], "service_tier": "priority"}, 16_400),
        ({"messages": [{"role": "user", "content": 'type "input_audio"'}]}, 1010),
    ],
)
def test_the_dearest_that_a_request_asks_for_is_reserved(fields, expected):
    """Azure may serve it at a lower tier, or answer in text, and then the rest is given back."""
    found = estimate(priced(principal(DOLLARS), DEAR), max_tokens=100, **fields)

    assert expected == round(found.most.cost_usd * 10**6)


def test_a_tier_without_a_price_costs_more_than_the_default():
    """As many times as in the list."""
    who = priced(principal(DOLLARS), Prices(prompt=1, completion=10))

    assert 1717 == round(estimate(who, max_tokens=100, service_tier="priority").most.cost_usd * 10**6)


def test_a_price_that_nobody_needs_is_not_looked_up():
    """Without a budget in dollars there is nothing to reserve."""
    assert 0.0 == estimate(principal(Limits(tokens_per_minute=1))).most.cost_usd


def test_a_model_without_a_price_costs_nothing():
    """As in the records."""
    assert 0.0 == estimate(principal(DOLLARS), model="nobody-knows-it").most.cost_usd
