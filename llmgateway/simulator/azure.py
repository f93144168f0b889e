"""Simulates Azure OpenAI without a network: converts a request to an answer."""

from __future__ import annotations

import hmac
import re
import secrets
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..records import Usage
from . import chat, faults
from .chat import Refused
from .completions import complete, write_events, write_whole
from .deployments import Deployment, by_name
from .faults import Fault, Occasion
from .quotas import Quota, Standing, estimate
from .scripts import Script

API_VERSIONS = frozenset(
    [
        "2023-05-15",
        "2023-06-01-preview",
        "2023-07-01-preview",
        "2023-08-01-preview",
        "2023-09-01-preview",
        "2023-10-01-preview",
        "2023-12-01-preview",
        "2024-02-01",
        "2024-02-15-preview",
        "2024-03-01-preview",
        "2024-04-01-preview",
        "2024-05-01-preview",
        "2024-06-01",
        "2024-07-01-preview",
        "2024-08-01-preview",
        "2024-09-01-preview",
        "2024-10-01-preview",
        "2024-10-21",
        "2024-12-01-preview",
        "2025-01-01-preview",
        "2025-02-01-preview",
        "2025-03-01-preview",
        "2025-04-01-preview",
    ]
)
_V1_VERSIONS = frozenset({"v1", "preview", "latest"})

_V1_PATH = "/openai/v1/chat/completions"
_CLASSIC_PATH = re.compile(r"/openai/deployments/([^/]+)/chat/completions")
_APIM_PATH = re.compile(r"/.+/deployments/([^/]+)/chat/completions")

_HARDENING = {
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains; preload",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An HTTP request, read to its end."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Names in lower case."""
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP answer, not yet framed."""

    status: int
    headers: Mapping[str, str]
    parts: Sequence[bytes]
    """The events of a stream, or the whole body."""
    stream: bool = False
    usage: Usage | None = None


class _Target(NamedTuple):
    """The target of a request, from its path and query."""

    deployment: str | None
    """``None`` for the v1 API, in which the body names the deployment."""
    api_version: str | None
    behind_apim: bool


class Azure:
    """One resource with its key, its deployments and their limits. Any thread may use it."""

    def __init__(
        self,
        *,
        key: str,
        deployments: Iterable[Deployment | str],
        tokens_per_minute: int | None = None,
        requests_per_minute: int | None = None,
        strict: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key = key.encode()
        self._deployments = by_name(deployments)
        self._strict = strict
        self._clock = clock
        self._quotas = {
            name: Quota(tokens_per_minute=tokens_per_minute, requests_per_minute=requests_per_minute, clock=clock)
            for name in self._deployments
        }

    def answer(self, request: Request, script: Script) -> Reply:
        """Return Azure's answer to *request*, or the answer that *script* demands."""
        if script.raw is not None:
            return Reply(status=script.raw.status, headers=script.raw.headers, parts=[script.raw.body])
        try:
            reply = self._serve(request, script)
        except Refused as refused:
            reply = _error(request, refused.fault)
        if script.headers:
            reply = _with_headers(reply, script.headers)
        return reply

    def knows(self, request: Request) -> bool:
        """Whether the request has the right key in a header that Azure reads."""
        target = _target(request)
        return target is not None and any(self._right(key) for key in _credentials(request, target))

    def _right(self, key: str) -> bool:
        return hmac.compare_digest(key.encode(), self._key)

    def _serve(self, request: Request, script: Script) -> Reply:
        target = _target(request)
        if script.fault is not None:
            raise Refused(_ordered(script, target))
        if target is None:
            raise Refused(faults.NOT_FOUND)
        self._admit(request, target)
        document: dict[str, Any] | None = None
        name = target.deployment
        if name is None:
            document = chat.parse(request.body)
            name = _model(document)
        deployment = self._deployments.get(name)
        occasion = Occasion(name, target.api_version)
        if deployment is None:
            raise Refused(faults.deployment_not_found(occasion))
        if document is None:
            document = chat.parse(request.body)
        standing = self._take(document, occasion)
        wish = chat.read(document, deployment=deployment, api_version=target.api_version, strict=self._strict)
        return self._complete(request, wish, deployment, script, standing)

    def _admit(self, request: Request, target: _Target) -> None:
        credentials = _credentials(request, target)
        if any(self._right(key) for key in credentials):
            return
        if not target.behind_apim:
            raise Refused(faults.UNAUTHORIZED)
        raise Refused(faults.APIM_INVALID if credentials else faults.APIM_MISSING)

    def _take(self, document: Mapping[str, Any], occasion: Occasion) -> Standing:
        wanted = estimate(
            chat.characters(document),
            max_tokens=_number(document.get("max_completion_tokens")) or _number(document.get("max_tokens")),
            answers=max(_number(document.get("n")) or 1, _number(document.get("best_of")) or 1),
        )
        standing, refusal = self._quotas[occasion.deployment].take(wanted)
        if refusal is not None:
            fault = faults.rate_limited(occasion._replace(retry_after=refusal.retry_after), what=refusal.what)
            raise Refused(fault._replace(headers={**_standing_headers(standing), **fault.headers}))
        return standing

    def _complete(
        self, request: Request, wish: chat.Chat, deployment: Deployment, script: Script, standing: Standing
    ) -> Reply:
        completion = complete(
            wish,
            deployment=deployment,
            script=script,
            request_id="chatcmpl-" + secrets.token_hex(15)[:29],
            created=int(self._clock()),
        )
        return Reply(
            status=200,
            headers=_completion_headers(request, deployment, standing, stream=wish.stream),
            parts=write_events(completion) if wish.stream else [write_whole(completion)],
            stream=wish.stream,
            usage=completion.usage,
        )


def _target(request: Request) -> _Target | None:
    """Return the target of a request; ``None`` if Azure has no such resource."""
    if request.method != "POST":
        return None
    version = request.query.get("api-version")
    if request.path == _V1_PATH:
        return _Target(None, None, False) if version is None or version in _V1_VERSIONS else None
    if classic := _CLASSIC_PATH.fullmatch(request.path):
        behind_apim = "ocp-apim-subscription-key" in request.headers
        return _Target(classic[1], version, behind_apim) if version in API_VERSIONS else None
    if managed := _APIM_PATH.fullmatch(request.path):
        return _Target(managed[1], version, True) if version is None or version in API_VERSIONS else None
    return None


def _credentials(request: Request, target: _Target) -> list[str]:
    names = ["api-key"]
    if target.behind_apim:
        names.append("ocp-apim-subscription-key")
    found = [request.headers[name] for name in names if name in request.headers]
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if target.deployment is None and scheme.lower() == "bearer":
        found.append(token.strip())
    return found


def _ordered(script: Script, target: _Target | None) -> Fault:
    occasion = Occasion(retry_after=script.retry_after)
    if target is not None:
        occasion = occasion._replace(api_version=target.api_version)
        if target.deployment is not None:
            occasion = occasion._replace(deployment=target.deployment)
    return faults.FAULTS[script.fault or ""](occasion)


def _model(document: Mapping[str, Any]) -> str:
    model = document.get("model")
    if not isinstance(model, str):
        raise Refused(faults.invalid("you must provide a model parameter"))
    return model


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _identity(request: Request) -> dict[str, str]:
    """Return the headers with ids. If the client sends no id, Azure repeats its own one (recorded 2024)."""
    own = str(uuid.uuid4())
    return {
        "apim-request-id": own,
        "x-ms-client-request-id": request.headers.get("x-ms-client-request-id", own),
        "x-request-id": str(uuid.uuid4()),
    }


def _error(request: Request, fault: Fault) -> Reply:
    headers = {
        "Content-Type": "application/json",
        **_HARDENING,
        **_identity(request),
        "x-ms-region": faults.REGION,
        **fault.headers,
    }
    return Reply(status=fault.status, headers=headers, parts=[fault.body])


def _standing_headers(standing: Standing) -> dict[str, str]:
    return {
        "x-ratelimit-limit-requests": str(standing.requests_per_minute),
        "x-ratelimit-limit-tokens": str(standing.tokens_per_minute),
        "x-ratelimit-remaining-requests": str(standing.requests_left),
        "x-ratelimit-remaining-tokens": str(standing.tokens_left),
    }


def _completion_headers(
    request: Request, deployment: Deployment, standing: Standing, *, stream: bool
) -> dict[str, str]:
    """As recorded on 2026-03-31."""
    return {
        "Content-Type": "text/event-stream; charset=utf-8" if stream else "application/json",
        **_HARDENING,
        **_identity(request),
        "azureml-model-session": "d20260330170902-0e618f323d34",
        "skip-error-remapping": "true",
        "x-accel-buffering": "no",
        "x-ms-deployment-name": deployment.name,
        "x-ms-is-spilled-over": "false",
        "x-ms-rai-invoked": "true",
        "x-ms-region": faults.REGION,
        "x-ratelimit-abusepenalty-active": "False",
        **_standing_headers(standing),
        "x-ratelimit-renewalperiod-requests": "60",
        "x-ratelimit-renewalperiod-tokens": "60",
        "x-ratelimit-reset-requests": "500",
        "x-ratelimit-reset-tokens": "7",
    }


def _with_headers(reply: Reply, headers: Mapping[str, str]) -> Reply:
    replaced = {name.lower() for name in headers}
    kept = {name: value for name, value in reply.headers.items() if name.lower() not in replaced}
    return Reply(
        status=reply.status,
        headers={**kept, **headers},
        parts=reply.parts,
        stream=reply.stream,
        usage=reply.usage,
    )
