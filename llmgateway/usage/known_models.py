"""Knows which models exist. Sums count all other names as one, so that nobody can fill reports with made-up names."""

from __future__ import annotations

import threading
from collections.abc import Collection
from functools import cache

from .pricing import shipped_table

MOST_LEARNT = 200
"""The most names that are learnt from answers. Where Azure does not read the name, because the URL names the
deployment, clients can send any. Further names count as unknown until an admin lists them."""


class KnownModels:
    """The names of models that Azure has answered, or that an admin has named. Thread-safe.

    Args:
        named: Names that are known from the beginning: those on offer, and the deployment that the URL names.
    """

    def __init__(self, named: Collection[str]) -> None:
        self._named = frozenset(named)
        self._lock = threading.Lock()
        self._learnt: frozenset[str] = frozenset()

    def knows(self, model: str, *others: Collection[str]) -> bool:
        """Return whether *model* is known.

        Args:
            others: Further names that an admin has set, such as those with prices of their own.
        """
        return (
            model in self._named
            or model in self._learnt
            or any(model in names for names in others)
            or model in _listed()
        )

    def learn(self, model: str) -> bool:
        """Learn that Azure has answered *model*; return False if too many names have been learnt."""
        if self.knows(model):
            return True
        with self._lock:
            if len(self._learnt) >= MOST_LEARNT:
                return model in self._learnt
            # A new set, because other threads read the old one.
            self._learnt |= {model}
        return True


@cache
def _listed() -> frozenset[str]:
    """Return the names in the table of prices, as they are written there.

    A price is also found for other spellings and versions of a name, of which there are any number.
    """
    return frozenset(row["model"] for row in shipped_table()["prices"])
