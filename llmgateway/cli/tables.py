"""Answers as text for a terminal."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import click

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(?::\d\d(?:\.\d+)?)?([+-]\d\d:\d\d)")
_LIMITS = ("requests_per_minute", "tokens_per_minute", "parallel_requests", "budget")
_NOTHING = "-"
_EMPTY: tuple[Any, ...] = (None, "", [], {})
_BARS = "▁▂▃▄▅▆▇█"
_LONGEST = 80
"""Characters of a cell in a table; ``--json`` shows all of it."""


class Amount(float):
    """A number with a unit: sorted as a number, and shown with both."""

    unit: str

    def __new__(cls, number: float, unit: str) -> Amount:
        made = super().__new__(cls, number)
        made.unit = unit
        return made

    def __str__(self) -> str:
        return f"{cell(float(self))} {self.unit}"


def counted(number: int, noun: str) -> str:
    """Return *number* with its *noun*: 1 key, 2 keys, 3 entries of the audit."""
    if number == 1:
        return f"1 {noun}"
    word, of, rest = noun.partition(" of ")
    many = f"{word[:-1]}ies" if re.search("[^aeiou]y$", word) else f"{word}s"
    return f"{number:,} {many}{of}{rest}"


def plain(text: str) -> str:
    """Return *text* without control characters, which a terminal obeys: anybody may have chosen a name or a note."""
    return _CONTROL.sub("?", text)


def sorted_by(items: Sequence[Mapping[str, Any]], name: str, *, descending: bool) -> list[Mapping[str, Any]]:
    """Sort *items* by a field, numbers before texts; those that have nothing there come last in any case."""
    some = [item for item in items if item.get(name) not in _EMPTY]
    none = [item for item in items if item.get(name) in _EMPTY]
    return sorted(some, key=lambda item: _order(item[name]), reverse=descending) + none


def _order(value: Any) -> tuple[int, float, str]:
    return (0, value, "") if isinstance(value, int | float) else (1, 0.0, cell(value).casefold())


def sparkline(numbers: Sequence[float]) -> str:
    """Return a bar for each of *numbers*: a dot for nothing, and eight heights up to the largest one."""
    most = max(numbers, default=0)
    return "".join("·" if number <= 0 else _BARS[math.ceil(number / most * len(_BARS)) - 1] for number in numbers)


def table(items: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return a line with the names of *columns*, and below it a line for each of *items*."""
    lines = [[name.upper() for name in columns]]
    lines += [[_short(cell(item.get(name)).replace("\n", " ")) for name in columns] for item in items]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    head, *rest = ("  ".join(map(_padded, line, widths)).rstrip() for line in lines)
    return "\n".join([click.style(head, bold=True), *rest])


def record(document: Mapping[str, Any]) -> str:
    """Return a line for each field of *document*."""
    width = max(map(len, document), default=0)
    indent = "\n" + " " * (width + 2)
    return "\n".join(f"{name:<{width}}  {cell(value).replace(chr(10), indent)}" for name, value in document.items())


def cell(value: Any) -> str:
    """Return *value* as short text."""
    if value in _EMPTY:
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Amount):
        return str(value)
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    if isinstance(value, Mapping):
        return _limits(value) if value.keys() == set(_LIMITS) else _pairs(value)
    if isinstance(value, list):
        return ", ".join(map(cell, value))
    return plain(_TIME.sub(_time, str(value)))


def _time(found: re.Match[str]) -> str:
    day, time, offset = found.groups()
    return f"{day} {time} {'UTC' if offset == '+00:00' else offset}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _pairs(value: Mapping[str, Any]) -> str:
    if value.keys() == {"amount", "unit", "period"}:
        return f"{cell(value['amount'])} {value['unit']}/{value['period']}"
    return ", ".join(f"{name} {cell(part)}" for name, part in value.items())


def _limits(limits: Mapping[str, Any]) -> str:
    words = (" requests/min", " tokens/min", " at once")
    if any(isinstance(part, Mapping) and "left" in part for part in limits.values()):
        named = zip(_LIMITS, (*words, ""), strict=True)
        return "\n".join(_allowance(limits[name], word) for name, word in named if limits[name] is not None)
    parts = [f"{limits[name]}{word}" for name, word in zip(_LIMITS, words, strict=False) if limits[name] is not None]
    budget = limits["budget"]
    if budget is not None:
        parts.append(cell(budget))
    return ", ".join(parts) or _NOTHING


def _allowance(allowance: Mapping[str, Any], word: str) -> str:
    """Return what is used and left of one limit, as a line."""
    limit, used, left, renews_at = (allowance[name] for name in ("limit", "used", "left", "renews_at"))
    of = f"{cell(limit)}{word or ' {unit}/{period}'.format(**allowance)}"
    line = f"{_known(used)} of {of} used, {_known(left)} left"
    return line if renews_at is None else f"{line}, renews {cell(renews_at)}"


def _known(number: float | None) -> str:
    return "?" if number is None else cell(number)


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))
