"""Delivers alerts to all targets at once, again after growing pauses, and by another process if this one dies."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from ..clock import Clock
from ..interfaces import AlertStore
from ..records import Alert, Delivery, DeliveryState, moment
from .addresses import shown_webhook
from .mail import send
from .outcome import TOO_SLOW, Outcome, failed
from .settings import AlertSettings, Format, Mailbox, Webhook
from .webhooks import post

log = logging.getLogger(__name__)

PAUSES = tuple(timedelta(seconds=seconds) for seconds in (15, 60, 300, 900, 1800, 3600, 7200))
"""Before the next attempt. The last one is repeated."""

GIVE_UP_AFTER = timedelta(hours=24)

REST = timedelta(seconds=60)
"""A target that has just failed gets nothing for this time at most, so that many alerts do not wait for it in turn."""

DEADLINE_SECONDS = 15.0
"""For one attempt, however slowly a server answers."""

LEASE = timedelta(seconds=120)
"""How long a process keeps an alert while it delivers it. Longer than an attempt."""

MOST_AT_ONCE = 100
"""The most alerts that one turn delivers."""

MOST_WAITING = 1000
"""The most alerts that wait. Later ones are stored, but not delivered."""

Attempt = Callable[[], Outcome]


class Deliveries:
    """Delivers what is due. For one thread, but for :meth:`test`, which any thread may call.

    Args:
        deadline: Seconds for one attempt.
    """

    def __init__(self, store: AlertStore, *, clock: Clock, deadline: float = DEADLINE_SECONDS) -> None:
        self._store = store
        self._clock = clock
        self._deadline = deadline
        self._busy: dict[str, threading.Thread] = {}  # by target: an attempt that has not ended
        self._rests: dict[str, datetime] = {}
        self._stopping = False

    def stop(self) -> None:
        """Begin no further delivery."""
        self._stopping = True

    def enqueue(self, alert: Alert, settings: AlertSettings) -> bool:
        """Store *alert* for all targets. Return False if it is stored already."""
        now = moment(self._clock())
        is_full = self._store.waiting() >= MOST_WAITING
        made = [Delivery(target=target, due_at=now) for target in settings.targets]
        if is_full:
            reason = f"More than {MOST_WAITING} alerts wait: look why the others fail."
            made = [replace(each, state=DeliveryState.DROPPED, due_at=None, reason=reason) for each in made]
        added = self._store.add(replace(alert, deliveries=tuple(made)))
        if added:
            # Without its text, which can name a person: logs cannot be erased.
            log.warning("An alert is announced: %s, %s.", alert.event, _logged_scope(alert.scope))
        return added

    def work_off(self, settings: AlertSettings) -> None:
        """Deliver everything that is due."""
        for _ in range(MOST_AT_ONCE):
            now = moment(self._clock())
            alert = None if self._stopping else self._store.take(now=now, until=now + LEASE)
            if alert is None:
                return
            self._deliver(alert, settings, now)

    def test(self, alert: Alert, settings: AlertSettings) -> Sequence[tuple[str, Outcome]]:
        """Send *alert* to every target now, and return what happened."""
        attempts = {name: _attempt(alert, target, settings) for name, target in settings.targets.items()}
        outcomes = dict(self._try_all(attempts))
        return [(name, outcomes[name]) for name in attempts]

    def _deliver(self, alert: Alert, settings: AlertSettings, now: datetime) -> None:
        deliveries = {each.target: each for each in alert.deliveries}
        targets = settings.targets
        attempts: dict[str, Attempt] = {}
        for each in alert.deliveries:
            if each.due_at is None or each.due_at > now:
                continue
            rests_until = self._rests.get(each.target, now)
            if each.target not in targets:
                reason = "It was removed from the settings."
                deliveries[each.target] = replace(each, state=DeliveryState.DROPPED, due_at=None, reason=reason)
            elif rests_until > now:
                deliveries[each.target] = replace(each, due_at=rests_until)
            else:
                attempts[each.target] = _attempt(alert, targets[each.target], settings)
        for name, outcome in self._try_all(attempts):
            deliveries[name] = self._after(deliveries[name], outcome, alert, targets[name])
            alert = replace(alert, deliveries=tuple(deliveries.values()))
            # At once, so that it is not delivered twice if this process dies.
            if not self._store.save(alert, held_until=moment(self._clock()) + LEASE):
                return
        self._store.save(replace(alert, deliveries=tuple(deliveries.values())))

    def _after(self, delivery: Delivery, outcome: Outcome, alert: Alert, target: Webhook | Mailbox) -> Delivery:
        """Return *delivery* after an attempt."""
        now = moment(self._clock())
        tried = replace(delivery, attempts=delivery.attempts + 1, tried_at=now, status=outcome.status, reason=None)
        if outcome.delivered:
            self._rests.pop(delivery.target, None)
            return replace(tried, state=DeliveryState.DELIVERED, due_at=None)
        reason = f"{outcome.reason} {outcome.remedy}"
        gives_up = now - alert.at >= GIVE_UP_AFTER
        pause = PAUSES[min(delivery.attempts, len(PAUSES) - 1)]
        if delivery.attempts == 0 or gives_up:
            again = "It is given up" if gives_up else "It is tried again for a day"
            place = target.id if isinstance(target, Mailbox) else shown_target(target)
            log.error("An alert was not delivered to %s: %s %s.", place, reason, again)
        self._rests[delivery.target] = now + min(pause, REST)
        if gives_up:
            return replace(tried, state=DeliveryState.FAILED, due_at=None, reason=reason)
        return replace(tried, due_at=now + pause, reason=reason)

    def _try_all(self, attempts: Mapping[str, Attempt]) -> Iterator[tuple[str, Outcome]]:
        """Make all attempts at once, and yield what happened as they end, in no order."""
        done: queue.SimpleQueue[tuple[str, Outcome]] = queue.SimpleQueue()
        left = set()
        for name, attempt in attempts.items():
            busy = self._busy.get(name)
            if busy is not None and busy.is_alive():
                yield name, TOO_SLOW  # its server keeps the connection of an earlier attempt open
                continue
            # A daemon: a server that never ends its answer must not keep the process from stopping.
            thread = threading.Thread(target=_run, args=(name, attempt, done), name="alert", daemon=True)
            self._busy[name] = thread
            left.add(name)
            thread.start()
        deadline = time.monotonic() + self._deadline
        while left:
            try:
                name, outcome = done.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                yield from ((name, TOO_SLOW) for name in sorted(left))
                return
            left.discard(name)
            yield name, outcome


def shown_target(target: Webhook | Mailbox) -> str:
    """Return the address of *target* without secrets."""
    if isinstance(target, Mailbox):
        return target.address
    if target.url is None:
        return f"the webhook {target.id}"
    return shown_webhook(target.url, hides_path=target.format is not Format.JSON)


def _logged_scope(scope: str) -> str:
    kind, _, _ = scope.partition(":")
    return kind if kind in ("person", "member") else scope


def _attempt(alert: Alert, target: Webhook | Mailbox, settings: AlertSettings) -> Attempt:
    if isinstance(target, Webhook):
        return partial(post, alert, target)
    return partial(send, alert, target.address, smtp_url=settings.smtp_url, sender=settings.sender)


def _run(name: str, attempt: Attempt, done: queue.SimpleQueue[tuple[str, Outcome]]) -> None:
    try:
        outcome = attempt()
    except Exception as error:  # noqa: BLE001 - a bug must not end the thread in silence
        # Without the text of the error, which can contain a URL.
        log.error(  # noqa: TRY400
            "An alert could not be sent to %s: %s. This is a bug.", name, type(error).__name__
        )
        outcome = failed("The gateway failed.", "Look at its log.")
    done.put((name, outcome))
