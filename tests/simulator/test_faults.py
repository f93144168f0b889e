"""Errors that a script orders, and for which requests."""

from __future__ import annotations

import json

import pytest

from llmgateway.records import Usage
from llmgateway.simulator import REFUSALS_OF_STREAM_OPTIONS, Script

from .calls import CHAT, STREAM, call


@pytest.mark.parametrize(("fault", "status"), [("moved", 308), ("moved_nowhere", 302)])
def test_azure_has_moved(azure, fault, status):
    """A redirection, with an address or without."""
    azure.script(Script(fault=fault))
    answer = call(azure)

    assert answer.status == status
    assert ("location" in answer.headers) == (fault == "moved")
    assert azure.served[0].billed is None


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("unknown_parameter", 400),
        ("unrecognized_argument", 400),
        ("validation_error", 400),
        ("extra_forbidden", 422),
        ("extra_forbidden_mistral", 422),
        ("extra_forbidden_phi", 400),
        ("extra_parameters", 400),
    ],
)
def test_every_recorded_refusal_of_stream_options(azure, name, status):
    """JSON that names what is refused."""
    azure.script(Script(fault=name))
    answer = call(azure, STREAM)

    assert name in REFUSALS_OF_STREAM_OPTIONS
    assert answer.status == status
    assert "stream_options" in json.dumps(answer.json)


def test_a_fault_can_be_for_some_kinds_of_requests(azure):
    """All named fields have to be there; the others are served, by the same script."""
    azure.script(Script(fault="validation_error", fault_if=("stream_options", "data_sources")), times=None)
    bodies = [STREAM, {**CHAT, "data_sources": []}, {**STREAM, "data_sources": []}, b"no JSON"]

    assert [call(azure, body).status for body in bodies] == [200, 200, 400, 400]
    assert "stream_options" in azure.served[2].body_sent.decode()
    assert "could not parse" in azure.served[3].body_sent.decode()


@pytest.mark.parametrize("fault", ["content_filter", "content_filter_newer", "timeout"])
def test_some_errors_cost_the_prompt(azure, fault):
    """It was read, though there is no usage that says so."""
    azure.script(Script(fault=fault))
    answer = call(azure, STREAM)

    assert answer.status in (400, 408)
    assert azure.served[0].usage is None
    assert azure.served[0].billed == Usage(prompt_tokens=8, total_tokens=8)


def test_the_newer_refusal_of_the_filter(azure):
    """No status, another inner error, and a list of results."""
    azure.script(Script(fault="content_filter_newer"))
    error = call(azure).json["error"]

    assert (error["code"], error["type"], error["param"]) == ("content_filter", "invalid_request_error", "prompt")
    assert error["content_filters"][0]["content_filter_results"]["jailbreak"] == {"detected": True, "filtered": True}
    assert error["innererror"] == {"code": "ContentFiltered"}
    assert "status" not in error


def test_an_unknown_model_has_a_third_form(azure):
    """That of the previews of 2025."""
    azure.script(Script(fault="model_not_found"))
    answer = call(azure)

    assert (answer.status, answer.json["error"]["code"], answer.json["error"]["param"]) == (
        404,
        "model_not_found",
        "model",
    )
