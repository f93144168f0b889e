"""The views about responses that Azure stores: to read, delete and cancel them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from flask import Response, request

from ..proxy.ownership import StoredRequest
from . import examples
from .blueprint import Blueprint
from .context import request_id, sent_key, services
from .relay import response_of

_PASSED = frozenset(
    (
        *("stream", "starting_after", "include_obfuscation", "include", "include[]"),
        *("after", "before", "limit", "order"),
    )
)
"""The parameters of the query that go on to Azure. ``api-version`` is the gateway's own."""

_REFUSALS = ("UnknownResponse", "Limited", "UpstreamUnusable", "Busy", "UpstreamTimeout")
_ID = {"in": "path", "name": "response_id", "description": "Its `id`.", "example": examples.RESPONSE_ID}
_ONLY_YOURS = "Only for the user who made the response; to others it does not exist. Costs nothing."


def ask(method: str, response_id: str, part: str = "") -> Response:
    """Answer the current request with what Azure answers about a stored response.

    Args:
        part: The rest of the path, such as ``/cancel``.
    """
    environ, id_ = request.environ, request_id()
    query = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    stored = StoredRequest(
        id=id_,
        key=sent_key(environ.get("HTTP_AUTHORIZATION"), environ.get("HTTP_API_KEY")),
        method=method,
        response_id=response_id,
        part=part,
        query=[(name, value) for name, value in query if name in _PASSED],
        client_gone=environ.get("waitress.client_disconnected"),
        send_head=environ.get("llmgateway.send_head"),
    )
    return response_of(services().gateway.ask_stored(stored), id_)


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """One of the views, and what ``/docs`` says about it."""

    name: str
    """Of the view, and of the method in generated clients."""
    method: str
    part: str = ""
    """The rest of the path."""
    summary: str
    description: str
    answer: str
    example: dict[str, Any]
    refusals: tuple[str, ...] = ()


_VIEWS = (
    _View(
        name="get_response",
        method="GET",
        summary="Show a stored response",
        description="With `stream=true` its events come again, behind the number `starting_after` if that is given.",
        answer="The response as Azure stores it.",
        example=examples.RESPONSE,
    ),
    _View(
        name="delete_response",
        method="DELETE",
        summary="Delete a stored response",
        description="Without this, Azure deletes it after 30 days.",
        answer="It is deleted.",
        example={"id": examples.RESPONSE_ID, "object": "response", "deleted": True},
    ),
    _View(
        name="cancel_response",
        method="POST",
        part="/cancel",
        summary="Cancel a response",
        description=(
            "Azure does this for responses in the background only, which are not served here. Close the connection to "
            "end a response that is being written."
        ),
        answer="The response.",
        example=examples.RESPONSE | {"status": "cancelled"},
        refusals=("InvalidCompletion",),
    ),
    _View(
        name="list_input_items",
        method="GET",
        part="/input_items",
        summary="List the input of a stored response",
        description="Page by page: with `limit`, `after` and `order`.",
        answer="The items.",
        example={
            "object": "list",
            "data": examples.RESPONSE_INPUT,
            "first_id": None,
            "last_id": None,
            "has_more": False,
        },
    ),
)


def register(blueprint: Blueprint, *, prefix: str = "", suffix: str = "") -> None:
    """Add the views to *blueprint*.

    Args:
        prefix: Of the path.
        suffix: Of the names of the views, which must be unique.
    """
    for about in _VIEWS:
        content = {
            "application/json": {
                "schema": {"type": "object", "additionalProperties": True},
                "example": about.example,
            }
        }
        documented = blueprint.operation(
            about.summary,
            *_REFUSALS,
            *about.refusals,
            description=f"{about.description} {_ONLY_YOURS}",
            responses={200: {"description": about.answer, "content": content}},
        )
        path = f"{prefix}/responses/<response_id>{about.part}"
        route = blueprint.route(path, methods=[about.method], parameters=[_ID])
        route(documented(_view_of(about, suffix)))


def _view_of(about: _View, suffix: str) -> Any:
    def view(response_id: str) -> Response:
        return ask(about.method, response_id, about.part)

    view.__name__ = about.name + suffix
    return view
