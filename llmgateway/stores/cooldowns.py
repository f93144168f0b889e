"""Which deployments are left alone for a while: in the memory of one process."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from ..clock import Clock
from ..interfaces import Cooldown


class MemoryCooldowns:
    """:class:`~llmgateway.interfaces.Cooldowns` for one process. Thread-safe."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._resting: dict[str, Cooldown] = {}

    def current(self) -> Mapping[str, Cooldown]:
        if not self._resting:  # as almost always
            return {}
        now = self._clock()
        with self._lock:
            for name in [name for name, cooldown in self._resting.items() if cooldown.until <= now]:
                del self._resting[name]
            return dict(self._resting)

    def rest(self, deployment: str, seconds: float, *, limited: bool) -> None:
        with self._lock:
            self._resting[deployment] = Cooldown(self._clock() + seconds, limited)
