"""Remembers how long the last answers of each key were, to estimate the next one."""

from __future__ import annotations

from collections import OrderedDict

from ..usage.locks import ShortLock

USUAL_TOKENS = 256
"""The estimate for an answer of a key that has had none, and the lowest one. Answers in a chat have a few hundred
tokens."""

MOST_KEYS = 10_000
"""Number of keys that are remembered. Those that have had no answer for the longest time are forgotten first."""

_LAST = 4  # the mean of about the last four answers: it follows a key that turns to another kind of work


class AnswerLengths:
    """How long the last answers of each key were in this process, where nothing limited their length. Thread-safe."""

    def __init__(self) -> None:
        self._lock = ShortLock()
        self._means: OrderedDict[str, float] = OrderedDict()  # tokens by key, the key with the latest answer last

    def add(self, key_id: str, tokens: float) -> None:
        """Remember that an answer for *key_id* had this number of tokens."""
        with self._lock:
            mean = self._means.pop(key_id, tokens)
            self._means[key_id] = mean + (tokens - mean) / _LAST
            if len(self._means) > MOST_KEYS:
                self._means.popitem(last=False)

    def usual(self, key_id: str) -> int:
        """Return the tokens that the next answer for *key_id* is estimated to have."""
        return max(USUAL_TOKENS, round(self._means.get(key_id, 0.0)))
