"""The values that the model makes for JSON schemas are valid, and speak of what was asked."""

from __future__ import annotations

import json
import re

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from llmgateway.simulator.patterns import matching
from llmgateway.simulator.samples import sample, schema_in

NODE = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
        "parent": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
    },
    "required": ["name", "children", "parent"],
    "additionalProperties": False,
}
SCHEMAS = {
    "short": {"type": "string", "maxLength": 2},
    "long": {"type": "string", "minLength": 40, "maxLength": 41},
    "plate": {"type": "string", "pattern": "^[A-Z]{1,3}-[A-Z]{2} \\d{1,4}$"},
    "date": {"type": "string", "format": "date"},
    "moment": {"type": "string", "format": "date-time"},
    "identifier": {"type": "string", "format": "uuid"},
    "mail": {"type": "string", "format": "email"},
    "percent": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "dozen": {"type": "integer", "multipleOf": 12, "minimum": 13},
    "negative": {"type": "integer", "maximum": -5},
    "between": {"type": "integer", "exclusiveMinimum": 6, "exclusiveMaximum": 8},
    "many": {"type": "array", "items": {"type": "string"}, "minItems": 3, "uniqueItems": True},
    "numbers": {"type": "array", "items": {"type": "integer"}, "minItems": 4, "uniqueItems": True},
    "none": {"type": "array", "items": {"type": "string"}, "maxItems": 0},
    "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "minItems": 2, "items": False},
    "words": {"type": "object", "additionalProperties": {"type": "integer"}},
    "required": {"type": "object", "required": ["a"], "additionalProperties": {"type": "boolean"}},
    "all": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
            {"properties": {"b": {"const": 7}}, "required": ["b"]},
        ]
    },
    "optional": {"anyOf": [{"type": "integer", "minimum": 3}, {"type": "null"}]},
    "kinds": {"type": ["null", "string"]},
    "tree": {"$ref": "#/$defs/Node", "$defs": {"Node": NODE}},
    "escaped": {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}},
}


@pytest.mark.parametrize(
    "said", ["", "Paris has 3 towers, 12 bridges and 0.25 rivers; Anna and Bob know"], ids=["none", "said"]
)
@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_a_value_is_valid(schema, said):
    """Whatever the schema bounds, and whatever names and numbers were said."""
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(sample(schema, said))


@pytest.mark.parametrize(
    "schema",
    [{"type": "string", "minLength": "long"}, {"properties": []}, {"minItems": 10**20, "items": {}}, [], None, "text"],
    ids=str,
)
def test_what_is_no_schema_harms_nothing(schema):
    """A value comes at once, whatever it is."""
    assert isinstance(sample(schema), (dict, list, str))


def test_a_value_speaks_of_the_question():
    """Names and numbers are taken in their order, and words that only begin a sentence are no names."""
    schema = {
        "type": "object",
        "properties": {"from": {"type": "string"}, "to": {"type": "string"}, "days": {"type": "integer"}},
    }

    assert {"from": "Paris", "to": "Rome", "days": 3} == sample(schema, "How do I get from Paris to Rome in 3 days?")


def test_a_number_is_whole():
    """Programs call a number what they read as an integer; a number that was said stays as it is."""
    assert "1" == json.dumps(sample({"type": "number"}))
    assert "2.5" == json.dumps(sample({"type": "number"}, "Wait 2.5 seconds"))


def test_an_example_and_a_default_are_used():
    """Who writes the schema knows best."""
    properties = {"unit": {"type": "string", "default": "celsius"}, "n": {"examples": [9]}}

    assert {"unit": "celsius", "n": 9} == sample({"type": "object", "properties": properties})


@pytest.mark.parametrize(
    "pattern",
    [
        r"^\d{5}$",
        r"^(foo|bar)baz?$",
        r"^\+?[1-9]\d{7,14}$",
        r"^[^\s@]+@[^\s@]+\.[a-z]{2,}$",
        r"^#[0-9a-fA-F]{6}$",
        r"^(?!x)[a-z]+$",
        r"^v\d+\.\d+(?:-rc\d+)?$",
        r"^[\w.-]{20,}$",
        r"\bQ[1-4]\b",
    ],
)
def test_a_text_matches_its_pattern(pattern):
    """Classes, groups, alternatives, repetitions and what looks ahead."""
    assert re.search(pattern, matching(pattern) or "")


def test_what_no_text_matches_has_none():
    """A pattern that is none, or contradicts itself."""
    assert matching("(") is None
    assert matching("^a$b") is None


def test_a_schema_is_found_in_a_prompt():
    """Other objects and broken ones before it are passed over."""
    assert {"properties": {"a": {}}} == schema_in('use {this} or {"b": 1}, but answer {"properties": {"a": {}}}!')
    assert schema_in("{ no") is None
