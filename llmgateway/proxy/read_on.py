"""Reads some answers on after their clients have disconnected, because Azure sends its count at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable


class ReadOn:
    """Decides which abandoned answers are read on, and for how long. Thread-safe.

    An abandoned answer that is read on keeps a thread and a slot. So only some are read on at the same time; the others
    are closed at once. Clients that leave cannot take the slots of those that stay.

    Args:
        seconds: The most time for one answer, from the moment at which its client has disconnected.
        at_once: The most answers that are read on at the same time; 0 for none.
        thinking_only: Whether to read on only answers of models that think unseen. What other models have written can
            be estimated well from what was seen.
    """

    def __init__(self, *, seconds: float, at_once: int, thinking_only: bool = False) -> None:
        self.seconds = seconds
        self._at_once = at_once
        self._thinking_only = thinking_only
        self._lock = threading.Lock()
        self.running = 0
        """The number of answers that are being read on."""
        self.on_change: Callable[[int], None] = lambda _: None
        """Called with 1 when an answer begins to be read on, and with -1 when that ends. It must not raise."""

    def take(self, *, thinks: bool) -> bool:
        """Return whether an answer may be read on. If so, call :meth:`free` once when it has ended.

        Args:
            thinks: Whether its model thinks unseen.
        """
        if self._thinking_only and not thinks:
            return False
        with self._lock:
            if self.running >= self._at_once:
                return False
            self.running += 1
        self.on_change(1)
        return True

    def free(self) -> None:
        with self._lock:
            self.running -= 1
        self.on_change(-1)
