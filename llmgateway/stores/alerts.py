"""Warnings for admins while the durable store is away: each host keeps them in memory."""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

from llmgateway.clock import Clock
from llmgateway.errors import StoreUnavailable
from llmgateway.interfaces import AlertStore
from llmgateway.records import Alert, Outage

T = TypeVar("T")

RETRY_SECONDS = 4.0

_OVER = timedelta(minutes=15)
"""How long the other hosts keep silent about an end that one of them has announced."""


@dataclass(frozen=True, slots=True)
class _Open:
    outage: Outage
    until: datetime
    cleared: bool


class MemoryAlerts:
    """An :class:`~llmgateway.interfaces.AlertStore` in the memory of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alerts: dict[str, Alert] = {}
        self._due: dict[str, datetime | None] = {}
        self._open: dict[str, _Open] = {}
        self._claims: dict[str, datetime] = {}

    def add(self, alert: Alert) -> bool:
        with self._lock:
            if alert.id in self._alerts:
                return False
            self._alerts[alert.id], self._due[alert.id] = replace(alert, lease=""), alert.due_at
        return True

    def take(self, *, now: datetime, until: datetime) -> Alert | None:
        with self._lock:
            due = sorted((at, name) for name, at in self._due.items() if at is not None and at <= now)
            if not due:
                return None
            _, name = due[0]
            self._due[name] = until
            taken = self._alerts[name] = replace(self._alerts[name], lease=secrets.token_hex(8))
            return taken

    def save(self, alert: Alert, *, held_until: datetime | None = None) -> bool:
        with self._lock:
            stored = self._alerts.get(alert.id)
            if stored is None or stored.lease != alert.lease:
                return False
            self._alerts[alert.id] = replace(alert, lease="" if held_until is None else alert.lease)
            self._due[alert.id] = alert.due_at if held_until is None else held_until
        return True

    def waiting(self) -> int:
        with self._lock:
            return sum(at is not None for at in self._due.values())

    def recent(self, *, limit: int, after: tuple[datetime, str] | None = None) -> list[Alert]:
        with self._lock:
            found = [each for each in self._alerts.values() if after is None or (each.at, each.id) < after]
        return sorted(found, key=lambda alert: (alert.at, alert.id), reverse=True)[:limit]

    def observe(self, outage: Outage, *, until: datetime) -> Outage:
        with self._lock:
            known = self._open.get(outage.name)
            seen = outage if known is None else replace(outage, since=known.outage.since)
            self._open[outage.name] = _Open(seen, until, cleared=False)
        return seen

    def clear(self, name: str, *, until: datetime) -> None:
        with self._lock:
            known = self._open.get(name)
            if known is not None and not known.cleared:
                self._open[name] = _Open(known.outage, until, cleared=True)

    def outages(self) -> list[Outage]:
        with self._lock:
            return [self._open[name].outage for name in sorted(self._open)]

    def end(self, name: str, *, now: datetime) -> bool | None:
        with self._lock:
            known = self._open.get(name)
            if known is None or known.until > now:
                return None
            del self._open[name]
        return known.cleared

    def claim(self, name: str, *, now: datetime, until: datetime) -> bool:
        with self._lock:
            held = self._claims.get(name)
            if held is not None and held > now:
                return False
            self._claims[name] = until
        return True

    def purge(self, now: datetime) -> None:
        with self._lock:
            for name, alert in [*self._alerts.items()]:
                if self._due[name] is None and alert.kept_until is not None and alert.kept_until <= now:
                    del self._alerts[name], self._due[name]
            self._claims = {name: until for name, until in self._claims.items() if until > now}

    def forget_person(self, user: str) -> None:
        with self._lock:
            for name, alert in [*self._alerts.items()]:
                if alert.user == user:
                    del self._alerts[name], self._due[name]

    def drop(self, name: str) -> bool:
        """Forget the outage *name*, and return whether it was known."""
        with self._lock:
            return self._open.pop(name, None) is not None


class FallbackAlerts:
    """An :class:`~llmgateway.interfaces.AlertStore` that uses the memory of one process while *shared* is away.

    One process of each host does so, so each host may repeat what another one has announced, and a process that dies
    takes what it has in memory with it. The others raise StoreUnavailable if they :meth:`add` something.

    Args:
        speaks: Says whether this is the process of this host.
        retry_after: Seconds for which a store that has just failed is not asked again. Nothing is logged: others do.
    """

    def __init__(
        self, shared: AlertStore, *, speaks: Callable[[], bool], clock: Clock, retry_after: float = RETRY_SECONDS
    ) -> None:
        self._shared = shared
        self._clock = clock
        self._retry_after = retry_after
        self._failed_at = -math.inf
        self._local = MemoryAlerts()
        self._speaks = speaks

    def add(self, alert: Alert) -> bool:
        try:
            return self._call(lambda: self._shared.add(alert))
        except StoreUnavailable:
            if not self._speaks():
                raise
            return self._local.add(alert)

    def take(self, *, now: datetime, until: datetime) -> Alert | None:
        local = self._local.take(now=now, until=until)
        if local is not None:
            return local
        return self._ask(lambda: self._shared.take(now=now, until=until), lambda: None, instead=None)

    def save(self, alert: Alert, *, held_until: datetime | None = None) -> bool:
        if self._local.save(alert, held_until=held_until):
            return True
        return self._ask(lambda: self._shared.save(alert, held_until=held_until), lambda: False, instead=False)

    def waiting(self) -> int:
        return self._local.waiting() + self._ask(self._shared.waiting, lambda: 0, instead=0)

    def recent(self, *, limit: int, after: tuple[datetime, str] | None = None) -> Sequence[Alert]:
        local = self._local.recent(limit=limit, after=after)
        try:
            both = [*local, *self._shared.recent(limit=limit, after=after)]
        except StoreUnavailable:
            if not local:
                raise
            both = local
        return sorted(both, key=lambda alert: (alert.at, alert.id), reverse=True)[:limit]

    def observe(self, outage: Outage, *, until: datetime) -> Outage:
        def shared() -> Outage:
            seen = self._shared.observe(outage, until=until)
            # It lasts, so its end is noticed there from now on.
            self._local.drop(outage.name)
            return seen

        return self._ask(shared, lambda: self._local.observe(outage, until=until), instead=outage)

    def clear(self, name: str, *, until: datetime) -> None:
        self._local.clear(name, until=until)
        self._ask(lambda: self._shared.clear(name, until=until), lambda: None, instead=None)

    def outages(self) -> Sequence[Outage]:
        nothing: Sequence[Outage] = ()
        return [*self._local.outages(), *self._ask(self._shared.outages, lambda: nothing, instead=nothing)]

    def end(self, name: str, *, now: datetime) -> bool | None:
        ended = self._local.end(name, now=now)
        if ended is None:
            return self._ask(lambda: self._shared.end(name, now=now), lambda: None, instead=None)
        # Every host ends its own.
        return ended and self.claim(f"over:{name}", now=now, until=now + _OVER)

    def claim(self, name: str, *, now: datetime, until: datetime) -> bool:
        return self._ask(
            lambda: self._shared.claim(name, now=now, until=until),
            lambda: self._local.claim(name, now=now, until=until),
            instead=False,
        )

    def purge(self, now: datetime) -> None:
        self._local.purge(now)
        self._ask(lambda: self._shared.purge(now), lambda: None, instead=None)

    def forget_person(self, user: str) -> None:
        self._local.forget_person(user)
        self._shared.forget_person(user)

    def _call(self, shared: Callable[[], T]) -> T:
        if 0 <= self._clock() - self._failed_at < self._retry_after:
            raise StoreUnavailable("The store of alerts does not serve. Try again later.")
        try:
            return shared()
        except StoreUnavailable:
            self._failed_at = self._clock()
            raise

    def _ask(self, shared: Callable[[], T], local: Callable[[], T], *, instead: T) -> T:
        try:
            return self._call(shared)
        except StoreUnavailable:
            return local() if self._speaks() else instead
