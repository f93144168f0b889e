"""The addresses of a resource: a table of what each of them does."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from . import chat
from .audio import SPEECH, TRANSCRIPTIONS, TRANSLATIONS
from .completions import complete
from .embeddings import EMBEDDINGS
from .images import EDITS, GENERATIONS
from .messages import Request
from .operations import Asked, Made, Operation, parse_json
from .partners import adapt, check
from .responses import COMPACT, RESPONSES
from .text_completions import COMPLETIONS
from .writing import write_events, write_whole

_V1_VERSIONS = frozenset({"v1", "preview", "latest"})


def _chat(asked: Asked) -> Made:
    deployment, document = asked.deployment, asked.document
    script = adapt(asked.script, deployment, characters=chat.characters(document))
    if asked.tier is not None and script.service_tier is None:
        script = replace(script, service_tier=asked.tier)
    check(document, deployment)
    wish = chat.read(document, deployment=deployment, api_version=asked.api_version, strict=asked.strict)
    completion = complete(
        wish,
        deployment=deployment,
        script=script,
        request_id="chatcmpl-" + secrets.token_hex(15)[:29],
        created=asked.created,
    )
    work = completion.work
    parts = write_events(completion) if wish.stream else [(write_whole(completion), work.length)]
    return Made(
        parts=[data for data, _ in parts],
        content_type="text/event-stream; charset=utf-8" if wish.stream else "application/json",
        stream=wish.stream,
        work=work if script.error_event_after is None else replace(work, until=parts[-1][1]),
        positions=[position for _, position in parts],
        # Another name in the answer is no other model, unless a router has picked it.
        model=script.model if asked.script.model or deployment.maker == "router" else None,
        units={"stream": wish.stream, "tier": script.service_tier or "default"},
    )


CHAT = Operation(
    path="chat/completions",
    name="ChatCompletions_Create",
    verb="chatCompletion",
    ability="chat",
    parse=parse_json,
    characters=chat.characters,
    prompt_tokens=chat.prompt_tokens,
    answer=_chat,
    limits_output=True,
)

OPERATIONS: Mapping[str, Operation] = {
    operation.path: operation
    for operation in (
        CHAT,
        RESPONSES,
        COMPACT,
        COMPLETIONS,
        EMBEDDINGS,
        GENERATIONS,
        EDITS,
        TRANSCRIPTIONS,
        TRANSLATIONS,
        SPEECH,
    )
}
"""By their path behind the deployment, or behind ``/openai/v1``."""

_V1_PATH = re.compile(rf"/openai/v1/({'|'.join(map(re.escape, OPERATIONS))})")
_PATHS = "|".join(re.escape(path) for path, operation in OPERATIONS.items() if not operation.in_body)
_CLASSIC_PATH = re.compile(rf"/openai/deployments/([^/]+)/({_PATHS})")
_IN_BODY = "|".join(re.escape(path) for path, operation in OPERATIONS.items() if operation.in_body)
_BODY_PATH = re.compile(rf"(/.+)?/openai/({_IN_BODY})")
_APIM_PATH = re.compile(rf"/.+/deployments/([^/]+)/({_PATHS})")


class Target(NamedTuple):
    """The target of a request, from its path and query."""

    operation: Operation
    deployment: str | None
    """``None`` if the body names the deployment, as on the v1 API."""
    api_version: str | None
    behind_apim: bool


def target_of(request: Request, *, versions: frozenset[str]) -> Target | None:
    """Return the target of a request; ``None`` if Azure has no such resource."""
    if request.method != "POST":
        return None
    version = request.query.get("api-version")
    if newer := _V1_PATH.fullmatch(request.path):
        known = version is None or version in _V1_VERSIONS
        return Target(OPERATIONS[newer[1]], None, None, False) if known else None
    if (within := _BODY_PATH.fullmatch(request.path)) and version in versions:
        operation = OPERATIONS[within[2]]
        behind_apim = within[1] is not None or "ocp-apim-subscription-key" in request.headers
        return Target(operation, None, version, behind_apim) if version >= operation.since else None
    if classic := _CLASSIC_PATH.fullmatch(request.path):
        behind_apim = "ocp-apim-subscription-key" in request.headers
        return Target(OPERATIONS[classic[2]], classic[1], version, behind_apim) if version in versions else None
    if managed := _APIM_PATH.fullmatch(request.path):
        known = version is None or version in versions
        return Target(OPERATIONS[managed[2]], managed[1], version, True) if known else None
    return None


def model_in(document: Mapping[str, Any]) -> str | None:
    """Return the deployment that a body names; ``None`` if it names none."""
    model = document.get("model")
    return model if isinstance(model, str) else None
