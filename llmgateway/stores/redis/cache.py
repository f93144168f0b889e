"""Redis in front of a durable store: look-ups in one round trip, and an answer while the store is away.

Redis is never the truth. It holds, under names that share one hash tag so that a cluster keeps
them together:

``llmgateway:{gateway}:key:<digest>``
    A key as the durable store had it, and until when that may be believed unasked. One that is being
    replaced is there twice: under its digest and under its retiring one.
``llmgateway:{gateway}:generation``
    A token that is replaced whenever the organisation changes.
``llmgateway:{gateway}:organisation``
    What admins set, Azure's key encrypted, for a process that starts while the durable store is away.
``llmgateway:{gateway}:guard``
    A token that is replaced whenever any key changes; see ``fill.lua``.

Both are random and made anew when they are missing, so an emptied Redis repeats none of them.

A change is made in the durable store first and then wiped from Redis. If Redis cannot be
reached at that moment, this process keeps the wiping in mind and does it before it believes
Redis again. Should the process die before that, or should Redis come back with the data of an
earlier day, others believe what they find there for *freshness* seconds at most.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import orjson
import redis

from llmgateway.errors import StoreUnavailable
from llmgateway.interfaces import KeyStore, OrganisationStore
from llmgateway.records import ALL_KEYS, Group, KeyQuery, KeyRecord, Limits, Lookup, Organisation, Prices, Prompt

from ..circuit import Circuit
from .connection import RedisConnection

T = TypeVar("T")


class Look(NamedTuple):
    """What Redis has at one moment."""

    entry: bytes | None
    generation: str
    guard: bytes


class RedisCache:
    """What is kept in Redis of keys and organisation, and what still has to be wiped from it.

    Every method but those that say otherwise raises :class:`StoreUnavailable`, at once if Redis
    failed less than *retry_after* seconds ago.

    Args:
        server, namespace, timeout: See :class:`RedisConnection`.
        freshness: Seconds for which an entry is used without asking the durable store.
        ttl: Seconds after which an unused entry is gone, also as a stand-in for the durable store.
        retry_after: Seconds between attempts while Redis, or the durable store, is away.
        clock: Seconds since the epoch. Hosts may differ by less than *freshness*.
    """

    name = "redis"

    def __init__(
        self,
        server: str | redis.Redis,
        *,
        namespace: str = "gateway",
        timeout: float = 0.5,
        freshness: float = 300,
        ttl: float = 7 * 24 * 3600,
        retry_after: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.freshness = freshness
        self.clock = clock
        self.durable = Circuit("the durable store", retry_after=retry_after, clock=clock)
        self._ttl = int(ttl)
        self.connection = RedisConnection(
            server, namespace=namespace, timeout=timeout, retry_after=retry_after, clock=clock
        )
        self._redis = self.connection.client
        self._prefix = self.connection.prefix
        self._generation = self._prefix + "generation"
        self._guard = self._prefix + "guard"
        self._organisation = self._prefix + "organisation"
        self._pending: set[_Wipe] = set()
        self._fill = self.connection.script("fill.lua")

    def look(self, digest: str) -> Look:
        """The key's entry and both tokens, in one round trip unless a token was missing."""

        def look() -> Look:
            entry, generation, guard = self.connection.call("MGET", self._key(digest), self._generation, self._guard)
            if generation is None or guard is None:
                generation, guard = self._tokens()
            return Look(entry, generation.decode(), guard)

        return self._ask(look)

    def generation(self) -> str:
        return self._ask(lambda: self._tokens()[0].decode())

    def organisation(self) -> bytes | None:
        copy: bytes | None = self._ask(lambda: self._redis.get(self._organisation))
        return copy

    def keep_organisation(self, entry: bytes) -> None:
        """Raises nothing: it is only a copy."""
        self._try(lambda: self._redis.set(self._organisation, entry, ex=self._ttl))

    def fill(self, digest: str, entry: bytes, *, guard: bytes) -> None:
        """Keep *entry* if no key has changed since *guard* was looked at. Raises nothing: it is only a cache."""
        names = [self._key(digest), self._guard]
        self._try(lambda: self._fill(names, guard, entry, self._ttl))

    def wipe_keys(self, digests: Iterable[str]) -> None:
        """Let no process believe what it knows of these. Raises nothing: what cannot be done now is done later."""
        self._wipe(*map(self._key, digests))

    def wipe_generation(self) -> None:
        """Begin a new generation. Raises nothing: what cannot be done now is done later."""
        self._wipe(self._generation)

    def ping(self) -> None:
        self._ask(self._redis.ping, urgent=True)

    def close(self) -> None:
        """Close the connections; the next use opens new ones."""
        self.connection.close()

    def _key(self, digest: str) -> str:
        return f"{self._prefix}key:{digest}"

    def _tokens(self) -> tuple[bytes, bytes]:
        """Generation and guard, made if missing; of several processes at once one makes them for all."""
        with self._redis.pipeline(transaction=True) as pipe:
            # A generation lasts no longer than an entry: whoever missed that the organisation has
            # changed (see above) reads it again then.
            pipe.set(self._generation, uuid.uuid4().hex, nx=True, ex=max(1, int(self.freshness)))
            pipe.set(self._guard, uuid.uuid4().hex, nx=True, ex=self._ttl)
            pipe.mget(self._generation, self._guard)
            *_, (generation, guard) = pipe.execute()
        return generation, guard

    def _wipe(self, *names: str) -> None:
        self._pending.add(_Wipe(names))
        # Urgent: an admin's change may wait for a time-out, a user's look-up may not.
        self._try(lambda: None, urgent=True)

    def _deliver(self) -> None:
        wipes = self._pending.copy()
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(self._guard, uuid.uuid4().hex, ex=self._ttl)
            for wipe in wipes:
                if wipe.names:
                    # Not DEL, whose time grows with what it frees: thousands of keys are revoked at once.
                    pipe.unlink(*wipe.names)
            pipe.execute()
        # By identity: the same name may have become due again in the meantime, as another wipe.
        self._pending.difference_update(wipes)

    def _ask(self, question: Callable[[], T], *, urgent: bool = False) -> T:
        def ask() -> T:
            if self._pending:
                self._deliver()
            return question()

        return self.connection.ask(ask, urgent=urgent)

    def _try(self, action: Callable[[], object], *, urgent: bool = False) -> None:
        try:
            self._ask(action, urgent=urgent)
        except StoreUnavailable:
            logging.getLogger(__name__).debug("redis missed a step", exc_info=True)


@dataclass(frozen=True, slots=True, eq=False)
class _Wipe:
    """Names that have to be deleted; each is itself, even of the same names."""

    names: tuple[str, ...]


class RedisKeys:
    """A :class:`~llmgateway.interfaces.KeyStore`: Redis in front of *durable*.

    :meth:`find` is one round trip to Redis if the key is there and fresh. A stale entry is
    used if the durable store is away; without Redis the durable store is asked each time.
    """

    def __init__(self, cache: RedisCache, durable: KeyStore) -> None:
        self._cache = cache
        self._durable = durable

    def find(self, digest: str) -> Lookup:
        try:
            look = self._cache.look(digest)
        except StoreUnavailable:
            record, version = self._cache.durable.call(lambda: self._durable.find(digest))
            return Lookup(record, _durable_generation(version))
        cached = _decode(look.entry)
        if cached is not None and self._is_fresh(cached.fresh_until):
            return Lookup(cached.record, look.generation)
        try:
            record, _ = self._cache.durable.call(lambda: self._durable.find(digest))
        except StoreUnavailable:
            if cached is None:
                raise
            return Lookup(cached.record, look.generation)
        if record is not None:
            self._cache.fill(digest, self._encode(record), guard=look.guard)
        elif cached is not None:
            self._cache.wipe_keys([digest])
        return Lookup(record, look.generation)

    def _is_fresh(self, fresh_until: float) -> bool:
        return 0 <= fresh_until - self._cache.clock() <= self._cache.freshness

    def add(self, record: KeyRecord) -> bool:
        added = self._durable.add(record)
        self._cache.wipe_keys(record.digests)
        return added

    def add_all(self, records: Sequence[KeyRecord]) -> set[str]:
        taken = self._durable.add_all(records)
        self._cache.wipe_keys(digest for record in records for digest in record.digests)
        return taken

    def get(self, key_id: str) -> KeyRecord | None:
        return self._durable.get(key_id)

    def list(self, query: KeyQuery = ALL_KEYS) -> list[KeyRecord]:
        return self._durable.list(query)

    def update(
        self, key_id: str, changes: Mapping[str, object], *, limits: Mapping[str, object] | None = None
    ) -> KeyRecord | None:
        record = self._durable.update(key_id, changes, limits=limits)
        if record is not None:
            self._cache.wipe_keys(record.digests)
        return record

    def rotate(self, key_id: str, digest: str, *, retires_at: datetime | None) -> KeyRecord | None:
        before = self._durable.get(key_id)
        digests = {digest, *(before.digests if before else ())}
        try:
            rotated = self._durable.rotate(key_id, digest, retires_at=retires_at)
            # Another rotation may have come between.
            digests.update(rotated.digests if rotated else ())
        finally:
            # Also after an error, as in remove().
            self._cache.wipe_keys(digests)
        return rotated

    def revoke_group(self, group: str) -> Sequence[KeyRecord]:
        digests = {digest for record in self._durable.list(KeyQuery(group=group)) for digest in record.digests}
        try:
            revoked = self._durable.revoke_group(group)
            digests.update(digest for record in revoked for digest in record.digests)
        finally:
            # Also after an error, as in remove(): when the admin tries again, none is active any more.
            self._cache.wipe_keys(digests)
        return revoked

    def remove(self, key_id: str) -> KeyRecord | None:
        record = self._durable.get(key_id)
        try:
            return self._durable.remove(key_id)
        finally:
            # Also after an error: the store may have done it and only its answer was lost, and
            # when the admin tries again there is no record any more that tells the digest.
            if record is not None:
                self._cache.wipe_keys(record.digests)

    def _encode(self, record: KeyRecord) -> bytes:
        return orjson.dumps({"fresh_until": self._cache.clock() + self._cache.freshness, "record": record})


class RedisOrganisation:
    """An :class:`~llmgateway.interfaces.OrganisationStore`: *durable*, with the generation in Redis."""

    def __init__(self, cache: RedisCache, durable: OrganisationStore) -> None:
        self._cache = cache
        self._durable = durable

    def load(self) -> Organisation:
        # The generation first: if a change comes between the two, it is the old one with the new
        # content, and the next look-up makes the caller load again. The other way round would hide it.
        try:
            generation = self._cache.generation()
        except StoreUnavailable:
            organisation = self._cache.durable.call(self._durable.load)
            return replace(organisation, version=_durable_generation(organisation.version))
        return replace(self._load(), version=generation)

    def _load(self) -> Organisation:
        """The durable store's, or while that is away what it was when anybody last loaded it."""
        try:
            organisation = self._cache.durable.call(self._durable.load)
        except StoreUnavailable:
            copy = _decode_organisation(self._cache.organisation())
            if copy is None:
                raise
            return copy
        self._cache.keep_organisation(_encode_organisation(organisation))
        return organisation

    def set_prompt(self, text: str, set_at: datetime) -> Prompt:
        # Also after an error: the store may have done it and only its answer was lost.
        try:
            return self._durable.set_prompt(text, set_at)
        finally:
            self._cache.wipe_generation()

    def add_prompt(self, text: str, set_at: datetime, *, scope: str) -> Prompt:
        return self._durable.add_prompt(text, set_at, scope=scope)

    def prompt_versions(self, *, scope: str | None = None) -> list[Prompt]:
        return self._durable.prompt_versions(scope=scope)

    def set_limits(self, limits: Limits) -> None:
        try:
            self._durable.set_limits(limits)
        finally:
            self._cache.wipe_generation()

    def update_limits(self, parts: Mapping[str, object]) -> Limits:
        try:
            return self._durable.update_limits(parts)
        finally:
            self._cache.wipe_generation()

    def set_group(self, group: Group) -> Group:
        try:
            return self._durable.set_group(group)
        finally:
            self._cache.wipe_generation()

    def update_group(
        self, name: str, changes: Mapping[str, object], *, limits: Mapping[str, object] | None = None
    ) -> Group | None:
        try:
            return self._durable.update_group(name, changes, limits=limits)
        finally:
            self._cache.wipe_generation()

    def remove_group(self, name: str) -> Group | None:
        try:
            return self._durable.remove_group(name)
        finally:
            self._cache.wipe_generation()

    def set_credential(self, credential: bytes) -> None:
        try:
            self._durable.set_credential(credential)
        finally:
            self._cache.wipe_generation()

    def set_prices(self, model: str, prices: Prices | None) -> None:
        try:
            self._durable.set_prices(model, prices)
        finally:
            self._cache.wipe_generation()


def _encode_organisation(organisation: Organisation) -> bytes:
    credential = organisation.credential
    return orjson.dumps(replace(organisation, credential=None)) + b"\n" + (credential or b"")


def _decode_organisation(entry: bytes | None) -> Organisation | None:
    """What admins had set; None for what another version of this program has written."""
    if entry is None:
        return None
    document, _, credential = entry.partition(b"\n")
    shape = orjson.loads(document)
    if shape.keys() != _ORGANISATION_FIELDS:
        return None
    return Organisation(
        prompt=_prompt(shape["prompt"]),
        credential=credential or None,
        prices={model: Prices(**prices) for model, prices in shape["prices"].items()},
        limits=Limits.from_json(shape["limits"]),
        groups={name: _group(group) for name, group in shape["groups"].items()},
    )


def _durable_generation(generation: str) -> str:
    """The durable store's own, so marked that it equals none of Redis'."""
    return f"durable:{generation}"


_FIELDS = frozenset(field.name for field in fields(KeyRecord))
_ORGANISATION_FIELDS = frozenset(field.name for field in fields(Organisation))


class _Cached(NamedTuple):
    record: KeyRecord
    fresh_until: float


def _decode(entry: bytes | None) -> _Cached | None:
    """The key in an entry; None for what another version of this program has written."""
    if entry is None:
        return None
    shape = orjson.loads(entry)
    found = shape["record"]
    # An entry without a field that this version knows would seem to say that a key lacks, say,
    # a limit: better to ask the durable store.
    if found.keys() != _FIELDS:
        return None
    for name in ("created_at", "starts_at", "expires_at", "retires_at"):
        found[name] = _time(found[name])
    found["models"] = _models(found["models"])
    found["limits"] = Limits.from_json(found["limits"])
    if found["prompt"] is not None:
        found["prompt"] = _prompt(found["prompt"])
    return _Cached(KeyRecord(**found), shape["fresh_until"])


def _group(shape: dict[str, Any]) -> Group:
    for name in ("created_at", "starts_at", "expires_at"):
        shape[name] = _time(shape[name])
    shape["models"] = _models(shape["models"])
    shape["limits"] = Limits.from_json(shape["limits"])
    if shape["prompt"] is not None:
        shape["prompt"] = _prompt(shape["prompt"])
    return Group(**shape)


def _prompt(shape: Mapping[str, Any]) -> Prompt:
    return Prompt(version=shape["version"], text=shape["text"], set_at=_time(shape["set_at"]), scope=shape["scope"])


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _models(names: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)
