"""Converts times to whole milliseconds since 1970 (UTC), for stores that have no type for times.

Only integers are used, because ``datetime.timestamp()`` returns a float, and a float times 1,000 can be slightly less
than the right millisecond.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_START = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def to_ms(time: datetime) -> int:
    return (time - _START) // _MILLISECOND


def from_ms(milliseconds: int) -> datetime:
    return _START + milliseconds * _MILLISECOND
