"""How many tokens an image has depends on the model."""

from __future__ import annotations

import pytest

from llmgateway.usage.images import USUAL, image_tokens


@pytest.mark.parametrize(
    ("name", "low", "auto"),
    [
        ("gpt-4o", 85, 1_445),
        ("gpt-4o-2024-11-20", 85, 1_445),
        ("gpt-4.1-2025-04-14", 85, 1_445),
        ("gpt-4-turbo-2024-04-09", 85, 1_445),
        ("gpt-4.5-preview", 85, 1_445),
        ("gpt-4o-mini", 2_833, 48_169),
        ("GPT-4o-mini-2024-07-18", 2_833, 48_169),
        ("course_gpt4o-mini", 2_833, 48_169),
        ("gpt-4.1-mini", 2_489, 2_489),
        ("gpt-41-mini", 2_489, 2_489),
        ("gpt-4.1-nano-2025-04-14", 3_779, 3_779),
        ("gpt-5", 70, 1_190),
        ("gpt-5-2025-08-07", 70, 1_190),
        ("gpt-5-chat-latest", 70, 1_190),
        ("gpt-5.1", 70, 1_190),
        ("gpt-5-mini-2025-08-07", 2_489, 2_489),
        ("gpt-5.4-mini", 2_489, 2_489),
        ("gpt-5-nano", 3_779, 3_779),
        ("gpt-5-codex", 1_844, 1_844),
        ("gpt-5.2-2025-12-11", 1_844, 1_844),
        ("gpt-5.4-2026-03-05", 3_000, 3_000),
        ("gpt-5.5", 3_000, 12_000),
        ("gpt-5.6-sol", 3_000, 12_000),
        ("gpt-6-astra", 3_000, 12_000),
        ("o4-mini", 2_642, 2_642),
        ("codex-mini", 2_642, 2_642),
        ("o1-pro-2025-03-19", 75, 1_275),
        ("o3", 75, 1_275),
        ("computer-use-preview", 65, 1_097),
        ("grok-4", 1_792, 1_792),
        ("mistral-medium-2505", 3_080, 3_080),
        ("pixtral-large-2411", 4_160, 4_160),
        ("foo1", 85, 1_445),
        ("made-up", 85, 1_445),
    ],
)
def test_knows_the_families(name, low, auto):
    """An unknown model needs what GPT-4o needs."""
    found = image_tokens(name)

    assert (low, auto) == (found.of("low"), found.of(None))


@pytest.mark.parametrize(
    ("name", "high", "original"),
    [
        ("gpt-4o", 1_445, 1_445),
        ("gpt-5-mini", 2_489, 2_489),
        ("gpt-5.4", 3_000, 12_000),
        ("gpt-5.5", 3_000, 12_000),
        ("gpt-6-sol", 3_000, 36_000),
    ],
)
def test_an_image_may_keep_its_size(name, high, original):
    """Recent models do not make it smaller if they are asked not to."""
    found = image_tokens(name)

    assert (high, original) == (found.of("high"), found.of("original"))


@pytest.mark.parametrize("detail", [None, "auto", "huge", 7, {}, []])
def test_a_detail_that_nobody_knows_is_none(detail):
    """Azure refuses it or ignores it."""
    assert USUAL.auto == USUAL.of(detail)


def test_the_first_name_that_is_known_counts():
    """The name in an answer of the deployment comes before the name of the deployment, which can be anything."""
    assert image_tokens("gpt-4o-mini") == image_tokens("gpt-4o-mini-2024-07-18", "o3")
    assert image_tokens("o3") == image_tokens(None, "", "my-course", "o3", "gpt-4o-mini")
