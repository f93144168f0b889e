"""Imports the keys of a class: plans what happens to every line, and does all of it or nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from ..records import KeyChange, KeyRecord, Limits
from .keys import Keys

DEFAULT_NAME = "default"
"""The name of a key whose line has none."""

_REPETITIONS = 5
_UNCHANGEABLE = frozenset({"user", "group", "key", "limits"})


class Existing(StrEnum):
    """What happens to people who have a key in the same group already."""

    REFUSE = "refuse"
    SKIP = "skip"
    UPDATE = "update"
    """The fields of the line are set in the key that they have. The key itself stays."""
    ADD = "add"
    """They get a further key."""


class Action(StrEnum):
    CREATE = "create"
    SKIP = "skip"
    UPDATE = "update"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What happens to one line."""

    action: Action
    record: KeyRecord | None = None
    """The key that was made or changed, or that is there already."""
    before: KeyRecord | None = None
    """The key before it is changed."""
    key: str | None = field(default=None, repr=False)
    """The new key itself."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """The fields that change, and their new values."""
    limits: Mapping[str, Any] = field(default_factory=dict)
    """The limits that change."""
    reason: str | None = None
    problems: Mapping[str, list[str]] = field(default_factory=dict)
    """By column."""


class ImportRefused(Exception):
    """Some lines cannot be imported, so none was."""

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__()
        self.steps = steps


class ClassImport:
    """The import of one class list. Not thread-safe.

    Args:
        rows: For each line its number in the file, and the fields of a key that it names, ``user`` among them.
    """

    def __init__(self, keys: Keys, rows: Mapping[int, Mapping[str, Any]], existing: Existing) -> None:
        self._keys = keys
        self._numbers = [*rows]
        self._rows = [*rows.values()]
        self._existing = existing

    def plan(self) -> list[Step]:
        """Return what would happen to each line if it were imported now. Nothing is stored, and no key is made up."""
        there: dict[tuple[str, str | None], list[KeyRecord]] = defaultdict(list)
        for record in self._keys.of_users({row["user"] for row in self._rows}):
            there[record.user, record.group].append(record)
        return [
            self._step(row, there.get(_person(row), ()), twice)
            for row, twice in zip(self._rows, self._repeated(), strict=True)
        ]

    def run(self) -> list[Step]:
        """Import all lines, or none, and return what has happened to each.

        Raises:
            ImportRefused: some lines cannot be imported.
            NoSuchGroup: a group has been removed meanwhile.
        """
        made: dict[int, tuple[KeyRecord, str]] = {}
        for _ in range(_REPETITIONS):
            steps = self.plan()
            if any(step.action is Action.REFUSE for step in steps):
                raise ImportRefused(steps)
            for place, step in enumerate(steps):
                if step.action is Action.CREATE and place not in made:
                    made[place] = self._new(self._rows[place])
            new = {place: made[place] for place, step in enumerate(steps) if step.action is Action.CREATE}
            changes = [
                KeyChange(before=step.before, fields=step.changes, limits=step.limits)
                for step in steps
                if step.before is not None and step.action is Action.UPDATE
            ]
            imported = self._keys.import_all(
                [record for record, _ in new.values()], changes, alone=self._existing is not Existing.ADD
            )
            if imported.taken:
                raise ImportRefused(
                    [
                        _refused({"key": [_KEY_TAKEN]})
                        if place in new and new[place][0].digest in imported.taken
                        else step
                        for place, step in enumerate(steps)
                    ]
                )
            if not imported.present:
                changed = {record.id: record for record in imported.changed}
                return [_done(step, new.get(place), changed) for place, step in enumerate(steps)]
            # Somebody else has imported some of them meanwhile: they are there now, and what happens to them differs.
        raise ImportRefused([_refused({"user": [_CHANGING]}) for _ in self._rows])

    def _new(self, row: Mapping[str, Any]) -> tuple[KeyRecord, str]:
        return self._keys.new_record(**{"key": None, "name": DEFAULT_NAME, **row})

    def _step(self, row: Mapping[str, Any], there: Sequence[KeyRecord], twice: Mapping[str, list[str]]) -> Step:
        problems = dict(twice)
        is_new = not there or self._existing is Existing.ADD
        if not is_new and self._existing is Existing.REFUSE:
            where = "" if row.get("group") is None else f" in the group {row['group']!r}"
            ids = ", ".join(record.id for record in there[:3])
            problems.setdefault("user", []).append(_THERE.format(where=where, ids=ids))
        if "key" in row and (is_new or problems) and self._keys.exists(row["key"]):
            problems["key"] = [_KEY_TAKEN]
        if problems:
            return _refused(problems)
        if is_new:
            return Step(action=Action.CREATE)
        if self._existing is Existing.SKIP:
            return Step(action=Action.SKIP, record=there[0], reason="Has a key already.")
        return _update(row, there)

    def _repeated(self) -> list[dict[str, list[str]]]:
        """Return for each row what is wrong because another one is the same person, or has the same key."""
        places: dict[object, list[int]] = defaultdict(list)
        identities = [self._identities(row) for row in self._rows]
        for number, each in zip(self._numbers, identities, strict=True):
            for identity in each.items():
                places[identity].append(number)
        return [
            {
                column: [_TWICE[column].format(lines=", ".join(map(str, places[column, identity][:5])))]
                for column, identity in each.items()
                if len(places[column, identity]) > 1
            }
            for each in identities
        ]

    def _identities(self, row: Mapping[str, Any]) -> dict[str, object]:
        person: object = _person(row)
        if self._existing is Existing.ADD:  # several keys of one person have different names
            person = (person, row.get("name", DEFAULT_NAME))
        return {"user": person, **({"key": row["key"]} if "key" in row else {})}


_THERE = (
    "Has a key{where} already ({ids}). Say what happens to people who are there (existing=skip, existing=update or "
    "existing=add), or remove the line."
)
_KEY_TAKEN = "This key is handed out already."
_CHANGING = "Is imported by somebody else at the same time. Import the file again."
_TWICE = {
    "user": (
        "Stands in the file several times, in the same group (lines {lines}). Leave one of them. If they are several "
        "people, use a column that tells them apart, such as the one with the e-mail address: map=user=COLUMN."
    ),
    "key": "This key stands in the file several times (lines {lines}).",
}


def _person(row: Mapping[str, Any]) -> tuple[str, str | None]:
    return row["user"], row.get("group")


def _refused(problems: Mapping[str, list[str]]) -> Step:
    return Step(action=Action.REFUSE, problems=problems)


def _update(row: Mapping[str, Any], there: Sequence[KeyRecord]) -> Step:
    """Return how the fields that *row* names are set in the one key of *there* that it means."""
    if "key" in row:
        return _refused({"key": ["Cannot be changed. Leave it empty; 'llmgateway keys rotate' replaces a key."]})
    meant = [record for record in there if record.name == row.get("name")] if len(there) > 1 else there
    if len(meant) != 1:
        names = ", ".join(sorted(repr(record.name) for record in there)[:5])
        return _refused({"name": [f"Has {len(there)} keys in this group: say which one. There are: {names}."]})
    (before,) = meant
    changes = {
        name: value for name, value in row.items() if name not in _UNCHANGEABLE and value != getattr(before, name)
    }
    limits = _changed_limits(row.get("limits"), before.limits)
    starts, expires = changes.get("starts_at", before.starts_at), changes.get("expires_at", before.expires_at)
    if (
        starts is not None
        and expires is not None
        and expires <= starts
        and changes.keys() & {"starts_at", "expires_at"}
    ):
        column = "expires_at" if "expires_at" in changes else "starts_at"
        return _refused({column: ["The key would end before it starts: its other date is the one that is stored."]})
    if not changes and not limits:
        return Step(action=Action.SKIP, record=before, reason="Is like this already.")
    return Step(action=Action.UPDATE, record=before, before=before, changes=changes, limits=limits)


def _changed_limits(named: Limits | None, before: Limits) -> dict[str, Any]:
    """Return the limits that a line names, and that differ. A cell that is empty names none."""
    if named is None:
        return {}
    parts = {part.name: getattr(named, part.name) for part in fields(Limits)}
    return {name: value for name, value in parts.items() if value is not None and value != getattr(before, name)}


def _done(step: Step, new: tuple[KeyRecord, str] | None, changed: Mapping[str, KeyRecord]) -> Step:
    if new is not None:
        return replace(step, record=new[0], key=new[1])
    if step.action is Action.UPDATE and step.before is not None:
        return replace(step, record=changed.get(step.before.id, step.before))
    return step
