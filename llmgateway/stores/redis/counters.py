"""The counters behind limits in Redis, shared by every host.

Their names begin like those of ``redis.py``:

``llmgateway:{gateway}:count:<counter>``
    What one counter remembers; ``counters.lua`` says how.
``llmgateway:{gateway}:leases``, ``llmgateway:{gateway}:ends``
    What each running request holds, and until when.
``llmgateway:{gateway}:askers:<counter>``, ``llmgateway:{gateway}:waiting:<counter>``
    Who shares a window, and who waits for what becomes free in it.
``llmgateway:{gateway}:settled:<token>``
    That a call has been done, should the driver repeat it.

All of them disappear when nobody uses them any more.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Sequence
from typing import Any

import orjson

from llmgateway.clock import Clock
from llmgateway.ratelimit.reservations import Commit, CounterRequest, Decision, Reading

from .connection import RedisConnection, Script

_CLAIMED, _UNKNOWN = 1, -1
_READING = struct.Struct("<qq?dd")
"""A :class:`Reading` as ``counters.lua`` packs it."""
COMMITTED_AT_ONCE = 100
"""Settlements of one script: nobody else is served while it runs."""


class RedisCounters:
    """A :class:`~llmgateway.interfaces.CounterStore`: every call is one script, and they take turns.

    Args:
        clock: Seconds since the epoch; None for Redis' own.
    """

    def __init__(self, connection: RedisConnection, *, clock: Clock | None = None) -> None:
        self._connection = connection
        self._clock = clock
        self._keys = [connection.prefix + "leases", connection.prefix + "ends"]
        self._reserve, self._commit, self._renew, self._look, self._initialise, self._confirm = (
            connection.script("counters.lua", f"{name}.lua")
            for name in ("reserve", "commit", "renew", "look", "seed", "confirm")
        )

    def reserve(self, reservation: str, counter_requests: Sequence[CounterRequest], *, lease: float) -> Decision:
        return _decision(self._run(self._reserve, reservation, lease, _counter_requests(counter_requests)))

    def commit(self, commits: Sequence[Commit]) -> None:
        for start in range(0, len(commits), COMMITTED_AT_ONCE):
            document = [
                (reservation, [counter_request[:3] for counter_request in counter_requests])
                for reservation, counter_requests in commits[start : start + COMMITTED_AT_ONCE]
            ]
            self._run(self._commit, secrets.token_hex(8), orjson.dumps(document))

    def renew(self, reservations: Sequence[str], *, lease: float) -> None:
        if reservations:
            self._run(self._renew, lease, *reservations)

    def look(self, counter_requests: Sequence[CounterRequest]) -> Decision:
        return _decision(self._run(self._look, _counter_requests(counter_requests)))

    def initialise(self, counter: str, used: int, *, until: int | None) -> None:
        self._run(self._initialise, counter, used, secrets.randbits(20), until or 0)

    def confirm(self, counter: str) -> bool:
        return bool(self._run(self._confirm, counter))

    def forget(self, counters: Sequence[str]) -> None:
        if counters:
            names = [f"{self._connection.prefix}count:{counter}" for counter in counters]
            self._connection.ask(lambda: self._connection.client.delete(*names))

    def flush(self) -> None:
        """Nothing: Redis has it all."""

    def _run(self, script: Script, *arguments: str | bytes | int | float) -> Any:
        now = "" if self._clock is None else f"{self._clock():.6f}"
        return self._connection.ask(lambda: script(self._keys, self._connection.prefix, now, *arguments))


def _counter_requests(counter_requests: Sequence[CounterRequest]) -> bytes:
    # false and not null: that is a value of its own to Redis' JSON, which counts as true.
    return orjson.dumps(
        [
            (
                counter_request.counter,
                counter_request.kind,
                counter_request.amount,
                False if counter_request.limit is None else counter_request.limit,
                counter_request.own or False,
            )
            for counter_request in counter_requests
        ]
    )


def _decision(answer: Sequence[Any]) -> Decision:
    verdict, *rest = answer
    if verdict == _UNKNOWN:
        return Decision(admitted=False, readings=(), uninitialised=tuple(name.decode() for name in rest))
    (packed,) = rest
    return Decision(admitted=verdict == _CLAIMED, readings=tuple(map(Reading._make, _READING.iter_unpack(packed))))
