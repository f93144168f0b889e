"""The audit log, as differences."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flask import Response, request

from ..dates import shown
from .api import ApiError
from .blueprint import api, blp, page
from .forms import Form

_AT_ONCE = 25
_MOST_FIELDS = 40
"""The most fields of one entry that are shown; the import of a class may have changed thousands."""
_LONGEST = 600
"""The most characters of a value that are shown."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?[+-]\d\d:\d\d")
_FILTERS = ("action", "target", "admin", "since", "until")

ACTIONS = {
    "": "every change",
    "key": "keys",
    "group": "groups",
    "user": "people",
    "limits": "limits",
    "prompt": "prompts",
    "model": "models",
    "prices": "prices",
    "credential": "Azure's key",
    "settings": "settings",
    "alerts": "alerts",
    "currency": "currency",
    "admin": "admins",
}
"""The nouns of the actions by which the list is filtered most."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of what was changed."""

    name: str
    before: str | None
    """None if there was nothing."""
    after: str | None
    lines: list[tuple[str, str]] = field(default_factory=list)
    """For texts of several lines, in place of both: pairs of a sign and a line."""


@blp.get("/audit")
def audit() -> Response:
    """List changes, newest first."""
    form = Form({name: value.strip() for name, value in request.args.items()})
    found: dict[str, Any] = {"items": [], "next": None}
    try:
        query = {name: form.text(name) for name in _FILTERS}
        found = api().get("/admin/audit", **query, cursor=request.args.get("cursor"), limit=_AT_ONCE)
    except ApiError as error:
        form.refused(error)
    entries = [(entry, *_limited(differences(entry["before"], entry["after"]))) for entry in found["items"]]
    chosen = form.text("action") or ""
    options = [*ACTIONS.items(), *([] if chosen in ACTIONS else [(chosen, chosen)])]
    return page("audit.html", status=form.status, form=form, entries=entries, next=found["next"], actions=options)


def differences(before: Any, after: Any) -> list[Difference]:
    """Return the fields that differ, those of objects in objects by names with dots."""
    old, new = dict(_flat(before)), dict(_flat(after))
    names = [*old, *(name for name in new if name not in old)]
    return [_difference(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _flat(part, f"{prefix}.{name}" if prefix else str(name))
    elif prefix:
        yield prefix, value
    elif value is not None:
        yield "value", value


def _difference(name: str, before: Any, after: Any) -> Difference:
    old, new = _text(before), _text(after)
    if "\n" in (old or "") + (new or ""):
        return Difference(name, old, new, _compared(old, new))
    return Difference(name, _shortened(old), _shortened(new))


def _text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return _local(value) if _TIME.fullmatch(value) else value
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False)


def _local(time: str) -> str:
    """Return a time in the organisation's time zone; as it is if it only looks like one, as a note can."""
    try:
        return f"{shown(datetime.fromisoformat(time)):%Y-%m-%d %H:%M:%S %Z}"
    except (ValueError, OverflowError):
        return time


def _shortened(text: str | None) -> str | None:
    return text if text is None or len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _compared(before: str | None, after: str | None) -> list[tuple[str, str]]:
    old, new = ([] if text is None else text[: 20 * _LONGEST].split("\n") for text in (before, after))
    return [(line[0], line[2:]) for line in difflib.ndiff(old, new) if line[0] != "?"][: 3 * _MOST_FIELDS]


def _limited(found: list[Difference]) -> tuple[list[Difference], int]:
    return found[:_MOST_FIELDS], max(0, len(found) - _MOST_FIELDS)
