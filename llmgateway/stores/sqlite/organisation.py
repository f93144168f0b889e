"""The settings of the organisation and the groups in SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from llmgateway.errors import GroupInUse
from llmgateway.records import Group, Limits, ModelSettings, Organisation, Prompt
from llmgateway.stores.epoch import from_ms, to_ms

from .columns import limits_of, merged_limits, models_of, prompt_of, raise_of, self_service_of, stored, time_of
from .database import SQLiteDatabase
from .persons import PERSONS, person_of
from .rows import places, some_at_once
from .version import begin_version

_LOAD = """
    SELECT generation, credential, limits, version, text, set_at, scope
    FROM organisation LEFT JOIN prompts ON version = (SELECT max(version) FROM prompts WHERE scope = '')
"""
_ADD_PROMPT = """
    INSERT INTO prompts (version, text, set_at, scope)
    SELECT coalesce(max(version), 0) + 1, ?, ?, ? FROM prompts
    RETURNING version, text, set_at, scope
"""
_GROUP_FIELDS = tuple(field.name for field in fields(Group))
_GROUP_COLUMNS = ", ".join(_GROUP_FIELDS)
_MODELS = "SELECT model, settings FROM models"
# Only constant names are formatted into statements; values are always parameters.
_GROUPS = f"SELECT {_GROUP_COLUMNS} FROM groups"  # noqa: S608
_SET_GROUP = f"REPLACE INTO groups ({_GROUP_COLUMNS}) VALUES ({', '.join('?' * len(_GROUP_FIELDS))})"  # noqa: S608


class SQLiteOrganisation:
    """An :class:`~llmgateway.interfaces.OrganisationStore` in SQLite."""

    def __init__(self, database: SQLiteDatabase) -> None:
        self._database = database

    def load(self) -> Organisation:
        # The version is read first. If a change happens between the reads, the new content has the old version, and
        # the next look-up makes the caller load again.
        ((version, credential, limits, *prompt),) = self._database.rows(_LOAD)
        models = self._database.rows(_MODELS)
        documents = self._database.rows("SELECT name, content FROM documents")
        groups = self._database.rows(f"{_GROUPS} ORDER BY name")
        persons = map(person_of, self._database.rows(PERSONS))
        return Organisation(
            prompt=Prompt() if prompt[0] is None else _prompt(prompt),
            credential=credential,
            models=_models(models),
            limits=limits_of(limits),
            groups={group.name: group for group in map(_group, groups)},
            persons={person.user: person for person in persons},
            documents={name: json.loads(content) for name, content in documents},
            version=version,
        )

    def set_prompt(self, text: str, set_at: datetime, *, check: Callable[[Prompt], None] | None = None) -> Prompt:
        with self._database.transaction() as connection:
            if check is not None:
                row = connection.execute(_LOAD).fetchone()[3:]
                check(Prompt() if row[0] is None else _prompt(row))
            prompt = _add_prompt(connection, text, set_at, scope="")
            begin_version(connection)
        return prompt

    def add_prompt(self, text: str, set_at: datetime, *, scope: str) -> Prompt:
        if not scope:
            raise ValueError("a prompt without a scope is the organisation's, which set_prompt sets")
        with self._database.transaction() as connection:
            return _add_prompt(connection, text, set_at, scope=scope)

    def erase_prompts(self, scopes: Collection[str], text: str) -> int:
        with self._database.transaction() as connection:
            return sum(
                connection.execute(
                    f"UPDATE prompts SET text = ? WHERE text NOT IN ('', ?) AND scope IN ({places(some)})",  # noqa: S608
                    [text, text, *some],
                ).rowcount
                for some in some_at_once([*scopes])
            )

    def prompt_versions(self, *, scope: str | None = None) -> list[Prompt]:
        rows = self._database.rows(
            f"SELECT version, text, set_at, scope FROM prompts{'' if scope is None else ' WHERE scope = ?'}"  # noqa: S608
            " ORDER BY version DESC",
            () if scope is None else (scope,),
        )
        return [_prompt(row) for row in rows]

    def set_limits(self, limits: Limits, *, check: Callable[[Limits], None] | None = None) -> None:
        self._write_limits(lambda _: limits, check)

    def update_limits(self, parts: Mapping[str, object], *, check: Callable[[Limits], None] | None = None) -> Limits:
        return self._write_limits(lambda before: merged_limits(before, parts), check)

    def _write_limits(self, after: Callable[[str | None], Limits], check: Callable[[Limits], None] | None) -> Limits:
        with self._database.transaction() as connection:
            (before,) = connection.execute("SELECT limits FROM organisation").fetchone()
            if check is not None:
                check(limits_of(before))
            limits = after(before)
            connection.execute("UPDATE organisation SET limits = ?", (stored(limits),))
            begin_version(connection)
        return limits

    def set_group(self, group: Group, *, check: Callable[[Group | None], None] | None = None) -> Group:
        with self._database.transaction() as connection:
            before = _find_group(connection, group.name)
            if check is not None:
                check(before)
            if before is not None:
                group = replace(group, created_at=before.created_at, prompt=before.prompt, raised=before.raised)
            _write_group(connection, group)
        return group

    def update_group(
        self,
        name: str,
        changes: Mapping[str, Any],
        *,
        limits: Mapping[str, Any] | None = None,
        member_limits: Mapping[str, Any] | None = None,
        check: Callable[[Group], None] | None = None,
    ) -> Group | None:
        with self._database.transaction() as connection:
            group = _find_group(connection, name)
            if group is not None:
                if check is not None:
                    check(group)
                group = group.changed(changes, limits, member_limits)
                _write_group(connection, group)
        return group

    def remove_group(self, name: str, *, check: Callable[[Group], None] | None = None) -> Group | None:
        with self._database.transaction() as connection:
            group = _find_group(connection, name)
            if group is not None:
                if check is not None:
                    check(group)
                if connection.execute('SELECT 1 FROM keys WHERE "group" = ? LIMIT 1', (name,)).fetchone():
                    raise GroupInUse
                connection.execute("DELETE FROM groups WHERE name = ?", (name,))
                begin_version(connection)
        return group

    def set_credential(self, credential: bytes) -> None:
        with self._database.transaction() as connection:
            connection.execute("UPDATE organisation SET credential = ?", (credential,))
            begin_version(connection)

    def set_model(
        self,
        model: str,
        parts: Mapping[str, Any] | None,
        *,
        check: Callable[[Mapping[str, ModelSettings]], None] | None = None,
    ) -> ModelSettings:
        with self._database.transaction() as connection:
            models = _models(connection.execute(_MODELS))
            if check is not None:
                check(models)
            after = ModelSettings() if parts is None else replace(models.get(model, ModelSettings()), **parts)
            connection.execute("DELETE FROM models WHERE model = ?", (model,))
            if document := after.as_json():
                connection.execute("INSERT INTO models VALUES (?, ?)", (model, json.dumps(document)))
            begin_version(connection)
        return after

    def document(self, name: str) -> Mapping[str, Any]:
        rows = self._database.rows("SELECT content FROM documents WHERE name = ?", (name,))
        return json.loads(rows[0][0]) if rows else {}

    def update_document(self, name: str, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Mapping[str, Any]:
        with self._database.transaction() as connection:
            row = connection.execute("SELECT content FROM documents WHERE name = ?", (name,)).fetchone()
            after = change({} if row is None else json.loads(row[0]))
            connection.execute("DELETE FROM documents WHERE name = ?", (name,))
            if after:
                connection.execute("INSERT INTO documents VALUES (?, ?)", (name, json.dumps(after)))
            begin_version(connection)
        return after


def _models(rows: Iterable[tuple[str, str]]) -> dict[str, ModelSettings]:
    return {model: ModelSettings.from_json(json.loads(settings)) for model, settings in rows}


def _find_group(connection: sqlite3.Connection, name: str) -> Group | None:
    row = connection.execute(f"{_GROUPS} WHERE name = ?", (name,)).fetchone()
    return None if row is None else _group(row)


def _write_group(connection: sqlite3.Connection, group: Group) -> None:
    connection.execute(_SET_GROUP, [stored(getattr(group, name)) for name in _GROUP_FIELDS])
    begin_version(connection)


def _add_prompt(connection: sqlite3.Connection, text: str, set_at: datetime, *, scope: str) -> Prompt:
    return _prompt(connection.execute(_ADD_PROMPT, (text, to_ms(set_at), scope)).fetchone())


def _prompt(row: Any) -> Prompt:
    version, text, set_at, scope = row
    return Prompt(version=version, text=text, set_at=from_ms(set_at), scope=scope)


def _group(row: Any) -> Group:
    values = dict(zip(_GROUP_FIELDS, row, strict=True))
    return Group(
        **values
        | {
            "created_at": from_ms(values["created_at"]),
            "starts_at": time_of(values["starts_at"]),
            "expires_at": time_of(values["expires_at"]),
            "models": models_of(values["models"]),
            "limits": limits_of(values["limits"]),
            "prompt": prompt_of(values["prompt"]),
            "member_limits": limits_of(values["member_limits"]),
            "raised": raise_of(values["raised"]),
            "self_service": self_service_of(values["self_service"]),
        }
    )
