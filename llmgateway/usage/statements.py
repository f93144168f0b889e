"""The monthly statement of a group and of the organisation. Its amounts are rounded, and add up to the cent.

The organisation's total is rounded first. Its cents are apportioned to the groups, and those of a group to its persons
and to its models. So every sum of a column is the number below it, in dollars and in the second currency.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from ..records import Group, UsageRow
from .currency import DOLLAR, Currency, decimal_places
from .rounding import apportioned, exact, rounded

_COUNTS = ("requests", "prompt_tokens", "completion_tokens", "total_tokens", "unpriced_requests")


@dataclass(slots=True, kw_only=True)
class Line:
    """One line: what somebody or something has used, with its cost."""

    name: str | None
    """Of the group, the person, the model or the cost centre. None: keys without a group, groups without a centre."""
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    unpriced_requests: int = 0
    unpriced_models: tuple[str, ...] = ()
    """The models of the unpriced requests: their cost is not known, and is in no sum."""
    cents: Decimal = Decimal(0)
    """In US dollars, rounded."""
    converted: Decimal | None = None
    """In the second currency, rounded; None if there is none, or if it has no rate for the month."""

    @property
    def cost_usd(self) -> Decimal | None:
        """The cost in US dollars; None if no price is known of any request."""
        return None if self._is_unknown else self.cents

    @property
    def cost(self) -> Decimal | None:
        """The cost in the second currency; None if it is not known."""
        return None if self._is_unknown else self.converted

    @property
    def _is_unknown(self) -> bool:
        return 0 < self.requests == self.unpriced_requests


@dataclass(slots=True, kw_only=True)
class GroupStatement:
    """What a group has used in a month; also that of the keys without a group."""

    total: Line
    cost_centre: str | None
    persons: list[Line]
    models: list[Line]


@dataclass(slots=True, kw_only=True)
class Statement:
    """What the organisation has used in a month."""

    month: str
    currency: str | None
    rate: Decimal | None
    """How much of the second currency a US dollar was; None if there is none, or if it is not known."""
    total: Line
    groups: dict[str | None, GroupStatement] = field(default_factory=dict)
    cost_centres: list[Line] = field(default_factory=list)


def statement(
    month: str,
    rows: Iterable[UsageRow],
    *,
    groups: Mapping[str, Group],
    currency: Currency | None,
    persons: Mapping[str, Sequence[UsageRow]] | None = None,
) -> Statement:
    """Return the statement of a month.

    Args:
        rows: The sums of the month, by group, user and model; by group and model if *persons* has the users.
        groups: Those that there are now; those that have been removed since are in *rows*, too.
        persons: Of the groups whose persons are wanted: the sums by user and model. Others have no lines of persons.
    """
    rate = None if currency is None else currency.rate(month)
    books = _Books(DOLLAR if currency is None else currency.code, rate)
    of_groups: dict[str | None, list[UsageRow]] = {name: [] for name in sorted(groups)}
    for row in rows:
        of_groups.setdefault(row.by["group"], []).append(row)
    names = sorted(of_groups, key=lambda name: (name is not None, name or ""))
    total = books.sum(None, [row for each in of_groups.values() for row in each])
    lines = books.lines(total, {name: of_groups[name] for name in names})
    result = Statement(month=month, currency=None if currency is None else currency.code, rate=rate, total=total)

    def persons_of(name: str | None) -> Sequence[UsageRow]:
        return of_groups[name] if persons is None else persons.get(name or "", ())

    for line in lines:
        group = groups.get(line.name or "")
        of_group = of_groups[line.name]
        result.groups[line.name] = GroupStatement(
            total=line,
            cost_centre=None if group is None else group.cost_centre,
            persons=books.lines(line, found) if (found := _by("user", persons_of(line.name))) else [],
            models=books.lines(line, _by("model", of_group)),
        )
    result.cost_centres = _cost_centres(result.groups.values())
    return result


class _Books:
    """Adds up and rounds, in dollars and in the second currency."""

    def __init__(self, code: str, rate: Decimal | None) -> None:
        self._places = decimal_places(code)
        self._rate = rate

    def sum(self, name: str | None, rows: Sequence[UsageRow]) -> Line:
        """Return the whole of *rows*, rounded for itself."""
        line, dollars = _counted(name, rows), _dollars(rows)
        line.cents = rounded(dollars, places=2)
        if self._rate is not None:
            line.converted = rounded(dollars * self._rate, places=self._places)
        return line

    def lines(self, whole: Line, parts: Mapping[str | None, Sequence[UsageRow]]) -> list[Line]:
        """Return a line for each of *parts*, whose amounts add up to those of *whole*."""
        lines = [_counted(name, rows) for name, rows in parts.items()]
        dollars = [_dollars(rows) for rows in parts.values()]
        for line, cents in zip(lines, apportioned(whole.cents, dollars, places=2), strict=True):
            line.cents = cents
        if self._rate is not None and whole.converted is not None:
            amounts = [each * self._rate for each in dollars]
            for line, each in zip(lines, apportioned(whole.converted, amounts, places=self._places), strict=True):
                line.converted = each
        return lines


def _by(name: str, rows: Iterable[UsageRow]) -> dict[str | None, list[UsageRow]]:
    found: defaultdict[str | None, list[UsageRow]] = defaultdict(list)
    for row in rows:
        found[row.by[name]].append(row)
    return {value: found[value] for value in sorted(found, key=lambda value: value or "")}


def _dollars(rows: Iterable[UsageRow]) -> Decimal:
    return sum((exact(row.cost_usd) for row in rows), Decimal(0))


def _counted(name: str | None, rows: Sequence[UsageRow]) -> Line:
    counts = {count: sum(getattr(row, count) for row in rows) for count in _COUNTS}
    unpriced = {row.by["model"] or "" for row in rows if row.unpriced_requests}
    return Line(name=name, unpriced_models=tuple(sorted(unpriced)), **counts)


def _cost_centres(groups: Iterable[GroupStatement]) -> list[Line]:
    """Add up lines that are rounded already, so that cost centres add up to the total, too."""
    lines: dict[str | None, Line] = {}
    for group in groups:
        line = lines.setdefault(group.cost_centre, Line(name=group.cost_centre))
        for count in _COUNTS:
            setattr(line, count, getattr(line, count) + getattr(group.total, count))
        line.unpriced_models = tuple(sorted({*line.unpriced_models, *group.total.unpriced_models}))
        line.cents += group.total.cents
        if group.total.converted is not None:
            line.converted = (line.converted or Decimal(0)) + group.total.converted
    return [lines[name] for name in sorted(lines, key=lambda name: (name is not None, name or ""))]
