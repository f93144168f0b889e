"""Warnings for admins in SQLite."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from llmgateway.records import Alert, Outage
from llmgateway.stores.alert_documents import alert_document, read_alert
from llmgateway.stores.epoch import from_ms, to_ms

from .database import SQLiteDatabase

_ADD = """
    INSERT INTO alerts (id, at, user, due_at, lease, kept_until, content) VALUES (?, ?, ?, ?, '', ?, ?)
    ON CONFLICT (id) DO NOTHING
    RETURNING id
"""
_RECENT = "SELECT content, lease FROM alerts WHERE (at, id) < (?, ?) ORDER BY at DESC, id DESC LIMIT ?"
_NO_TIME = 2**62
"""Later than every alert."""
_TAKE = """
    UPDATE alerts SET due_at = :until, lease = :lease
    WHERE id = (SELECT id FROM alerts WHERE due_at <= :now ORDER BY due_at, id LIMIT 1)
    RETURNING content
"""
_OBSERVE = """
    INSERT INTO outages (name, event, scope, since, until, cleared, over)
    VALUES (:name, :event, :scope, :since, :until, 0, :over)
    ON CONFLICT (name) DO UPDATE SET until = excluded.until, cleared = 0, over = excluded.over
    RETURNING since
"""
_CLAIM = """
    INSERT INTO alert_claims (name, until) VALUES (:name, :until)
    ON CONFLICT (name) DO UPDATE SET until = excluded.until WHERE until <= :now
    RETURNING name
"""


class SQLiteAlerts:
    """An :class:`~llmgateway.interfaces.AlertStore` in SQLite."""

    def __init__(self, database: SQLiteDatabase) -> None:
        self._database = database

    def add(self, alert: Alert) -> bool:
        row = (alert.id, to_ms(alert.at), alert.user, _ms(alert.due_at), _ms(alert.kept_until), _content(alert))
        return bool(self._write(_ADD, row))

    def take(self, *, now: datetime, until: datetime) -> Alert | None:
        # Without a lock on the file if nothing is due, as nearly always.
        if not self._database.rows("SELECT 1 FROM alerts WHERE due_at <= ? LIMIT 1", (to_ms(now),)):
            return None
        lease = secrets.token_hex(8)
        rows = self._write(_TAKE, {"now": to_ms(now), "until": to_ms(until), "lease": lease})
        return read_alert(json.loads(rows[0][0]), lease=lease) if rows else None

    def save(self, alert: Alert, *, held_until: datetime | None = None) -> bool:
        due_at = alert.due_at if held_until is None else held_until
        lease = "" if held_until is None else alert.lease
        rows = self._write(
            "UPDATE alerts SET due_at = ?, lease = ?, content = ? WHERE id = ? AND lease = ? RETURNING id",
            (_ms(due_at), lease, _content(alert), alert.id, alert.lease),
        )
        return bool(rows)

    def waiting(self) -> int:
        ((number,),) = self._database.rows("SELECT count(*) FROM alerts WHERE due_at IS NOT NULL")
        return int(number)

    def recent(self, *, limit: int, after: tuple[datetime, str] | None = None) -> list[Alert]:
        at, name = (_NO_TIME, "") if after is None else (to_ms(after[0]), after[1])
        rows = self._database.rows(_RECENT, (at, name, limit))
        return [read_alert(json.loads(content), lease=lease) for content, lease in rows]

    def observe(self, outage: Outage, *, until: datetime) -> Outage:
        ((since,),) = self._write(
            _OBSERVE,
            {
                "name": outage.name,
                "event": outage.event,
                "scope": outage.scope,
                "since": to_ms(outage.since),
                "until": to_ms(until),
                "over": outage.over,
            },
        )
        return replace(outage, since=from_ms(since))

    def clear(self, name: str, *, until: datetime) -> None:
        self._write("UPDATE outages SET until = ?, cleared = 1 WHERE name = ? AND NOT cleared", (to_ms(until), name))

    def outages(self) -> list[Outage]:
        rows = self._database.rows("SELECT event, scope, since, over FROM outages ORDER BY name")
        return [Outage(event=event, scope=scope, since=from_ms(since), over=over) for event, scope, since, over in rows]

    def end(self, name: str, *, now: datetime) -> bool | None:
        lapsed = "FROM outages WHERE name = ? AND until <= ?"
        if not self._database.rows(f"SELECT 1 {lapsed}", (name, to_ms(now))):
            return None
        rows = self._write(f"DELETE {lapsed} RETURNING cleared", (name, to_ms(now)))
        return bool(rows[0][0]) if rows else None

    def claim(self, name: str, *, now: datetime, until: datetime) -> bool:
        held = self._database.rows("SELECT 1 FROM alert_claims WHERE name = ? AND until > ?", (name, to_ms(now)))
        return not held and bool(self._write(_CLAIM, {"name": name, "now": to_ms(now), "until": to_ms(until)}))

    def purge(self, now: datetime) -> None:
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM alerts WHERE due_at IS NULL AND kept_until <= ?", (to_ms(now),))
            connection.execute("DELETE FROM alert_claims WHERE until <= ?", (to_ms(now),))

    def forget_person(self, user: str) -> None:
        self._write("DELETE FROM alerts WHERE user = ?", (user,))

    def _write(self, statement: str, parameters: Sequence[object] | dict[str, object]) -> list[Any]:
        with self._database.transaction() as connection:
            return connection.execute(statement, parameters).fetchall()


def _ms(time: datetime | None) -> int | None:
    return None if time is None else to_ms(time)


def _content(alert: Alert) -> str:
    return json.dumps(alert_document(alert), ensure_ascii=False)
