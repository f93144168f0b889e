"""The keys in SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from operator import itemgetter
from typing import Any

from llmgateway.errors import Conflict, NoSuchGroup
from llmgateway.records import (
    ALL_KEYS,
    EXPIRES_SOON,
    SEARCHED,
    UNLIMITED,
    GroupSize,
    Imported,
    KeyChange,
    KeyQuery,
    KeyRecord,
    KeyState,
    Lookup,
    User,
)
from llmgateway.stores.epoch import from_ms

from .columns import IN_LIST, limits_of, listed, merged_limits, models_of, prompt_of, raise_of, stored
from .database import SQLiteDatabase
from .rows import places, some_at_once

_FIELDS = tuple(field.name for field in fields(KeyRecord))
_CHANGEABLE = frozenset(_FIELDS) - {"id", "digest", "retiring_digest"}
_COLUMNS = ", ".join(f'keys."{name}"' for name in _FIELDS)

_id = itemgetter(0)

_VERSIONS = "SELECT generation, keys_version FROM organisation"

# Only constant names are formatted into statements; values are always parameters.
# Not "digest = ?1 OR retiring_digest = ?1", which would read both indexes although the first one usually has the key.
_FIND = f"""
    SELECT organisation.generation, {_COLUMNS} FROM organisation LEFT JOIN keys ON keys.rowid = coalesce(
        (SELECT rowid FROM keys WHERE digest = ?1), (SELECT rowid FROM keys WHERE retiring_digest = ?1)
    )
"""  # noqa: S608
# One parameter for any number of users.
_OF_USERS = f'SELECT {_COLUMNS} FROM keys WHERE "user" IN (SELECT value FROM json_each(?)) ORDER BY id'  # noqa: S608
_USERS_AND_GROUPS = 'SELECT DISTINCT "user", "group" FROM keys WHERE "user" IN (SELECT value FROM json_each(?))'
_GET = f"SELECT {_COLUMNS} FROM keys WHERE id = ?"  # noqa: S608
_ADD = f"""
    INSERT INTO keys ({", ".join(f'"{name}"' for name in _FIELDS)}) VALUES ({", ".join("?" * len(_FIELDS))})
"""  # noqa: S608
_TAKEN = """
    SELECT 1 FROM keys WHERE id = :id OR digest IN (:digest, :retiring) OR retiring_digest IN (:digest, :retiring)
"""
# A key may return to its own retiring digest, but the new digest must differ from the current one.
_DIGEST_TAKEN = "SELECT 1 FROM keys WHERE digest = ?1 OR (retiring_digest = ?1 AND id <> ?2)"
_ROTATE = f"""
    UPDATE keys
    SET digest = :digest, retires_at = :retires_at, retiring_digest = iif(:retires_at IS NULL, NULL, digest)
    WHERE id = :id
    RETURNING {_COLUMNS}
"""  # noqa: S608
_SIZES = """
    SELECT "group", count(*), count(DISTINCT "user") FROM keys WHERE "group" IS NOT NULL GROUP BY "group"
"""
_ORDERS: dict[str | None, tuple[str, ...]] = {
    None: ("id",),
    "created_at": ("created_at", "id"),
    "user": ('lower("user")', "id"),
    "name": ("lower(name)", "id"),
    "group": ("lower(coalesce(\"group\", ''))", "id"),
    "expires_at": ("expires_at IS NULL", "expires_at", "id"),
}
_REMOVE = f"DELETE FROM keys WHERE id = ? RETURNING {_COLUMNS}"  # noqa: S608


class SQLiteKeys:
    """A :class:`~llmgateway.interfaces.KeyStore` in SQLite."""

    def __init__(self, database: SQLiteDatabase) -> None:
        self._database = database

    def version(self) -> object:
        """Return a value that changes whenever a result of :meth:`find` may change. Cheaper than a look-up."""
        return self._database.current_row(_VERSIONS)

    def find(self, digest: str) -> Lookup:
        ((version, *row),) = self._database.rows(_FIND, (digest,))
        return Lookup(None if row[0] is None else _record(row), version)

    def add(self, record: KeyRecord) -> bool:
        return not self.add_all([record])

    def add_all(self, records: Sequence[KeyRecord]) -> set[str]:
        rows = [[stored(getattr(record, name)) for name in _FIELDS] for record in records]
        with self._database.transaction() as connection:
            taken = _taken(connection, records)
            if not taken:
                for group in {record.group for record in records}:
                    _check_group(connection, group)
                connection.executemany(_ADD, rows)
        return taken

    def add_checked(self, record: KeyRecord, check: Callable[[Sequence[KeyRecord]], None]) -> bool:
        row = [stored(getattr(record, name)) for name in _FIELDS]
        with self._database.transaction() as connection:
            check([*map(_record, connection.execute(_OF_USERS, (json.dumps([record.user]),)))])
            if _taken(connection, [record]):
                return False
            _check_group(connection, record.group)
            connection.execute(_ADD, row)
        return True

    def import_all(self, records: Sequence[KeyRecord], changes: Sequence[KeyChange], *, alone: bool) -> Imported:
        rows = [[stored(getattr(record, name)) for name in _FIELDS] for record in records]
        with self._database.transaction() as connection:
            taken = _taken(connection, records)
            present = _present(connection, records) if alone else set()
            if taken or present:
                return Imported(taken, present)
            for group in {record.group for record in records}:
                _check_group(connection, group)
            connection.executemany(_ADD, rows)
            changed = [_changed(connection, each.before.id, each.fields, each.limits) for each in changes]
        return Imported(changed=[_record(row) for row in changed if row is not None])

    def of_users(self, users: Collection[str]) -> list[KeyRecord]:
        return [*map(_record, self._database.rows(_OF_USERS, (json.dumps([*users]),)))]

    def get(self, key_id: str) -> KeyRecord | None:
        rows = self._database.rows(_GET, (key_id,))
        return _record(rows[0]) if rows else None

    def get_all(self, key_ids: Sequence[str]) -> Sequence[KeyRecord]:
        found = [
            row
            for ids in some_at_once([*key_ids])
            for row in self._database.rows(
                f"SELECT {_COLUMNS} FROM keys WHERE id IN ({places(ids)})",  # noqa: S608
                ids,
            )
        ]
        return [*map(_record, sorted(found, key=_id))]

    def list(self, query: KeyQuery = ALL_KEYS) -> list[KeyRecord]:
        return [*map(_record, self._selected(_COLUMNS, query))]

    def ids(self, query: KeyQuery = ALL_KEYS) -> Sequence[str]:
        return [*map(_id, self._selected("id", query))]

    def _selected(self, columns: str, query: KeyQuery) -> Sequence[Any]:
        wanted = {"id > ?": query.after, **_conditions(query)}
        order = ", ".join(f"{term}{' DESC' * query.descending}" for term in _ORDERS[query.order])
        return self._database.rows(
            f"SELECT {columns} FROM keys WHERE {' AND '.join(wanted)} ORDER BY {order} LIMIT ? OFFSET ?",  # noqa: S608
            [*wanted.values(), _limit(query.limit), query.offset],
        )

    def count(self, query: KeyQuery = ALL_KEYS) -> int:
        wanted = {"id > ?": "", **_conditions(query)}
        statement = f"SELECT count(*) FROM keys WHERE {' AND '.join(wanted)}"  # noqa: S608
        ((count,),) = self._database.rows(statement, [*wanted.values()])
        return int(count)

    def users(self, *, text: str | None = None) -> Sequence[User]:
        having = "" if text is None else f"HAVING max({_occurs(('user', 'email'))})"
        statement = f"SELECT user, count(*) FROM keys GROUP BY user {having} ORDER BY user"  # noqa: S608
        return [User(*row) for row in self._database.rows(statement, [] if text is None else [text.casefold()])]

    def group_sizes(self) -> dict[str, GroupSize]:
        rows = self._database.rows(_SIZES)
        return {group: GroupSize(keys, users) for group, keys, users in rows}

    def update(
        self,
        key_id: str,
        changes: Mapping[str, object],
        *,
        limits: Mapping[str, object] | None = None,
        check: Callable[[KeyRecord], None] | None = None,
    ) -> KeyRecord | None:
        if unknown := changes.keys() - _CHANGEABLE:
            raise ValueError(f"not fields of a key that can be changed: {sorted(unknown)}")
        if not changes and not limits:
            found = self.get(key_id)
            if found is not None and check is not None:
                check(found)
            return found
        with self._database.transaction() as connection:
            before = connection.execute('SELECT "group", limits FROM keys WHERE id = ?', (key_id,)).fetchone()
            if before is None:
                return None
            _check(connection, key_id, check)
            if "group" in changes and changes["group"] != before[0]:
                _check_group(connection, changes["group"])
            row = _changed(connection, key_id, changes, limits)
        return _record(row)

    def rotate(
        self,
        key_id: str,
        digest: str,
        *,
        retires_at: datetime | None,
        check: Callable[[KeyRecord], None] | None = None,
    ) -> KeyRecord | None:
        with self._database.transaction() as connection:
            _check(connection, key_id, check)
            if connection.execute(_DIGEST_TAKEN, (digest, key_id)).fetchone():
                raise Conflict("This key exists already. Send another one, or none to have one made up.", param="key")
            row = connection.execute(
                _ROTATE, {"id": key_id, "digest": digest, "retires_at": stored(retires_at)}
            ).fetchone()
        return _record(row) if row else None

    def revoke_group(self, group: str) -> Sequence[KeyRecord]:
        with self._database.transaction() as connection:
            revoked = connection.execute(
                f'UPDATE keys SET active = 0 WHERE "group" = ? AND active RETURNING {_COLUMNS}',  # noqa: S608
                (group,),
            ).fetchall()
        return [*map(_record, revoked)]

    def remove(self, key_id: str, *, check: Callable[[KeyRecord], None] | None = None) -> KeyRecord | None:
        with self._database.transaction() as connection:
            _check(connection, key_id, check)
            row = connection.execute(_REMOVE, (key_id,)).fetchone()
        return _record(row) if row else None

    def update_all(
        self, key_ids: Sequence[str], changes: Mapping[str, object], *, where: KeyQuery = ALL_KEYS
    ) -> Sequence[KeyRecord]:
        if unknown := changes.keys() - _CHANGEABLE:
            raise ValueError(f"not fields of a key that can be changed: {sorted(unknown)}")
        assignments = ", ".join(f'"{name}" = ?' for name in changes)
        values, wanted = [*map(stored, changes.values())], _conditions(where)
        with self._database.transaction() as connection:
            _check_group(connection, changes.get("group"))
            rows = [
                row
                for ids in some_at_once([*key_ids])
                for row in connection.execute(
                    f"UPDATE keys SET {assignments} WHERE {' AND '.join([f'id IN ({places(ids)})', *wanted])} "  # noqa: S608
                    f"RETURNING {_COLUMNS}",
                    [*values, *ids, *wanted.values()],
                ).fetchall()
            ]
        return [*map(_record, sorted(rows, key=_id))]

    def remove_all(self, key_ids: Sequence[str], *, where: KeyQuery = ALL_KEYS) -> Sequence[KeyRecord]:
        wanted = _conditions(where)
        with self._database.transaction() as connection:
            rows = [
                row
                for ids in some_at_once([*key_ids])
                for row in connection.execute(
                    f"DELETE FROM keys WHERE {' AND '.join([f'id IN ({places(ids)})', *wanted])} "  # noqa: S608
                    f"RETURNING {_COLUMNS}",
                    [*ids, *wanted.values()],
                ).fetchall()
            ]
        return [*map(_record, sorted(rows, key=_id))]


def _conditions(query: KeyQuery) -> dict[str, Any]:
    """Return the conditions of *query* with their parameters, without those of pages."""
    filters = {
        '"user" = ?': query.user,
        '"group" = ?': query.group,
        f'"group" {IN_LIST}': listed(query.groups),
        "active = ?": query.active,
        # Last, because it takes longest.
        _occurs(("id", *SEARCHED)): None if query.text is None else query.text.casefold(),
    }
    wanted = {condition: value for condition, value in filters.items() if value is not None}
    return wanted if query.state is None else _in_state(query.state, query.now) | wanted


def _in_state(state: KeyState, now: datetime | None) -> dict[str, Any]:
    """Return the conditions that a key is in *state*, each with its parameter."""
    if now is None:
        raise ValueError("a query for a state needs the time")
    if state is KeyState.BLOCKED:
        return {"active IS ?": False}
    at = stored(now)
    if state is KeyState.EXPIRED:
        return {"active IS ?": True, "expires_at <= ?": at}
    if state is KeyState.NOT_YET_VALID:
        return {"active IS ?": True, "starts_at > ?": at, "coalesce(expires_at > ?, 1)": at}
    valid = {"active IS ?": True, "coalesce(starts_at <= ?, 1)": at}
    if state is KeyState.EXPIRING:
        return valid | {"expires_at > ?": at, "expires_at <= ?": stored(now + EXPIRES_SOON)}
    return valid | {"coalesce(expires_at > ?, 1)": at}


def _occurs(columns: Sequence[str]) -> str:
    """Return the condition that a folded text, which is its parameter, occurs in one of *columns*."""
    # One text of all columns, because every call of a function of ours takes a microsecond. No name has a line end, and
    # in a note nobody looks for one.
    together = " || char(10) || ".join(f"coalesce(\"{name}\", '')" for name in columns)
    return f"instr(folded({together}), ?)"


def _limit(limit: int | None) -> int:
    return -1 if limit is None else limit


def _changed(
    connection: sqlite3.Connection, key_id: str, changes: Mapping[str, object], limits: Mapping[str, object] | None
) -> Any:
    """Change a key, and return its row; None if there is no such key."""
    before = connection.execute("SELECT limits FROM keys WHERE id = ?", (key_id,)).fetchone()
    if before is None:
        return None
    values = {**changes, "limits": merged_limits(before[0], limits)} if limits else changes
    assignments = ", ".join(f'"{name}" = ?' for name in values)
    return connection.execute(
        f"UPDATE keys SET {assignments} WHERE id = ? RETURNING {_COLUMNS}",  # noqa: S608
        [*map(stored, values.values()), key_id],
    ).fetchone()


def _present(connection: sqlite3.Connection, records: Sequence[KeyRecord]) -> set[tuple[str, str | None]]:
    """Return the users and groups of *records* that have a key already."""
    users = json.dumps(sorted({record.user for record in records}))
    there = connection.execute(_USERS_AND_GROUPS, (users,)).fetchall()
    return {(user, group) for user, group in there} & {(record.user, record.group) for record in records}


def _check(connection: sqlite3.Connection, key_id: str, check: Callable[[KeyRecord], None] | None) -> None:
    if check is not None and (row := connection.execute(_GET, (key_id,)).fetchone()) is not None:
        check(_record(row))


def _check_group(connection: sqlite3.Connection, name: object) -> None:
    if name is not None and not connection.execute("SELECT 1 FROM groups WHERE name = ?", (name,)).fetchone():
        raise NoSuchGroup


def _taken(connection: sqlite3.Connection, records: Sequence[KeyRecord]) -> set[str]:
    """Return the digests of those of *records* that conflict with stored keys or with each other."""
    taken: set[str] = set()
    seen: set[str] = set()
    for record in records:
        names = {record.id, *record.digests}
        values = {"id": record.id, "digest": record.digest, "retiring": record.retiring_digest}
        if names & seen or connection.execute(_TAKEN, values).fetchone():
            taken.add(record.digest)
        seen |= names
    return taken


def _record(row: Any) -> KeyRecord:
    # Without a loop over the fields, which would take twice as long. Every look-up calls this function.
    key_id, digest, user, name, created_at, group, email, note, active, starts_at, expires_at, models = row[:12]
    limits, prompt, retiring_digest, retires_at, raised, self_made = row[12:]
    return KeyRecord(
        id=key_id,
        digest=digest,
        user=user,
        name=name,
        created_at=from_ms(created_at),
        group=group,
        email=email,
        note=note,
        active=bool(active),
        starts_at=None if starts_at is None else from_ms(starts_at),
        expires_at=None if expires_at is None else from_ms(expires_at),
        models=None if models is None else models_of(models),
        limits=UNLIMITED if limits is None else limits_of(limits),
        prompt=None if prompt is None else prompt_of(prompt),
        retiring_digest=retiring_digest,
        retires_at=None if retires_at is None else from_ms(retires_at),
        raised=None if raised is None else raise_of(raised),
        self_made=bool(self_made),
    )
