"""The responses that a resource stores.

They belong to the resource and not to a key: whoever has a key of it can read, continue and delete them all (inferred
from Microsoft's page on the Responses API, 2026, which knows no owner). They are kept for 30 days (the same page).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

KEPT_SECONDS = 30 * 24 * 60 * 60

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One response, with what is needed to continue it."""

    id: str
    document: Mapping[str, Any] = field(repr=False)
    """The response at its end."""
    input: Sequence[Item] = field(repr=False)
    """The items of its own request."""
    history: Sequence[Item] = field(repr=False)
    """Those of the responses before it, too, and what each of them has put out."""
    events: Sequence[bytes] = field(default=(), repr=False)
    """What was streamed; empty if it was not."""
    created: float
    """Seconds since the epoch."""
    looks_left: int = 0
    """How often it is still read as ``in_progress``: a response in the background ends when it has been polled."""

    @property
    def background(self) -> bool:
        return self.document.get("background") is True


class ResponseStore:
    """The stored responses of one resource; several simulators that share one are addresses of the same resource.

    Any thread may use it.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._responses: dict[str, Stored] = {}
        self._items: dict[str, Item] = {}

    def add(self, stored: Stored) -> None:
        with self._lock:
            self._forget_old()
            self._responses[stored.id] = stored
            self._items |= _by_id(stored)

    def find(self, name: str) -> Stored | None:
        with self._lock:
            self._forget_old()
            return self._responses.get(name)

    def look(self, name: str) -> Stored | None:
        """Return a response as :meth:`find` does, and count this as one look at its progress."""
        with self._lock:
            self._forget_old()
            stored = self._responses.get(name)
            if stored is not None and stored.looks_left:
                self._responses[name] = replace(stored, looks_left=stored.looks_left - 1)
            return stored

    def item(self, name: str) -> Item | None:
        """Return an item that a stored response has taken in or put out."""
        with self._lock:
            self._forget_old()
            return self._items.get(name)

    def cancel(self, name: str) -> Stored | None:
        """End a response that is in progress; one that has ended stays as it is."""
        with self._lock:
            stored = self._responses.get(name)
            if stored is not None and stored.looks_left:
                document = {**stored.document, "status": "cancelled", "output": [], "usage": None, "completed_at": None}
                stored = replace(stored, document=document, looks_left=0)
                self._responses[name] = stored
            return stored

    def delete(self, name: str) -> bool:
        """Forget a response and its items; whether there was one."""
        with self._lock:
            self._forget_old()
            return self._drop(name)

    def clear(self) -> None:
        with self._lock:
            self._responses.clear()
            self._items.clear()

    def _forget_old(self) -> None:
        limit = self._clock() - KEPT_SECONDS
        # Responses are in the order of their creation.
        while self._responses and (oldest := next(iter(self._responses.values()))).created <= limit:
            self._drop(oldest.id)

    def _drop(self, name: str) -> bool:
        stored = self._responses.pop(name, None)
        if stored is not None:
            for item in _by_id(stored):
                self._items.pop(item, None)
        return stored is not None


def _by_id(stored: Stored) -> dict[str, Item]:
    items = [*stored.input, *stored.document.get("output", [])]
    return {str(item["id"]): item for item in items if "id" in item}
