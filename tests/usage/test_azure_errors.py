"""Errors that Azure bills, and errors that say that there is no such model, in every shape that was recorded."""

from __future__ import annotations

import json

import pytest

from llmgateway.usage.azure_errors import AzureError


def error(status: int, document: object) -> AzureError:
    return AzureError(status, json.dumps(document).encode())


@pytest.mark.parametrize(
    "document",
    [
        {"error": {"code": "content_filter", "status": 400, "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
        {"error": {"code": "content_filter", "innererror": {"code": "ContentFiltered"}, "content_filters": []}},
        {"error": {"code": "400", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
        {"error": {"code": None, "inner_error": {"code": "ContentFiltered"}}},
        {"error": {"code": "contentFilter"}},
        {"error": {"code": "CONTENT_FILTER"}},
        {"error": {"type": "content_filter"}},
        {"error": {"code": "BadRequest", "details": [{"code": "content_filter"}]}},
        {"code": "content_filter", "message": "x"},
    ],
)
def test_the_content_filter_is_billed(document):
    """Its evaluation of the prompt is, wherever the code stands and however it is written."""
    assert error(400, document).is_billed


@pytest.mark.parametrize(
    "form",
    [
        b"data: %b\n\n",
        b"data:%b",
        b"event: error\r\ndata: %b\r\n\r\ndata: [DONE]\r\n\r\n",
        b": wait\n\ndata: %b\n\ndata: [DONE]\n\n",
        b"\xef\xbb\xbfdata: %b\n\n",
        b"\xef\xbb\xbf%b",
    ],
)
def test_the_error_may_be_an_event(form):
    """Some send the errors of streams as streams."""
    assert AzureError(400, form % b'{"error":{"code":"content_filter","message":"\\n\\n"}}').is_billed
    assert AzureError(400, form % b'{"error":{"code":"DeploymentNotFound"}}').says_unknown_model
    assert not AzureError(400, form % b'{"error":{"code":"x","message":"data: content_filter"}}').is_billed


@pytest.mark.parametrize("body", [b"", b"not JSON", b"[]", b'{"error":{"code":"Timeout"}}'])
def test_a_timeout_is_billed(body):
    """408 is, whatever its body says."""
    assert AzureError(408, body).is_billed


@pytest.mark.parametrize(
    ("status", "document"),
    [
        (400, {"error": {"code": "unknown_parameter", "message": "content_filter"}}),
        (400, {"error": {"code": 400}}),
        (400, {"error": "content_filter"}),
        (400, {"messages": [{"code": "content_filter"}]}),
        (400, ["content_filter"]),
        (400, None),
        (401, {"error": {"code": "content_filter"}}),
        (403, {"error": {"code": "content_filter"}}),
        (404, {"error": {"code": "content_filter"}}),
        (429, {"error": {"code": "content_filter"}}),
        (500, {"error": {"code": "content_filter"}}),
        (503, {"error": {"code": "408"}}),
    ],
)
def test_other_errors_are_not_billed(status, document):
    """Only the code tells, because messages may quote the client."""
    assert not error(status, document).is_billed


@pytest.mark.parametrize(
    ("status", "document", "expected"),
    [
        (404, {"error": {"code": "DeploymentNotFound"}}, True),
        (404, {"error": {"code": "404", "message": "Resource not found"}}, True),
        (404, "not JSON", True),
        (400, {"error": {"code": "model_not_found", "param": "model"}}, True),
        (400, {"error": {"code": "unknown_model"}}, True),
        (400, {"error": {"code": "unavailable_model"}}, True),
        (400, {"error": {"code": "DeploymentNotFound"}}, True),
        (400, {"error": {"code": "OperationNotSupported"}}, False),
        (400, {"error": {"code": "content_filter"}}, False),
        (429, {"error": {"code": "429"}}, False),
        (500, {"error": {"code": "model_not_found"}}, False),
    ],
)
def test_tells_unknown_models(status, document, expected):
    """A 404 always means that; a 400 by its code."""
    assert expected == error(status, document).says_unknown_model
