"""The days of the organisation, in its time zone. Days of 23 and 25 hours are what they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

SETTINGS = "settings"
"""Name of the document (:attr:`~llmgateway.records.Organisation.documents`) that has the time zones."""


@dataclass(frozen=True, slots=True)
class TimeZones:
    """The time zones of the organisation: the present one, those before it, and one that begins at the next midnight.

    So a day that has passed never changes, and no instant belongs to two days. :meth:`day` never goes back, but for a
    change between zones that are 24 hours and more apart.
    """

    names: tuple[str, ...] = ("UTC",)
    """IANA names, in the order in which they hold."""
    since: tuple[datetime, ...] = ()
    """When each of them but the first begins to hold."""

    @classmethod
    def from_document(cls, document: Mapping[str, Any], *, default: str) -> TimeZones:
        """Read the document :data:`SETTINGS`: ``{"timezones": [{"name", "since"}]}``; ``since`` of the first is null.

        Args:
            default: The zone of a store in which no admin has set one.
        """
        entries: Sequence[Mapping[str, Any]] = document.get("timezones") or [{"name": default}]
        return cls(
            tuple(entry["name"] for entry in entries),
            tuple(datetime.fromisoformat(entry["since"]) for entry in entries[1:]),
        )

    def as_document(self) -> dict[str, Any]:
        """Return what :meth:`from_document` reads."""
        since = [None, *(moment.isoformat() for moment in self.since)]
        return {"timezones": [{"name": name, "since": at} for name, at in zip(self.names, since, strict=True)]}

    def changed(self, name: str, now: datetime) -> TimeZones:
        """Return these zones with *name* from its next midnight on. A change that does not hold yet is replaced."""
        held = sum(moment <= now for moment in self.since)
        names, since = self.names[: held + 1], self.since[:held]
        if names[-1] == name:
            return TimeZones(names, since)
        zone = ZoneInfo(name)
        return TimeZones((*names, name), (*since, _midnight(now.astimezone(zone).date() + timedelta(days=1), zone)))

    def at(self, now: datetime) -> ZoneInfo:
        """Return the zone that holds at *now*."""
        return ZoneInfo(self.names[sum(moment <= now for moment in self.since)])

    def day(self, now: datetime) -> date:
        """Return the day of the organisation that contains *now*."""
        return now.astimezone(self.at(now)).date()

    def start(self, day: date) -> datetime:
        """Return when *day* begins, in UTC. *day* and the one before may have another length where a zone changes."""
        for index, name in enumerate(self.names):
            begins = _midnight(day, ZoneInfo(name))
            last = index == len(self.since)
            if last or begins < self.since[index]:
                return begins if index == 0 else max(begins, self.since[index - 1])
        raise AssertionError("unreachable")  # the last zone has no end

    def days(self, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime, date]]:
        """Yield the parts of the time from *start* to *end* (exclusive) that are on one day, with their day."""
        while start < end:
            day = self.day(start)
            midnight = _midnight(day + timedelta(days=1), self.at(start))
            part_end = min(moment for moment in (midnight, *self.since, end) if moment > start)
            yield start, part_end, day
            start = part_end

    def __str__(self) -> str:
        return self.names[-1]


@lru_cache(maxsize=64)
def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return the first instant of *day*: not 00:00 where the clock is put forward at midnight."""
    # A time that does not exist is read with the offset before the change (PEP 495): so it is when the clock changes.
    return datetime.combine(day, time(), zone).astimezone(UTC)


_NOT_ZONES = frozenset({"Factory", "localtime", "posixrules"})
"""Files beside the zones: a placeholder, and the zone of the machine."""


def problem_of_zone(name: str) -> str | None:
    """Return what is wrong with the name of a time zone; None if it is one of the IANA list."""
    known = _known_zones()
    if name in known:
        return None
    # Whatever follows the last slash: people write the city alone, or in another case.
    wanted = name.strip().replace(" ", "_").casefold()
    by_name = {zone.casefold(): zone for zone in known}
    by_city = {zone.rpartition("/")[2].casefold(): zone for zone in known}
    near = get_close_matches(wanted, by_name, n=1, cutoff=0.7)
    found = by_name.get(wanted) or by_city.get(wanted.rpartition("/")[2]) or (by_name[near[0]] if near else None)
    suggestion = f" Did you mean {found}?" if found else ""
    return f"Must be a time zone of the IANA list, like Europe/Berlin, America/New_York or UTC.{suggestion}"


def known_zones() -> list[str]:
    """Return the names of all time zones, in alphabetical order."""
    return sorted(_known_zones())


@lru_cache(maxsize=1)
def _known_zones() -> frozenset[str]:
    return frozenset(available_timezones()) - _NOT_ZONES
