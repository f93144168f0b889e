"""Days and times in requests and answers. Days are those of the organisation, in its time zone.

A date alone is a whole day: as the beginning of something it is the first instant of the day, and as the end of
something the first instant after it, which is not included.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import cast

from flask import g, has_app_context, request

from ..errors import StoreUnavailable
from ..local_time import TimeZones
from ..records import Organisation
from .context import services

DAY = re.compile(r"\d{4}-\d\d-\d\d")


def time_zones() -> TimeZones:
    """Return the time zones of the organisation. Every call in a request returns the same ones."""
    if not has_app_context():
        return TimeZones()
    zones = g.get("time_zones")
    if zones is None:
        zones = g.time_zones = services().policy.time_zones(_organisation() or Organisation())
    return cast(TimeZones, zones)


def use_time_zones_of(organisation: Organisation | None) -> None:
    """Let :func:`time_zones` return those of *organisation* for the current request, without asking a store."""
    g.time_zones = services().policy.time_zones(organisation or Organisation())


def _organisation() -> Organisation | None:
    """Return the settings: for admins as they are stored; for users as they were when their key was looked up."""
    policy = services().policy
    if request.blueprint not in ("admin", "dashboard"):
        return policy.in_memory()
    try:
        return policy.stored()
    except StoreUnavailable:
        return policy.in_memory()  # a report on what is away must not fail because of it


def instant(day: str, *, is_end: bool) -> datetime:
    """Return when *day*, which matches :data:`DAY`, begins, or when it is over.

    Raises:
        ValueError, OverflowError: there is no such day.
    """
    found = date.fromisoformat(day)
    return time_zones().start(found + timedelta(days=1) if is_end else found)


def shown(time: datetime) -> datetime:
    """Return *time* with the offset that the organisation's clocks have then."""
    try:
        return time.astimezone(time_zones().at(time))
    except OverflowError:  # the first and the last day of the calendar
        return time.astimezone(UTC)
