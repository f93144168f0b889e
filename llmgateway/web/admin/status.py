"""The status of the gateway."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from ... import __version__
from ...errors import StoreUnavailable
from ...proxy.credentials import NOT_CONFIGURED
from ...records import Organisation, moment
from ...stores.health import DegradationLevel
from ...usage.unpriced import still_without_price, used_without_price
from .. import examples
from ..context import services
from ..dates import use_time_zones_of
from ..schemas.health import StatusSchema
from .blueprint import blp
from .deployments import deployment_states, lowered_quotas

_MOST_MODELS = 20

_DURABLE = (DegradationLevel.NORMAL, DegradationLevel.WITHOUT_REDIS)
"""The levels at which the durable store answers."""


@blp.route("/status", methods=["GET"])
@blp.operation("Show the gateway's status", description="Shows the process that answers; others may differ.")
@blp.response(200, StatusSchema, description="Its state now.", example=examples.STATUS)
def get_status() -> dict[str, Any]:
    gateway, settings, stores = services().gateway, services().settings, services().stores
    problems = stores.problems()
    level = stores.level(problems)
    organisation = _organisation(level)
    use_time_zones_of(organisation)
    return {
        "version": __version__,
        "rung": level,
        "warnings": [*settings.warnings(), *_missing_deployments(organisation), *lowered_quotas()],
        "stores": {name: problem or "ok" for name, problem in problems.items()},
        "azure_key": gateway.credentials.problem_in(organisation) or "ok",
        "journal": services().journal.backlog(),
        "slots": {
            "capacity": gateway.concurrency.capacity,
            "taken": gateway.concurrency.taken,
            "streams": gateway.coalescing.streams,
            "refused": gateway.concurrency.refused,
        },
        "process": {"id": os.getpid(), "processes": settings.processes, "threads": settings.threads},
        "deployments": deployment_states(organisation),
        "unpriced_models": _unpriced_models(organisation, level),
    }


def _organisation(level: DegradationLevel) -> Organisation | None:
    """Return the settings of the organisation: while their store is away, those that this process knows.

    A store that is away is asked once, by :meth:`StoreHealth.problems`. Each further question would take its timeout.
    """
    policy = services().policy
    if level not in _DURABLE:
        return policy.in_memory()
    try:
        return policy.stored()
    except StoreUnavailable:
        return policy.in_memory()


def _missing_deployments(organisation: Organisation | None) -> list[str]:
    """Return a warning if no request leads anywhere."""
    routing = services().gateway.routing
    default = routing.default(organisation)
    if default.endpoint is not None or organisation is None:
        return []
    if default.problem is not None:
        return [f"{default.problem}. Set it again with PUT /admin/settings."]
    if routing.is_configured(organisation):
        return ["LLM_BASE_URL is not set: models without deployments of their own get 404 model_not_found."]
    return [f"{NOT_CONFIGURED[:1].upper()}{NOT_CONFIGURED[1:]}: every request gets 502 upstream_not_configured."]


def _unpriced_models(organisation: Organisation | None, level: DegradationLevel) -> list[str]:
    """Return the models that were used without a known price, by all processes of all hosts if the store answers."""
    names = set(services().unpriced.models)
    if level in _DURABLE:
        with suppress(StoreUnavailable):
            names |= used_without_price(services().usage_log, moment(services().clock()), promptly=True)
    settings = {} if organisation is None else organisation.models
    return still_without_price(names, settings)[:_MOST_MODELS]
