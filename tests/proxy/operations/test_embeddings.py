"""Embeddings: what is checked and counted."""

from __future__ import annotations

import json

import pytest

from llmgateway.errors import InvalidRequest
from llmgateway.proxy.operations.embeddings import EMBEDDINGS
from tests.proxy.requests import prepared


def request(value: object, **fields: object):
    body = json.dumps({"model": "embed", "input": value} | fields).encode()
    return prepared(body, operation=EMBEDDINGS, prompt="Be kind.")


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        ("Hello", 1),
        (["Hello", "world"], 2),
        ([1, 2, 3], 3),
        ([[1, 2], [3]], 3),
        ([[7] * 500] * 2048, 1_024_000),
        (["Hello", [1, 2]], 3),
    ],
)
def test_counts_texts_and_tokens(value, tokens):
    """A number is a token."""
    made = request(value)

    assert tokens == EMBEDDINGS.prompt_tokens(made.document, "", ())
    assert 0 == made.asked.most_tokens


def test_gets_no_prompt():
    """The body goes on as it came, and the record names no version of a prompt."""
    made = request("Hello", encoding_format="base64")

    assert made.original == made.body()
    assert 0 == made.prompt.version


@pytest.mark.parametrize("value", [None, "", [], 5, {"text": "x"}])
def test_refuses_what_is_no_input(value):
    """And names the field."""
    with pytest.raises(InvalidRequest, match="'input'"):
        request(value)


def test_an_answer_has_a_count_of_the_prompt_alone():
    """Azure says nothing of an answer, which has no tokens."""
    seen = EMBEDDINGS.see({"model": "e", "usage": {"prompt_tokens": 8, "total_tokens": 8}}, b"")

    assert ("e", 8, 0) == (seen.model, seen.usage.prompt_tokens, seen.usage.completion_tokens)
