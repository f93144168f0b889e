"""The settings of the organisation: its time zone, and the address of Azure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...azure.endpoint import NO_BASE_URL
from ...local_time import SETTINGS, TimeZones
from ...proxy.default_upstream import UPSTREAM_FIELDS, DefaultUpstream, UpstreamSettings
from ...records import moment
from .. import examples
from ..context import services
from ..errors import invalid_fields
from ..schemas.settings import SettingsInForceSchema, SettingsSchema
from . import etags
from .audit_helpers import write_down
from .blueprint import blp

_VARIABLES = {"base_url": "LLM_BASE_URL", "api_version": "LLM_API_VERSION", "key_header": "LLM_KEY_HEADER"}


@blp.route("/settings", methods=["GET"])
@blp.operation(
    "Read the organisation's settings",
    description="The time zone in which days, weeks and months begin; the address of Azure for models without "
    "deployments of their own.",
)
@blp.response(200, SettingsInForceSchema, description="In force.", example=examples.SETTINGS)
def get_settings() -> dict[str, Any]:
    shown = _shown(services().policy.stored().documents.get(SETTINGS, {}))
    etags.show(shown)
    return shown | _key_problem()


@blp.route("/settings", methods=["PUT"])
@blp.operation(
    "Change the organisation's settings",
    description=(
        "What is not sent stays; null removes it. Budgets and reports go by the days of the time zone. A new one holds "
        "from its next midnight on, so that no day is counted twice; until then the answer has it under `pending`, and "
        "another call replaces it. The address of Azure holds from the next request on, in all processes; what the "
        "environment sets wins over it, as `overridden` says. Azure's key is sent to a new host only if that is one of "
        "Azure's, or if the key is set again after this."
    ),
)
@blp.arguments(SettingsSchema, template=examples.SETTINGS_REQUEST)
@blp.response(200, SettingsInForceSchema, description="In force, and pending.", example=examples.PENDING_SETTINGS)
def set_settings(fields: dict[str, str | None]) -> dict[str, Any]:
    timezone = fields.pop("timezone", None)

    def check(document: Mapping[str, Any]) -> None:
        etags.check(_shown, document)
        _check_address({**document, **fields})

    changed = services().policy.set_settings(fields, timezone=timezone, check=check)
    before, after = map(_shown, changed)
    write_down("settings.set", "", before=before, after=after)
    etags.show(after)
    return after | _key_problem()


def _check_address(document: Mapping[str, Any]) -> None:
    """Raise InvalidFields if the address needs something that neither the document nor the environment has."""
    problem = _in_force(document).problem
    if problem is not None:
        raise invalid_fields({"base_url": [f"{problem}."]})


def _in_force(document: Mapping[str, Any]) -> DefaultUpstream:
    stored = UpstreamSettings(**{name: document.get(name) for name in UPSTREAM_FIELDS})
    return DefaultUpstream.of(services().gateway.routing.environment.or_else(stored))


def _key_problem() -> dict[str, str]:
    # Not a part of the state that the tag covers: requests can change it.
    return {"azure_key": services().gateway.credentials.problem() or "ok"}


def _shown(document: Mapping[str, Any]) -> dict[str, Any]:
    return {**_shown_zones(document), **_shown_address(document)}


def _shown_zones(document: Mapping[str, Any]) -> dict[str, Any]:
    zones = TimeZones.from_document(document, default=services().settings.timezone)
    now = moment(services().clock())
    present, pending = zones.at(now), None
    if zones.since and zones.since[-1] > now:
        since = zones.since[-1]
        pending = {"timezone": str(zones), "since": since.astimezone(zones.at(since)).isoformat()}
    return {"timezone": present.key, "pending": pending}


def _shown_address(document: Mapping[str, Any]) -> dict[str, Any]:
    environment = services().gateway.routing.environment
    in_force = _in_force(document)
    base_url = in_force.settings.base_url
    shown: dict[str, Any] = {
        # Without the query of the environment's: an operator may have put a key into it.
        "base_url": None if base_url in (None, NO_BASE_URL) else base_url.partition("?")[0],
        "api_version": in_force.settings.api_version,
        "key_header": in_force.key_header,
    }
    stored = {name: document.get(name) for name in UPSTREAM_FIELDS}
    overridden = [name for name in UPSTREAM_FIELDS if getattr(environment, name) is not None]
    return {
        **shown,
        "stored": stored,
        "from_environment": overridden,
        "overridden": [
            f"{_VARIABLES[name]} in the environment wins over what is stored."
            for name in overridden
            if stored[name] is not None
        ],
    }
