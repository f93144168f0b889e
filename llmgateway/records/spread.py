"""How long requests took and when they came, as numbers that can be added up.

A duration is counted in one of :data:`BUCKETS_PER_DECADE` buckets for each power of ten, which are equally wide on a
logarithmic scale. So a percentile that is read from them is at most :data:`PERCENTILE_ERROR` off, whatever the
durations are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

BUCKETS_PER_DECADE = 8
LAST_BUCKET = 7 * BUCKETS_PER_DECADE
"""Has everything from 10,000 seconds on."""
PERCENTILE_ERROR = 10 ** (0.5 / BUCKETS_PER_DECADE) - 1
"""The largest relative error of a percentile, 15 %, between 1 ms and 10,000 s: that of the ends of a bucket."""


def bucket_of(milliseconds: float) -> int:
    """Return the bucket of a duration. The first bucket also has everything below one millisecond."""
    return 0 if milliseconds < 1 else min(LAST_BUCKET, int(BUCKETS_PER_DECADE * math.log10(milliseconds)))


def percentile(buckets: Mapping[int, int], share: float) -> float | None:
    """Return what the *share* of the durations does not exceed, in milliseconds; None if there is no duration."""
    wanted = math.ceil(share * sum(buckets.values()))
    for bucket in sorted(buckets):
        wanted -= buckets[bucket]
        if wanted <= 0:
            # The middle, on the logarithmic scale: its error is the same towards both ends.
            return float(f"{10 ** ((bucket + 0.5) / BUCKETS_PER_DECADE):.3g}")
    return None


@dataclass(slots=True, kw_only=True)
class Spread:
    """How the requests of a day, or of several, are spread over durations and hours."""

    first_token: Counter[int] = field(default_factory=Counter)
    """Number of streams by the bucket of the time to their first token."""
    duration: Counter[int] = field(default_factory=Counter)
    """Number of requests that ended well by the bucket of their duration."""
    hours: Counter[int] = field(default_factory=Counter)
    """Number of requests by the hour of the day, in the organisation's time zone, in which they came."""
    cost_usd: dict[int, float] = field(default_factory=dict)
    """What they cost, by the same hour."""

    @property
    def requests(self) -> int:
        """How many were counted here; those that an older version has added up were not."""
        return self.hours.total()

    def add(self, other: Spread) -> None:
        self.first_token.update(other.first_token)
        self.duration.update(other.duration)
        self.hours.update(other.hours)
        for hour, cost in other.cost_usd.items():
            self.cost_usd[hour] = self.cost_usd.get(hour, 0.0) + cost


@dataclass(frozen=True, slots=True, kw_only=True)
class DaySpread:
    """How the requests of one day are spread."""

    day: str
    """Like ``2026-01-31``, in the organisation's time zone."""
    requests: int
    """All requests of the day, also those that are not in ``spread``."""
    spread: Spread
