"""The version of the organisation in SQLite."""

from __future__ import annotations

import secrets
import sqlite3


def begin_version(connection: sqlite3.Connection) -> None:
    """Let every process load the organisation again. Call this in the transaction of each change."""
    # Random instead of a counter, because a counter would repeat its numbers after a backup is restored.
    connection.execute("UPDATE organisation SET generation = ?", (secrets.token_hex(16),))
