"""Where stream_options are refused, they are left out: there only, and only for some minutes."""

from __future__ import annotations

import json

import pytest

from llmgateway.proxy.request import UpstreamRequest
from llmgateway.proxy.usage_options import FORGET_SECONDS, MOST_KINDS, UsageOptions, may_be_refusal
from llmgateway.usage.azure_errors import AzureError
from tests.parts import Stopwatch
from tests.proxy import requests
from tests.proxy.requests import prepared
from tests.stores.contract import at_once

IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org"}}]}
TEXT_PART = {"role": "user", "content": [{"type": "text", "text": "Hello"}]}

UNKNOWN_PARAMETER = (
    400,
    {
        "error": {
            "message": "Unknown parameter: 'stream_options'.",
            "type": "invalid_request_error",
            "param": "stream_options",
            "code": "unknown_parameter",
        }
    },
)
UNRECOGNIZED = (400, {"error": {"message": "Unrecognized request argument supplied: stream_options", "code": None}})
MISTRAL = (
    422,
    {
        "error": {
            "code": "Invalid input",
            "message": json.dumps(
                {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options", "include_usage"]}]}
            ),
            "status": 422,
        }
    },
)
MISTRAL_PLAIN = (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"]}]})
PHI = (
    400,
    {
        "object": "error",
        "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'stream_options'), 'input': {'include_usage': True}}]",
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    },
)
ON_YOUR_DATA = (
    400,
    {
        "error": {
            "requestid": "1",
            "code": 400,
            "message": "Validation error at #/stream_options: Extra inputs are not permitted",
        }
    },
)
MODEL_INFERENCE = (
    400,
    {"detail": "Extra parameters ['stream_options'] are not allowed when extra-parameters is not set to be 'allow'"},
)
CAMEL_CASE = (400, {"error": {"message": "Unknown field StreamOptions"}})
ONLY_INNER = (422, {"detail": [{"type": "extra_forbidden", "loc": ["include_usage"]}]})
REFUSALS = {
    "unknown_parameter": UNKNOWN_PARAMETER,
    "unrecognized": UNRECOGNIZED,
    "mistral": MISTRAL,
    "mistral_plain": MISTRAL_PLAIN,
    "phi": PHI,
    "on_your_data": ON_YOUR_DATA,
    "model_inference": MODEL_INFERENCE,
    "camel_case": CAMEL_CASE,
    "only_inner": ONLY_INNER,
}
"""The shapes that were recorded; the last two were not."""


def chat(**fields: object) -> UpstreamRequest:
    return prepared(requests.chat(**{"stream": True} | fields))


@pytest.fixture
def timer():
    return Stopwatch()


@pytest.fixture
def options(timer):
    return UsageOptions(timer=timer)


@pytest.mark.parametrize("shape", REFUSALS)
def test_every_shape_of_a_refusal_is_understood(shape):
    """All of them name the field, somewhere."""
    status, document = REFUSALS[shape]

    assert may_be_refusal(chat(), AzureError(status, json.dumps(document).encode()))


@pytest.mark.parametrize(
    ("status", "document", "fields"),
    [
        (*UNKNOWN_PARAMETER, {"stream_options": {"include_obfuscation": False}}),
        (400, {"error": {"message": "Unknown parameter: 'x'."}}, {}),
        (400, {"error": {"code": "content_filter", "message": "stream_options"}}, {}),
        (429, UNKNOWN_PARAMETER[1], {}),
        (500, UNKNOWN_PARAMETER[1], {}),
        (200, UNKNOWN_PARAMETER[1], {}),
    ],
)
def test_other_errors_are_none(status, document, fields):
    """Nor is one of a client that sent the option itself."""
    assert not may_be_refusal(chat(**fields), AzureError(status, json.dumps(document).encode()))


def test_remembers_for_some_minutes(options, timer):
    """Then the option is tried again."""
    assert options.may_add(chat())
    options.remember(chat())
    timer.advance(FORGET_SECONDS - 1)
    assert not options.may_add(chat())
    timer.advance(1)

    assert options.may_add(chat())


def test_a_later_refusal_counts_from_then(options, timer):
    """The minutes begin again."""
    options.remember(chat())
    timer.advance(FORGET_SECONDS - 1)
    options.remember(chat())
    timer.advance(FORGET_SECONDS - 1)

    assert not options.may_add(chat())


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "other"},
        {"tools": []},
        {"response_format": {"type": "text"}},
        {"enhancements": {}},
        {"messages": [IMAGE]},
        {"messages": [IMAGE, {"role": "user", "content": [{"type": "odd"}]}]},
    ],
)
def test_says_nothing_about_other_kinds(options, fields):
    """Whatever was unusual may have been the reason; requests without it are not concerned, and the reverse."""
    options.remember(chat(**fields))
    assert options.may_add(chat())
    assert not options.may_add(chat(**fields))
    options.remember(chat())

    assert options.may_add(chat(**fields, audio={}))


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.5, "top_p": 1, "max_tokens": 5, "stop": ["x"]},
        {"tools": None},
        {"messages": [TEXT_PART]},
        {"messages": [{"role": "user", "content": "Other text"}] * 3},
    ],
)
def test_ordinary_fields_make_no_kind(options, fields):
    """How an answer is written is no reason to refuse the option."""
    options.remember(chat())

    assert not options.may_add(chat(**fields))


def test_remembers_only_so_many(options):
    """The oldest are forgotten first, so that odd requests take no memory."""
    for number in range(MOST_KINDS + 1):
        options.remember(chat(model=f"model-{number}"))

    assert options.may_add(chat(model="model-0"))
    assert not options.may_add(chat(model="model-1"))
    assert not options.may_add(chat(model=f"model-{MOST_KINDS}"))


@pytest.mark.parametrize("fields", [{"x" * 65: 1}, {f"x{number}": 1 for number in range(21)}])
def test_does_not_remember_very_odd_requests(options, fields):
    """Their names would take memory."""
    options.remember(chat(**fields))

    assert options.may_add(chat(**fields))


def test_threads_lose_nothing(options):
    """Refusals that arrive at the same time are all remembered."""
    at_once(
        *(lambda n=n: [options.remember(chat(model=f"model-{n}-{number}")) for number in range(20)] for n in range(8))
    )

    assert not any(options.may_add(chat(model=f"model-{n}-{number}")) for n in range(8) for number in range(20))


@pytest.mark.parametrize("name", ["data_sources", "dataSources"])
def test_never_asks_where_it_is_known_to_be_refused(name):
    """On Your Data refuses the option."""
    made = chat(**{name: [{"type": "azure_search"}]})

    assert not made.withhold_usage
    assert made.original is made.body()
