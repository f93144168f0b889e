"""The token counts that Azure and the models of Foundry report."""

from __future__ import annotations

import pytest

from llmgateway.records import Usage
from llmgateway.usage.counts import is_whole, parse_usage
from llmgateway.usage.tokens import LARGEST_COUNT


def numbers(usage):
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, usage.cached_tokens, usage.reasoning_tokens


@pytest.mark.parametrize(
    ("counts", "read"),
    [
        ({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}, (1, 2, 3, 0, 0)),
        ({"prompt_tokens": 1, "completion_tokens": 2}, (1, 2, 3, 0, 0)),
        (
            {
                "prompt_tokens": 9,
                "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
                "completion_tokens": 8,
                "completion_tokens_details": {"reasoning_tokens": 6},
                "total_tokens": 17,
            },
            (9, 8, 17, 4, 6),
        ),
        ({"prompt_tokens": 1000.0, "completion_tokens": 500.0, "total_tokens": 1.5e3}, (1000, 500, 1500, 0, 0)),
        ({"prompt_tokens": 1e3, "completion_tokens": 0.5}, (1000, 1, 1001, 0, 0)),
        (
            {"input_tokens": 18, "output_tokens": 16, "output_tokens_details": {"reasoning_tokens": 9}},
            (18, 16, 34, 0, 9),
        ),
        # Less than what it consists of: the total is wrong.
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 3}, (10, 5, 15, 0, 0)),
        # Cached tokens are a part of the prompt, and reasoning tokens are a part of the answer.
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 99}},
            (10, 5, 15, 10, 0),
        ),
        # Grok on Foundry, recorded 2025-10: reasoning is only in the total.
        (
            {
                "prompt_tokens": 20,
                "completion_tokens": 16,
                "completion_tokens_details": {"reasoning_tokens": 431},
                "total_tokens": 467,
            },
            (20, 447, 467, 0, 431),
        ),
        (
            {"prompt_tokens": 20, "completion_tokens": 16, "completion_tokens_details": {"reasoning_tokens": 431}},
            (20, 447, 467, 0, 431),
        ),
        # DeepSeek on Foundry, recorded 2026.
        (
            {
                "prompt_tokens": 9,
                "prompt_tokens_details": None,
                "completion_tokens": 300,
                "reasoning_tokens": 0,
                "total_tokens": 309,
            },
            (9, 300, 309, 0, 0),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 300, "reasoning_tokens": 200}, (9, 300, 309, 0, 200)),
        # The missing half can be computed.
        ({"completion_tokens": 5, "total_tokens": 12}, (7, 5, 12, 0, 0)),
        ({"prompt_tokens": 7, "total_tokens": 12}, (7, 5, 12, 0, 0)),
        # Values that are no counts.
        ({"prompt_tokens": "9", "completion_tokens": 3}, (0, 3, 3, 0, 0)),
        ({"prompt_tokens": True, "completion_tokens": 3}, (0, 3, 3, 0, 0)),
        ({"prompt_tokens": 3, "completion_tokens": -1}, (3, 0, 3, 0, 0)),
        ({"prompt_tokens": 2**31 + 1, "completion_tokens": 5, "total_tokens": float("nan")}, (0, 5, 5, 0, 0)),
        ({"prompt_tokens": 1, "prompt_tokens_details": [], "completion_tokens": None}, (1, 0, 1, 0, 0)),
    ],
)
def test_reads_usage(counts, read):
    """The counts and their details are read as the numbers that are billed; other values are not counts."""
    assert read == numbers(parse_usage({"usage": counts}))


@pytest.mark.parametrize(
    "document",
    [
        *({}, [], None, "usage", 3),
        *({"usage": None}, {"usage": []}, {"usage": {}}, {"usage": "7"}),
        {"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}},
        {"usage": {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}},
        {"usage": {"prompt_tokens": 0.0, "completion_tokens": "12", "total_tokens": -5}},
        {"usage": {"prompt_tokens": LARGEST_COUNT + 1, "completion_tokens": float("inf")}},
        {"usage": {"prompt_tokens_details": {"cached_tokens": 4}}},
    ],
)
def test_knows_no_usage(document):
    """An answer without usage, or with a placeholder, has None, not 0."""
    assert parse_usage(document) is None


def test_reads_audio_and_images():
    """Audio and images have prices of their own; they are parts of the prompt and of the answer."""
    usage = parse_usage(
        {
            "usage": {
                "prompt_tokens": 1000,
                "completion_tokens": 500,
                "prompt_tokens_details": {"audio_tokens": 900, "image_tokens": 2000},
                "completion_tokens_details": {"audio_tokens": 400},
            }
        }
    )

    assert (900, 1000, 400) == (usage.audio_prompt_tokens, usage.image_prompt_tokens, usage.audio_completion_tokens)


@pytest.mark.parametrize(
    ("prompt", "completion", "said_something", "whole"),
    [(7, 3, True, True), (7, 0, False, True), (7, 0, True, False), (0, 3, True, False)],
)
def test_half_a_count_is_no_count(prompt, completion, said_something, whole):
    """Every prompt has tokens, and every text has; an answer that the filter removed has none."""
    usage = Usage(prompt_tokens=prompt, completion_tokens=completion)

    assert whole == is_whole(usage, said_something=said_something)
