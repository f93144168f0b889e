"""Forms: what was typed, what the admin API says about it, and how it becomes the body of a request."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from flask import request, session

from .api import ApiError

_REMEMBERED = 20
"""Number of sent forms that a session remembers."""

_SEVERAL = ("events", "endpoints", "groups", "models")
"""Fields that may be sent several times, as boxes are. Of all others the first counts."""
_LARGEST = 2**53
"""The largest whole number that JSON is sure to carry."""

LIMITS = ("requests_per_minute", "tokens_per_minute", "parallel_requests")


class Form:
    """A form on a page: shown with the values of an object, and again with what was typed if that was refused.

    Args:
        values: By field. A part of ``limits`` is named like ``limits.budget.amount``.
        etag: Of the object that is changed; the form carries it.
    """

    def __init__(self, values: Mapping[str, Any] | None = None, *, etag: str | None = None) -> None:
        self.values = dict(values or {})
        self.etag = etag
        self.errors: dict[str, list[str]] = {}
        self.problem: str | None = None
        """What is wrong with the whole form."""
        self.present: Any = None
        """After 412: the object as somebody else has left it."""
        self.conflict = False
        self.status = 200

    @classmethod
    def sent(cls) -> Form:
        """Return the form that the browser has sent: what was typed, without spaces around it."""
        typed: dict[str, Any] = {
            name: [value.strip() for value in found]
            if len(found) > 1 and name.rpartition(".")[2] in _SEVERAL
            else found[0].strip()
            for name, found in request.form.lists()
        }
        etag = typed.pop("etag", None)
        return cls(typed, etag=etag or None)

    def refused(self, error: ApiError) -> Form:
        """Note what the API says, and return the form. It is sent with the status of the error.

        Raises:
            ApiError: it is about something else than what was typed: no right, no such object, a store that is away.
        """
        if error.status not in (400, 409, 412, 413, 415, 422):
            raise error
        self.status = error.status
        self.errors = error.fields
        self.problem = error.message if not error.fields else None
        self.conflict = error.status == 412
        self.present = error.present
        return self

    def __getitem__(self, name: str) -> Any:
        return self.values.get(name, "")

    def text(self, name: str) -> str | None:
        """Return what was typed; None for an empty field."""
        value = self.values.get(name)
        return value if isinstance(value, str) and value else None

    def hide_secrets(self, name: str) -> None:
        """Leave out of an address what may be a key or a password: it is never shown again."""
        scheme, sign, rest = str(self[name]).partition("://")
        self.values[name] = f"{scheme}{sign}{rest.partition('?')[0].rpartition('@')[2]}"

    def number(self, name: str) -> float | int | str | None:
        """Return the number that was typed; None for an empty field. What is no number is left to the API to refuse."""
        text = self.text(name)
        if text is None:
            return None
        plain = text.replace(",", "").replace("\u202f", "").replace(" ", "")
        try:
            value = float(plain)
        except ValueError:
            return text
        if not math.isfinite(value):  # JSON has neither, and they would be sent as null
            return text
        return int(value) if value.is_integer() and abs(value) <= _LARGEST else value

    def checked(self, name: str) -> bool:
        """Return whether a box was ticked."""
        return bool(self.values.get(name))

    def list(self, name: str) -> list[str] | None:
        """Return what was typed, separated by commas or lines, or chosen; None for nothing."""
        value = self.values.get(name)
        texts = value if isinstance(value, list) else (value or "").replace("\n", ",").split(",")
        return [text.strip() for text in texts if text.strip()] or None

    def chosen(self, name: str) -> tuple[str, ...]:
        """Return the boxes of this name that were ticked."""
        value = self.values.get(name)
        return tuple(value) if isinstance(value, list | tuple) else (value,) if value else ()

    def limits(self, prefix: str = "limits") -> dict[str, Any]:
        """Return limits as the API takes them. Empty fields are null: they lift a limit."""
        amount = self.number(f"{prefix}.budget.amount")
        budget = (
            amount
            if amount is None
            else {
                "amount": amount,
                "unit": self.text(f"{prefix}.budget.unit") or "usd",
                "period": self.text(f"{prefix}.budget.period") or "month",
            }
        )
        return {name: self.number(f"{prefix}.{name}") for name in LIMITS} | {"budget": budget}


def limit_values(limits: Mapping[str, Any] | None, prefix: str = "limits") -> dict[str, Any]:
    """Return limits, as the API has them, as values of a form."""
    limits = limits or {}
    values = {f"{prefix}.{name}": limits.get(name) for name in LIMITS}
    budget = limits.get("budget") or {}
    return values | {f"{prefix}.budget.{part}": budget.get(part) for part in ("amount", "unit", "period")}


def fields(shown: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return these fields of an object as values of a form."""
    values: dict[str, Any] = {}
    for name in names:
        value = shown.get(name)
        values[name] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
    return values


def once() -> str:
    """Return a token for a form that must not be sent twice, such as one that hands out a key."""
    return secrets.token_urlsafe(9)


def was_sent() -> bool:
    """Return whether this form was sent before: the browser has loaded the answer again. Otherwise remember it.

    A form without a token of :func:`once` counts as new.
    """
    token = request.form.get("once", "")[:32]
    if not token:
        return False
    seen = session.get("sent", [])
    if token in seen:
        return True
    session["sent"] = [*seen, token][-_REMEMBERED:]
    return False
