"""The simulator serves the completions that were before chat."""

from __future__ import annotations

import openai
import pytest

from llmgateway.simulator import FILTERED_PHRASE, Script

from .calls import call

PATH = "/openai/v1/completions"
ASK = {"model": "gpt-4o-mini", "prompt": "once upon"}
CLASSIC = "/openai/deployments/gpt-4o-mini/completions?api-version=2024-10-21"


@pytest.fixture(params=["v1", "classic"])
def client(request: pytest.FixtureRequest) -> openai.OpenAI:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize(
    ("prompt", "texts", "counted"),
    [
        ("once upon", ["You said: once upon"], 2),
        (["once upon", "a time"], ["You said: once upon", "You said: a time"], 4),
        ([11, 12, 13], ["You said: 3 tokens"], 3),
        ([[11, 12], [13]], ["You said: 2 tokens", "You said: 1 tokens"], 3),
    ],
    ids=["text", "texts", "tokens", "arrays of tokens"],
)
def test_every_form_of_prompt_is_answered_and_billed(client, azure, prompt, texts, counted):
    """Each prompt has its own choice."""
    answer = client.completions.create(model="gpt-4o-mini", prompt=prompt)

    assert [choice.text for choice in answer.choices] == texts
    assert (answer.object, answer.usage.prompt_tokens) == ("text_completion", counted)
    assert azure.served[0].billed.total_tokens == answer.usage.total_tokens == counted + 4 * len(texts)


def test_a_stream_says_the_same_and_tells_its_usage(client, azure):
    """The answers come by turns; the usage is last, and only if it was asked for."""
    how = {"model": "gpt-4o-mini", "prompt": ["a", "b"], "stream": True}
    *events, last = client.completions.create(**how, stream_options={"include_usage": True})
    texts = ["", ""]
    for event in events:
        texts[event.choices[0].index] += event.choices[0].text

    assert texts == ["You said: a", "You said: b"]
    assert (last.choices, last.usage.total_tokens) == ([], azure.served[0].billed.total_tokens)
    assert all(event.usage is None for event in client.completions.create(**how))


def test_an_echo_is_not_billed_as_completion(client):
    """The prompt stands before the answer."""
    answer = client.completions.create(**ASK, echo=True)

    assert answer.choices[0].text == "once uponYou said: once upon"
    assert answer.usage.completion_tokens == 4


def test_several_answers_and_candidates_are_billed(azure):
    """n answers to each prompt; best_of candidates that nobody sees cost as much."""
    several = call(azure, {**ASK, "prompt": ["a", "b"], "n": 2}, path=PATH).json
    best = call(azure, {**ASK, "best_of": 3}, path=PATH).json

    assert [choice["index"] for choice in several["choices"]] == [0, 1, 2, 3]
    assert several["usage"]["completion_tokens"] == 4 * 3
    assert (len(best["choices"]), best["usage"]["completion_tokens"]) == (1, 3 * 4)


def test_an_answer_ends_after_sixteen_tokens_unless_told_otherwise(azure):
    """The default of the old API."""
    azure.script(Script(tokens=50), times=2)
    usual = call(azure, ASK, path=CLASSIC).json
    longer = call(azure, {**ASK, "max_tokens": 40}, path=CLASSIC).json

    assert [answer["usage"]["completion_tokens"] for answer in (usual, longer)] == [16, 40]
    assert usual["choices"][0]["finish_reason"] == "length"


def test_an_error_in_mid_stream_ends_the_work(azure):
    """As in chat."""
    azure.script(Script(error_event_after=2))
    answer = call(azure, {**ASK, "stream": True}, path=PATH)

    assert answer.events[-1]["error"]["type"] == "server_error"
    assert b"[DONE]" not in answer.body
    assert azure.served[0].billed.completion_tokens == 2


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"model": "gpt-4o-mini"}, "missing_required_parameter"),
        ({**ASK, "prompt": 7}, "invalid_type"),
        ({**ASK, "prompt": ["a", 7]}, "invalid_type"),
        ({**ASK, "prompt": f"please {FILTERED_PHRASE}"}, "content_filter"),
        ({**ASK, "n": 3, "best_of": 2}, None),
    ],
    ids=["missing", "number", "mixed", "filter", "best_of"],
)
def test_an_impossible_request_is_refused(azure, body, code):
    """400, with what is wrong."""
    answer = call(azure, body, path=PATH)

    assert (answer.status, answer.json["error"]["code"]) == (400, code)
