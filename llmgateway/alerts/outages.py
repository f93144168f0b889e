"""Announces what is wrong, once for each outage, and once that it is over."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from ..interfaces import AlertStore
from ..records import Alert, Organisation, Outage
from ..stores.health import REDIS
from ..usage.journal import Backlog
from .budgets import alert_id
from .settings import Event

SETTLES_AFTER = timedelta(seconds=30)
"""What comes back within this time is the same outage."""

FORGOTTEN_AFTER = timedelta(hours=1)
"""An outage that nobody sees, and of which nobody knows that it is over, ends in silence after this time. All processes
that have seen it have ended, for example."""

BACKLOG_SECONDS = 120.0
"""Records normally wait less than a second."""

FEW_SECONDS = 10.0
"""Records that wait less than this do not wait for anything that is wrong."""

TURNS_OF_A_STORE = 2
"""A store that does not answer once may only have been slow."""

KEPT = timedelta(days=30)
"""How long alerts can be read."""


class Condition(NamedTuple):
    """Something that is wrong now."""

    event: Event
    scope: str
    text: str
    over: str


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What this process knows of the parts of the gateway. Nothing here raises StoreUnavailable."""

    stores: Callable[[], Mapping[str, str | None]]
    """The problem of each store, or None."""
    credentials: Callable[[Organisation], Mapping[str, str]]
    """What is wrong with credentials for Azure, by where they are used."""
    quotas: Callable[[], Mapping[str, str]]
    """Which limits Azure has lowered, by deployment."""
    backlog: Callable[[], Backlog]
    unpriced: Callable[[Organisation], Collection[str] | None]
    """Models without a price; None if this was not looked up now."""


class Conditions:
    """Looks at everything that can be wrong. For one thread.

    Args:
        host: The name of this host.
    """

    def __init__(self, sources: Sources, *, host: str | None = None) -> None:
        self._sources = sources
        self._host = host or socket.gethostname()
        self._problems: dict[str, int] = {}  # of stores: for how many turns
        self._seen: set[str] = set()  # names of outages that only processes know that have seen them
        self._fine: set[str] = set()  # names of outages of which this process knows that they are over

    def look(self, organisation: Organisation | None, events: Collection[Event]) -> list[Condition]:
        """Return what is wrong now.

        Args:
            organisation: None if it is not known.
            events: Those to look at.
        """
        self._fine.clear()
        looks: dict[Event, Callable[[], Iterator[Condition]]] = {
            Event.STORE: self._stores,
            Event.CREDENTIAL: lambda: self._credentials(organisation),
            Event.QUOTA: self._quotas,
            Event.BACKLOG: self._backlog,
            Event.PRICE: lambda: self._prices(organisation),
        }
        return [condition for event, look in looks.items() if event in events for condition in look()]

    def knows_over(self, outage: Outage) -> bool:
        """Whether this process knows that *outage* is over, if :meth:`look` has not just seen it."""
        if outage.event == Event.PRICE:
            return Event.PRICE in self._fine
        return outage.name in self._fine or outage.name in self._seen

    def _stores(self) -> Iterator[Condition]:
        for name, problem in self._sources.stores().items():
            if problem is None:
                self._problems.pop(name, None)
                self._fine.add(f"{Event.STORE}:{name}")
                continue
            turns = self._problems[name] = self._problems.get(name, 0) + 1
            if turns >= TURNS_OF_A_STORE:
                yield Condition(
                    Event.STORE,
                    name,
                    f"The store {name} is away (seen on {self._host}): {problem} {_meaning(name)} "
                    "Look at the store; everything goes on by itself when it is back.",
                    f"The store {name} is back.",
                )

    def _credentials(self, organisation: Organisation | None) -> Iterator[Condition]:
        if organisation is None:
            return
        for scope, problem in self._sources.credentials(organisation).items():
            self._seen.add(f"{Event.CREDENTIAL}:{scope}")
            yield Condition(
                Event.CREDENTIAL,
                scope,
                f"Azure's key for {scope} cannot be used: {problem}. Until then users get 502 upstream_credentials.",
                f"Azure's key for {scope} can be used again.",
            )

    def _quotas(self) -> Iterator[Condition]:
        for scope, lowered in self._sources.quotas().items():
            self._seen.add(f"{Event.QUOTA}:{scope}")
            yield Condition(
                Event.QUOTA,
                scope,
                f"Azure has lowered the quota of the deployment {scope}: {lowered}. Ask for it in the Azure portal, or "
                "lower the gateway's own limits with PUT /admin/limits.",
                f"The quota of the deployment {scope} is as high as before again.",
            )

    def _backlog(self) -> Iterator[Condition]:
        backlog = self._sources.backlog()
        if backlog.problem is None and backlog.oldest_seconds < FEW_SECONDS:
            self._fine.add(f"{Event.BACKLOG}:{self._host}")
        elif backlog.oldest_seconds >= BACKLOG_SECONDS:
            yield Condition(
                Event.BACKLOG,
                self._host,
                f"{backlog.records} usage records wait on {self._host}, the oldest for {backlog.oldest_seconds:.0f} s: "
                f"{backlog.problem or 'the usage log is slow'}. None is lost while the disk has room: look at the "
                "store, and at the disk.",
                f"No usage records wait on {self._host} any more.",
            )

    def _prices(self, organisation: Organisation | None) -> Iterator[Condition]:
        models = None if organisation is None else self._sources.unpriced(organisation)
        if models is None:
            return
        self._fine.add(Event.PRICE)
        for model in models:
            yield Condition(
                Event.PRICE,
                model,
                f"The model {model!r} is used, and its price is not known: its cost counts as nothing in budgets and "
                "reports. Set it with PUT /admin/models/NAME, or llmgateway models set.",
                f"The model {model!r} has a price now, or is not used any more.",
            )


class Outages:
    """Turns what is wrong into alerts. For one thread."""

    def __init__(self, store: AlertStore) -> None:
        self._store = store
        self._announced: dict[str, str] = {}  # by name: the alert that is known to be stored

    def alerts(
        self,
        seen: Collection[Condition],
        knows_over: Callable[[Outage], bool],
        events: Collection[Event],
        now: datetime,
    ) -> Iterator[Alert]:
        """Yield alerts, without deliveries, for what begins and what ends. Some are repeated by other processes.

        Args:
            knows_over: Whether an outage that is not in *seen* is known to be over.
            events: Those at which this process has looked.
        """
        present = {f"{each.event}:{each.scope}" for each in seen}
        for each in seen:
            outage = Outage(event=each.event, scope=each.scope, since=now, over=each.over)
            outage = self._store.observe(outage, until=now + FORGOTTEN_AFTER)
            begun = _alert(outage, each.text, now)
            if self._announced.get(outage.name) != begun.id:
                self._announced[outage.name] = begun.id
                yield begun
        for outage in self._store.outages():
            if outage.name in present:
                continue
            if outage.event in events and knows_over(outage):
                self._store.clear(outage.name, until=now + SETTLES_AFTER)
            if self._store.end(outage.name, now=now):
                yield _alert(outage, outage.over, now, "over")
        self._announced = {name: known for name, known in self._announced.items() if name in present}


def _alert(outage: Outage, text: str, now: datetime, *parts: str) -> Alert:
    return Alert(
        id=alert_id(outage.event, outage.scope, outage.since.isoformat(), *parts),
        at=now,
        event=outage.event,
        scope=outage.scope,
        text=text,
        kept_until=now + KEPT,
    )


def _meaning(store: str) -> str:
    if store == REDIS:
        return "Users are served; each process counts limits per minute for itself until it is back."
    return "Users whose keys are known are served and their usage waits on disk; nothing can be changed."
