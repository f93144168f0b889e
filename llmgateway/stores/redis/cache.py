"""What Redis keeps of keys and organisation in front of a durable store, and what must be wiped from it.

Redis is never the truth. It holds, under names that share one hash tag so that a cluster keeps
them in one slot (``{gateway}`` stands for the namespace):

``llmgateway:2:{gateway}:key:<digest>``
    A key as the durable store had it, signed. One that is being replaced is there twice: under its
    digest and under its retiring one.
``llmgateway:2:{gateway}:generation``
    A token that is replaced whenever the organisation changes.
``llmgateway:2:{gateway}:organisation``
    What admins set, signed, Azure's key encrypted, for a process that starts while the durable store is away.
``llmgateway:2:{gateway}:guard``
    A token that is replaced whenever any key changes; see ``fill.lua``.

Both tokens are random and made anew when they are missing, so an emptied Redis repeats none of them.

A change is made in the durable store first and then wiped from Redis. If Redis cannot be
reached at that moment, this process remembers the wipe and does it before it believes
Redis again. Should the process die before that, or should Redis come back with the data of an
earlier day, others believe what they find there for *freshness* seconds at most.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from llmgateway.errors import StoreUnavailable
from llmgateway.records import KeyRecord, Organisation

from ..circuit import Circuit
from .connection import RedisConnection, Session, script
from .entries import Entries, EntrySigner, KeyEntry

T = TypeVar("T")

logger = logging.getLogger(__name__)

REPEATED_AFTER = 10
"""Seconds in which a durable store has made a change whose answer was lost, or will never make it."""
_TOKENS, _FILL, _WIPE = (script(f"{name}.lua") for name in ("tokens", "fill", "wipe"))


class Look(NamedTuple):
    """What Redis has at one moment."""

    entry: KeyEntry | None
    generation: str
    guard: bytes


class RedisCache:
    """What is kept in Redis of keys and organisation, and what still has to be wiped from it.

    Every method but those that say otherwise raises :class:`StoreUnavailable`, at once if Redis
    failed less than *retry_after* seconds ago.

    Args:
        url, namespace, timeout: See :class:`RedisConnection`.
        signer: With the same key on all hosts that share this Redis.
        freshness: Seconds for which an entry is used without asking the durable store.
        ttl: Seconds after which an unused entry is gone, also as a stand-in for the durable store.
        retry_after: Seconds between attempts while Redis, or the durable store, is away.
        clock: Seconds since the epoch. Hosts may differ by less than *freshness*.
    """

    name = "redis"

    def __init__(
        self,
        url: str,
        *,
        signer: EntrySigner,
        namespace: str = "gateway",
        timeout: float = 0.5,
        freshness: float = 300,
        ttl: float = 7 * 24 * 3600,
        retry_after: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.durable = Circuit("the durable store", retry_after=retry_after, clock=clock)
        self.connection = RedisConnection(
            url, namespace=namespace, timeout=timeout, retry_after=retry_after, clock=clock
        )
        self._freshness = freshness
        self._clock = clock
        self._ttl = int(ttl)
        self._entries = Entries(signer, clock=clock)
        self._key_prefix = self.connection.prefix + "key:"
        self._generation = self.connection.prefix + "generation"
        self._guard = self.connection.prefix + "guard"
        self._organisation = self.connection.prefix + "organisation"
        self._pending: set[_Wipe] = set()

    def look(self, digest: str) -> Look:
        """The key's entry and both tokens, in one round trip unless a token was missing."""
        name = self._key_prefix + digest

        def look(session: Session) -> tuple[bytes | None, bytes, bytes]:
            entry, generation, guard = session.command("MGET", name, self._generation, self._guard)
            if generation is None or guard is None:
                generation, guard = self._tokens(session)
            return entry, generation, guard

        entry, generation, guard = self._ask(look)
        return Look(self._entries.key(name, entry), generation.decode(), guard)

    def tokens(self) -> tuple[bytes, bytes]:
        """Generation and guard. The first is another one after *freshness* seconds at the latest."""

        def tokens(session: Session) -> tuple[bytes, bytes]:
            generation, guard = session.command("MGET", self._generation, self._guard)
            return self._tokens(session) if generation is None or guard is None else (generation, guard)

        return self._ask(tokens)

    def is_fresh(self, entry: KeyEntry) -> bool:
        """Whether *entry* may be believed without asking the durable store."""
        return 0 <= self._clock() - entry.at <= self._freshness

    def generation(self) -> str:
        return self._ask(self._tokens)[0].decode()

    def organisation(self) -> Organisation | None:
        entry = self._ask(lambda session: session.command("GET", self._organisation))
        return self._entries.organisation(self._organisation, entry)

    def keep_organisation(self, organisation: Organisation) -> None:
        """Raises nothing: it is only a copy."""
        entry = self._entries.of_organisation(self._organisation, organisation)
        self._try(lambda session: session.command("SET", self._organisation, entry, "EX", self._ttl))

    def fill(self, digest: str, record: KeyRecord, *, guard: bytes) -> None:
        """Keep *record* if no key has changed since *guard* was looked at. Raises nothing: it is only a cache."""
        name = self._key_prefix + digest
        entry = self._entries.of_key(name, record)
        self._try(lambda session: session.run(_FILL, [name, self._guard], guard, entry, self._ttl))

    def wipe_keys(self, digests: Iterable[str], *, is_certain: bool = True) -> None:
        """Let no process believe what it knows of these. Raises nothing: what cannot be done now is done later.

        Args:
            is_certain: Whether the durable store has made the change, if it makes it at all. If it may still make
                it after an error, the wipe is repeated some seconds later.
        """
        self._wipe((*(self._key_prefix + digest for digest in digests),), is_certain)

    def wipe_generation(self, *, is_certain: bool = True) -> None:
        """Begin a new generation, like :meth:`wipe_keys`."""
        self._wipe((self._generation,), is_certain)

    def ping(self) -> None:
        """Prove that Redis takes writes now, whatever was a moment ago, and wipe what has to be wiped."""
        self._ask(self.connection.prove_writing, urgent=True)

    def close(self) -> None:
        """Close the connections; the next use opens new ones."""
        self.connection.close()

    def _tokens(self, session: Session) -> tuple[bytes, bytes]:
        # A generation lasts no longer than an entry: whoever missed that the organisation has
        # changed (see above) reads it again then.
        seconds = max(1, int(self._freshness)), self._ttl
        names = [self._generation, self._guard]
        generation, guard = session.run(_TOKENS, names, uuid.uuid4().hex, uuid.uuid4().hex, *seconds)
        return generation, guard

    def _wipe(self, names: tuple[str, ...], is_certain: bool) -> None:
        self._pending.add(_Wipe(names, due=0))
        if not is_certain:
            self._pending.add(_Wipe(names, due=self._clock() + REPEATED_AFTER))
        # Urgent: an admin's change may wait for a time-out, a user's look-up may not.
        self._try(_nothing, urgent=True)

    def _deliver(self, session: Session) -> None:
        now = self._clock()
        wipes = {wipe for wipe in self._pending.copy() if wipe.due <= now}
        if not wipes:
            return
        names = [name for wipe in wipes for name in wipe.names]
        session.run(_WIPE, [self._guard, *names], uuid.uuid4().hex, self._ttl)
        # By identity: the same name may have become due again in the meantime, as another wipe.
        self._pending.difference_update(wipes)

    def _ask(self, question: Callable[[Session], T], *, urgent: bool = False) -> T:
        def ask(session: Session) -> T:
            if self._pending:
                self._deliver(session)
            return question(session)

        return self.connection.ask(ask, urgent=urgent)

    def _try(self, action: Callable[[Session], object], *, urgent: bool = False) -> None:
        try:
            self._ask(action, urgent=urgent)
        except StoreUnavailable:
            logger.debug("redis missed a step", exc_info=True)


@dataclass(frozen=True, slots=True, eq=False)
class _Wipe:
    """Names that have to be deleted; each is itself, even of the same names."""

    names: tuple[str, ...]
    due: float
    """Seconds since the epoch; 0 for at once."""


def _nothing(session: Session) -> None:
    """Ask nothing: what has to be wiped is wiped first."""
