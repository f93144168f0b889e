"""Types of clocks. They are passed as arguments, so that tests can control the time."""

from __future__ import annotations

from collections.abc import Callable

Clock = Callable[[], float]
"""Returns a point in time: seconds since the epoch, like :func:`time.time`."""

Timer = Callable[[], float]
"""Measures durations: returns seconds of a clock that never goes back, like :func:`time.monotonic`."""
