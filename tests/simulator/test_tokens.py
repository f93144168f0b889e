"""Counting and making up, without a network."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgateway.simulator import answer_to, tokens
from llmgateway.simulator.samples import sample


@given(st.text())
def test_pieces_are_the_text_again(text):
    """Nothing is lost or added, whatever the script."""
    assert "".join(tokens.pieces(text)) == text


@pytest.mark.parametrize(
    ("text", "pieces"),
    [("", []), ("to be", ["to", " be"]), ("internationally", ["internat", "ionally"]), ("a \n", ["a", " \n"])],
)
def test_a_token_is_a_short_word(text, pieces):
    """With the space before it; long words every eight characters."""
    assert tokens.pieces(text) == pieces


def test_a_prompt_costs_three_tokens_for_each_message_and_three_more():
    """Tools count as their JSON."""
    messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": None}]

    assert tokens.of_prompt(messages) == 3 + (3 + 2) + 3
    assert tokens.of_prompt(messages, tools="a b") == tokens.of_prompt(messages) + 2


def test_the_answer_echoes_the_last_user_message():
    """Its first forty tokens, whatever came before."""
    said = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "w " * 50},
    ]

    assert answer_to(said) == "You said: " + ("w " * 40).rstrip()
    assert answer_to([{"role": "system", "content": "x"}]) == "You said nothing."


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "object", "properties": {"a": {"type": "boolean"}}}, {"a": True}),
        ({"type": "array", "items": {"const": 7}}, [7]),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text"),
        (None, {}),
        ({"$ref": "#/nowhere"}, {}),
    ],
)
def test_a_sample_fits_its_schema(schema, value):
    """The same schema has the same sample."""
    assert sample(schema) == value


def test_a_schema_that_contains_itself_has_an_end():
    """What need not be there is left away where it would begin again."""
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}}}

    assert sample(tree) == {"left": {}}
