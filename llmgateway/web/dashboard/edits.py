"""Objects in forms: how they look in fields, and which fields somebody has changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, time, timedelta
from typing import Any

from .forms import Form, limit_values


def time_value(moment: str | None, *, is_end: bool = False) -> str:
    """Return a time of the API as people type it: as a day if it is the beginning of one, else in full.

    Args:
        is_end: A day means its end.
    """
    if moment is None:
        return ""
    local = datetime.fromisoformat(moment)
    if local.time() != time():
        return local.isoformat()
    return (local.date() - timedelta(days=1) if is_end else local.date()).isoformat()


def values_of(shown: Mapping[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """Return an object as values of a form: these fields of it, its dates, its models and its limits."""
    values: dict[str, Any] = {name: shown.get(name) or "" for name in texts}
    values["starts_at"] = time_value(shown["starts_at"])
    values["expires_at"] = time_value(shown["expires_at"], is_end=True)
    values["models"] = ", ".join(shown["models"] or ())
    return values | limit_values(shown["limits"])


def changes(typed: Form, before: Mapping[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """Return what differs between a form and the values of its object, as the API takes it.

    So what somebody leaves alone is not checked as if it were new: the date of a key that has expired, an older name.
    """
    body: dict[str, Any] = {
        name: typed.text(name) for name in (*texts, "starts_at", "expires_at") if differs(typed, before, name)
    }
    if differs(typed, before, "models"):
        body["models"] = typed.list("models")
    return body | limit_changes(typed, before, "limits")


def limit_changes(typed: Form, before: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the limits that differ; nothing if none do."""
    changed = {
        part: value
        for part, value in typed.limits(prefix).items()
        if any(differs(typed, before, name) for name in _fields_of(f"{prefix}.{part}"))
    }
    return {prefix: changed} if changed else {}


def differs(typed: Form, before: Mapping[str, Any], name: str) -> bool:
    """Return whether somebody has changed a field. A field that the form did not have was not changed."""
    return name in typed.values and _plain(typed[name]) != _plain(before.get(name))


def _fields_of(name: str) -> tuple[str, ...]:
    if not name.endswith(".budget"):
        return (name,)
    return tuple(f"{name}.{part}" for part in ("amount", "unit", "period"))


def _plain(value: Any) -> str:
    text = "" if value is None else str(value)
    return text.replace("\r\n", "\n").strip()
