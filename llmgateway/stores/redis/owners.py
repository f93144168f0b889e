"""Whose the responses are that Azure stores, for all hosts that share this Redis.

``llmgateway:2:{gateway}:stored:<id>``
    Whose the response, the item or the container is, signed (:mod:`.entries`). Redis deletes it after 30 days, as
    Azure does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import orjson

from llmgateway.records import Owned

from .connection import RedisConnection, Session, script
from .entries import EntrySigner

KEPT_SECONDS = 30 * 24 * 3600
"""Azure keeps stored responses for 30 days (Microsoft, "Azure OpenAI Responses API", 2026)."""

_PUT = script("owners.lua")


class RedisOwners:
    """A :class:`~llmgateway.stores.stored.SharedOwners` in Redis. An entry that no gateway has signed is not used.

    Args:
        clock: Seconds since the epoch.
    """

    def __init__(
        self, connection: RedisConnection, signer: EntrySigner, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._connection = connection
        self._signer = signer
        self._clock = clock
        self._prefix = connection.prefix + "stored:"

    def put(self, owned: Owned, ids: tuple[str, ...]) -> None:
        names = [self._prefix + stored_id for stored_id in ids]
        content, now = orjson.dumps([*owned]), self._clock()
        entries = [self._signer.sign(name, content, at=now) for name in names]
        self._connection.ask(lambda session: session.run(_PUT, names, KEPT_SECONDS, *entries))

    def get(self, stored_id: str) -> Owned | None:
        name = self._prefix + stored_id

        def get(session: Session) -> bytes | None:
            entry: bytes | None = session.command("GET", name)
            return entry

        entry = self._connection.ask(get)
        signed = None if entry is None else self._signer.verify(name, entry)
        return None if signed is None else _owned(signed.content)

    def of(self, owns: Callable[[Owned], bool]) -> dict[str, Owned]:
        found: dict[str, Owned] = {}

        def look(session: Session) -> None:
            for name in session.names(self._prefix + "*"):
                entry = session.command("GET", name)
                signed = None if entry is None else self._signer.verify(name, entry)
                owned = None if signed is None else _owned(signed.content)
                if owned is not None and owns(owned):
                    found[name.removeprefix(self._prefix)] = owned

        self._connection.ask(look, urgent=True)
        return found

    def forget(self, ids: Collection[str]) -> None:
        names = [self._prefix + stored_id for stored_id in ids]
        if names:
            self._connection.ask(lambda session: session.command("DEL", *names), urgent=True)


def _owned(content: bytes) -> Owned | None:
    try:
        return Owned(*orjson.loads(content))
    except TypeError:  # another version of this program wrote it; the usage log has it, too
        return None
