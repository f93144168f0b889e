"""The words of an answer can be carried by other fields than content."""

from __future__ import annotations

import pytest

from llmgateway.simulator import Script

from .calls import CHAT, STREAM, call

CARRIERS = {
    "content": (Script(tokens=6), lambda delta: delta.get("content")),
    "refusal": (Script(tokens=6, answer_in="refusal"), lambda delta: delta.get("refusal")),
    "function_call": (
        Script(tokens=6, answer_in="function_call"),
        lambda delta: delta.get("function_call", {}).get("arguments"),
    ),
    "custom": (
        Script(tokens=6, answer_in="custom", tool_call="shell"),
        lambda delta: delta["tool_calls"][0]["custom"]["input"] if "tool_calls" in delta else None,
    ),
    "function": (
        Script(tokens=6, tool_call="weather"),
        lambda delta: delta["tool_calls"][0]["function"]["arguments"] if "tool_calls" in delta else None,
    ),
}
SAID = "You said: hello there You said:"


@pytest.mark.parametrize("name", CARRIERS)
def test_the_words_are_in_the_field_that_was_asked_for(azure, name):
    """Streamed and plain, and in no other."""
    script, words = CARRIERS[name]
    azure.script(script, times=2)
    message = call(azure).json["choices"][0]["message"]
    deltas = [choice["delta"] for event in call(azure, STREAM).events for choice in event["choices"]]

    assert "".join(words(delta) or "" for delta in deltas) == SAID
    assert words(message) == SAID
    assert (message["content"] is None) == (name != "content")
    assert [one.usage for one in azure.served[:1]] == [one.billed for one in azure.served[1:]]


def test_calls_have_names_and_ends(azure):
    """The form of 2023 ends with function_call, a custom tool as every other."""
    azure.script(CARRIERS["function_call"][0])
    old = call(azure).json["choices"][0]
    azure.script(CARRIERS["custom"][0])
    custom = call(azure).json["choices"][0]
    [custom_call] = custom["message"]["tool_calls"]

    assert (old["finish_reason"], old["message"]["function_call"]["name"]) == ("function_call", "answer")
    assert (custom["finish_reason"], custom_call["type"], custom_call["custom"]["name"]) == (
        "tool_calls",
        "custom",
        "shell",
    )


def test_reasoning_can_be_seen(azure):
    """Before the text, a token an event, in a field of its own; it is billed as reasoning."""
    azure.script(Script(tokens=2, reasoning_tokens=3, visible_reasoning=True), times=2)
    message = call(azure).json["choices"][0]["message"]
    deltas = [choice["delta"] for event in call(azure, STREAM).events for choice in event["choices"]]

    assert message["reasoning_content"] == "Hm Hm Hm"
    assert [delta.get("reasoning_content") for delta in deltas[1:4]] == ["Hm", " Hm", " Hm"]
    assert [delta["content"] for delta in deltas[1:6]] == [None, None, None, "You", " said:"]
    assert azure.served[1].usage.reasoning_tokens == 3


@pytest.mark.parametrize("answer_in", ["content", "custom"])
@pytest.mark.parametrize(("size", "events"), [(1, 7), (3, 3), (100, 1)])
def test_an_event_can_have_several_words(azure, answer_in, size, events):
    """The text and the bill are the same."""
    azure.script(Script(tokens=7, tokens_per_event=size, answer_in=answer_in))
    answer = call(azure, STREAM)

    assert len(answer.events) == 4 + events
    assert azure.served[0].billed.completion_tokens == 7 + (answer_in == "custom")


def test_a_model_without_a_filter_says_nothing_of_it(azure):
    """No first event and no results anywhere, as DeepSeek's in Foundry."""
    azure.script(Script(filter="absent"), times=2)
    plain, stream = call(azure).body, call(azure, {**CHAT, "stream": True})

    assert b"filter" not in plain + stream.body
    assert stream.events[0]["choices"][0]["delta"]["role"] == "assistant"
