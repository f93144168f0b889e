"""Notices clients that have gone while their request is at Azure, and stops it there."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from .clock import Timer
from .transmission import Transmission

LOOK_SECONDS = 0.25
"""How often it looks; nobody pays for a gone client for much longer."""


class Watch:
    """One thread that asks, for every request in flight, whether its client is still there.

    A thread that waits for Azure cannot ask itself, and a stream finds out only when it has
    something to write. Thread-safe; the thread starts with the first request and sleeps while
    there is none, so the watch may be made before a fork.

    Args:
        grace: Seconds that an answer may go on after its client has gone; where abandoned answers
            are read on, that ends the silent ones, too.
    """

    def __init__(self, *, grace: float = 0.0, timer: Timer = time.monotonic) -> None:
        self._grace = grace
        self._timer = timer
        self._lock = threading.Lock()
        self._watched: dict[Transmission, Callable[[], bool]] = {}
        self._some = threading.Event()
        self._pid = 0

    def add(self, transmission: Transmission, gone: Callable[[], bool]) -> None:
        """Cut *transmission* once *gone* has said yes for the time of grace."""
        transmission.abandoned = gone
        with self._lock:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                threading.Thread(target=self._run, name="watch", daemon=True).start()
            self._watched[transmission] = gone
        self._some.set()

    def remove(self, transmission: Transmission) -> None:
        """Harmless if it is not watched."""
        with self._lock:
            self._watched.pop(transmission, None)

    def _run(self) -> None:
        pause = threading.Event()
        noticed: dict[Transmission, float] = {}
        while True:
            self._some.wait()
            pause.wait(LOOK_SECONDS)
            with self._lock:
                watched = list(self._watched.items())
                if not watched:
                    self._some.clear()
            now = self._timer()
            noticed = {transmission: noticed.get(transmission, now) for transmission, gone in watched if gone()}
            for transmission, since in noticed.items():
                if now - since >= self._grace:
                    transmission.cut()
                    self.remove(transmission)
