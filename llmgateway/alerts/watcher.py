"""Watches budgets and the state of the gateway in the background, and announces what admins should know."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from ..accounts.policy import OrganisationPolicy
from ..background import Background
from ..clock import Clock, Timer
from ..errors import StoreUnavailable
from ..interfaces import AlertStore, UsageLog
from ..records import Alert, KeyRecord, Organisation, moment
from .budgets import BudgetAlerts, alert_id
from .delivery import Deliveries
from .outages import KEPT, Conditions, Outages, Sources
from .outcome import Outcome
from .settings import DOCUMENT, AlertSettings, Event

log = logging.getLogger(__name__)

TURN_SECONDS = 5.0
"""How often this process looks."""

PART_OF_TIME = 50
"""Budgets are looked at by one process of all, for at most this part of the time."""

PRICES_SECONDS = 60.0
"""How often one process of all looks for models without a price."""

PURGE_SECONDS = 3600.0

MOST_KNOWN = 100_000
"""The most identifiers of alerts that are remembered, so that they are not sent to the store again in each turn."""

CLOSE_SECONDS = 5.0
"""How long :meth:`Alerts.close` waits for a delivery. Another process delivers what was not, or the next start."""


class Alerts:
    """The warnings for admins, of one process. Any thread may call the methods.

    This starts no thread; :meth:`need` does, so it may be created before a fork. While no target is set, nothing is
    watched.

    Args:
        list_keys: For their budgets.
        sources: What can be wrong.
        host: The name of this host, for admins.
    """

    def __init__(
        self,
        store: AlertStore,
        policy: OrganisationPolicy,
        *,
        list_keys: Callable[[], Iterable[KeyRecord]],
        usage_log: UsageLog,
        sources: Sources,
        clock: Clock,
        timer: Timer = time.monotonic,
        host: str | None = None,
    ) -> None:
        self.store = store
        self._policy = policy
        self._list_keys = list_keys
        self._budgets = BudgetAlerts(usage_log)
        self._conditions = Conditions(replace(sources, unpriced=self._unpriced), host=host)
        self._look_up_unpriced = sources.unpriced
        self._outages = Outages(store)
        self._deliveries = Deliveries(store, clock=clock)
        self._clock = clock
        self._timer = timer
        self._known: set[str] = set()
        self._organisation: Organisation | None = None
        self._document: Mapping[str, Any] = {}
        self._settings = AlertSettings()
        self._next_purge = 0.0
        self._turning = threading.Lock()
        self._closed = False
        self._background = Background("alerts", self._turn_and_rest, seconds=TURN_SECONDS)

    def need(self) -> None:
        """Look soon. Starts the thread at the first call."""
        if not self._closed:
            self._background.need()

    def close(self) -> None:
        """Begin no further delivery, and wait a little for the present one."""
        self._closed = True
        self._deliveries.stop()
        if self._turning.acquire(timeout=CLOSE_SECONDS):
            self._turning.release()

    def settings(self) -> AlertSettings:
        """Load what is set.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        return self._read(self._policy.stored())

    def change(self, change: Callable[[AlertSettings], AlertSettings]) -> AlertSettings:
        """Replace what is set by the result of *change*, and return it. Atomic.

        Args:
            change: Gets what was set before. If it raises an error, nothing changes. It may be called several times.
        """
        document = self._policy.update_document(
            DOCUMENT,
            lambda before: change(AlertSettings.from_document(before, self._policy.decrypt)).as_document(
                self._policy.encrypt
            ),
        )
        return AlertSettings.from_document(document, self._policy.decrypt)

    def announce(self, event: Event, text: str, *, user: str) -> None:
        """Store a warning about a person that another part of the gateway has, and send it to those who want such."""
        now, settings = moment(self._clock()), self.settings()
        scope = f"person:{user}"
        alert = Alert(
            id=alert_id(event, scope, now.isoformat()),
            at=now,
            event=event,
            scope=scope,
            text=text,
            user=user,
            kept_until=now + KEPT,
        )
        self._deliveries.enqueue(alert, settings if event in settings.events else AlertSettings())

    def test(self) -> list[tuple[str, Outcome]]:
        """Send a test to every target now, and return what happened, by the target's identifier."""
        now = moment(self._clock())
        text = "This is a test. Alerts of this gateway arrive here."
        test = Alert(id=alert_id("test", now.isoformat()), at=now, event="test", scope="organisation", text=text)
        return [*self._deliveries.test(test, self.settings())]

    def turn(self) -> None:
        """Look at everything once, and deliver what is due."""
        with self._turning:
            settings = self._refresh()
            if not settings.targets or self._closed:
                return
            now = moment(self._clock())
            for alert in self._found(settings):
                self._announce(alert, settings)
            self._deliveries.work_off(settings)
            if now.timestamp() >= self._next_purge:
                self._next_purge = now.timestamp() + PURGE_SECONDS
                self.store.purge(now)

    def _turn_and_rest(self) -> bool:
        try:
            self.turn()
        except StoreUnavailable as error:
            log.debug("Alerts: %s", error)
        return False  # need() is called again soon

    def _found(self, settings: AlertSettings) -> list[Alert]:
        now, events = moment(self._clock()), settings.events
        conditions = self._conditions.look(self._organisation, events)
        found = [*self._outages.alerts(conditions, self._conditions.knows_over, events, now)]
        try:
            return [*found, *self._of_budgets(settings)]
        except StoreUnavailable:
            return found  # budgets can be looked at again later

    def _of_budgets(self, settings: AlertSettings) -> list[Alert]:
        now, organisation = moment(self._clock()), self._organisation
        if Event.BUDGET not in settings.events or not settings.thresholds or organisation is None:
            return []
        turn = timedelta(seconds=TURN_SECONDS)
        # A little less than a turn, so that the same process may go on.
        if not self.store.claim("budgets", now=now, until=now + turn * 0.9):
            return []
        began = self._timer()
        zones, keys = self._policy.time_zones(organisation), [*self._list_keys()]
        found = [*self._budgets.look(organisation, keys, zones, thresholds=settings.thresholds, now=now)]
        rest = timedelta(seconds=(self._timer() - began) * PART_OF_TIME)
        if rest > turn:
            self.store.claim("budgets", now=now + turn, until=now + rest)
        return found

    def _unpriced(self, organisation: Organisation) -> Collection[str] | None:
        now = moment(self._clock())
        if not self.store.claim("prices", now=now, until=now + timedelta(seconds=PRICES_SECONDS)):
            return None
        try:
            return self._look_up_unpriced(organisation)
        except StoreUnavailable:
            return None

    def _announce(self, alert: Alert, settings: AlertSettings) -> None:
        if alert.id in self._known:
            return
        self._deliveries.enqueue(alert, settings)
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known.add(alert.id)

    def _refresh(self) -> AlertSettings:
        """Load the settings; if the store does not answer, those from before are used."""
        try:
            self._organisation = self._policy.stored()
        except StoreUnavailable:
            return self._settings
        document = self._organisation.documents.get(DOCUMENT, {})
        if document != self._document:
            self._settings, self._document = self._read(self._organisation), document
        return self._settings

    def _read(self, organisation: Organisation) -> AlertSettings:
        return AlertSettings.from_document(organisation.documents.get(DOCUMENT, {}), self._policy.decrypt)
