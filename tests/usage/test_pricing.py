"""The cost of tokens."""

from __future__ import annotations

import math

import genai_prices
import pytest
from genai_prices.data import providers
from hypothesis import given
from hypothesis import strategies as st

from llmgateway.records import ModelSettings, Prices, Usage
from llmgateway.usage.pricing import cost_usd, highest_cost_usd, list_prices, prices_of_table, shipped_table

USAGE = Usage(prompt_tokens=1_000_000, completion_tokens=100_000)
HOUSE = Prices(
    prompt=2.0,
    cached=0.5,
    completion=10.0,
    audio_prompt=40.0,
    audio_completion=80.0,
    image=3.0,
    above=200_000,
    long_context=Prices(prompt=4.0, cached=1.0, completion=15.0),
    tiers={
        "priority": Prices(prompt=4.0, cached=1.0, completion=20.0),
        "flex": Prices(prompt=1.0, cached=0.25, completion=5.0),
    },
)
OWN = {
    "ours": ModelSettings(prices=Prices(prompt=2.0, cached=0.5, completion=10.0)),
    "House": ModelSettings(prices=HOUSE),
    "slow": ModelSettings(tokens_per_second=3.0),
}


def used(prompt: int = 1000, completion: int = 500, **counts: int) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion, **counts)


def test_knows_list_prices():
    """GPT-4o mini costs 0.15 USD for a million tokens of prompt and 0.60 of completion (Azure and OpenAI, 2024)."""
    assert 0.15 + 0.06 == pytest.approx(cost_usd(USAGE, "gpt-4o-mini", own={}))


AUDIO = {"audio_prompt_tokens": 900, "audio_completion_tokens": 400}


@pytest.mark.parametrize(
    ("model", "tier", "usage", "dollars"),
    [
        # The inputs of issue 11, and others of their kind. Azure's and OpenAI's price lists, 2026-11.
        ("gpt-4o-audio-preview", None, used(**AUDIO), 0.06925),
        ("gpt-4o-audio-preview-2024-12-17", None, used(**AUDIO), 0.06925),
        ("gpt-4o-audio-preview", None, used(audio_prompt_tokens=900), 0.00025 + 0.036 + 0.005),
        ("gpt-4o-audio-preview", None, used(audio_completion_tokens=500), 0.0025 + 0.04),
        ("gpt-4o-audio-preview", None, used(), 0.0075),
        ("gpt-4o-mini-audio-preview", None, used(**AUDIO), 0.000015 + 0.009 + 0.00006 + 0.008),
        ("gpt-audio", None, used(**AUDIO), 0.06925),
        ("gpt-4o", None, used(), 0.0075),
        ("gpt-4o", "default", used(), 0.0075),
        ("gpt-4o", "auto", used(), 0.0075),
        ("gpt-4o", "scale", used(), 0.0075),
        ("gpt-4o", "priority", used(), 0.01275),
        ("gpt-4o", "Priority", used(), 0.01275),
        ("gpt-4o-2024-11-20", "priority", used(), 0.01275),
        ("gpt-4o", "priority", used(cached_tokens=600), 0.0017 + 0.001275 + 0.0085),
        ("gpt-4o", "flex", used(), 0.0075),  # served as default: only some models have a price for flex
        ("gpt-4o", None, used(image_prompt_tokens=400), 0.0075),  # images are tokens of text
        ("gpt-5.6-sol", None, used(1000, 1000), 0.024),
        ("gpt-5.6-sol", "priority", used(1000, 1000), 0.048),
        ("gpt-5.6-sol", "flex", used(1000, 1000), 0.012),
        ("gpt-5.6-sol", None, used(272_000, 1000), 1.088 + 0.02),
        ("gpt-5.6-sol", None, used(272_001, 1000), 2.176008 + 0.03),  # the whole request, not the excess
        ("gpt-5.6-sol", "priority", used(300_000, 1000), 4.8 + 0.06),
        ("DeepSeek-R1", None, used(1_000_000, 0), 1.35),
        ("gpt-oss-120b", None, used(1_000_000, 0), 0.15),
        ("o3-mini", None, used(1000, 1000, reasoning_tokens=900), 0.0011 + 0.0044),
        ("text-embedding-3-small", None, used(1_000_000, 0), 0.022),
    ],
)
def test_prices_what_azure_bills(model, tier, usage, dollars):
    """Every kind of token, service tier and length has its own price."""
    assert dollars == pytest.approx(cost_usd(usage, model, own={}, service_tier=tier), rel=1e-9)


@pytest.mark.parametrize("usage", [used(audio_prompt_tokens=1), used(audio_completion_tokens=1)])
def test_does_not_guess_the_price_of_audio(usage):
    """It costs up to forty times as much as text."""
    assert cost_usd(usage, "ours", own=OWN) is None


@pytest.mark.parametrize("model", ["whisper", "whisper-1", "tts-1", "model-router", "gpt-4o-but-tuned", "nobody-knows"])
def test_what_is_not_sold_by_tokens_has_no_price(model):
    """A model that is billed by the minute, or that nobody knows, does not cost 0. Nothing costs nothing."""
    assert cost_usd(used(), model, own={}) is None
    assert 0.0 == cost_usd(Usage(), model, own={})


@pytest.mark.parametrize(
    ("usage", "tier", "millionths"),
    [
        (used(cached_tokens=400), None, 600 * 2 + 400 * 0.5 + 500 * 10),
        (used(cached_tokens=400, audio_prompt_tokens=500), None, 100 * 2 + 400 * 0.5 + 500 * 40 + 500 * 10),
        # Which of the tokens were in the cache is not reported, so the dearer ones were not.
        (used(cached_tokens=700, audio_prompt_tokens=500), None, 500 * 0.5 + 500 * 40 + 500 * 10),
        (used(image_prompt_tokens=300, **AUDIO), None, 100 * 3 + 900 * 40 + 100 * 10 + 400 * 80),
        (used(audio_completion_tokens=9000), None, 1000 * 2 + 500 * 80),
        (used(200_000, 0), None, 200_000 * 2),
        (used(200_001, 10, cached_tokens=1), None, 200_000 * 4 + 1 + 10 * 15),
        (used(), "priority", 1000 * 4 + 500 * 20),
        (used(), "flex", 1000 * 1 + 500 * 5),
        (used(), "batch", 1000 * 2 + 500 * 10),
        (used(1000, 500, audio_prompt_tokens=100), "flex", 900 * 2 + 100 * 40 + 500 * 10),  # flex has no audio price
        (used(300_000, 0), "flex", 300_000 * 4),  # nor one for long prompts
    ],
)
def test_own_prices_know_every_kind(usage, tier, millionths):
    """Own prices have the same kinds, tiers and steps as list prices. Where flex has none, the default price holds."""
    cost = cost_usd(usage, "house", own=OWN, service_tier=tier)

    assert millionths / 1e6 == pytest.approx(cost, rel=1e-9)


def test_long_prompts_with_priority_cost_twice_the_price_of_long_prompts():
    """The price of short prompts at this tier would be too cheap."""
    assert 2.4 == pytest.approx(cost_usd(used(300_000, 0), "house", own=OWN, service_tier="priority"))


def test_cached_tokens_are_a_cheaper_part_of_the_prompt():
    """Cached tokens cost less, and are not counted twice. Without a price of their own they cost as much."""
    half = Usage(prompt_tokens=1_000_000, cached_tokens=500_000)

    full = cost_usd(Usage(prompt_tokens=1_000_000), "gpt-4o-mini", own={})
    assert 0 < cost_usd(half, "gpt-4o-mini", own={}) < full
    assert 1.25 == pytest.approx(cost_usd(half, "ours", own=OWN))
    assert 1.35 == pytest.approx(cost_usd(half, "deepseek-r1", own={}))


def test_an_own_price_wins():
    """The organisation's own price applies to any name of the model, in upper or lower case, in every version."""
    assert 3.0 == pytest.approx(cost_usd(USAGE, "gpt-4o-mini", None, "ours", own=OWN))
    assert 3.0 == pytest.approx(cost_usd(USAGE, "gpt-4o-mini", None, "OURS", own=OWN))
    assert 3.0 == pytest.approx(cost_usd(USAGE, "ours-2026-01-31", own=OWN))
    assert cost_usd(USAGE, "slow", own=OWN) is None


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


@pytest.mark.parametrize(
    ("written", "model"),
    [
        ("GPT-4o", "gpt-4o"),
        ("gpt-4o-2031-01-31", "gpt-4o"),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-05-13"),
        ("gpt-35-turbo", "gpt-3.5-turbo"),
        ("gpt-35-turbo-0125", "gpt-3.5-turbo-0125"),
        ("gpt-41-mini", "gpt-4.1-mini"),
        ("gpt_4o_mini", "gpt-4o-mini"),
        ("GPT-4O-AUDIO-PREVIEW", "gpt-4o-audio-preview-2024-12-17"),
        ("gpt-4o-audio-preview-2031-01-31", "gpt-4o-audio-preview"),
        ("grok-3-mini-high", "grok-3-mini"),
        ("Llama-3.3-70B-Instruct", "llama-3.3-70b-instruct"),
    ],
)
def test_finds_names_as_people_and_azure_write_them(written, model):
    """Upper case, other separators, and versions that are not in the table."""
    assert list_prices(written) is not None
    assert list_prices(written) == list_prices(model)


def test_a_version_with_a_price_of_its_own_keeps_it():
    """The first GPT-4o was twice as dear."""
    assert 5.0 == list_prices("gpt-4o-2024-05-13").prompt
    assert 2.5 == list_prices("gpt-4o").prompt


def test_data_zones_have_prices_of_their_own():
    """They are a tenth dearer (azure-more.md section 11)."""
    assert (2.5, 2.75, 2.75) == tuple(list_prices("gpt-4o", zone).prompt for zone in ("global", "eu", "us"))
    assert list_prices("gpt-4o", "regional") is None


def test_a_change_of_own_prices_is_in_force_at_once():
    """The cache belongs to one version of the settings."""
    for price in (1.0, 2.0):
        own = {"gpt-4o": ModelSettings(prices=Prices(prompt=price, cached=0, completion=0))}
        assert price == cost_usd(Usage(prompt_tokens=1_000_000), "gpt-4o", own=own)
    assert 2.5 == cost_usd(Usage(prompt_tokens=1_000_000), "gpt-4o", own={})


PLAIN = {
    "gpt-4o": ModelSettings(prices=Prices(prompt=1, completion=10)),
    "ours": ModelSettings(prices=Prices(prompt=1)),
}


@pytest.mark.parametrize(("model", "factor"), [("gpt-4o", 1.7), ("ours", 2.0)])
def test_priority_without_a_price_costs_as_many_times_the_default_as_in_the_list(model, factor):
    """A deployment can be set to serve all its requests at this tier, so its cost must not be unknown, or too low."""
    usage = Usage(prompt_tokens=1_000_000)

    assert factor == pytest.approx(cost_usd(usage, model, own=PLAIN, service_tier="priority"))
    assert cost_usd(usage, "nobody-knows", own=PLAIN, service_tier="priority") is None


def test_images_cost_as_much_as_text_where_they_have_no_price():
    """Otherwise one picture would make a whole request free."""
    usage = Usage(prompt_tokens=1_000_000, completion_tokens=100_000, image_prompt_tokens=900_000)

    assert 2.0 == pytest.approx(cost_usd(usage, "gpt-4o", own=PLAIN))


def test_the_highest_known_cost_counts_until_the_tier_is_known():
    """Azure may serve a request at another tier than the client asks for."""
    tiers = (None, "priority", "flex")

    assert 17.0 == pytest.approx(
        highest_cost_usd(Usage(completion_tokens=1_000_000), "gpt-4o", own=PLAIN, service_tiers=tiers)
    )
    assert highest_cost_usd(Usage(prompt_tokens=1), "nobody-knows", own=PLAIN, service_tiers=tiers) is None


@given(
    st.builds(
        Usage,
        prompt_tokens=st.integers(0, 2**53),
        completion_tokens=st.integers(0, 2**53),
        cached_tokens=st.integers(0, 2**53),
        reasoning_tokens=st.integers(0, 2**53),
        audio_prompt_tokens=st.integers(0, 2**53),
        audio_completion_tokens=st.integers(0, 2**53),
        image_prompt_tokens=st.integers(0, 2**53),
    ),
    st.sampled_from(["gpt-4o-mini", "gpt-audio", "ours", "house", "o3-mini", "gpt-5", "x"]) | st.text(max_size=10),
    st.sampled_from([None, "priority", "flex", "default"]) | st.text(max_size=10),
)
def test_no_count_makes_a_bill_negative_or_fail(usage, model, tier):
    """For any counts, the cost is a number of at least 0, or None."""
    cost = cost_usd(usage, model, own=OWN, service_tier=tier)

    assert cost is None or cost >= 0


class TestTable:
    """What is in ``prices.json``."""

    def test_has_a_source_and_a_day_for_each_row(self):
        """Every price can be checked."""
        rows = shipped_table()["prices"]

        assert all(row["source"] and len(row["date"]) == 10 for row in rows)
        assert len(rows) == len({(row["model"], row["deployment"], row["tier"], row["above"]) for row in rows})

    def test_has_no_price_of_zero(self):
        """A model that is billed in another way is not in the table."""
        for row in shipped_table()["prices"]:
            prices = [value for name, value in row.items() if isinstance(value, float) and name != "above"]
            assert prices
            assert min(prices) > 0

    @pytest.mark.parametrize("zone", ["global", "eu", "us"])
    def test_dearer_is_dearer(self, zone):
        """Priority and long prompts never cost less than the default; flex and batch never more."""
        for model, prices in prices_of_table(shipped_table(), zone).items():
            for tier, of_tier in prices.tiers.items():
                ratio = of_tier.prompt / prices.prompt
                assert ratio > 1 if tier == "priority" else ratio <= 1, (model, tier)
            if prices.long_context is not None:
                assert prices.long_context.prompt > prices.prompt, model

    def test_names_that_look_alike_have_one_price(self):
        """Names are compared without their separators."""
        found: dict[str, Prices] = {}
        for model, prices in prices_of_table(shipped_table()).items():
            assert prices == found.setdefault("".join(filter(str.isalnum, model)), prices), model


BY_OTHERS = "Azure's own price; genai-prices has the one of other sellers of the weights"
OF_AZURE = "Azure's own price (LiteLLM); genai-prices has OpenAI's"
CACHED = "Azure has a price for cached tokens (LiteLLM); genai-prices has none"
DIFFERENT = {
    "gpt-oss-120b": BY_OTHERS,
    "text-embedding-3-large": OF_AZURE,
    "text-embedding-3-small": OF_AZURE,
    "text-embedding-ada-002": OF_AZURE,
    "gpt-3.5-turbo-instruct": OF_AZURE,
    "gpt-4-turbo": OF_AZURE,
    "gpt-5.4-pro": CACHED,
    "gpt-5.5-pro": CACHED,
    "gpt-4o-search-preview": CACHED,
    "gpt-4o-mini-tts": "LiteLLM has the price of text, genai-prices that of audio",
    "o4-mini-deep-research": "genai-prices takes it for o4-mini",
    "gpt-5.6-cyber": "genai-prices knows no price for long prompts",
}
"""Models whose price is another one in genai-prices, and why."""
QUESTIONS = (
    Usage(prompt_tokens=1_000_000 // 8),
    Usage(prompt_tokens=1000, cached_tokens=1000),
    Usage(prompt_tokens=1, completion_tokens=1000),
    Usage(prompt_tokens=300_000, cached_tokens=1000),
)


def of_genai(usage: Usage, model: str) -> float | None:
    asked = genai_prices.Usage(
        input_tokens=usage.prompt_tokens,
        cache_read_tokens=usage.cached_tokens,
        output_tokens=usage.completion_tokens,
    )
    for provider in ("azure", "openai"):
        try:
            return float(genai_prices.calc_price(asked, model, provider_id=provider).total_price)
        except LookupError:
            continue
    return None


def test_agrees_with_genai_prices():
    """The table has the prices of another data set, for all models that both know, but for those that are listed."""
    names = {model.id for provider in providers if provider.id in ("azure", "openai") for model in provider.models}
    known = {name for name in names if list_prices(name) is not None and of_genai(QUESTIONS[0], name)}
    different = set()
    for name in known:
        for usage in QUESTIONS:
            ours, theirs = cost_usd(usage, name, own={}), of_genai(usage, name)
            # Embeddings have no completion: a price for it is unknown here, and 0 there.
            if ours is not None and not math.isclose(ours, theirs or 0.0, rel_tol=1e-9):
                different.add(name)

    assert len(known) > 80
    assert DIFFERENT.keys() == different


def test_tools_that_azure_runs_are_priced_by_use():
    """On top of the tokens. Own prices count for the tools that they name. Without a price the cost is not known."""
    prices = Prices(prompt=2.0, completion=10.0, tools={"web_search": 10.0, "image_generation": 40})
    own = {"ours": ModelSettings(prices=prices)}

    def cost(model: str, **uses: int) -> float | None:
        return highest_cost_usd(used(), model, own=own, service_tiers={None}, tool_uses=uses)

    listed = cost("gpt-4o", web_search=2, code_interpreter=1, file_search=1)
    ours = cost("ours", web_search=1, image_generation=1, code_interpreter=1)
    assert math.isclose(cost("gpt-4o") + 2 * 0.014 + 0.03 + 0.0025, listed)
    assert math.isclose(cost("ours") + 0.01 + 0.04 + 0.03, ours)
    assert cost("gpt-4o", image_generation=1) is None
    assert cost("nobody's", web_search=1) is None


class TestUnits:
    """Models that are priced by the minute, the character or the image."""

    WHISPER = {"w": ModelSettings(prices=Prices(prompt=0, completion=0, minute=0.006))}

    def test_a_recording_costs_by_the_minute(self):
        """The tokens beside the length are an estimate, and cost nothing."""
        usage = Usage(prompt_tokens=900, completion_tokens=300, audio_seconds=90.0)

        assert pytest.approx(0.009) == cost_usd(usage, "w", own=self.WHISPER)

    def test_list_prices_of_units(self):
        """Whisper costs by the minute, speech by the character, FLUX by the image."""
        assert pytest.approx(0.006) == cost_usd(Usage(prompt_tokens=1, audio_seconds=60), "whisper", own={})
        assert pytest.approx(0.015) == cost_usd(Usage(prompt_tokens=1, characters=1000), "tts", own={})
        assert pytest.approx(0.08) == cost_usd(Usage(completion_tokens=1, images=2), "FLUX-1.1-pro", own={})

    def test_units_without_tokens_are_not_free(self):
        """A number of units is something to pay, also if no token was counted."""
        assert pytest.approx(0.012) == cost_usd(Usage(audio_seconds=120), "whisper-1", own={})

    def test_tokens_count_where_units_have_no_price(self):
        """A model that is priced by the token costs its tokens, however long the recording is."""
        usage = Usage(prompt_tokens=1000, audio_prompt_tokens=1000, audio_seconds=100)

        assert pytest.approx(0.006) == cost_usd(usage, "gpt-4o-transcribe", own={})

    def test_unknown_is_not_free(self):
        """Without the number that the price needs, the cost is not known."""
        assert cost_usd(Usage(prompt_tokens=100), "whisper", own={}) is None
        assert cost_usd(Usage(images=1), "dall-e-3", own={}) is None
