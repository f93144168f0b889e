"""The settings of the organisation: its time zone."""

from __future__ import annotations

from typing import Any

from ...local_time import TimeZones
from ...records import moment
from .. import examples
from ..context import services
from ..schemas.settings import SettingsInForceSchema, SettingsSchema
from . import etags
from .audit_helpers import write_down
from .blueprint import blp


@blp.route("/settings", methods=["GET"])
@blp.operation("Read the organisation's settings", description="The time zone in which days, weeks and months begin.")
@blp.response(200, SettingsInForceSchema, description="In force.", example=examples.SETTINGS)
def get_settings() -> dict[str, Any]:
    policy = services().policy
    shown = _shown(policy.time_zones(policy.stored()))
    etags.show(shown)
    return shown


@blp.route("/settings", methods=["PUT"])
@blp.operation(
    "Set the organisation's time zone",
    description=(
        "Budgets and reports go by its days. It holds from its next midnight on, so that no day is counted twice. "
        "Until then the answer has it under `pending`, and another call replaces it."
    ),
)
@blp.arguments(SettingsSchema, template=examples.SETTINGS_REQUEST)
@blp.response(200, SettingsInForceSchema, description="In force, and pending.", example=examples.PENDING_SETTINGS)
def set_settings(fields: dict[str, str]) -> dict[str, Any]:
    changed = services().policy.set_timezone(fields["timezone"], check=lambda before: etags.check(_shown, before))
    before, after = map(_shown, changed)
    write_down("settings.set", "", before=before, after=after)
    etags.show(after)
    return after


def _shown(zones: TimeZones) -> dict[str, Any]:
    now = moment(services().clock())
    present, pending = zones.at(now), None
    if zones.since and zones.since[-1] > now:
        since = zones.since[-1]
        pending = {"timezone": str(zones), "since": since.astimezone(zones.at(since)).isoformat()}
    return {"timezone": present.key, "pending": pending}
