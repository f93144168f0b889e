"""The counters for limits in Redis, which all hosts share.

Their names have the same prefix as those of ``cache.py``:

``llmgateway:2:{gateway}:count:<counter>``
    The state of one counter; ``counters.lua`` explains it.
``llmgateway:2:{gateway}:leases``, ``llmgateway:2:{gateway}:ends``
    What each running request holds, and until when.
``llmgateway:2:{gateway}:askers:<counter>``, ``llmgateway:2:{gateway}:waiting:<counter>``
    Which keys share a window, and which of them wait for a free amount.
``llmgateway:2:{gateway}:committed:<token>``
    Marks a call of commit as done, in case it is repeated.

All of them expire when they are no longer used.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Sequence
from typing import Any

import orjson

from llmgateway.clock import Clock
from llmgateway.ratelimit.reservations import Commit, CounterRequest, Decision, Reading

from .connection import RedisConnection, Session, script

_ADMITTED, _UNINITIALISED = 1, -1
_KINDS = {"window": "window", "level": "gauge", "total": "budget"}
"""Names of the kinds in the scripts."""
_READING = struct.Struct("<qq?dd")
"""A :class:`Reading` as ``counters.lua`` packs it."""
COMMITTED_AT_ONCE = 100
"""Maximum number of commits in one script, because Redis serves no other client while it runs."""

_RESERVE, _COMMIT, _RENEW, _LOOK, _INITIALISE, _CONFIRM = (
    script("counters.lua", f"{name}.lua") for name in ("reserve", "commit", "renew", "look", "initialise", "confirm")
)


class RedisCounters:
    """A :class:`~llmgateway.interfaces.CounterStore` in Redis. Every call is one script, which Redis runs atomically.

    Args:
        clock: Seconds since the epoch; None for the clock of Redis.
    """

    def __init__(self, connection: RedisConnection, *, clock: Clock | None = None) -> None:
        self._connection = connection
        self._clock = clock
        self._keys = [connection.prefix + "leases", connection.prefix + "ends"]

    def reserve(self, reservation: str, counter_requests: Sequence[CounterRequest], *, lease: float) -> Decision:
        return _decision(self._run(_RESERVE, reservation, lease, _counter_requests(counter_requests)))

    def commit(self, commits: Sequence[Commit]) -> None:
        for start in range(0, len(commits), COMMITTED_AT_ONCE):
            document = [
                (reservation, [(each.counter, _KINDS[each.kind], each.amount) for each in counter_requests])
                for reservation, counter_requests in commits[start : start + COMMITTED_AT_ONCE]
            ]
            self._run(_COMMIT, secrets.token_hex(8), orjson.dumps(document))

    def renew(self, reservations: Sequence[str], *, lease: float) -> None:
        if reservations:
            self._run(_RENEW, lease, *reservations)

    def look(self, counter_requests: Sequence[CounterRequest]) -> Decision:
        return _decision(self._run(_LOOK, _counter_requests(counter_requests)))

    def initialise(self, counter: str, used: int, *, until: int | None) -> None:
        self._run(_INITIALISE, counter, used, secrets.randbits(20), until or 0)

    def confirm(self, counter: str) -> bool:
        return bool(self._run(_CONFIRM, counter))

    def forget(self, counters: Sequence[str]) -> None:
        if counters:
            names = [f"{self._connection.prefix}count:{counter}" for counter in counters]
            self._connection.ask(lambda session: session.command("DEL", *names))

    def flush(self) -> None:
        """Do nothing: everything is in Redis."""

    def _run(self, script: str, *arguments: str | bytes | int | float) -> Any:
        now = "" if self._clock is None else f"{self._clock():.6f}"

        def run(session: Session) -> Any:
            return session.run(script, self._keys, self._connection.prefix, now, *arguments)

        return self._connection.ask(run)


def _counter_requests(counter_requests: Sequence[CounterRequest]) -> bytes:
    # false instead of null, because cjson decodes null to a value that is true in Lua.
    return orjson.dumps(
        [
            (
                name,
                _KINDS[kind],
                amount,
                False if limit is None else limit,
                own or False,
                False if at_least is None else at_least,
            )
            for name, kind, amount, limit, _, own, at_least in counter_requests
        ]
    )


def _decision(answer: Sequence[Any]) -> Decision:
    verdict, *rest = answer
    if verdict == _UNINITIALISED:
        return Decision(admitted=False, readings=(), uninitialised=tuple(name.decode() for name in rest))
    (packed,) = rest
    return Decision(admitted=verdict == _ADMITTED, readings=tuple(map(Reading._make, _READING.iter_unpack(packed))))
