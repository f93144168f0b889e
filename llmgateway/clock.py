"""The time, as something that is passed in: tests bring their own."""

from __future__ import annotations

from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds since the epoch, as :func:`time.time` gives them."""
