"""Which model and kind of tokens a meter counts."""

from __future__ import annotations

import pytest

from llmgateway.reconcile.meters import Meter, meter_of, model_key, own_meter


@pytest.mark.parametrize(
    ("name", "product", "expected"),
    [
        # Seen in price lists and exports (azure-more.md section 14).
        ("gpt 4o 1120 cached Inp glbl Tokens", "", ("gpt-4o", "1120", "cached", "global", "default")),
        ("gpt-4o-mini-0718-Outp-regnl Tokens", "", ("gpt-4o-mini", "0718", "completion", "regional", "default")),
        ("GPT 5 outpt Glbl 1M Tokens", "", ("gpt-5", None, "completion", "global", "default")),
        ("5.5 ShortCo opt Dz 1M Tokens", "", ("gpt-5.5", None, "completion", "zone", "default")),
        ("5.6 sol ShortCo Cd Inp PP Gl", "", ("gpt-5.6-sol", None, "cached", "global", "priority")),
        ("5.4 mini Batch cd Inp Gl", "", ("gpt-5.4-mini", None, "cached", "global", "batch")),
        ("54 mini Inp Flex Gl", "", ("gpt-5.4-mini", None, "prompt", "global", "flex")),
        ("Grok 4.1 Inp DZone Tokens", "", ("grok-4.1", None, "prompt", "zone", "default")),
        # The same words elsewhere, seen in Azure's retail price list (2026-10).
        ("5.6 sol ShortCo Cd Inp Std DZ 1M Tokens", "", ("gpt-5.6-sol", None, "cached", "zone", "default")),
        ("GPT 5 cchd Inpt Glbl 1M Tokens", "", ("gpt-5", None, "cached", "global", "default")),
        ("gpt-5-codex-ccchd-inp-glbl Tokens", "", ("gpt-5-codex", None, "cached", "global", "default")),
        ("gpt 4o 0806 cached Inp Data Zone Tokens", "", ("gpt-4o", "0806", "cached", "zone", "default")),
        ("gpt 5 pro out glbl Tokens", "", ("gpt-5-pro", None, "completion", "global", "default")),
        (
            "o3-deep research 0626-inp-cchd-glbl 1M Tokens",
            "",
            ("o3-deep-research", "0626", "cached", "global", "default"),
        ),
        ("o1 mini cached input glbl Tokens", "", ("o1-mini", None, "cached", "global", "default")),
        ("gpt-35-turbo4K-Outp-glbl Tokens", "", ("gpt-35-turbo", None, "completion", "global", "default")),
        ("gpt-4-8K-Inp-glbl Tokens", "", ("gpt-4", None, "prompt", "global", "default")),
        ("gpt-4-32K-Inp-glbl Tokens", "", ("gpt-4-32k", None, "prompt", "global", "default")),
        ("gpt-4o-0806-cached-FT-inp-glbl Tokens", "", ("gpt-4o-ft", "0806", "cached", "global", "default")),
        ("gpt-4o-aud-0603 Inp glbl Tokens", "", ("gpt-4o-audio-preview", "0603", "prompt", "global", "default")),
        (
            "gpt-4o-rt-txt-1217 cchd Inp glbl Tokens",
            "",
            ("gpt-4o-realtime-preview", "1217", "cached", "global", "default"),
        ),
        ("gpt 4o 1120 Aud Inp glbl Tokens", "", ("gpt-4o", "1120", "prompt", "global", "default")),
        ("gpt aud mn in gl 1215 1M Tokens", "", ("gpt-audio-mini", "1215", "prompt", "global", "default")),
        ("gpt-image-1-inp-cached-img-glbl Tokens", "", ("gpt-image-1", None, "cached", "global", "default")),
        ("gpt-image-1-output-img-glbl Tokens", "", ("gpt-image-1", None, "completion", "global", "default")),
        ("gpt-oss-120B Outp glbl Tokens", "", ("gpt-oss-120b", None, "completion", "global", "default")),
        ("text-embedding-3-large-glbl Tokens", "", ("text-embedding-3-large", None, "prompt", "global", "default")),
        ("Phi-4-Input Tokens", "", ("phi-4", None, "prompt", None, "default")),
        ("V4 Flash cached glbl Tokens", "", ("deepseek-v4-flash", None, "cached", "global", "default")),
        # The name leaves the family out, and the subcategory has it.
        ("R1 Inp glbl Tokens", "Azure Deepseek Models", ("deepseek-r1", None, "prompt", "global", "default")),
        ("4.6 Inp DZ Tokens", "Azure Grok Models", ("grok-4.6", None, "prompt", "zone", "default")),
        ("Image 2.5 Image Input glbl Tokens", "MAI Models", ("mai-image-2.5", None, "prompt", "global", "default")),
        # A model that no price list has.
        ("gpt 9 nova Inp glbl Tokens", "", ("gpt-9-nova", None, "prompt", "global", "default")),
        ("9.1 nova opt Gl 1M Tokens", "", ("gpt-9.1-nova", None, "completion", "global", "default")),
    ],
)
def test_reads_names_of_meters(name, product, expected):
    """Words are abbreviated in many ways, and stand in any order."""
    meter = meter_of(name, product=product)

    assert expected == (meter.model, meter.version, meter.kind, meter.scope, meter.tier)


def test_tokens_written_to_the_cache_are_of_the_prompt():
    """They are billed at a price of their own, and were not read from the cache."""
    meter = meter_of("5.6 sol ShortCo Wr Inp Gl 1M Tokens")

    assert ("gpt-5.6-sol", "prompt", True) == (meter.model, meter.kind, meter.cache_write)
    assert meter_of("5.6 sol LongCo Inp Gl 1M Tokens").long_context


@pytest.mark.parametrize(
    "name",
    [
        "Image-DALL-E-2-glbl Images",
        "Assistants-File Search-glbl GB",
        "file-search-tool-calls-glbl Calls",
        "babbage-002-FT-Hstng-glbl Unit",
        "gpt 4.1 nano dev ft training glbl Tokens",
        "S1 Neural Text To Speech Characters",
        "gpt 4o glbl Tokens",
        "gpt 4o Inp Outp glbl Tokens",
        "gpt 4o cached Outp glbl Tokens",
        "Inp glbl Tokens",
        "Commitment Tier",
        "",
    ],
)
def test_does_not_guess_other_meters(name):
    """What is not tokens of a model's prompt or completion is not known."""
    assert meter_of(name) is None


def test_the_identifier_takes_precedence_over_the_name():
    """Names change; an identifier is always of the same meter."""
    known = meter_of("Name of tomorrow", meter_id="D8D5A4D3-4908-58b6-ad10-aa8ff748c8e8")

    assert ("gpt-5", "cached", "global") == (known.model, known.kind, known.scope)


@pytest.mark.parametrize("text", ["Quasar = 9=house:completion", "ABC-1=house:completion"])
def test_somebody_can_say_what_a_meter_counts(text):
    """By its name, which may contain an equals sign, or by its identifier."""
    name, meter = own_meter(text)

    assert Meter(model="house", kind="completion") == meter
    assert meter == meter_of("Quasar = 9", meter_id="abc-1", own={name: meter})


@pytest.mark.parametrize("text", ["", "a", "a=b", "a=b:tokens", "=b:prompt", "a=:prompt"])
def test_says_how_to_write_what_a_meter_counts(text):
    with pytest.raises(ValueError, match="METER=MODEL:KIND, where KIND is one of prompt, cached, completion"):
        own_meter(text)


@pytest.mark.parametrize(
    "names",
    [
        ("gpt-4o", "GPT-4o-2024-11-20", "gpt 4o"),
        ("gpt-35-turbo", "gpt-3.5-turbo-0125"),
        ("grok-4.1", "grok-4-1-fast-reasoning", "grok-4-1-fast-non-reasoning"),
        ("grok-3-mini", "grok-3-mini-high"),
        ("gpt-5.6-sol", "openai/gpt-5.6-sol-2026-07-09"),
    ],
)
def test_names_of_one_model_have_one_key(names):
    """Versions, efforts, separators and upper case make no difference."""
    assert 1 == len(set(map(model_key, names)))


def test_different_models_have_different_keys():
    assert 4 == len({*map(model_key, ("gpt-5", "gpt-5-mini", "gpt-5.1", "gpt-4.1"))})
