"""Counts the tokens and requests per minute of one deployment, as Azure does."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import NamedTuple

_MINUTE = 60.0
_BURST = 10.0
"""Requests are counted for this many seconds. So a burst can fail although the limit per minute is not reached."""

_ASSUMED_COMPLETION = 16
"""Tokens to reserve if the request has no maximum. Microsoft's own simulator uses the same number."""


class Refusal(NamedTuple):
    what: str
    """``token`` or ``call``: which limit it was."""
    retry_after: int
    """Seconds until the next window begins."""


class Standing(NamedTuple):
    """The state of a deployment that the headers of an answer show."""

    requests_per_minute: int
    tokens_per_minute: int
    requests_left: int
    tokens_left: int
    requests_reset_ms: int = 500
    """Milliseconds until requests are counted anew; without a limit that of a recorded answer."""
    tokens_reset_ms: int = 7


def estimate(prompt_characters: int, *, max_tokens: int | None, answers: int = 1) -> int:
    """Tokens that Azure takes off the limit when a request arrives."""
    return math.ceil(prompt_characters / 4) + (max_tokens or _ASSUMED_COMPLETION) * answers


class Quota:
    """One deployment's limits. Any thread may use it.

    Every arrival counts as a request, also one that fails. Without limits it only reports
    the numbers of a recorded deployment with 120 requests and 120,000 tokens per minute.
    """

    def __init__(
        self, *, tokens_per_minute: int | None, requests_per_minute: int | None, clock: Callable[[], float]
    ) -> None:
        self._tokens_limit = tokens_per_minute
        self._requests_limit = requests_per_minute
        if tokens_per_minute and requests_per_minute is None:
            # Six requests for every thousand tokens, counted in windows of ten seconds.
            self._requests_limit = 6 * math.ceil(tokens_per_minute / 1000)
        self._clock = clock
        self._lock = threading.Lock()
        self._minute_began = self._burst_began = -math.inf
        self._tokens = self._requests = 0

    def take(self, tokens: int) -> tuple[Standing, Refusal | None]:
        """Count one request with an estimate of its *tokens*, and return the state of the deployment."""
        with self._lock:
            now = self._clock()
            if now - self._minute_began >= _MINUTE:
                self._minute_began, self._tokens = now, 0
            if now - self._burst_began >= _BURST:
                self._burst_began, self._requests = now, 0
            refusal = self._refusal(now, tokens)
            self._requests += 1
            if refusal is None:
                self._tokens += tokens
            return self._standing(now, tokens), refusal

    def _refusal(self, now: float, tokens: int) -> Refusal | None:
        if self._requests_limit is not None and self._requests + 1 > max(1, self._requests_limit // 6):
            return Refusal("call", _until(self._burst_began + _BURST, now))
        if self._tokens_limit is not None and self._tokens + tokens > self._tokens_limit:
            return Refusal("token", _until(self._minute_began + _MINUTE, now))
        return None

    def _standing(self, now: float, tokens: int) -> Standing:
        requests_limit, tokens_limit = self._requests_limit or 120, self._tokens_limit or 120_000
        requests = 1 if self._requests_limit is None else self._requests
        used = tokens if self._tokens_limit is None else self._tokens
        standing = Standing(
            requests_limit, tokens_limit, max(0, requests_limit - requests), max(0, tokens_limit - used)
        )
        if self._requests_limit is not None:
            standing = standing._replace(requests_reset_ms=round((self._burst_began + _BURST - now) * 1000))
        if self._tokens_limit is not None:
            standing = standing._replace(tokens_reset_ms=round((self._minute_began + _MINUTE - now) * 1000))
        return standing


def _until(moment: float, now: float) -> int:
    return max(1, math.ceil(moment - now))
