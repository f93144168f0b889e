"""The cache of keys and the organisation in Redis, in front of a durable store.

Redis is only a cache. All names share one hash tag, so that they are in one slot of a cluster (``{gateway}`` stands for
the namespace):

``llmgateway:2:{gateway}:key:<digest>``
    A key as the durable store returned it, signed. A key that is being replaced has two entries: one under its digest
    and one under its retiring digest.
``llmgateway:2:{gateway}:generation``
    A token that is replaced whenever the organisation changes.
``llmgateway:2:{gateway}:organisation``
    The organisation, signed, with Azure's key encrypted, for a process that starts while the durable store is
    unavailable.
``llmgateway:2:{gateway}:guard``
    A token that is replaced whenever any key changes; see ``fill.lua``.

Both tokens are random. A missing token is created again, so tokens are not repeated after Redis was emptied.

A change is first made in the durable store, and then the entry is deleted ("wiped") from Redis. If Redis is unavailable
at that moment, this process keeps the wipe in memory, and makes it before it uses Redis again. If the process dies
before that, or if Redis returns with old data, other processes use an old entry for at most *freshness* seconds.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from llmgateway.errors import StoreUnavailable
from llmgateway.records import KeyRecord, Organisation

from ..circuit import Circuit
from .connection import RedisConnection, Session, script
from .entries import Entries, EntrySigner, KeyEntry

T = TypeVar("T")

log = logging.getLogger(__name__)

REPEATED_AFTER = 10
"""Seconds after which a durable store no longer makes a change that returned an error."""
_TOKENS, _FILL, _WIPE = (script(f"{name}.lua") for name in ("tokens", "fill", "wipe"))


class Look(NamedTuple):
    """The entry of a key and both tokens, read at the same moment."""

    entry: KeyEntry | None
    generation: str
    guard: bytes


class RedisCache:
    """The entries of keys and the organisation in Redis, and the wipes that are still to be made.

    All methods raise :class:`StoreUnavailable` unless they say otherwise. They raise it at once if Redis failed less
    than *retry_after* seconds ago.

    Args:
        url, namespace, timeout: See :class:`RedisConnection`.
        signer: Must have the same key on all hosts that share this Redis.
        freshness: Seconds for which an entry is used without asking the durable store.
        ttl: Seconds after which Redis deletes an entry. Until then it is used while the durable store is unavailable.
        retry_after: Seconds between attempts while Redis, or the durable store, is unavailable.
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
        self.signer = signer
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
        """Return the entry of a key and both tokens, in one round trip unless a token is missing."""
        name = self._key_prefix + digest

        def look(session: Session) -> tuple[bytes | None, bytes, bytes]:
            entry, generation, guard = session.command("MGET", name, self._generation, self._guard)
            if generation is None or guard is None:
                generation, guard = self._tokens(session)
            return entry, generation, guard

        entry, generation, guard = self._ask(look)
        return Look(self._entries.key(name, entry), generation.decode(), guard)

    def tokens(self) -> tuple[bytes, bytes]:
        """Return generation and guard. The generation changes after *freshness* seconds at the latest."""
        return self._ask(self._tokens)

    def is_fresh(self, entry: KeyEntry) -> bool:
        """Whether *entry* may be used without asking the durable store."""
        return 0 <= self._clock() - entry.at <= self._freshness

    def generation(self) -> str:
        return self.tokens()[0].decode()

    def organisation(self) -> Organisation | None:
        entry = self._ask(lambda session: session.command("GET", self._organisation))
        return self._entries.organisation(self._organisation, entry)

    def keep_organisation(self, organisation: Organisation) -> None:
        """Store a copy of the organisation. Raises nothing."""
        entry = self._entries.of_organisation(self._organisation, organisation)
        self._try(lambda session: session.command("SET", self._organisation, entry, "EX", self._ttl))

    def fill(self, digest: str, record: KeyRecord, *, guard: bytes) -> None:
        """Store *record* if no key has changed since *guard* was read. Raises nothing."""
        name = self._key_prefix + digest
        entry = self._entries.of_key(name, record)
        self._try(lambda session: session.run(_FILL, [name, self._guard], guard, entry, self._ttl))

    def wipe_keys(self, digests: Iterable[str], *, is_certain: bool = True) -> None:
        """Delete the entries of these keys, and change the guard. Raises nothing.

        If Redis is unavailable, the entries are deleted before Redis is used again.

        Args:
            is_certain: False if the durable store returned an error, and may still make the change. Then the wipe is
                repeated some seconds later.
        """
        self._wipe((*(self._key_prefix + digest for digest in digests),), is_certain)

    def wipe_generation(self, *, is_certain: bool = True) -> None:
        """Begin a new generation. Everything else is as for :meth:`wipe_keys`."""
        self._wipe((self._generation,), is_certain)

    @contextmanager
    def new_generation(self) -> Iterator[None]:
        """Begin a new generation at the end of the block, which changes the organisation; also after an error."""
        is_certain = True
        try:
            yield
        except StoreUnavailable:
            is_certain = False
            raise
        finally:
            self.wipe_generation(is_certain=is_certain)

    def ping(self) -> None:
        """Check that Redis accepts writes, even if it has just failed, and make pending wipes."""
        self._ask(self.connection.prove_writing, urgent=True)

    def close(self) -> None:
        """Close the connections; the next use opens new ones."""
        self.connection.close()

    def _tokens(self, session: Session) -> tuple[bytes, bytes]:
        # A generation expires together with the entries, so that a process that missed a change of the organisation
        # (see above) loads it again.
        seconds = max(1, int(self._freshness)), self._ttl
        names = [self._generation, self._guard]
        generation, guard = session.run(_TOKENS, names, uuid.uuid4().hex, uuid.uuid4().hex, *seconds)
        return generation, guard

    def _wipe(self, names: tuple[str, ...], is_certain: bool) -> None:
        self._pending.add(_Wipe(names, due=0))
        if not is_certain:
            self._pending.add(_Wipe(names, due=self._clock() + REPEATED_AFTER))
        # Urgent, because an admin's change may wait for a timeout, but a user's look-up may not.
        self._try(_nothing, urgent=True)

    def _deliver(self, session: Session) -> None:
        now = self._clock()
        wipes = {wipe for wipe in self._pending.copy() if wipe.due <= now}
        if not wipes:
            return
        names = [name for wipe in wipes for name in wipe.names]
        session.run(_WIPE, [self._guard, *names], uuid.uuid4().hex, self._ttl)
        # Wipes are compared by identity: another thread may have added a wipe with the same names in the meantime.
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
            log.debug("redis is unavailable; a step of the cache was skipped", exc_info=True)


@dataclass(frozen=True, slots=True, eq=False)
class _Wipe:
    """Names to delete. Wipes are compared by identity."""

    names: tuple[str, ...]
    due: float
    """Seconds since the epoch; 0 for at once."""


def _nothing(session: Session) -> None:
    """Do nothing: pending wipes are made before each question."""
