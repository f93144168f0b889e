"""Rows of a form: fields named like ``webhooks.0.url``, some of which are to be removed or were left empty."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .forms import Form

_NUMBER = re.compile(r"[0-9]{1,4}")


def rows(form: Form, name: str, fields: Sequence[str]) -> list[int]:
    """Return the numbers of the rows of *name* that were sent, but for those to be removed, and for empty ones.

    Args:
        fields: A row in which none of these is filled in is empty.
    """
    found = {parts[1] for field in form.values if len(parts := field.split(".")) > 2 and parts[0] == name}
    numbers = sorted(int(number) for number in found if _NUMBER.fullmatch(number))
    return [
        number
        for number in numbers
        if not form.checked(f"{name}.{number}.remove")
        and any(form.text(f"{name}.{number}.{field}") for field in fields)
    ]


def renumber(form: Form, name: str, sent: Sequence[int]) -> None:
    """Name the errors of *form* by its rows: the API has counted only those that were *sent*."""
    form.errors = {_renumbered(field, name, sent): texts for field, texts in form.errors.items()}


def _renumbered(field: str, name: str, sent: Sequence[int]) -> str:
    parts = field.split(".")
    if parts[0] == name and len(parts) > 1 and _NUMBER.fullmatch(parts[1]) and int(parts[1]) < len(sent):
        parts[1] = str(sent[int(parts[1])])
    return ".".join(parts)


def gather(form: Form, name: str) -> None:
    """Put the errors of parts of a field, such as ``emails.2``, at the field itself."""
    for field, texts in [*form.errors.items()]:
        if field.startswith(f"{name}."):
            del form.errors[field]
            form.errors.setdefault(name, []).extend(texts)
