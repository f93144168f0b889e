"""Tokens are estimated where Azure has not counted them, rather too many than too few."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgateway.usage.images import USUAL
from llmgateway.usage.tokens import (
    BASE64_FOR_FILE_TOKEN,
    LARGEST_COUNT,
    TOKENS_PER_MESSAGE,
    estimate_audio_tokens,
    estimate_predicted_tokens,
    estimate_prompt_tokens,
    text_tokens,
)

ANSWER = TOKENS_PER_MESSAGE
MESSAGE = TOKENS_PER_MESSAGE
LONG = "x" * 40_000
PDF = "JVBE" * 100_000


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("word ", 1),
        (" ", 1),
        ("a a ", 3),  # the blank at the end is one
        (" understanding", 2),
        ("word " * 400, 500),
        ("a " * 400, 401),
        ("x" * 4000, 1000),
        ("日本語" * 100, 300),
        ("\n\n" * 10, 5),
        ("1234567890" * 100, 500),
        ('{"a":1},' * 100, 375),
    ],
)
def test_estimates_texts(text, tokens):
    """English has about four letters for each token; digits, symbols and other scripts have fewer."""
    assert tokens == text_tokens(text.encode())


def test_a_quick_estimate_is_not_lower():
    """For the prompt of a request that waits; it may be a little higher."""
    for text in (b"a " * 1000, b"word " * 1000, b"x" * 1000, b"The quick brown fox jumps. " * 100):
        exact, quick = text_tokens(text), text_tokens(text, quickly=True)
        assert exact <= quick <= 1.2 * exact, text[:20]


@given(st.text(st.sampled_from("a b\n日,1")) | st.text())
def test_no_text_has_fewer_tokens_than_words(text):
    """Each word is at least one token, however short it is, and a part of 8 characters is one, too."""
    assert sum(-(-len(word) // 8) for word in text.encode("utf-8", "surrogatepass").split()) <= text_tokens(
        text.encode("utf-8", "surrogatepass")
    )


@pytest.mark.parametrize(
    ("messages", "prompt", "tokens"),
    [
        ([], "", 0),
        ([{"role": "user", "content": "abcd"}], "", MESSAGE + 1),
        ([{"role": "user", "content": "ab"}, {"role": "assistant", "content": "cd"}], "", 2 * MESSAGE + 2),
        ([{"content": "abcd"}], "12345678", 2 * MESSAGE + 2),
        ([{"content": None}, {}, {"content": True}], "", 3 * MESSAGE),
        ([{"content": [{"type": "text", "text": "abcd"}, "abcd", {"type": "text", "text": 4}, {}]}], "", MESSAGE + 3),
        (
            [{"content": [{"type": "image_url", "image_url": {"url": "data:" + "A" * 1_000_000}}]}],
            "",
            MESSAGE + USUAL.auto,
        ),
        (
            [{"content": [{"type": "image_url", "image_url": {"url": "https://x", "detail": "low"}}]}],
            "",
            MESSAGE + USUAL.low,
        ),
        ([{"content": None, "tool_calls": [{"function": {"name": "add", "arguments": "[1,2]"}}]}], "", MESSAGE + 2),
        ([{"content": [{"type": "file", "file": {"file_data": PDF}}]}], "", MESSAGE + 400_000 // BASE64_FOR_FILE_TOKEN),
        ([{"content": [{"type": "file", "file": {"file_id": "file-1"}}]}], "", MESSAGE + 16_000),
        ([{"content": [{"type": "input_audio", "input_audio": {"data": PDF, "format": "wav"}}]}], "", MESSAGE + 400),
        ([{"content": [{"type": "input_audio", "input_audio": {"data": PDF, "format": "mp3"}}]}], "", MESSAGE + 3125),
    ],
)
def test_estimates_prompts(messages, prompt, tokens):
    """Text counts by its length, and images, recordings and files by their kind and size."""
    assert ANSWER + tokens == estimate_prompt_tokens({"messages": messages}, prompt)


@pytest.mark.parametrize(
    ("models", "detail", "tokens"),
    [
        ((), None, 1_445),
        (("gpt-4o-mini-2024-07-18", "gpt-4o"), None, 48_169),
        ((None, "gpt-4o-mini"), "high", 48_169),
        ((None, "gpt-4o-mini"), "low", 2_833),
        (("unheard-of", "gpt-4.1-mini"), "high", 2_489),
    ],
)
def test_an_image_counts_by_the_model(models, detail, tokens):
    """The most reliable name that is known decides."""
    image = {"url": "https://x/y.png"} | ({"detail": detail} if detail else {})
    document = {"messages": [{"content": [{"type": "image_url", "image_url": image}] * 2}]}

    assert ANSWER + MESSAGE + 2 * tokens == estimate_prompt_tokens(document, models=models)


def user(*content: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": list(content)}]}


def assistant(**fields: object) -> dict[str, object]:
    return {"messages": [{"role": "assistant", "content": None} | fields]}


@pytest.mark.parametrize(
    "document",
    [
        {"messages": [{"role": "user", "content": LONG}]},
        {"messages": [{"role": "user", "name": LONG, "content": "a"}]},
        {"messages": [{"role": "tool", "tool_call_id": "call_1", "content": LONG}]},
        user({"type": "text", "text": LONG}),
        user({"type": "refusal", "refusal": LONG}),
        user({"type": "future", "future": {"text": [LONG]}}),
        user({"type": "image_url", "image_url": {"url": "x", "detail": "low"}}, LONG),
        user({"type": "file", "file": {"filename": LONG, "file_data": ""}}),
        assistant(refusal=LONG),
        assistant(reasoning_content=LONG),
        assistant(function_call={"name": "f", "arguments": LONG}),
        assistant(function_call={"name": LONG, "arguments": "{}"}),
        assistant(tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": LONG}}]),
        assistant(tool_calls=[{"id": "1", "type": "custom", "custom": {"name": "f", "input": LONG}}]),
        assistant(tool_calls=[{"id": "1", "type": "custom", "custom": {"name": LONG, "input": "{}"}}]),
        assistant(audio={"id": LONG}),
        assistant(unknown={LONG: 1}),
        {"prediction": {"type": "content", "content": LONG}},
        {"prediction": {"type": "content", "future": LONG}},
        {"prediction": LONG},
        {"prediction": {"type": "content", "content": [{"type": "text", "text": LONG}]}},
        {"tools": [{"type": "function", "function": {"name": "f", "description": LONG}}]},
        {"tools": [{"type": "custom", "custom": {"name": "f", "format": {"grammar": {"definition": LONG}}}}]},
        {"functions": [{"name": "f", "parameters": {"properties": {LONG: {}}}}]},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"enum": [LONG]}}}},
    ],
)
def test_counts_text_wherever_it_is(document):
    """40 kB are about 10,000 tokens in every part of the body that becomes a part of the prompt."""
    assert 10_000 == pytest.approx(estimate_prompt_tokens(document), rel=0.02)


def test_counts_numbers_of_unknown_parts():
    """A part of a type that nobody knows yet may consist of numbers."""
    assert 10_000 < estimate_prompt_tokens(user({"type": "future", "future": [1.5] * 10_000}))


@pytest.mark.parametrize("name", ["metadata", "user", "stop", "audio", "web_search_options", "logit_bias"])
def test_does_not_count_what_is_no_prompt(name):
    """Other parameters have no tokens."""
    assert ANSWER == estimate_prompt_tokens({name: {"x": LONG}})


NAMES = st.sampled_from(
    (
        *(
            "messages",
            "content",
            "type",
            "text",
            "image_url",
            "input_audio",
            "file",
            "file_data",
            "file_id",
            "filename",
        ),
        *("data", "format", "detail", "tool_calls", "function", "function_call", "arguments", "name", "prediction"),
        *("tools", "functions", "response_format", "refusal", "role"),
    )
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(NAMES, JSON, max_size=5), st.text(max_size=5))
def test_no_body_makes_it_fail(document, prompt):
    """Azure refuses what is not right; the estimate must not fail before."""
    assert 0 < estimate_prompt_tokens(document, prompt) <= LARGEST_COUNT


SOUND = {"type": "input_audio", "input_audio": {"data": "A" * 10_000, "format": "wav"}}


def test_the_tokens_of_recordings_are_a_part_of_the_prompt():
    """They cost more than text, so they are estimated apart, too."""
    document = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, SOUND, SOUND]}, "odd", {}]}

    assert 20 == estimate_audio_tokens(document)
    assert 20 < estimate_prompt_tokens(document) < 40
    assert 0 == estimate_audio_tokens({"messages": [{"role": "user", "content": "hi"}]})


def test_the_tokens_of_a_prediction():
    """None without one; 40 kB are about 10,000."""
    assert 0 == estimate_predicted_tokens({"messages": []})
    prediction = {"type": "content", "content": [{"type": "text", "text": "word " * 8000}]}
    assert 8000 <= estimate_predicted_tokens({"prediction": prediction}) <= 12_000
