"""Columns of tables that say what is spent and left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .tables import Amount

INCLUDE = {"include": "spent,remaining,last_used"}
"""The query that asks for everything about keys."""


def with_columns(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return *items* with the columns ``spent`` and ``left``.

    They are of the budget. Without a budget, ``spent`` is what a key has cost this month.
    """
    return [{**item, **_columns(item)} for item in items]


def _columns(item: Mapping[str, Any]) -> dict[str, Any]:
    budget = item["remaining"]["budget"]
    if budget is not None:
        return {"spent": _amount(budget["used"], budget["unit"]), "left": _amount(budget["left"], budget["unit"])}
    spent = item.get("spent")
    return {"spent": None if spent is None else _amount(spent["cost_usd"], "usd"), "left": None}


def _amount(number: float | None, unit: str) -> Amount | None:
    return None if number is None else Amount(number, unit)
