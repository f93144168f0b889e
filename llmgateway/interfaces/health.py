"""Backends that can be checked."""

from __future__ import annotations

from typing import Protocol


class Pingable(Protocol):
    """A backend whose availability can be checked."""

    name: str
    """``sqlite``, ``redis`` or ``mongodb``."""

    def ping(self) -> None:
        """Return if the backend is available. Cheap enough to be called every second."""
        ...
