"""What is known about models by their name."""

from __future__ import annotations

import pytest

from llmgateway.records import ModelSettings
from llmgateway.usage.models import LONGEST_ANSWER, model_facts


@pytest.mark.parametrize(
    ("name", "reasoning", "most"),
    [
        ("gpt-4o-mini-2024-07-18", False, 16_384),
        ("gpt-5-mini-2025-08-07", True, 128_000),
        ("gpt-5-chat-latest", False, 16_384),
        ("gpt-5.1-chat", True, 16_384),
        ("gpt-4", False, 8_192),
        ("gpt-4.1-nano", False, 32_768),
        ("gpt-35-turbo", False, 4_096),
        ("o4-mini", True, 100_000),
        ("grok-4-fast-reasoning", True, LONGEST_ANSWER),
        ("grok-4-fast-non-reasoning", False, LONGEST_ANSWER),
        ("grok-3", False, LONGEST_ANSWER),
        ("grok-3-mini", True, LONGEST_ANSWER),
        ("Mistral-Large-2411", False, LONGEST_ANSWER),
        ("Meta-Llama-3.1-8B-Instruct", False, LONGEST_ANSWER),
        ("Phi-4", False, LONGEST_ANSWER),
        ("Phi-4-reasoning", True, LONGEST_ANSWER),
        ("DeepSeek-V3-0324", False, LONGEST_ANSWER),
        ("DeepSeek-V3.1", True, LONGEST_ANSWER),
        ("DeepSeek-R1", True, LONGEST_ANSWER),
        ("made-up", True, LONGEST_ANSWER),
    ],
)
def test_knows_the_families(name, reasoning, most):
    """An unknown model is assumed to think, and to write long answers."""
    assert (reasoning, most, None) == model_facts(name, own={})


def test_the_first_known_name_decides():
    """A deployment's name may say nothing."""
    assert not model_facts("gpt-4o-2024-11-20", "our-o3", own={}).reasoning
    assert not model_facts(None, "ours", "gpt-4o", own={}).reasoning


def test_what_an_admin_has_set_wins():
    """For any of the names, the most reliable one first, and field by field."""
    own = {
        "ours": ModelSettings(max_output_tokens=500, tokens_per_second=90.0, reasoning=False),
        "grok-4": ModelSettings(tokens_per_second=70.0),
    }

    assert (False, 500, 70.0) == model_facts("grok-4", "ours", own=own)


def test_a_model_that_has_thought_thinks():
    """Unless an admin says that it does not."""
    assert model_facts("gpt-4o", own={}, thinks=True).reasoning
    assert not model_facts("gpt-4o", own={"gpt-4o": ModelSettings(reasoning=False)}, thinks=True).reasoning


@pytest.mark.parametrize("name", ["Ours", "ours", "OURS-2026-01-31"])
def test_upper_and_lower_case_and_versions_make_no_difference(name):
    """As for prices: Azure's names of deployments do not distinguish upper and lower case."""
    assert 500 == model_facts(name, own={"oURS": ModelSettings(max_output_tokens=500)}).max_output_tokens


def test_the_exact_spelling_wins():
    """If an admin has set two, field by field."""
    own = {
        "ours": ModelSettings(max_output_tokens=500, reasoning=False),
        "OURS": ModelSettings(max_output_tokens=700),
        "ours-2026-01-31": ModelSettings(max_output_tokens=900),
    }

    assert 500 == model_facts("ours", own=own).max_output_tokens
    assert 700 == model_facts("OURS", own=own).max_output_tokens
    assert (False, 900, None) == model_facts("ours-2026-01-31", own=own)
