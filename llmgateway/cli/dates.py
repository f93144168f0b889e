"""Days and times as people say them at a terminal: today, tomorrow, 3h, 2d. Others go to the gateway as they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from .remote import Remote

AHEAD = "Or today, tomorrow, 3h, 2d."
AGO = "Or today, yesterday, 3h, 2d ago."
"""For the help of options; see :func:`in_time`."""

_DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}
_SPAN = re.compile(r"(\d{1,5})\s?(m|h|d|w)(?:\s?ago)?", re.IGNORECASE)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AHEAD = frozenset({"starts_at", "expires_at", "until"})
_BEHIND = frozenset({"since", "unused_since", "created_before", "created_since"})


def in_time(
    gateway: Remote, fields: Mapping[str, Any], *, ago: bool = False, now: datetime | None = None
) -> dict[str, Any]:
    """Return *fields* with the days and times in them as the gateway reads them.

    ``tomorrow`` becomes a date alone, in the organisation's time zone, so it means the whole day. ``3h`` becomes an
    instant.

    Args:
        ago: Whether spans such as ``3h`` lie behind in every field, as in a search, and not only in those that ask
            what has been.
        now: The present time, with its zone; None to look at the clock.
    """
    present = now or datetime.now(UTC)
    return {
        name: _read(gateway, value, present, -1 if ago or name in _BEHIND else 1)
        if name in _AHEAD | _BEHIND and isinstance(value, str)
        else value
        for name, value in fields.items()
    }


def _read(gateway: Remote, text: str, now: datetime, direction: int) -> str:
    word = text.strip().lower()
    if word in _DAYS:
        return (now.astimezone(_zone(gateway)).date() + timedelta(days=_DAYS[word])).isoformat()
    if match := _SPAN.fullmatch(word):
        span = timedelta(**{_UNITS[match[2].lower()]: int(match[1])})
        return (now + direction * span).isoformat(timespec="seconds" if direction > 0 else "milliseconds")
    return text


def _zone(gateway: Remote) -> ZoneInfo:
    """Return the time zone of the organisation; UTC if the gateway is older than that setting."""
    from .client import CallFailed

    try:
        settings = gateway.call("GET", "/settings")
    except CallFailed as error:
        if error.status != 404:
            raise
        return ZoneInfo("UTC")
    return ZoneInfo(settings["timezone"])
