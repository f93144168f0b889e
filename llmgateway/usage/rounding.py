"""Rounds amounts of money so that the rounded parts add up to the rounded whole."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal


def exact(amount: float) -> Decimal:
    """Return *amount* without what is left of rounding errors in sums: with nine decimal places."""
    return Decimal(round(amount * 10**9)).scaleb(-9)


def rounded(amount: Decimal, *, places: int) -> Decimal:
    """Round *amount* as accountants do: half a cent is a cent."""
    return amount.quantize(_unit(places), ROUND_HALF_UP)


def apportioned(total: Decimal, amounts: Sequence[Decimal], *, places: int) -> list[Decimal]:
    """Round *amounts* up or down so that they add up to *total*, which is their rounded sum or was apportioned itself.

    The method of the largest remainder: all are rounded down, and what is missing is given to those that lose most by
    it, a cent each. So each differs from its amount by less than a cent, and a whole number of cents stays.

    Raises:
        ValueError: *total* is a cent or more away from the sum of *amounts*.
    """
    unit = _unit(places)
    parts = [amount.quantize(unit, ROUND_FLOOR) for amount in amounts]
    lost = [amount - part for amount, part in zip(amounts, parts, strict=True)]
    if abs(total - sum(amounts)) >= unit:
        raise ValueError(f"the amounts do not add up to {total}")
    missing = int((total - sum(parts)) / unit)
    # Among equals, the larger amount hardly notices a cent.
    for index in sorted(range(len(parts)), key=lambda index: (-lost[index], -amounts[index], index))[:missing]:
        parts[index] += unit
    return parts


def _unit(places: int) -> Decimal:
    return Decimal(1).scaleb(-places)
