"""How numbers, amounts and times are written on the pages. All are filters of the templates."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

from flask import Flask
from markupsafe import Markup, escape

from ...records import moment
from ..context import services
from ..dates import shown

NONE = "\N{EN DASH}"
"""In place of a value that there is not."""


def count(value: float | None) -> str:
    """``12,904``."""
    return NONE if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    """``12.9 k``, for axes and narrow places."""
    if value is None:
        return NONE
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def money(value: float | None) -> str:
    """``$2,318`` from a hundred dollars on, ``$20.11`` below; ``$0.0042`` for what is less than a cent."""
    if value is None:
        return NONE
    if value and abs(value) < 0.01:
        return f"${value:.2g}" if abs(value) >= 0.0001 else "< $0.0001"
    return f"${value:,.0f}" if abs(value) >= 100 or value == 0 else f"${value:,.2f}"


def amount(value: float | None, unit: str) -> str:
    """What a budget in this *unit* says: ``$20``, ``5,000 tokens``, ``1 request``."""
    if value is None:
        return NONE
    if unit == "usd":
        return f"${value:,.0f}" if value == int(value) else f"${value:,.2f}"
    return f"{value:,.0f} {unit.removesuffix('s') if value == 1 else unit}"


def percent(part: float | None, whole: float | None = 1.0) -> str:
    """``46 %``; ``0.4 %`` below ten."""
    if part is None or not whole:
        return NONE
    value = part / whole * 100
    return f"{value:.0f} %" if value >= 10 or value == int(value) else f"{value:.1f} %"


def seconds(milliseconds: float | None) -> str:
    """``850 ms``, ``8.2 s``, ``2 min 5 s``."""
    if milliseconds is None:
        return NONE
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f} s"
    minutes, rest = divmod(round(milliseconds / 1000), 60)
    return f"{minutes} min {rest} s"


def when(time: datetime | str | None) -> Markup | str:
    """A point in time in the organisation's time zone, to the minute; the seconds are in the tooltip."""
    if time is None:
        return NONE
    local = shown(_parsed(time))
    text = f"{local.day} {local:%b %Y, %H:%M}"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        local.isoformat(), f"{local:%Y-%m-%d %H:%M:%S %Z}", text
    )


def when_exactly(time: datetime | str | None) -> Markup | str:
    """As :func:`when`, with seconds; the tooltip has the milliseconds."""
    if time is None:
        return NONE
    local = shown(_parsed(time))
    text = f"{local.day} {local:%b %Y, %H:%M:%S}"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        local.isoformat(), f"{local.isoformat(' ', 'milliseconds')}", text
    )


def after(milliseconds: float | None) -> str:
    """``after 3.2 ms``, ``after 8.2 s``: how long after the arrival of a request."""
    if milliseconds is None:
        return "not known"
    return f"after {milliseconds:.1f} ms" if milliseconds < 10 else f"after {seconds(milliseconds)}"


def day(time: datetime | date | str | None) -> str:
    """``29 Nov 2026``. A point in time is shown as its day in the organisation's time zone."""
    if time is None:
        return NONE
    if isinstance(time, str) and len(time) == len("2026-11-29"):
        time = date.fromisoformat(time)
    if isinstance(time, str | datetime):
        time = shown(_parsed(time)).date()
    return f"{time.day} {time:%b %Y}"


def ago(time: datetime | str | None) -> Markup | str:
    """``5 min ago``, ``in 3 days``; the tooltip says when."""
    if time is None:
        return NONE
    parsed = _parsed(time)
    distance = (moment(services().clock()) - parsed).total_seconds()
    text = _distance(abs(distance))
    local = shown(parsed)
    words = f"in {text}" if distance < 0 else f"{text} ago"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        local.isoformat(), f"{local:%Y-%m-%d %H:%M:%S %Z}", words
    )


def _distance(seconds: float) -> str:
    for name, size in (("day", 86_400), ("h", 3600), ("min", 60)):
        number = math.floor(seconds / size)
        if number:
            return f"{number} {name}{'s' if name == 'day' and number > 1 else ''}"
    return f"{seconds:.0f} s"


def _parsed(time: datetime | str) -> datetime:
    parsed = datetime.fromisoformat(time) if isinstance(time, str) else time
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def many(number: float, noun: str, nouns: str | None = None) -> str:
    """``1 request``, ``2,000 requests``; *nouns* if the plural is not formed with an s."""
    return f"{count(number)} {noun if number == 1 else nouns or noun + 's'}"


def words(values: Any) -> str:
    """``a, b and c``."""
    *others, last = [str(value) for value in values] or [NONE]
    return f"{', '.join(others)} and {last}" if others else last


def lines(text: str | None) -> Markup:
    """A text with its line breaks."""
    return Markup("<br>").join(escape(text or NONE).split("\n"))


FILTERS: tuple[Callable[..., Any], ...] = (
    count,
    short,
    money,
    amount,
    percent,
    seconds,
    when,
    when_exactly,
    after,
    day,
    ago,
    many,
    words,
    lines,
)


def register(app: Flask) -> None:
    """Add the filters to the templates of *app*."""
    for function in FILTERS:
        app.add_template_filter(function)
