"""The views that relay requests to Azure: one for each row of the table of operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from flask import Response, request

from ..proxy.dialect import Dialect
from ..proxy.operations.operation import Operation
from ..proxy.operations.table import OPERATIONS
from ..proxy.relay import Reply
from ..proxy.request import CompletionRequest
from .blueprint import Blueprint
from .body import (
    FORM_BYTES_IN_MEMORY,
    check_media_type,
    check_media_type_of_form,
    most_body_bytes,
    read_body,
    read_upload,
)
from .context import request_id, sent_key, services
from .replies import FinalResponse
from .schemas import operations
from .schemas.users import CHAT_ANSWER, CHAT_REQUEST, RESPONSE_ANSWER, RESPONSE_REQUEST

_NO_STORE = ("Cache-Control", "no-store")
# nginx and similar proxies buffer responses without this header.
_NO_BUFFERING = (("X-Accel-Buffering", "no"), ("Cache-Control", "no-cache"))
_WITHOUT_LENGTH = (204, 304)
"""Statuses of responses without a body and a Content-Length (RFC 9110, section 8.6)."""

_REFUSALS = (
    "InvalidCompletion",
    "ModelNotAllowed",
    "ModelNotFound",
    "BodyTooLarge",
    "UnsupportedMediaType",
    "Limited",
    "UpstreamUnusable",
    "Busy",
    "UpstreamTimeout",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Documentation:
    """What ``/docs`` says about an operation."""

    name: str
    """Of the view, and of the method in generated clients."""
    summary: str
    description: str
    request: dict[str, Any]
    """OpenAPI's request body object."""
    answer: dict[str, Any]
    """OpenAPI's response object."""
    refusals: tuple[str, ...] = ()
    """Names of further errors."""


_DOCUMENTATION: dict[str, _Documentation] = {
    "chat/completions": _Documentation(
        name="create_chat_completion",
        summary="Answer a conversation",
        description=(
            "Takes what OpenAI's chat completions take: every parameter goes on to Azure, known here or not. The "
            "organisation's prompt is put in front of the conversation. "
            "With `stream: true` the answer comes as server-sent events, the last of which is `[DONE]`; if it breaks "
            "off, an event with `error` comes instead."
        ),
        request=CHAT_REQUEST,
        answer=CHAT_ANSWER,
    ),
    "responses": _Documentation(
        name="create_response",
        summary="Answer with the Responses API",
        description=(
            "Takes what OpenAI's Responses API takes, except `background` and `conversation`. The organisation's "
            "prompt is put in front of `instructions`, also if `previous_response_id` continues a response. Azure "
            "stores responses for 30 days, unless `store` is false; each belongs to the user who made it, and to "
            "others does not exist, neither in `previous_response_id` nor as an item or a container. "
            "With `stream: true` the answer comes as server-sent events, the last of which is `response.completed`, "
            "`response.incomplete` or `response.failed`; if it breaks off, an event `error` comes instead."
        ),
        request=RESPONSE_REQUEST,
        answer=RESPONSE_ANSWER,
        refusals=("ModelOrResponseNotFound",),
    ),
    "completions": _Documentation(
        name="create_completion",
        summary="Go on with a text",
        description=(
            "OpenAI's legacy completions. The organisation's prompt is put in front of each text, with a blank line "
            "between; while there is one, `prompt` cannot be tokens."
        ),
        request=operations.COMPLETION_REQUEST,
        answer=operations.COMPLETION_ANSWER,
    ),
    "embeddings": _Documentation(
        name="create_embedding",
        summary="Compute embeddings",
        description="Takes what OpenAI's embeddings take. OpenAI's clients ask for `base64` and decode it.",
        request=operations.EMBEDDING_REQUEST,
        answer=operations.EMBEDDING_ANSWER,
    ),
    "images/generations": _Documentation(
        name="create_image",
        summary="Make images",
        description="Takes what OpenAI's image generation takes, also `stream` and `partial_images`.",
        request=operations.IMAGE_REQUEST,
        answer=operations.IMAGE_ANSWER,
    ),
    "images/edits": _Documentation(
        name="create_image_edit",
        summary="Change images",
        description="Takes a form with one or more files `image`, and what OpenAI's image edits take.",
        request=operations.IMAGE_EDIT_REQUEST,
        answer=operations.IMAGE_ANSWER,
    ),
    "audio/transcriptions": _Documentation(
        name="create_transcription",
        summary="Write a recording down",
        description="Takes a form with a `file`, and what OpenAI's transcriptions take.",
        request=operations.TRANSCRIPTION_REQUEST,
        answer=operations.TRANSCRIPTION_ANSWER,
    ),
    "audio/translations": _Documentation(
        name="create_translation",
        summary="Translate a recording into English",
        description="Takes a form with a `file`, and what OpenAI's translations take.",
        request=operations.TRANSLATION_REQUEST,
        answer=operations.TRANSLATION_ANSWER,
    ),
    "audio/speech": _Documentation(
        name="create_speech",
        summary="Speak a text",
        description="Takes what OpenAI's speech takes. The sound comes as it is made.",
        request=operations.SPEECH_REQUEST,
        answer=operations.SPEECH_ANSWER,
    ),
}
"""By name of the operation. Each operation has its entry."""


def register(
    blueprint: Blueprint,
    *,
    prefix: str = "",
    suffix: str = "",
    parameters: Sequence[dict[str, Any]] = (),
    dialect: Dialect | None = None,
    only: Callable[[Operation], bool] = lambda _: True,
) -> None:
    """Add a view for every operation to *blueprint*.

    Args:
        prefix: Of the path. A ``<model>`` in it names the model, in place of the body.
        suffix: Of the names of the views, which must be unique.
        parameters: OpenAPI's descriptions of what the prefix contains.
        dialect: As for :func:`relay`.
        only: Selects operations.
    """
    for operation in filter(only, OPERATIONS.values()):
        about = _DOCUMENTATION[operation.name]
        documented = blueprint.operation(
            about.summary,
            *_REFUSALS,
            *about.refusals,
            description=about.description,
            requestBody=about.request,
            responses={200: about.answer},
        )
        view = _view_of(operation, about.name + suffix, dialect)
        route = blueprint.route(f"{prefix}/{operation.name}", methods=["POST"], parameters=[*parameters])
        route(documented(view))


def _view_of(operation: Operation, name: str, dialect: Dialect | None) -> Any:
    def view(model: str | None = None) -> Response:
        return relay(operation, model=model, dialect=dialect)

    view.__name__ = name
    return view


def relay(operation: Operation, *, model: str | None = None, dialect: Dialect | None = None) -> Response:
    """Answer the current request with what Azure answers.

    Args:
        model: The model that the path names; None if the body names it.
        dialect: What the client expects of a stream; None for what the settings say about ``/v1``.
    """
    # Each of Flask's globals is used once, because an access takes as long as two function calls.
    environ, used, id_ = request.environ, services(), request_id()
    largest = used.settings.max_body_bytes
    check = check_media_type if operation.form is None else check_media_type_of_form
    check(environ.get("CONTENT_TYPE"), environ.get("HTTP_CONTENT_ENCODING"))
    if dialect is None:
        dialect = Dialect.AZURE if used.settings.azure_events == "pass" else Dialect.OPENAI
    completion = CompletionRequest(
        id=id_,
        key=sent_key(environ.get("HTTP_AUTHORIZATION"), environ.get("HTTP_API_KEY")),
        operation=operation,
        body=partial(read_body, environ, largest=largest),
        body_bytes=most_body_bytes(environ, largest=largest),
        endpoint=f"/v1/{operation.name}",
        model=model,
        client_address=environ.get("REMOTE_ADDR"),
        client_gone=environ.get("waitress.client_disconnected"),
        send_head=environ.get("llmgateway.send_head"),
        dialect=dialect,
    )
    if operation.form is None:
        return response_of(used.gateway.complete(completion), id_)
    with ExitStack() as files:
        folder = used.settings.instance
        upload = replace(
            completion,
            body=partial(read_upload, environ, operation.form, largest=largest, folder=folder, files=files),
            body_bytes=min(completion.body_bytes, FORM_BYTES_IN_MEMORY),
        )
        return response_of(used.gateway.complete(upload), id_)


def response_of(reply: Reply, id_: str) -> Response:
    """Return *reply* as a response of Flask."""
    headers = [*reply.headers, ("x-request-id", id_)]
    if not isinstance(reply.body, bytes):
        headers += _NO_BUFFERING
    else:
        headers.append(_NO_STORE)
        if reply.status not in _WITHOUT_LENGTH:
            headers.append(("Content-Length", str(len(reply.body))))
    return FinalResponse(reply.body, reply.status, headers)
