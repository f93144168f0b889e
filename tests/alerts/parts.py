"""A gateway's parts around the alerts, on one SQLite store."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmgateway.accounts.credential import CredentialCipher
from llmgateway.accounts.policy import OrganisationPolicy
from llmgateway.alerts.outages import Sources
from llmgateway.alerts.settings import AlertSettings
from llmgateway.alerts.watcher import TURN_SECONDS, Alerts
from llmgateway.errors import StoreUnavailable
from llmgateway.stores.alerts import FallbackAlerts
from llmgateway.stores.sqlite import (
    SQLiteAlerts,
    SQLiteDatabase,
    SQLiteKeys,
    SQLiteOrganisation,
    SQLitePersons,
    SQLiteUsageLog,
)
from llmgateway.usage.journal import Backlog
from tests.conftest import Clock

CIPHER = CredentialCipher("a secret for the tests of alerts")

NOTHING_WAITS = Backlog(records=0, oldest_seconds=0.0, problem=None)


class MayBeAway:
    """A store that is away when a test says so."""

    def __init__(self, store: Any, host: Host) -> None:
        self._store, self._host = store, host

    def __getattr__(self, name: str) -> Any:
        def ask(*args: Any, **kwargs: Any) -> Any:
            if self._host.store_away:
                raise StoreUnavailable("The store is away.")
            return getattr(self._store, name)(*args, **kwargs)

        return ask


@dataclass
class Host:
    """A process on a host of its own: what it sees, and its alerts."""

    path: Path
    clock: Clock
    name: str = "host-1"
    stores: dict[str, str | None] = field(default_factory=lambda: {"sqlite": None})
    credentials: dict[str, str] = field(default_factory=dict)
    quotas: dict[str, str] = field(default_factory=dict)
    unpriced: list[str] = field(default_factory=list)
    backlog: Backlog = NOTHING_WAITS
    store_away: bool = False

    def __post_init__(self) -> None:
        database = SQLiteDatabase(self.path)
        self._files = ExitStack()
        self._files.callback(database.close)
        self.keys = SQLiteKeys(database)
        self.organisation = SQLiteOrganisation(database)
        self.persons = SQLitePersons(database)
        self.usage_log = SQLiteUsageLog(database)
        policy = OrganisationPolicy(MayBeAway(self.organisation, self), CIPHER, fallback=None, clock=self.clock)
        self.alerts = Alerts(
            FallbackAlerts(MayBeAway(SQLiteAlerts(database), self), speaks=lambda: True, clock=self.clock),
            policy,
            list_keys=MayBeAway(self.keys, self).list,
            usage_log=MayBeAway(self.usage_log, self),
            sources=Sources(
                stores=lambda: self.stores,
                credentials=lambda _: self.credentials,
                quotas=lambda: self.quotas,
                backlog=lambda: self.backlog,
                unpriced=lambda _: self.unpriced,
            ),
            clock=self.clock,
            host=self.name,
        )

    def set(self, **fields: Any) -> None:
        self.alerts.change(lambda _: AlertSettings(**fields))

    def turn(self, turns: int = 1, *, seconds: float = TURN_SECONDS) -> None:
        """Let the time of some turns pass."""
        for _ in range(turns):
            self.clock.advance(seconds)
            self.alerts.turn()

    def close(self) -> None:
        self._files.close()
