"""The time, as something that is passed in: tests bring their own."""

from __future__ import annotations

from collections.abc import Callable

Clock = Callable[[], float]
"""Points in time: seconds since the epoch, as :func:`time.time` gives them."""

Timer = Callable[[], float]
"""Durations: seconds on a clock that only goes forward, as :func:`time.monotonic` gives them."""
