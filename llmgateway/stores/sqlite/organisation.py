"""What admins set for everybody, in the embedded store."""

from __future__ import annotations

import secrets
import sqlite3
from dataclasses import fields
from datetime import datetime
from typing import Any

from llmgateway.records import Group, Limits, Organisation, Prices, Prompt
from llmgateway.stores.epoch import from_ms, to_ms

from .columns import limits_of, models_of, prompt_of, stored, time_of
from .database import SQLiteDatabase

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
# Only names of our own are put into statements; values are always parameters.
_SET_GROUP = f"REPLACE INTO groups ({_GROUP_COLUMNS}) VALUES ({', '.join('?' * len(_GROUP_FIELDS))})"  # noqa: S608


class SQLiteOrganisation:
    """An :class:`~llmgateway.interfaces.OrganisationStore` in the embedded store's file."""

    def __init__(self, database: SQLiteDatabase) -> None:
        self._database = database

    def load(self) -> Organisation:
        # The generation first: if a change comes between the two reads, the old generation stands with
        # the new content, and the next look-up makes the caller load again.
        ((generation, credential, limits, *prompt),) = self._database.rows(_LOAD)
        prices = self._database.rows("SELECT model, prompt, cached, completion FROM prices")
        groups = self._database.rows(f"SELECT {_GROUP_COLUMNS} FROM groups ORDER BY name")  # noqa: S608
        return Organisation(
            prompt=Prompt() if prompt[0] is None else _prompt(prompt),
            credential=credential,
            prices={model: Prices(prompt=p, cached=k, completion=c) for model, p, k, c in prices},
            limits=limits_of(limits),
            groups={group.name: group for group in map(_group, groups)},
            generation=generation,
        )

    def set_prompt(self, text: str, set_at: datetime) -> Prompt:
        with self._database.transaction() as connection:
            prompt = _add_prompt(connection, text, set_at, scope="")
            _begin_generation(connection)
        return prompt

    def add_prompt(self, text: str, set_at: datetime, *, scope: str) -> Prompt:
        if not scope:
            raise ValueError("a prompt without a scope is the organisation's, which set_prompt sets")
        with self._database.transaction() as connection:
            return _add_prompt(connection, text, set_at, scope=scope)

    def prompt_versions(self, *, scope: str | None = None) -> list[Prompt]:
        rows = self._database.rows(
            f"SELECT version, text, set_at, scope FROM prompts{'' if scope is None else ' WHERE scope = ?'}"  # noqa: S608
            " ORDER BY version DESC",
            () if scope is None else (scope,),
        )
        return [_prompt(row) for row in rows]

    def set_limits(self, limits: Limits) -> None:
        with self._database.transaction() as connection:
            connection.execute("UPDATE organisation SET limits = ?", (stored(limits),))
            _begin_generation(connection)

    def set_group(self, group: Group) -> None:
        with self._database.transaction() as connection:
            connection.execute(_SET_GROUP, [stored(getattr(group, name)) for name in _GROUP_FIELDS])
            _begin_generation(connection)

    def remove_group(self, name: str) -> bool:
        with self._database.transaction() as connection:
            removed = connection.execute("DELETE FROM groups WHERE name = ?", (name,)).rowcount == 1
            if removed:
                _begin_generation(connection)
        return removed

    def set_credential(self, credential: bytes) -> None:
        with self._database.transaction() as connection:
            connection.execute("UPDATE organisation SET credential = ?", (credential,))
            _begin_generation(connection)

    def set_prices(self, model: str, prices: Prices | None) -> None:
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM prices WHERE model = ?", (model,))
            if prices is not None:
                values = (model, prices.prompt, prices.cached, prices.completion)
                connection.execute("INSERT INTO prices VALUES (?, ?, ?, ?)", values)
            _begin_generation(connection)


def _begin_generation(connection: sqlite3.Connection) -> None:
    # Not a counter: in a file that was put back from a backup it would count up to the same numbers again.
    connection.execute("UPDATE organisation SET generation = ?", (secrets.token_hex(16),))


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
        }
    )
