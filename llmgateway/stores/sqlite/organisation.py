"""What admins set for everybody, in the embedded store."""

from __future__ import annotations

import secrets
import sqlite3
from datetime import datetime
from typing import Any

from llmgateway.records import Organisation, Prices, Prompt
from llmgateway.stores.epoch import from_ms, to_ms

from .database import SQLiteDatabase

_LOAD = """
    SELECT generation, credential, version, text, set_at
    FROM organisation LEFT JOIN prompts ON version = (SELECT max(version) FROM prompts)
"""
_SET_PROMPT = """
    INSERT INTO prompts (version, text, set_at)
    SELECT coalesce(max(version), 0) + 1, ?, ? FROM prompts
    RETURNING version, text, set_at
"""


class SQLiteOrganisation:
    """An :class:`~llmgateway.interfaces.OrganisationStore` in the embedded store's file."""

    def __init__(self, database: SQLiteDatabase) -> None:
        self._database = database

    def load(self) -> Organisation:
        # The generation first: if a change comes between the two reads, the old generation stands with
        # the new content, and the next look-up makes the caller load again.
        ((generation, credential, *prompt),) = self._database.rows(_LOAD)
        prices = self._database.rows("SELECT model, prompt, cached, completion FROM prices")
        return Organisation(
            prompt=Prompt() if prompt[0] is None else _prompt(prompt),
            credential=credential,
            prices={model: Prices(prompt=p, cached=k, completion=c) for model, p, k, c in prices},
            generation=generation,
        )

    def set_prompt(self, text: str, set_at: datetime) -> Prompt:
        with self._database.transaction() as connection:
            prompt = _prompt(connection.execute(_SET_PROMPT, (text, to_ms(set_at))).fetchone())
            _begin_generation(connection)
        return prompt

    def prompt_versions(self) -> list[Prompt]:
        rows = self._database.rows("SELECT version, text, set_at FROM prompts ORDER BY version DESC")
        return [_prompt(row) for row in rows]

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


def _prompt(row: Any) -> Prompt:
    version, text, set_at = row
    return Prompt(version=version, text=text, set_at=from_ms(set_at))
