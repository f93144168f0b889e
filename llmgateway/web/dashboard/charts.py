"""Charts as SVG, without script: colours by class, each mark with a text for the pointer, each chart with a title.

A chart alone tells a screen reader its title only: pages also have the numbers as a table (``parts.html``, ``chart``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date

from markupsafe import Markup, escape

from .formats import money, seconds, short

Format = Callable[[float], str]

COLOURS = 8
"""Number of series that have a colour of their own. Leave out more, or add them up as "others"."""

_WIDTH, _HEIGHT = 760, 240
_LEFT, _BOTTOM, _TOP = 54, 24, 8
_PLOT = _HEIGHT - _BOTTOM - _TOP
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_SHADES = 8
_FEW_DAYS = 45


def _svg(content: str, *, title: str, width: float = _WIDTH, height: float = _HEIGHT, kind: str = "chart") -> Markup:
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        kind,
        f"{width:g}",
        f"{height:g}",
        title,
        Markup(content),  # noqa: S704 - made of the parts below, which escape
    )


def _tip(text: str) -> Markup:
    return Markup("<title>{}</title>").format(text)


def step(top: float) -> float:
    """Return the parts of an axis up to *top*, at most five: 1, 2, 2.5 or 5 times a power of ten."""
    if top <= 0:
        return 1.0
    power = 10.0 ** (math.floor(math.log10(top)) - 1)
    return next(power * part for part in (1, 2, 2.5, 5, 10, 20) if top / (power * part) <= 5)


class _Axis:
    """The vertical axis of a chart, from 0 to a round number."""

    def __init__(self, top: float, form: Format) -> None:
        self._step = step(top)
        self._parts = max(1, math.ceil(top / self._step - 1e-9))
        self._form = form

    def height(self, value: float) -> float:
        return value / (self._step * self._parts) * _PLOT

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - self.height(value)

    def _label(self, value: float) -> str:
        if self._form is money and 0 < self._step < 0.05:  # rounded to cents, neighbours would be called alike
            # All digits that the step needs, and never an exponent.
            return f"${value:.{2 - math.floor(math.log10(self._step))}f}".rstrip("0").rstrip(".")
        return self._form(value).removesuffix(".00")

    def svg(self) -> str:
        return "".join(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{self.y(value):.1f}" y2="{self.y(value):.1f}"/>'
            f'<text class="tick" x="{_LEFT - 6}" y="{self.y(value) + 3.5:.1f}" text-anchor="end">'
            f"{escape(self._label(value))}</text>"
            for value in (self._step * part for part in range(self._parts + 1))
        )


def _dates(days: Sequence[date], x: Callable[[int], float]) -> str:
    """The days below a chart: Mondays, or of a longer time the first one in each month."""
    long = (days[-1] - days[0]).days > _FEW_DAYS
    named = [
        index
        for index, day in enumerate(days)
        if (index > 0 and day.month != days[index - 1].month if long else day.weekday() == 0)
    ]
    return "".join(
        f'<text class="tick" x="{x(index):.1f}" y="{_HEIGHT - 7}" text-anchor="middle">{days[index].day} '
        f"{days[index]:%b}</text>"
        for index in named
    )


def _column(day: date, text: str, x: float, width: float) -> str:
    # Its height is in the style, as are the sizes of the cells below: hundreds of them would repeat it.
    return (
        f'<g class="day">{_tip(f"{day:%a} {day.day} {day:%b}: {text}")}'
        f'<rect class="hit" x="{x:.1f}" width="{width:.1f}"/></g>'
    )


def stacked(days: Sequence[date], series: Mapping[str, Sequence[float]], *, title: str, form: Format = money) -> Markup:
    """Bars, one for each day, made of the values of each series."""
    if not days:
        return Markup("")
    totals = [sum(values[index] for values in series.values()) for index in range(len(days))]
    axis, slot = _Axis(max(totals), form), (_WIDTH - _LEFT) / len(days)
    bases, bars = [0.0] * len(days), []
    for number, values in enumerate(series.values()):
        # One path for all days: with an element for each bar, a chart of 90 days would be most of the page.
        path = []
        for index, value in enumerate(values):
            if value > 0:
                bases[index] += value
                left, height = _LEFT + (index + 0.14) * slot, max(axis.height(value) - 0.6, 0.3)
                path.append(
                    f"M{left:.1f} {axis.y(bases[index]):.1f}h{slot * 0.72:.1f}v{height:.1f}h{-slot * 0.72:.1f}z"
                )
        bars.append(f'<path class="s{number % COLOURS}" d="{"".join(path)}"/>')
    columns = []
    for index, day in enumerate(days):
        # The parts of many days are in the table with the numbers only, which keeps the page small.
        parts = series.items() if len(days) <= _FEW_DAYS else ()
        said = [f"{name} {form(values[index])}" for name, values in parts if values[index] > 0]
        columns.append(_column(day, ", ".join([form(totals[index]), *said]), _LEFT + index * slot, slot))
    content = axis.svg() + "".join(bars) + "".join(columns)
    return _svg(content + _dates(days, lambda i: _LEFT + (i + 0.5) * slot), title=title)


def lines(
    days: Sequence[date], series: Mapping[str, Sequence[float | None]], *, title: str, form: Format = seconds
) -> Markup:
    """A line for each series. A day without a value, None, interrupts it."""
    if not days:
        return Markup("")
    top = max((value or 0 for values in series.values() for value in values), default=0)
    axis = _Axis(top, _seconds if form is seconds else form)
    gap = (_WIDTH - _LEFT - 8) / max(len(days) - 1, 1)
    drawn = []
    for number, values in enumerate(series.values()):
        for start, run in _runs(values):
            points = " ".join(f"{_LEFT + (start + i) * gap:.1f},{axis.y(value):.1f}" for i, value in enumerate(run))
            if len(run) > 1:
                drawn.append(f'<polyline class="line l{number % COLOURS}" points="{points}"/>')
            else:  # a line of one point is invisible
                x, y = points.split(",")
                drawn.append(f'<circle class="s{number % COLOURS}" cx="{x}" cy="{y}" r="2"/>')
    for index, day in enumerate(days):
        known = [(name, value) for name, found in series.items() if (value := found[index]) is not None]
        said = ", ".join(f"{name} {form(value)}" for name, value in known) or "no data"
        drawn.append(_column(day, said, _LEFT + (index - 0.5) * gap, gap))
    return _svg(axis.svg() + "".join(drawn) + _dates(days, lambda i: _LEFT + i * gap), title=title)


def _seconds(milliseconds: float) -> str:
    """Like :func:`~.formats.seconds`, in one unit: there is no room for minutes and seconds beside an axis."""
    return seconds(milliseconds) if milliseconds < 60_000 else f"{milliseconds / 1000:,.0f} s"


def _runs(values: Sequence[float | None]) -> list[tuple[int, list[float]]]:
    """Return the parts of a line that have values, each with the index of its first one."""
    runs: list[tuple[int, list[float]]] = []
    before: float | None = None
    for index, value in enumerate(values):
        if value is not None:
            if before is None:
                runs.append((index, []))
            runs[-1][1].append(value)
        before = value
    return runs


def sparkline(values: Sequence[float], *, title: str) -> Markup:
    """A small line without an axis, for a row of a table."""
    width, height = 96, 24
    if not any(values):
        return _svg(
            f'<line class="grid" x1="2" x2="{width - 2}" y1="{height - 2}" y2="{height - 2}"/>',
            title=title,
            width=width,
            height=height,
            kind="spark",
        )
    top, gap = max(values), (width - 4) / max(len(values) - 1, 1)
    points = [(2 + index * gap, height - 2 - value / top * (height - 5)) for index, value in enumerate(values)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    last = points[-1]
    return _svg(
        f'<polygon class="area" points="2,{height} {line} {last[0]:.1f},{height}"/><polyline points="{line}"/>'
        f'<circle cx="{last[0]:.1f}" cy="{last[1]:.1f}" r="1.9"/>',
        title=title,
        width=width,
        height=height,
        kind="spark",
    )


def budget(used: float, limit: float, *, title: str) -> Markup:
    """A bar of what is used of a budget: amber from 80 % on, red when it is spent."""
    width, height = 160, 10
    part = min(used / limit, 1) if limit > 0 else 1.0
    level = "over" if used >= limit else "near" if part >= 0.8 else "fine"
    bar = f'<rect class="bar" width="{max(part * width, 4 if used else 0):.1f}" height="{height}" rx="5"/>'
    return _svg(
        f'<rect class="track" width="{width}" height="{height}" rx="5"/>{bar}',
        title=title,
        width=width,
        height=height,
        kind=f"budget {level}",
    )


def heat(rows: Sequence[Sequence[float]], *, title: str, form: Format = short, unit: str = "requests") -> Markup:
    """Seven rows, Monday first, of 24 hours each; the darker, the more."""
    cell, width = 26, (_WIDTH - _LEFT) / 24
    top, drawn = max((max(row) for row in rows), default=0), []
    for number, row in enumerate(rows):
        name = _WEEKDAYS[number]
        y = number * cell
        drawn.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + cell * 0.65:.1f}" text-anchor="end">{name}</text>')
        for hour, value in enumerate(row):
            shade = min(_SHADES, 1 + int(value / top * _SHADES)) if value else 0
            drawn.append(
                f'<rect class="h{shade}" x="{_LEFT + hour * width + 1:.1f}" y="{y + 1}">'
                f"{_tip(f'{name} {hour:02}-{hour + 1:02} h: {form(value)} {unit}')}</rect>"
            )
    bottom = 7 * cell
    drawn += [
        f'<text class="tick" x="{_LEFT + (hour + 0.5) * width:.1f}" y="{bottom + 15}" text-anchor="middle">'
        f"{hour:02}</text>"
        for hour in range(0, 24, 3)
    ]
    return _svg("".join(drawn), title=title, height=bottom + 20, kind="chart heat")


def bars(values: Mapping[str, float], *, title: str, form: Format = money) -> Markup:
    """Horizontal bars with their names, the order as given: for a comparison of a few things."""
    row, name_width, value_width = 26, 170, 80
    top = max(values.values(), default=0) or 1
    drawn = []
    for number, (name, value) in enumerate(values.items()):
        y, width = number * row, max(value / top * (_WIDTH - name_width - value_width), 1)
        shown = name if len(name) <= 24 else f"{name[:23]}…"
        drawn.append(
            f"<g>{_tip(f'{name}: {form(value)}')}"
            f'<text class="tick" x="{name_width - 8}" y="{y + 17}" text-anchor="end">{escape(shown)}</text>'
            f'<rect class="s0" x="{name_width}" y="{y + 5}" width="{width:.1f}" height="{row - 10}" rx="3"/>'
            f'<text class="tick" x="{name_width + width + 8:.1f}" y="{y + 17}">{escape(form(value))}</text></g>'
        )
    return _svg("".join(drawn), title=title, height=max(len(values), 1) * row)


def phases(parts: Mapping[str, float], *, title: str, form: Format = seconds) -> Markup:
    """One bar, made of the parts of a time in their order."""
    height, total = 34, sum(parts.values()) or 1
    drawn, x = [], 0.0
    for number, (name, value) in enumerate(parts.items()):
        width = max(value / total * _WIDTH, 1.5)
        drawn.append(
            f'<rect class="s{number % COLOURS}" x="{min(x, _WIDTH - 1.5):.1f}" y="4" width="{width:.1f}" '
            f'height="{height - 8}" rx="2">{_tip(f"{name}: {form(value)}")}</rect>'
        )
        x += width
    return _svg("".join(drawn), title=title, height=height)
