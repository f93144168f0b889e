"""Which deployments are left alone for a while: shared by all hosts through Redis.

``llmgateway:2:{gateway}:cooldowns``
    A hash: by deployment, until when it is left alone, in milliseconds since 1970, and whether it is at its limit.
"""

from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Mapping

from llmgateway.clock import Clock
from llmgateway.errors import StoreUnavailable
from llmgateway.interfaces import Cooldown
from llmgateway.stores.cooldowns import MemoryCooldowns

from .connection import RedisConnection, Session

log = logging.getLogger(__name__)

READ_SECONDS = 1.0
"""A process reads what others have written at most once in this time."""

_KEPT_MILLISECONDS = 600_000
"""The hash expires when nothing was written to it for this long."""

_VALUE = re.compile(rb"([0-9]{1,15}) ([01])")


class RedisCooldowns:
    """:class:`~llmgateway.interfaces.Cooldowns` for all hosts. Thread-safe.

    While Redis is unavailable, each process remembers its own.
    """

    def __init__(self, connection: RedisConnection, *, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self._own = MemoryCooldowns(clock=clock)
        self._key = connection.prefix + "cooldowns"
        self._lock = threading.Lock()
        self._read_at = -math.inf
        self._others: Mapping[str, Cooldown] = {}

    def current(self) -> Mapping[str, Cooldown]:
        now = self._clock()
        # One thread reads; the others take what was read before.
        if not 0 <= now - self._read_at < READ_SECONDS and self._lock.acquire(blocking=False):
            try:
                self._read_at = now
                self._others = self._read()
            except StoreUnavailable:
                log.debug("Redis does not tell which deployments are at their limits; this process knows its own.")
            finally:
                self._lock.release()
        # What lies further ahead comes from a host with a wrong clock.
        latest = now + _KEPT_MILLISECONDS / 1000
        others = {name: cooldown for name, cooldown in self._others.items() if now < cooldown.until <= latest}
        return {**others, **self._own.current()}

    def rest(self, deployment: str, seconds: float, *, limited: bool) -> None:
        self._own.rest(deployment, seconds, limited=limited)
        until = math.ceil((self._clock() + seconds) * 1000)

        def write(session: Session) -> None:
            session.command("HSET", self._key, deployment, f"{until} {int(limited)}")
            session.command("PEXPIRE", self._key, _KEPT_MILLISECONDS)

        try:
            self._connection.ask(write)
        except StoreUnavailable:
            log.debug("Redis does not learn that %s is left alone; other processes find it out.", deployment)

    def _read(self) -> Mapping[str, Cooldown]:
        written = self._connection.ask(lambda session: session.command("HGETALL", self._key))
        # The driver returns a mapping, or the names and values one after the other, depending on its version.
        fields = written.items() if isinstance(written, dict) else zip(written[::2], written[1::2], strict=True)
        read = ((name.decode(errors="replace"), _cooldown(value)) for name, value in fields)
        return {name: cooldown for name, cooldown in read if cooldown is not None}


def _cooldown(value: bytes) -> Cooldown | None:
    """Read a value that :meth:`RedisCooldowns.rest` has written; None if something else has written it."""
    matched = _VALUE.fullmatch(value)
    return None if matched is None else Cooldown(int(matched[1]) / 1000, matched[2] == b"1")
