"""A comparison with Azure's bill as text that fits a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from datetime import date
from typing import NamedTuple

from ..reconcile.results import COST, Comparison, NotCompared, Reconciliation, Subject
from .tables import plain

_WIDTH = 80
_NAME_WIDTH = 20
_NUMBER_WIDTH = 18
_BAR_WIDTH = 40
_MOST_GAPS = 10
_MOST_FILES = 8
_SHOWN_PERCENT = 0.05
"""Smaller gaps are shown as 0.0 %."""
_MOST_BARS = 40
_COMPARED_TWICE = {"total"}
"""Kinds that a chart leaves out, because their tokens are in other kinds, too."""


class Marks(NamedTuple):
    """What bars consist of."""

    both: str
    azure: str
    ours: str


_BLOCKS = Marks("█", "░", "▒")
_ASCII = Marks("#", "-", "+")


def text_of(result: Reconciliation, *, threshold: float | None, encoding: str | None) -> str:
    """Return tables, a chart, and the largest gaps with what is known about their causes.

    Args:
        encoding: That of the terminal; bars have characters that it knows.
    """
    parts = [_head(result), _totals(result.totals)]
    parts += [
        _chart(source, result.days, _marks(encoding))
        for source in sorted({each.subject.source for each in result.days})
    ]
    parts += [_gaps(result, threshold), _not_compared(result.not_compared), _verdict(result, threshold)]
    return "\n\n".join(part for part in parts if part)


def _head(result: Reconciliation) -> str:
    lines = [f"Azure's numbers and ours, {result.first_day} to {result.last_day} (days in UTC)"]
    for file in result.files[:_MOST_FILES]:
        others = file["rows_of_other_services"]
        counted = f"{file['rows'] - others:,} rows" + (f", {others:,} of other services" if others else "")
        # The end of a path tells more than its beginning.
        name = plain(file["name"])
        name = name if len(name) <= 30 else f"…{name[-29:]}"
        lines.append(f"  {name:<30}  {file['schema']}: {counted}"[:_WIDTH])
    if len(result.files) > _MOST_FILES:
        lines.append(f"  and {len(result.files) - _MOST_FILES} more files")
    return "\n".join(lines)


def _totals(totals: Sequence[Comparison]) -> str:
    lines = [_row("", "", "AZURE", "OURS", "GAP")]
    before: Subject | None = None
    for each in totals:
        name = "" if each.subject == before else _title(each.subject)
        before = each.subject
        kind = f"cost {each.currency}" if each.kind == COST else each.kind
        lines.append(_row(name, kind, _amount(each, each.azure), _amount(each, each.ours), _percent(each)))
    return "\n".join(lines)


def _row(name: str, kind: str, azure: str, ours: str, gap: str) -> str:
    numbers = f"{azure:>{_NUMBER_WIDTH}} {ours:>{_NUMBER_WIDTH}} {gap:>9}"
    return f"{_cut(name, _NAME_WIDTH)}  {_cut(kind, 10)} {numbers}".rstrip()


def _chart(source: str, days: Iterable[Comparison], marks: Marks) -> str:
    wanted = [each for each in days if each.subject.source == source and each.kind not in (COST, *_COMPARED_TWICE)]
    by_month = len({each.day for each in wanted}) > _MOST_BARS
    sums: dict[str, list[float]] = {}
    for each in wanted:
        if each.day is not None:
            bar = sums.setdefault(_label(each.day, by_month=by_month), [0.0, 0.0, 0.0])
            # Gaps of one deployment do not hide those of another.
            azure, ours = max(each.azure, 0.0), each.ours or 0.0
            for index, tokens in enumerate((min(azure, ours), azure - ours, ours - azure)):
                bar[index] += max(tokens, 0.0)
    most = max((sum(bar) for bar in sums.values()), default=0.0)
    if not most:
        return ""
    lines = [f"Tokens of the {source} ({marks.both} both, {marks.azure} only Azure, {marks.ours} only ours)"]
    for name, bar in sorted(sums.items()):
        azure, ours = bar[0] + bar[1], bar[0] + bar[2]
        drawn = "".join(mark * length for mark, length in zip(marks, _lengths(bar, most), strict=True))
        gap = _in_percent(100 * (ours - azure) / azure if azure else None)
        lines.append(f"{name:<10}  {drawn:<{_BAR_WIDTH}}  {_short(azure):>7}  {gap:>9}")
    return "\n".join(lines)


def _label(day: date, *, by_month: bool) -> str:
    return f"{day:%Y-%m}" if by_month else f"{day:%Y-%m-%d}"


def _lengths(bar: Sequence[float], most: float) -> list[int]:
    """Return the lengths of the parts of a bar. What is there is seen: each part has at least one character."""
    return [0 if not part else max(1, round(part / most * (_BAR_WIDTH - 2))) for part in bar]


def _gaps(result: Reconciliation, threshold: float | None) -> str:
    found = result.beyond(_limit(threshold))
    if not found:
        return ""
    lines = [f"The largest gaps ({min(len(found), _MOST_GAPS)} of {len(found)})"]
    for each in found[:_MOST_GAPS]:
        numbers = f"Azure {_amount(each, each.azure)}, ours {_amount(each, each.ours)}"
        lines.append(f"{each.day}  {_cut(plain(each.subject.name), 20)}  {each.kind:<10}  {_percent(each):>9}")
        lines += textwrap.wrap(f"{numbers}: {each.where}", _WIDTH, initial_indent=" " * 12, subsequent_indent=" " * 12)
    return "\n".join(lines)


def _not_compared(meters: Sequence[NotCompared]) -> str:
    if not meters:
        return ""
    lines = ["Not compared (say with --meter what they count)"]
    for each in meters:
        cost = f", {_money(each.cost)} {each.currency}" if each.cost else ""
        lines.append(
            f"  {_cut(plain(each.meter), 44).rstrip()}  {each.quantity:,.6g} x {plain(each.unit)}{cost}"[:_WIDTH]
        )
        lines.append(f"    {each.why}; id {plain(each.meter_id) or 'not given'}"[:_WIDTH])
    return "\n".join(lines)


def _verdict(result: Reconciliation, threshold: float | None) -> str:
    compared = [each for each in result.days if each.kind != COST]
    beyond = result.beyond(_limit(threshold))
    limit = f"{_limit(threshold):g} %"
    if not beyond:
        return f"All {len(compared)} numbers agree within {limit}."
    return f"{len(beyond)} of {len(compared)} numbers differ by more than {limit}."


def _title(subject: Subject) -> str:
    name = plain(subject.name)
    return f"{name} ({subject.by})" if subject.by == "model" else name


def _amount(each: Comparison, value: float | None) -> str:
    if value is None:
        return "-"
    text = _money(value) if each.kind == COST else f"{value:,.0f}"
    return text if len(text) <= _NUMBER_WIDTH else f"{value:.4g}"


def _money(value: float) -> str:
    return f"{value:,.2f}" if abs(value) >= 1 or not value else f"{value:.4f}"


def _percent(each: Comparison) -> str:
    return "" if each.gap is None else _in_percent(each.percent)


def _in_percent(gap: float | None) -> str:
    if gap is None:
        return "only ours"
    if gap > 999:
        return "> 999 %"
    return f"{gap:+.1f} %" if abs(gap) >= _SHOWN_PERCENT else "0.0 %"


def _limit(threshold: float | None) -> float:
    return _SHOWN_PERCENT if threshold is None else threshold


def _short(tokens: float) -> str:
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if tokens >= factor:
            return f"{tokens / factor:.1f}{letter}"
    return f"{tokens:.0f}"


def _cut(text: str, width: int) -> str:
    return f"{text if len(text) <= width else text[: width - 1] + '…':<{width}}"


def _marks(encoding: str | None) -> Marks:
    try:
        "".join(_BLOCKS).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return _ASCII
    return _BLOCKS
