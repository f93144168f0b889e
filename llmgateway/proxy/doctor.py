"""Tries every deployment and every endpoint that it serves, and says what to change where one does not work.

The first call to each has a body that Azure refuses with 400 after it has checked the key and the deployment, and does
not bill. Chat completions get a second call for one token, which is streamed: it shows whether the deployment accepts
``stream_options``. These few tokens are in no usage record.
"""

from __future__ import annotations

import json
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..accounts.policy import OrganisationPolicy
from ..azure.cancellation import CancellationToken
from ..azure.credentials import Credential, StaticKey
from ..azure.deployments import Target
from ..azure.endpoint import Endpoint, is_deployment_name
from ..clock import Timer
from ..errors import ClientGone, GatewayError, UpstreamCredentials
from ..interfaces import Answer, Upstream
from ..records import UNKNOWN_QUOTA, Organisation, Quota
from ..usage.azure_errors import AzureError
from ..usage.error_codes import kind_of_limit
from .advice import Advice, advise, is_missing_deployment, is_wrong_operation
from .listing import list_quietly
from .operations.table import OPERATIONS
from .routing import Routing

SECONDS = 10.0
"""The longest that one call may take."""

ALL_SECONDS = 50.0
"""The longest that an admin waits for all of them."""

AT_ONCE = 8
"""How many deployments are asked at the same time."""

MOST_NAMES = 20
"""The most deployments of ``LLM_BASE_URL`` that are tried."""

_SOME_MODEL = "gpt-4o"
_MOST_BYTES = 64 * 1024
_CHAT = "chat/completions"
_BAD_BODY = (400, 422)
_USAGE = re.compile(rb'"usage"\s*:\s*\{')

_TRIALS: Mapping[str, Mapping[str, object]] = {
    _CHAT: {"messages": [], "max_tokens": 1},
    "responses": {"input": ".", "max_output_tokens": 1, "store": False},  # at least 16 (OpenAI, API reference, 2026)
    "embeddings": {"input": []},
    "completions": {"prompt": ".", "max_tokens": 1},
    "images/generations": {"prompt": ""},
    "audio/speech": {"input": "", "voice": "alloy"},
}
"""Bodies that Azure refuses and does not bill, or that cost one token. Others are empty: they should be multipart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What came of trying one endpoint of one deployment."""

    model: str | None
    """The registered model; None for a deployment of ``LLM_BASE_URL``."""
    name: str | None
    deployment: str
    endpoint: str
    """The name of the operation."""
    ok: bool
    url: str | None = None
    """Where the call went. Contains no key."""
    header: str | None = None
    """The name of the header that authenticates the gateway."""
    identity: bool = False
    api_version: str | None = None
    status: int | None = None
    code: str | None = None
    problem: str | None = None
    remedy: str | None = None
    stream_options: bool | None = None
    """Whether a stream can be asked for its count; None if that is not known, or makes no sense."""
    quota: Quota = UNKNOWN_QUOTA
    region: str | None = None
    latency_ms: float | None = None
    """Until the head of the answer, with a new connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Patient:
    """One deployment to be tried."""

    model: str | None
    name: str | None
    deployment: str
    endpoints: tuple[str, ...]
    only_first: bool
    """Whether any one of *endpoints* will do, because nobody has said which of them it serves."""
    target: Target | None
    problem: str | None = None
    made_up: bool = False
    """Whether nobody has named the deployment, so that it need not exist."""


class Doctor:
    """Examines the deployments. Thread-safe.

    Args:
        answered: Returns the names of models that Azure has answered at ``LLM_BASE_URL``.
        timer: Measures durations.
    """

    def __init__(
        self,
        upstream: Upstream,
        routing: Routing,
        policy: OrganisationPolicy,
        *,
        answered: Callable[[], Iterable[str]],
        timer: Timer = time.monotonic,
    ) -> None:
        self._upstream = upstream
        self._routing = routing
        self._policy = policy
        self._answered = answered
        self._timer = timer

    def examine(self, *, model: str | None = None, request_id: str) -> list[Examined]:
        """Try all deployments, or those of one model, and return what came of each endpoint.

        Args:
            request_id: Sent to Azure as ``x-ms-client-request-id``.

        Raises:
            StoreUnavailable: nobody knows which models are registered.
        """
        return self._examine(self._patients(self._policy.stored(), model), request_id)

    def examine_address(
        self, endpoint: Endpoint, credential: Credential, *, deployment: str | None, request_id: str
    ) -> list[Examined]:
        """Try an address and a credential that are not stored.

        Args:
            deployment: Its name; None if nobody has named one: then any will do, since it need not exist.
        """
        name = deployment or _SOME_MODEL
        patient = _Patient(
            model=None,
            name=None,
            deployment=name,
            endpoints=tuple(OPERATIONS),
            only_first=True,
            target=Target(name="", endpoint=endpoint, deployment=name, credential=credential),
            made_up=deployment is None,
        )
        return self._examine([patient], request_id)

    def _examine(self, patients: list[_Patient], request_id: str) -> list[Examined]:
        found: dict[int, list[Examined]] = {}
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        done = threading.Semaphore(0)
        for number in range(len(patients)):
            waiting.put(number)

        def work() -> None:
            with suppress(queue.Empty):
                while True:
                    number = waiting.get_nowait()
                    found[number] = _Examination(self._upstream, patients[number], self._timer, request_id).run()
                    done.release()

        # Daemons, because neither the look-up of a name nor a connection attempt can be cancelled.
        for _ in range(min(AT_ONCE, len(patients))):
            threading.Thread(target=work, name="doctor", daemon=True).start()
        deadline = self._timer() + ALL_SECONDS
        for _ in patients:
            if not done.acquire(timeout=max(0.0, deadline - self._timer())):
                break
        with suppress(queue.Empty):
            while True:
                waiting.get_nowait()  # no others are begun
        return [one for number, each in enumerate(patients) for one in found.get(number) or [_not_reached(each)]]

    def _patients(self, organisation: Organisation, model: str | None) -> list[_Patient]:
        patients = [*self._registered(organisation), *self._unregistered(organisation)]
        return [each for each in patients if model is None or model in (each.model, each.deployment)]

    def _registered(self, organisation: Organisation) -> Iterable[_Patient]:
        for model, deployment, target in self._routing.registered(organisation):
            problem = deployment.problem
            if problem is None and target is None:
                problem = "there is no key: give it one, or set LLM_API_KEY"
            yield _Patient(
                model=model.name,
                name=deployment.name,
                deployment=deployment.deployment,
                endpoints=model.endpoints or tuple(OPERATIONS),
                only_first=model.endpoints is None,
                target=target,
                problem=problem,
            )

    def _unregistered(self, organisation: Organisation) -> Iterable[_Patient]:
        default = self._routing.default(organisation)
        if default.endpoint is None:
            return
        registry = self._routing.registry(organisation)
        own = default.deployment
        names = [own] if own else [*dict.fromkeys((*self._routing.offered, *self._answered()))]
        usable = [name for name in names if name not in registry.names and is_deployment_name(name)][:MOST_NAMES]
        made_up = not usable and not registry.names
        for name in usable or ([_SOME_MODEL] if made_up else ()):
            settings, target, problem = organisation.models.get(name), None, None
            try:
                target = self._routing.own_target(name, organisation)
            except GatewayError:
                problem = _no_key(default.endpoint, shared=self._routing.may_share_key(default.endpoint, organisation))
            endpoints = None if settings is None else settings.endpoints
            yield _Patient(
                model=None,
                name=None,
                deployment=name,
                endpoints=endpoints or tuple(OPERATIONS),
                only_first=endpoints is None,
                target=target,
                problem=problem,
                made_up=made_up,
            )


class _Examination:
    """Tries the endpoints of one deployment, one after the other."""

    def __init__(self, upstream: Upstream, patient: _Patient, timer: Timer, request_id: str) -> None:
        self._upstream = upstream
        self._patient = patient
        self._timer = timer
        self._request_id = request_id

    def run(self) -> list[Examined]:
        patient = self._patient
        if patient.target is None:
            return [self._made(patient.endpoints[0], ok=False, problem="It cannot be called", remedy=patient.problem)]
        results: list[Examined] = []
        for endpoint in patient.endpoints:
            result = self._try(patient.target, endpoint)
            if not patient.only_first:
                results.append(result)
            elif not is_wrong_operation(result.code or ""):
                return [result]
            else:
                results = [result]
        return results

    def _try(self, target: Target, endpoint: str) -> Examined:
        first, _ = self._call(target, endpoint, dict(_TRIALS.get(endpoint, {})))
        if first.ok and endpoint == _CHAT and not self._patient.made_up:
            return self._try_stream(target, first)
        return first

    def _try_stream(self, target: Target, first: Examined) -> Examined:
        """Ask for one token, and find out whether the deployment counts it in its stream."""
        body: dict[str, object] = {
            "messages": [{"role": "user", "content": "."}],
            "max_tokens": 1,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        second, data = self._call(target, _CHAT, body)
        if second.status in _BAD_BODY and b"max_completion_tokens" in data:  # reasoning models
            body["max_completion_tokens"] = body.pop("max_tokens")
            second, data = self._call(target, _CHAT, body)
        if second.status in _BAD_BODY and second.ok:
            return replace(first, stream_options=False if b"stream_options" in data else None)
        return replace(
            second,
            latency_ms=first.latency_ms,
            stream_options=_USAGE.search(data) is not None if second.ok else None,
        )

    def _call(self, target: Target, endpoint: str, fields: dict[str, object]) -> tuple[Examined, bytes]:
        """Send *fields* to an endpoint; return what that says of it, and the body of the answer."""
        operation = OPERATIONS[endpoint]
        url = target.endpoint.url(target.deployment, endpoint, in_path=operation.in_path)
        common: dict[str, Any] = {
            "url": url,
            "api_version": next(iter(parse_qs(urlsplit(url).query).get("api-version", ())), None),
            "identity": not isinstance(target.credential, StaticKey),
        }
        began = self._timer()
        body = json.dumps({"model": target.deployment, **fields}).encode()
        token = CancellationToken()
        timer = threading.Timer(SECONDS, token.cut)
        timer.daemon = True
        timer.start()
        try:
            common["header"] = target.credential.header()[0]
            answer = self._upstream.send(
                body,
                target=target,
                operation=endpoint,
                in_path=operation.in_path,
                request_id=self._request_id,
                cancellation=token,
                seconds=SECONDS,
            )
            common["latency_ms"] = round((self._timer() - began) * 1000, 1)
            data = _read(answer)
        except GatewayError as error:
            problem, remedy = self._explain(target, error)
            return self._made(endpoint, ok=False, code=error.code, problem=problem, remedy=remedy, **common), b""
        finally:
            timer.cancel()
        answered = AzureError(answer.status, data)
        code = _code(answered, answer.quota)
        advice = self._advice(target, endpoint, url, answered, code)
        return (
            self._made(
                endpoint,
                ok=advice is None,
                status=answer.status,
                code=code if answer.status >= 300 else None,
                problem=None if advice is None else advice.problem,
                remedy=None if advice is None else advice.remedy,
                quota=answer.quota,
                region=answer.region,
                **common,
            ),
            data,
        )

    def _advice(self, target: Target, endpoint: str, url: str, error: AzureError, code: str) -> Advice | None:
        advice = advise(error, code, target=target, operation=endpoint, url=url)
        if advice is None or not is_missing_deployment(error.status, code):
            return advice
        if self._patient.made_up:
            return None  # address and key are right, and nobody has said which deployments there are
        names = ", ".join(each.name for each in list_quietly(self._upstream, target, request_id=self._request_id)[:20])
        return advice._replace(remedy=f"{advice.remedy} Azure lists: {names}.") if names else advice

    def _explain(self, target: Target, error: GatewayError) -> tuple[str, str]:
        if isinstance(error, UpstreamCredentials):
            return "There is nothing to authenticate with", error.message
        if isinstance(error, ClientGone):
            return f"No answer within {SECONDS:g} s", "Check the network on the way, and the region of the resource."
        failure = self._upstream.explain(error, target.endpoint)
        return failure.problem, failure.remedy

    def _made(self, endpoint: str, *, ok: bool, **fields: Any) -> Examined:
        patient = self._patient
        return Examined(
            model=patient.model, name=patient.name, deployment=patient.deployment, endpoint=endpoint, ok=ok, **fields
        )


def _no_key(endpoint: Endpoint, *, shared: bool) -> str:
    if shared:
        return "there is no usable key: set one with llmgateway llm-key set, or LLM_API_KEY"
    return (
        f"the key is not sent to {endpoint.host}, for which it was not set: set it again with llmgateway llm-key set, "
        "or name the address in LLM_BASE_URL"
    )


def _code(error: AzureError, quota: Quota) -> str:
    if error.status != 429:
        return error.code
    return kind_of_limit(error.message, quota, prompt_tokens=1, most_tokens=0)


def _read(answer: Answer) -> bytes:
    data = b""
    try:
        while len(data) < _MOST_BYTES and (chunk := answer.read()):
            data += chunk
    finally:
        answer.close()
    return data


def _not_reached(patient: _Patient) -> Examined:
    return Examined(
        model=patient.model,
        name=patient.name,
        deployment=patient.deployment,
        endpoint=patient.endpoints[0],
        ok=False,
        problem=f"It was not tried to the end within {ALL_SECONDS:g} s",
        remedy="Check DNS and the network on the way; or examine one model at a time.",
    )
