"""The periods of budgets: days, weeks and months in the time zone of the organisation."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import NamedTuple

from ..local_time import TimeZones
from ..records import Period


class LocalDay(NamedTuple):
    """A day of the organisation, and the periods that contain it."""

    day: date
    zones: TimeZones

    @classmethod
    def at(cls, now: datetime, zones: TimeZones) -> LocalDay:
        return cls(zones.day(now), zones)

    def first_day(self, period: Period) -> date | None:
        """Return the first day of *period*; None if it has no beginning."""
        if period is Period.TOTAL:
            return None
        if period is Period.MONTH:
            return self.day.replace(day=1)
        return self.day - timedelta(days=self.day.weekday()) if period is Period.WEEK else self.day

    def end(self, period: Period) -> datetime | None:
        """Return when *period* ends, which is when the next one begins; None if it has no end."""
        first = self.first_day(period)
        if first is None:
            return None
        if period is Period.MONTH:
            return self.zones.start((first + timedelta(days=31)).replace(day=1))
        return self.zones.start(first + timedelta(days=7 if period is Period.WEEK else 1))


def shown(instant: datetime, zones: TimeZones) -> str:
    """Return *instant* for people, in the time zone that holds then, with its offset."""
    text = instant.astimezone(zones.at(instant)).isoformat(sep=" ", timespec="seconds")
    return f"{text[:19]} {'UTC' if text[19:] == '+00:00' else text[19:]}"
