"""What the status says about deployments: where they are, what Azure says about them, whether they are asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...proxy.deployment_states import DeploymentState, describe_lowered
from ...records import Organisation, moment
from ..context import services

_MOST = 500
_UNITS = ("limit_requests", "remaining_requests", "limit_tokens", "remaining_tokens")


_UNREGISTERED: dict[str, Any] = {
    **dict.fromkeys(("model", "name", "priority", "weight", "problem", "rests_until", "rests_because")),
    "failures": 0,
}
"""What does not apply to a deployment of ``LLM_BASE_URL``, since there is no other one to ask."""


def deployment_states(organisation: Organisation | None) -> list[dict[str, Any]]:
    """Return the registered deployments, and those of ``LLM_BASE_URL`` that have answered this process."""
    gateway = services().gateway
    shown = [] if organisation is None else [*_registered(organisation)]
    resources = {each.pop("resource") for each in shown}
    shown += [
        {**_UNREGISTERED, **_address(state.base_url, state.deployment), **_said(state)}
        for state in gateway.deployments.all()
        if not state.name and f"{state.base_url}#{state.deployment}" not in resources
    ]
    return shown[:_MOST]


def lowered_quotas() -> list[str]:
    """Return a warning for each deployment whose quota Azure has lowered."""
    return [
        f"Azure has lowered the quota of the deployment {state.name or state.deployment} ({state.base_url}): "
        f"{describe_lowered(state.lowered.before, state.quota)}."
        for state in services().gateway.deployments.all()
        if state.lowered is not None
    ]


def _registered(organisation: Organisation) -> Iterator[dict[str, Any]]:
    gateway = services().gateway
    resting = gateway.failover.resting()
    problems = gateway.credentials.deployment_problems(organisation)
    for model in gateway.routing.registry(organisation).models.values():
        for each in model.deployments:
            resource = f"{each.endpoint.base}#{each.deployment}"
            cooldown = resting.get(resource)
            yield {
                "resource": resource,
                "model": model.name,
                "name": each.name,
                **_address(each.endpoint.base, each.deployment),
                "priority": each.priority,
                "weight": each.weight,
                "problem": problems.get((model.name, each.name)),
                "rests_until": None if cooldown is None else moment(cooldown.until),
                "rests_because": None if cooldown is None else "limited" if cooldown.limited else "failed",
                "failures": gateway.failover.failures(resource),
                **_said(gateway.deployments.find(resource)),
            }


def _address(base_url: str, deployment: str) -> dict[str, Any]:
    return {"base_url": base_url, "deployment": deployment}


def _said(state: DeploymentState | None) -> dict[str, Any]:
    """Return what the deployment has said about itself; nulls if it has not been asked."""
    if state is None:
        return {"region": None, "quota": None, "quota_at": None, "quota_lowered": None, "last_error": None}
    error, known = state.last_error, bool(state.quota_at)
    return {
        "region": state.region,
        "quota": dict(zip(_UNITS, state.quota, strict=True)) if known else None,
        "quota_at": moment(state.quota_at) if known else None,
        "quota_lowered": None
        if state.lowered is None
        else {"at": moment(state.lowered.at), "before": dict(zip(_UNITS, state.lowered.before, strict=True))},
        "last_error": None if error is None else {"at": moment(error.at), "status": error.status, "code": error.code},
    }
