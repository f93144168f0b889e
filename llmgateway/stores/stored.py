"""Whose the responses are that Azure stores: looked up in memory, in Redis, in this host's journals, in the log."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Protocol

from ..errors import StoreUnavailable
from ..interfaces import UsageLog
from ..records import Owned, UsageRecord
from .circuit import Circuit

KEPT_IDS = 50_000
"""The most identifiers in memory; the oldest are removed. Each takes about 400 bytes."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")


class SharedOwners(Protocol):
    """The owners that all hosts share: Redis."""

    def put(self, owned: Owned, ids: tuple[str, ...]) -> None: ...

    def get(self, stored_id: str) -> Owned | None: ...

    def of(self, owns: Callable[[Owned], bool]) -> dict[str, Owned]:
        """Return those for which *owns* is true, by identifier. This reads all of them."""
        ...

    def forget(self, ids: Collection[str]) -> None: ...


class FoundStored:
    """A :class:`~llmgateway.interfaces.StoredResponses` on top of the usage log, whose records name every response.

    A record is in a journal of its host before the first byte of its answer goes out, and gets to the usage log a
    moment after the end of the answer. Until then, other hosts know of it through Redis. Without Redis, a request that
    continues a response at another host than the one that made it may have to wait until the record is shipped.

    Args:
        shared: None if there is no Redis.
        circuit: Prevents waiting for the usage log when it has just failed.
        in_journals: Returns the record from the journals of this host.
    """

    def __init__(
        self,
        usage_log: UsageLog,
        *,
        circuit: Circuit,
        shared: SharedOwners | None = None,
        in_journals: Callable[[str], UsageRecord | None] = lambda _: None,
        limit: int = KEPT_IDS,
    ) -> None:
        self._usage_log = usage_log
        self._circuit = circuit
        self._shared = shared
        self.in_journals = in_journals
        self._limit = limit
        self._known: OrderedDict[str, Owned] = OrderedDict()

    def remember(self, record: UsageRecord) -> None:
        ids = _ids(record)
        if not ids:
            return
        owned = Owned.of(record)
        self._keep(owned, ids)
        if self._shared is not None:
            try:
                self._shared.put(owned, ids)
            except StoreUnavailable:
                return  # the journal has it, and soon the usage log

    def find(self, stored_id: str, *, anew: bool = False) -> Owned | None:
        if not _ID.match(stored_id):
            return None  # Azure makes no such identifiers
        known = None if anew else self._known.get(stored_id)
        if known is not None:
            return known
        try:
            found, away = self._find_shared(stored_id), None
        except StoreUnavailable as error:
            found, away = None, error
        # The journals come before the usage log: a record that is shipped at this moment is found in one of them.
        found = found or self._of(self.in_journals(stored_id)) or self._of(self._find_logged(stored_id))
        if found is None:
            if away is not None:
                raise away  # another host may have told Redis of it
            return None
        self._keep(found, (stored_id,))
        return found

    def of(self, user: str) -> dict[str, Owned]:
        return {} if self._shared is None else self._shared.of(lambda owned: owned.user == user)

    def forget(self, owns: Callable[[Owned], bool]) -> None:
        for stored_id, owned in [*self._known.items()]:
            if owns(owned):
                self._known.pop(stored_id, None)
        if self._shared is not None:
            self._shared.forget(self._shared.of(owns))

    def _find_shared(self, stored_id: str) -> Owned | None:
        return None if self._shared is None else self._shared.get(stored_id)

    def _find_logged(self, stored_id: str) -> UsageRecord | None:
        return self._circuit.call(lambda: self._usage_log.find_stored(stored_id))

    @staticmethod
    def _of(record: UsageRecord | None) -> Owned | None:
        return None if record is None else Owned.of(record)

    def _keep(self, owned: Owned, ids: tuple[str, ...]) -> None:
        # Without a lock: each step is atomic under the GIL, and the steps do not depend on each other.
        for stored_id in ids:
            self._known[stored_id] = owned
        while len(self._known) > self._limit:
            try:
                self._known.popitem(last=False)
            except KeyError:
                return  # another thread was faster


def _ids(record: UsageRecord) -> tuple[str, ...]:
    ids = (record.response_id or "", *record.stored_ids)
    return tuple(stored_id for stored_id in ids if _ID.match(stored_id))
