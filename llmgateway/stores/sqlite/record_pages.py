"""Which statement finds a page of usage records, and the index that it uses.

One condition of a query chooses the index, and SQLite tests the others on each record that the index gives. A ``+`` in
front of their columns keeps SQLite from choosing another index (https://www.sqlite.org/optoverview.html, 2). If there
are others, a page looks at a bounded number of records, so that it is fast although few of them match.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from llmgateway.records import Outcome, RecordQuery, UsageSource
from llmgateway.stores.epoch import to_ms

from .columns import IN_LIST, listed

MOST_APART = 20
"""The most groups each of which is asked for its own page. With more, the records of all groups are looked at."""

SCATTERED = 25
"""How much longer it takes to read a record that the index of a column gives than one of a period: of 10 million
records, six times from memory, and much more from a disk."""

_COLUMNS = {
    "key_id": "key_id",
    "user": "user",
    "group": '"group"',
    "error_code": "error_code",
    "usage_source": "usage_source",
    "status": "status",
    "outcome": "outcome",
    "model": "model",
    "deployment": "deployment",
    "endpoint": "endpoint",
    "stream": "stream",
    "region": "region",
}
"""The columns that have to be equal; those with an index first, in the order in which they choose it."""
_INDEXED = ("key_id", "user", "group", "error_code", "usage_source", "status", "outcome", "model")
_USUAL = {"usage_source": UsageSource.UPSTREAM, "status": 200, "outcome": Outcome.OK}
"""What nearly every record has: the model is the better index, and two of these have none."""
# SQLite uses a partial index only for statements that contain its condition: https://www.sqlite.org/partialindex.html
_PARTIAL = {"usage_source": "usage_source <> 'upstream'", "status": "status <> 200"}


class Condition(NamedTuple):
    """A part of a statement, and its parameters."""

    text: str
    values: tuple[object, ...] = ()


class Conditions(NamedTuple):
    """The conditions of a query."""

    indexed: list[Condition]
    """What the index answers: at most one column, and the time."""
    others: list[Condition]
    is_scattered: bool
    """Whether the index gives records that do not lie side by side."""

    def where(self) -> Condition:
        return joined([*self.indexed, *self.others])


def joined(conditions: Sequence[Condition]) -> Condition:
    """Return a clause with all *conditions*; empty if there is none."""
    if not conditions:
        return Condition("")
    values = tuple(value for condition in conditions for value in condition.values)
    return Condition(f" WHERE {' AND '.join(condition.text for condition in conditions)}", values)


def conditions_of(query: RecordQuery) -> Conditions:
    """Return the conditions of *query*, but that of ``after``."""
    equal = {name: getattr(query, name) for name in _COLUMNS if getattr(query, name) is not None}
    chosen = _chosen(equal)
    indexed = [*_period(query)]
    others = [Condition(f"+{_COLUMNS[name]} = ?", (value,)) for name, value in equal.items() if name != chosen]
    if chosen is not None:
        indexed.insert(0, Condition(f"{_COLUMNS[chosen]} = ?", (equal[chosen],)))
        if chosen in _PARTIAL:
            indexed.insert(0, Condition(_PARTIAL[chosen]))
    if query.groups is not None:
        others.append(Condition(f'+"group" {IN_LIST}', (listed(query.groups),)))
    if query.min_duration_ms is not None:
        others.append(Condition("duration_ms >= ?", (query.min_duration_ms,)))
    return Conditions(indexed, others, is_scattered=chosen is not None)


def by_group(query: RecordQuery) -> list[RecordQuery] | None:
    """Return a query for each group if the records of several groups are found by their index; None otherwise."""
    groups = query.groups
    if groups is None or len(groups) > MOST_APART or query.group is not None:
        return None
    if _chosen({name: getattr(query, name) for name in _INDEXED if getattr(query, name) is not None}) is not None:
        return None
    return [replace(query, group=group, groups=None) for group in groups]


def _chosen(equal: dict[str, object]) -> str | None:
    """Return the name whose index is used; None for that of the time."""
    unusual = (name for name in _INDEXED if name in equal and equal[name] != _USUAL.get(name))
    return next(unusual, "outcome" if "outcome" in equal else None)


def _period(query: RecordQuery) -> list[Condition]:
    found = []
    for text, at in (("timestamp >= ?", query.since), ("timestamp < ?", query.until)):
        if at is not None:
            found.append(Condition(text, (to_ms(at),)))
    # Times twice, because the index has no identifiers.
    for sign, place in (("<", query.before), (">", query.newer_than)):
        if place is not None:
            at_ms = to_ms(place[0])
            found.append(Condition(f"timestamp {sign}= ?", (at_ms,)))
            found.append(Condition(f"(timestamp, id) {sign} (?, ?)", (at_ms, place[1])))
    return found
