"""Whether, where and how an answer tells its tokens; the simulator itself always knows."""

from __future__ import annotations

import pytest

from llmgateway.records import Usage
from llmgateway.simulator import Script

from .calls import CHAT, STREAM, call

UNASKED = {**CHAT, "stream": True}
SCRIPT = {"reasoning_tokens": 4, "tokens": 3}
TRUE = {"prompt_tokens": 8, "completion_tokens": 7, "total_tokens": 15}
MISSING = "no usage at all"


def told(azure, form, body=CHAT):
    """The usage of an answer; of a stream that of its last event."""
    azure.script(Script(usage=form, **SCRIPT))
    answer = call(azure, body)
    document = answer.json if body is CHAT else answer.events[-1]
    return document.get("usage", MISSING)


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("form", "usage"),
    [
        ("bare", TRUE),
        ("deepseek", {**TRUE, "prompt_tokens_details": None, "reasoning_tokens": 0}),
        ("unfilled", dict.fromkeys(TRUE)),
        ("empty", {}),
        ("null", None),
        ("missing", MISSING),
        ({"prompt_tokens": 1.5}, {"prompt_tokens": 1.5}),
    ],
    ids=str,
)
def test_usage_has_the_form_that_was_asked_for(azure, form, usage, body):
    """Exactly this object, or none."""
    assert told(azure, form, body) == usage
    assert azure.served[0].billed.completion_tokens == 7


def test_floats_grok_and_zeros(azure):
    """Whole numbers with a point; the reasoning beside the completion; nothing at all."""
    floats, grok, zeros = told(azure, "floats"), told(azure, "grok"), told(azure, "zeros")

    assert {name: floats[name] for name in TRUE} == TRUE
    assert {type(floats[name]) for name in TRUE} == {float}
    assert type(floats["completion_tokens_details"]["reasoning_tokens"]) is float
    assert (grok["completion_tokens"], grok["completion_tokens_details"]["reasoning_tokens"]) == (3, 4)
    assert grok["total_tokens"] == 15
    assert {zeros[name] for name in TRUE} == {0}


def test_a_made_up_count_is_what_azure_bills(azure):
    """The larger of the completion and the rest of the total, when the answer has come to its end."""
    azure.script(Script(usage={"prompt_tokens": 20.0, "completion_tokens": 16, "total_tokens": 467}), times=2)
    call(azure)
    call(azure, STREAM)

    assert [(one.usage.prompt_tokens, one.usage.completion_tokens) for one in azure.served] == [(20, 447)] * 2
    assert [one.billed for one in azure.served] == [one.usage for one in azure.served]


def test_details_of_sound_images_and_cache(azure):
    """They are parts of the numbers that a script can set."""
    parts = {"cached_tokens": 5, "audio_prompt_tokens": 900, "image_prompt_tokens": 7, "audio_completion_tokens": 2}
    azure.script(Script(prompt_tokens=1000, tokens=3, **parts))
    usage = call(azure).json["usage"]

    assert usage["prompt_tokens_details"] == {"audio_tokens": 900, "cached_tokens": 5, "image_tokens": 7}
    assert usage["completion_tokens_details"]["audio_tokens"] == 2
    assert azure.served[0].usage == Usage(prompt_tokens=1000, completion_tokens=3, total_tokens=1003, **parts)


def counts(azure, place, body, **fields):
    """The completion tokens of each event's usage; None where the event has none."""
    azure.script(Script(usage_in=place, **SCRIPT, **fields))
    events = [event for event in call(azure, body).events if "prompt_filter_results" not in event]
    return [event["usage"]["completion_tokens"] if event.get("usage") else None for event in events]


@pytest.mark.parametrize(
    ("place", "body", "expected"),
    [
        ("last", STREAM, [None] * 5 + [7]),
        ("last", UNASKED, [None] * 5),
        ("finish", STREAM, [None] * 4 + [7]),
        ("finish", UNASKED, [None] * 4 + [7]),
        ("every", STREAM, [4, 5, 6, 7, 7, 7]),
        ("every", UNASKED, [4, 5, 6, 7, 7]),
        ("placeholder", STREAM, [0] * 5 + [7]),
        ("placeholder", UNASKED, [0] * 5),
    ],
    ids=str,
)
def test_usage_is_in_the_events_that_were_asked_for(azure, place, body, expected):
    """Role, three words, the end, and a last one if there is one."""
    assert counts(azure, place, body) == expected


def test_an_answer_that_the_filter_blocks_late_ends_with_its_usage(azure):
    """The block is the event with the finish_reason, and so the one with the count."""
    assert 7 == counts(azure, "finish", STREAM, filter="late_block")[-1]


def test_a_placeholder_may_never_be_replaced(azure):
    """Zeros in every event, the last one included."""
    assert counts(azure, "every", STREAM, usage="zeros") == [0] * 6


def test_only_the_last_of_several_answers_ends_with_the_usage(azure):
    """As a bill is sent once."""
    assert counts(azure, "finish", {**UNASKED, "n": 2})[-2:] == [None, 14]


def test_model_and_tier_can_be_others(azure):
    """In every event, and in a plain answer; without a script no tier is named."""
    azure.script(Script(model="router-pick", service_tier="priority"), times=2)
    plain, events = call(azure).json, call(azure, STREAM).events[1:]

    assert {(one["model"], one["service_tier"]) for one in [plain, *events]} == {("router-pick", "priority")}
    assert "service_tier" not in call(azure).json
