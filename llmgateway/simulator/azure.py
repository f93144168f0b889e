"""Simulates Azure OpenAI without a network: converts a request to an answer."""

from __future__ import annotations

import hmac
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from . import catalogue, faults, response_state
from .deployments import Deployment, by_name
from .faults import Fault, Occasion
from .forms import rewrite
from .identity import Directory
from .identity import Standing as TokenStanding
from .messages import Reply, Request
from .meter import Account
from .operations import Asked, Made, Refused, peek, prompt_usage
from .production import Work
from .quotas import Quota, Standing, estimate
from .response_store import ResponseStore
from .routes import Target, model_in, target_of
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

_HARDENING = {
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains; preload",
    "x-content-type-options": "nosniff",
}
_SPILLED = frozenset({429, 500, 503})
"""What a provisioned deployment answers before its spill-over takes the request (Microsoft's page on it, 2026)."""


@dataclass(slots=True)
class _Case:
    """One request, and what is known of it so far."""

    request: Request
    script: Script
    target: Target | None
    document: Mapping[str, Any]
    """Empty if the body cannot be read."""
    deployment: Deployment | None
    """``None`` if there is none of the name."""
    occasion: Occasion
    spilled_to: Deployment | None = None
    """The deployment that serves it instead of the one that it names."""


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
        region: str = faults.REGION,
        directory: Directory | None = None,
        responses: ResponseStore | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.responses = ResponseStore(clock=clock) if responses is None else responses
        self._key = key.encode()
        self._deployments = by_name(deployments)
        self._strict = strict
        self._region = region
        self._directory = directory
        self._clock = clock
        self._quotas = {
            name: Quota(
                tokens_per_minute=deployment.tokens_per_minute or tokens_per_minute,
                requests_per_minute=deployment.requests_per_minute or requests_per_minute,
                clock=clock,
            )
            for name, deployment in self._deployments.items()
        }

    def answer(self, request: Request, script: Script) -> Reply:
        """Return Azure's answer to *request*, or the answer that *script* demands."""
        if script.raw is not None:
            return Reply(status=script.raw.status, headers=script.raw.headers, parts=[script.raw.body])
        case = self._case(request, script)
        try:
            reply = self._serve(case)
        except Refused as refused:
            reply = self._error(case, refused.fault)
        return rewrite(reply, script)

    def knows(self, request: Request) -> bool:
        """Whether the request has the right key, or a valid token, in a header that Azure reads."""
        target = target_of(request, versions=API_VERSIONS)
        listed = catalogue.is_list(request.method, request.path)
        if target is None and not listed and response_state.stateful(request, versions=API_VERSIONS) is None:
            return False
        return self._objection(request, target) is None

    def _case(self, request: Request, script: Script) -> _Case:
        target = target_of(request, versions=API_VERSIONS)
        document = peek(None if target is None else target.operation, request)
        occasion = Occasion(region=self._region, retry_after=script.retry_after)
        if "previous_response_id" in document:
            occasion = occasion._replace(response=str(document["previous_response_id"]))
        name = None
        if target is not None:
            operation = target.operation
            occasion = occasion._replace(operation=operation.name, verb=operation.verb, api_version=target.api_version)
            name = target.deployment or model_in(document)
        if name is not None:
            occasion = occasion._replace(deployment=name)
        deployment = None if name is None else self._deployments.get(name)
        return _Case(request, script, target, document, deployment, occasion)

    def _serve(self, case: _Case) -> Reply:
        request, target = case.request, case.target
        failure = self._ordered(case)
        if failure is not None and (failure.status not in _SPILLED or self._spillover(case) is None):
            raise Refused(failure)
        if target is None:
            return self._listed(request)
        self._admit(request, target)
        if not case.document:
            target.operation.parse(request)  # which says what is wrong with it
        if target.deployment is None and model_in(case.document) is None:
            raise Refused(faults.invalid("you must provide a model parameter"))
        deployment = case.deployment
        if deployment is None:
            raise Refused(faults.deployment_not_found(case.occasion))
        if target.operation.ability not in deployment.abilities:
            raise Refused(faults.operation_not_supported(case.occasion._replace(deployment=deployment.family)))
        served_by, standing, headers = self._place(case, deployment, failure)
        tier = _tier(served_by, _tier_asked(request, case.document))
        made = target.operation.answer(
            Asked(
                document=case.document,
                deployment=served_by,
                script=case.script,
                api_version=target.api_version,
                strict=self._strict,
                created=int(self._clock()),
                responses=self.responses,
                tier=tier,
            )
        )
        return self._reply(case, made, served_by, standing, headers)

    def _listed(self, request: Request) -> Reply:
        """Answer with a list of models or deployments, or with a stored response."""
        stateful = response_state.stateful(request, versions=API_VERSIONS)
        if stateful is None and not catalogue.is_list(request.method, request.path):
            raise Refused(faults.NOT_FOUND)
        if (objection := self._objection(request, None)) is not None:
            raise Refused(objection)
        headers = {"Content-Type": "application/json", **_HARDENING, **_identity(request), "x-ms-region": self._region}
        if stateful is not None:
            reply = response_state.answer(stateful, request, self.responses)
            return replace(reply, headers={**headers, **reply.headers})
        version = request.query.get("api-version")
        found = catalogue.answer(request.path, version, self._deployments.values(), API_VERSIONS)
        if found is None:
            raise Refused(faults.NOT_FOUND)
        return Reply(status=200, headers=headers, parts=[orjson.dumps(found)])

    def _admit(self, request: Request, target: Target) -> None:
        if (objection := self._objection(request, target)) is not None:
            raise Refused(objection)

    def _objection(self, request: Request, target: Target | None) -> Fault | None:
        """Return why the request's credentials are refused; ``None`` if they are right."""
        behind_apim = target is not None and target.behind_apim
        newer = target.deployment is None if target is not None else request.path.startswith("/openai/v1/")
        keys = _keys(request, behind_apim=behind_apim)
        token = _bearer(request)
        if token is not None and newer:
            keys.append(token)
        if any(hmac.compare_digest(key.encode(), self._key) for key in keys):
            return None
        # What does not look like a token of Entra is taken for a key.
        if token is not None and token.count(".") == 2 and self._directory is not None:
            return _of_token(self._directory.standing(token))
        if not behind_apim:
            return faults.UNAUTHORIZED
        return faults.APIM_INVALID if keys else faults.APIM_MISSING

    def _ordered(self, case: _Case) -> Fault | None:
        """Return the fault that the script wants for this request."""
        script = case.script
        if script.fault is None or not case.document.keys() >= set(script.fault_if):
            return None
        return faults.FAULTS[script.fault](case.occasion)

    def _spillover(self, case: _Case) -> Deployment | None:
        """Return the deployment that takes what this one cannot serve; the request's header comes first."""
        if case.deployment is None or not case.deployment.provisioned:
            return None
        name = case.request.headers.get("x-ms-spillover-deployment", case.deployment.spillover)
        return None if name is None or name == case.deployment.name else self._deployments.get(name)

    def _place(
        self, case: _Case, deployment: Deployment, failure: Fault | None
    ) -> tuple[Deployment, Standing, Mapping[str, str]]:
        """Return the deployment that serves the request, the state of its limits, and headers about a spill-over.

        Args:
            failure: What the first one answers, whatever its limits are.
        """
        if failure is None:
            standing, failure = self._take(case, deployment)
            if failure is None:
                return deployment, standing, {}
        other = self._spillover(case)
        if other is None:
            raise Refused(failure)
        standing, refusal = self._take(case, other)
        if refusal is not None:
            headers = {**failure.headers, "x-ms-spillover-error": str(refusal.status)}
            raise Refused(failure._replace(headers=headers))
        case.spilled_to = other
        return other, standing, {"x-ms-spillover-from-deployment": deployment.name}

    def _take(self, case: _Case, deployment: Deployment) -> tuple[Standing, Fault | None]:
        document = case.document
        wanted = estimate(0, max_tokens=None, answers=0)
        if case.target is not None:
            operation = case.target.operation
            names = ("max_completion_tokens", "max_output_tokens", "max_tokens")
            most = next((number for name in names if (number := _number(document.get(name)))), None)
            answers = max(_number(document.get("n")) or 1, _number(document.get("best_of")) or 1)
            wanted = estimate(
                operation.characters(document), max_tokens=most, answers=answers if operation.limits_output else 0
            )
        standing, refusal = self._quotas[deployment.name].take(wanted)
        if refusal is None:
            return standing, None
        occasion = case.occasion._replace(deployment=deployment.name, retry_after=refusal.retry_after)
        fault = faults.rate_limited(occasion, what=refusal.what)
        return standing, fault._replace(headers={**_standing_headers(standing), **fault.headers})

    def _error(self, case: _Case, fault: Fault) -> Reply:
        headers = {
            "Content-Type": "application/json",
            **_HARDENING,
            **_identity(case.request),
            "x-ms-region": self._region,
            **fault.headers,
        }
        work = None
        if fault.billed:
            counted = 0 if case.target is None else case.target.operation.prompt_tokens(case.document)
            work = Work(prompt=prompt_usage(counted, case.script))
        return Reply(
            status=fault.status, headers=headers, parts=[fault.body], work=work, account=self._account(case, None)
        )

    def _reply(
        self, case: _Case, made: Made, deployment: Deployment, standing: Standing, spill: Mapping[str, str]
    ) -> Reply:
        """Add the headers that were recorded on 2026-03-31."""
        headers = {
            "Content-Type": made.content_type,
            **_HARDENING,
            **_identity(case.request),
            "azureml-model-session": "d20260330170902-0e618f323d34",
            "skip-error-remapping": "true",
            "x-accel-buffering": "no",
            "x-ms-deployment-name": deployment.name,
            "x-ms-is-spilled-over": "true" if spill else "false",
            **spill,
            "x-ms-rai-invoked": "true",
            "x-ms-region": self._region,
            "x-ratelimit-abusepenalty-active": "False",
            **_standing_headers(standing),
            "x-ratelimit-renewalperiod-requests": "60",
            "x-ratelimit-renewalperiod-tokens": "60",
            "x-ratelimit-reset-requests": str(standing.requests_reset_ms),
            "x-ratelimit-reset-tokens": str(standing.tokens_reset_ms),
        }
        work = made.work
        if work is not None and work.until is not None:
            work = replace(work, until=None)
        return Reply(
            status=200,
            headers=headers,
            parts=made.parts,
            stream=made.stream,
            usage=None if work is None else work.whole,
            work=made.work,
            positions=made.positions,
            account=self._account(case, made),
        )

    def _account(self, case: _Case, made: Made | None) -> Account | None:
        """Return what the meters know of an answer; of an error that no deployment gave, nothing."""
        deployment, target = case.spilled_to or case.deployment, case.target
        if deployment is None or target is None:
            return None
        return Account(
            deployment=deployment.name,
            model=(made.model if made is not None else None) or deployment.model_version,
            operation=target.operation.path,
            scope=deployment.scope,
            provisioned=deployment.provisioned,
            tier_asked=_tier_asked(case.request, case.document) or "",
            spilled_from=case.deployment.name if case.spilled_to is not None and case.deployment is not None else None,
            **(made.units if made is not None else {}),
        )


def _tier_asked(request: Request, document: Mapping[str, Any]) -> str | None:
    """Return the tier that a request asks for. Its header beats its body, and means ``priority`` by ``auto``."""
    header = request.headers.get("x-ms-service-tier")
    if header is not None:
        return "priority" if header == "auto" else header
    tier = document.get("service_tier")
    return tier if isinstance(tier, str) else None


def _tier(deployment: Deployment, asked: str | None) -> str | None:
    """Return the tier that serves a request; ``None`` if nobody has spoken of tiers."""
    if asked is None and deployment.default_tier == "default":
        return None
    wanted = deployment.default_tier if asked in (None, "auto") else asked
    return wanted if wanted in deployment.tiers else "default"


def _keys(request: Request, *, behind_apim: bool) -> list[str]:
    names = ["api-key", "ocp-apim-subscription-key"] if behind_apim else ["api-key"]
    return [request.headers[name] for name in names if name in request.headers]


def _bearer(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _of_token(standing: TokenStanding) -> Fault | None:
    if standing is TokenStanding.VALID:
        return None
    return faults.PERMISSION_DENIED if standing is TokenStanding.FORBIDDEN else faults.TOKEN_INVALID


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


def _standing_headers(standing: Standing) -> dict[str, str]:
    return {
        "x-ratelimit-limit-requests": str(standing.requests_per_minute),
        "x-ratelimit-limit-tokens": str(standing.tokens_per_minute),
        "x-ratelimit-remaining-requests": str(standing.requests_left),
        "x-ratelimit-remaining-tokens": str(standing.tokens_left),
    }
