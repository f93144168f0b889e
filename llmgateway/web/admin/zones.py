"""The time zones of the organisation, for views."""

from __future__ import annotations

from ...local_time import SETTINGS, TimeZones
from ..context import services


def time_zones() -> TimeZones:
    return TimeZones.from_document(services().policy.stored().documents.get(SETTINGS, {}), default="UTC")
