"""The cost of tokens."""

from __future__ import annotations

import genai_prices
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgateway.records import Prices, Usage
from llmgateway.usage.pricing import cost_usd

USAGE = Usage(prompt_tokens=1_000_000, completion_tokens=100_000)
OWN = {"ours": Prices(prompt=2.0, cached=0.5, completion=10.0)}


def test_knows_list_prices():
    """GPT-4o mini costs 0.15 USD for a million tokens of prompt and 0.60 of completion (Azure and OpenAI, 2024)."""
    assert 0.15 + 0.06 == pytest.approx(cost_usd(USAGE, "gpt-4o-mini", own={}))


def test_cached_tokens_are_a_cheaper_part_of_the_prompt():
    """Cached tokens cost less, and are not counted twice."""
    half = Usage(prompt_tokens=1_000_000, cached_tokens=500_000)

    full = cost_usd(Usage(prompt_tokens=1_000_000), "gpt-4o-mini", own={})
    assert 0 < cost_usd(half, "gpt-4o-mini", own={}) < full
    assert 1.25 == pytest.approx(cost_usd(half, "ours", own=OWN))


def test_an_own_price_wins():
    """The organisation's own price applies to any name of the model."""
    assert 3.0 == pytest.approx(cost_usd(USAGE, "gpt-4o-mini", None, "ours", own=OWN))


@pytest.mark.parametrize(
    "names", [("gpt-4o-mini", "nobody-knows"), ("nobody-knows", "gpt-4o-mini"), (None, "gpt-4o-mini")]
)
def test_the_first_name_with_a_price_counts(names):
    """A deployment may have any name if another name of the model has a price."""
    assert 0.21 == pytest.approx(cost_usd(USAGE, *names, own={}))


@pytest.mark.parametrize("names", [(), (None,), ("nobody-knows",), ("", " ")])
def test_says_nothing_where_nobody_knows(names):
    """Without a price the cost is None, not 0."""
    assert cost_usd(USAGE, *names, own={}) is None


@given(
    st.builds(
        Usage,
        prompt_tokens=st.integers(0, 2**53),
        completion_tokens=st.integers(0, 2**53),
        cached_tokens=st.integers(0, 2**53),
        reasoning_tokens=st.integers(0, 2**53),
    ),
    st.sampled_from(["gpt-4o-mini", "ours", "o3-mini", "gpt-5", "x"]) | st.text(max_size=10),
)
def test_no_count_makes_a_bill_negative_or_fail(usage, model):
    """For any counts, the cost is a number of at least 0, or None."""
    cost = cost_usd(usage, model, own=OWN)

    assert cost is None or cost >= 0


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4.1-nano", "o4-mini", "gpt-5.2", "gpt-5.4"])
@given(prompt=st.integers(0, 2_000_000), cached_part=st.floats(0, 1), completion=st.integers(0, 500_000))
def test_a_list_price_is_the_data_sets(model, prompt, cached_part, completion):
    """Cached prices give the same cost as the data set, also for prices with steps."""
    cached = int(prompt * cached_part)
    usage = Usage(prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion)
    asked = genai_prices.Usage(input_tokens=prompt, cache_read_tokens=cached, output_tokens=completion)
    expected = float(genai_prices.calc_price(asked, model, provider_id="azure").total_price)

    assert cost_usd(usage, model, own={}) == pytest.approx(expected, rel=1e-9)
