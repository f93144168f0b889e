"""Legacy completions: what is checked, added and counted."""

from __future__ import annotations

import json

import pytest

from llmgateway.errors import InvalidRequest
from llmgateway.proxy.dialect import Dialect
from llmgateway.proxy.operations.completions import COMPLETIONS
from tests.proxy.requests import prepared


def request(prompt: object, *, ours: str = "", **fields: object):
    body = json.dumps({"model": "instruct", "prompt": prompt} | fields).encode()
    return prepared(body, operation=COMPLETIONS, prompt=ours)


def test_puts_the_prompt_in_front_of_each_text():
    """With a blank line between."""
    assert "Be kind.\n\nOnce" == json.loads(request("Once", ours="Be kind.").body())["prompt"]
    assert ["Be kind.\n\nOne", "Be kind.\n\nTwo"] == json.loads(request(["One", "Two"], ours="Be kind.").body())[
        "prompt"
    ]


@pytest.mark.parametrize("prompt", [[1, 2, 3], [[1, 2], [3]]])
def test_tokens_cannot_get_a_prompt(prompt):
    """They are refused while there is one, and pass while there is none."""
    with pytest.raises(InvalidRequest, match="Send 'prompt' as text"):
        request(prompt, ours="Be kind.")
    assert prompt == json.loads(request(prompt).body())["prompt"]


@pytest.mark.parametrize("prompt", [None, [], {}, 5, ["One", 2], [True], [None]])
def test_refuses_what_is_no_prompt(prompt):
    """And names the field."""
    with pytest.raises(InvalidRequest, match="'prompt'"):
        request(prompt)


@pytest.mark.parametrize(
    ("prompt", "fields", "choices"),
    [
        ("One", {}, 1),
        (["One", "Two"], {"n": 3}, 6),
        ([1, 2, 3], {"best_of": 4}, 4),
        ([[1, 2], [3]], {"n": 2, "best_of": 3}, 6),
    ],
)
def test_counts_what_is_written(prompt, fields, choices):
    """Azure writes n answers to each prompt, and bills best_of of them."""
    assert choices == request(prompt, **fields).asked.choices


def test_counts_the_prompt_once_for_each_text():
    """Azure bills it as often."""
    one, two = (request(texts, ours="Be kind to everybody.") for texts in (["One"], ["One", "Two"]))
    tokens = [COMPLETIONS.prompt_tokens(made.document, made.prompt.text, ()) for made in (one, two)]

    assert tokens[1] > 1.8 * tokens[0]


def test_max_tokens_may_be_zero():
    """With echo, it is a way to have a prompt rated."""
    assert 0 == request("One", max_tokens=0).asked.most_tokens
    with pytest.raises(InvalidRequest):
        request("One", max_tokens=-1)


def test_choices_get_no_delta():
    """OpenAI's legacy completions have none."""
    meter = COMPLETIONS.meter(Dialect.OPENAI, True, request("One").asked)
    event = b'data: {"choices":[{"text":"Hi","index":0,"finish_reason":null}]}\n\n'
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\n'

    assert event == meter.feed(event)
    assert b"" == meter.feed(usage)
