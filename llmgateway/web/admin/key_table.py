"""Keys as lines of a CSV file, with the columns that an import reads."""

from __future__ import annotations

from typing import Any

from ...records import KeyRecord
from ..schemas.keys import KeySchema
from .csv_import import models_cell

KEY_COLUMNS = (
    *("id", "user", "name", "group", "email", "note", "active", "starts_at", "expires_at", "models"),
    *("requests_per_minute", "tokens_per_minute", "parallel_requests"),
    *("budget_amount", "budget_unit", "budget_period", "created_at"),
)

_schema = KeySchema()


def key_row(record: KeyRecord) -> dict[str, Any]:
    """Return the cells of a key by their column. Limits and budget have columns of their own."""
    shown: dict[str, Any] = _schema.dump(record)
    limits = shown.pop("limits")
    budget = limits.pop("budget") or {}
    shown |= limits | {f"budget_{part}": value for part, value in budget.items()}
    return shown | {"models": models_cell(record.models or ())}
