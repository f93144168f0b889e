"""Warnings for admins in MongoDB.

Collections: ``alerts``, ``outages`` and ``alert_claims``. ``_id`` is the identifier or the name. Each change is one
operation on one document, so all of them are atomic.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from llmgateway.records import Alert, Outage
from llmgateway.stores.alert_documents import alert_document, read_alert

from .database import MongoDatabase


class MongoAlerts:
    """An :class:`~llmgateway.interfaces.AlertStore` in MongoDB."""

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database

    def add(self, alert: Alert) -> bool:
        document = {
            "_id": alert.id,
            "at": alert.at,
            "user": alert.user,
            "due_at": alert.due_at,
            "lease": "",
            "kept_until": alert.kept_until,
            "content": _content(alert),
        }
        with self._database.collection("alerts") as alerts:
            try:
                alerts.insert_one(document)
            except DuplicateKeyError:
                return False
        return True

    def take(self, *, now: datetime, until: datetime) -> Alert | None:
        lease = secrets.token_hex(8)
        with self._database.collection("alerts") as alerts:
            document = alerts.find_one_and_update(
                {"due_at": {"$lte": now}},
                {"$set": {"due_at": until, "lease": lease}},
                sort=[("due_at", 1), ("_id", 1)],
                return_document=ReturnDocument.AFTER,
            )
        return None if document is None else _alert(document)

    def save(self, alert: Alert, *, held_until: datetime | None = None) -> bool:
        changes = {
            "due_at": alert.due_at if held_until is None else held_until,
            "lease": "" if held_until is None else alert.lease,
            "content": _content(alert),
        }
        with self._database.collection("alerts") as alerts:
            # A write that is repeated after its answer was lost finds no such lease. The alert was stored then.
            return alerts.update_one({"_id": alert.id, "lease": alert.lease}, {"$set": changes}).matched_count == 1

    def waiting(self) -> int:
        with self._database.collection("alerts") as alerts:
            return alerts.count_documents({"due_at": {"$ne": None}})

    def recent(self, *, limit: int, after: tuple[datetime, str] | None = None) -> list[Alert]:
        if limit == 0:  # which means "all" to MongoDB
            return []
        wanted: dict[str, Any] = {}
        if after is not None:
            at, name = after
            wanted = {"$or": [{"at": {"$lt": at}}, {"at": at, "_id": {"$lt": name}}]}
        with self._database.collection("alerts") as alerts:
            return [_alert(document) for document in alerts.find(wanted, sort=[("at", -1), ("_id", -1)], limit=limit)]

    def observe(self, outage: Outage, *, until: datetime) -> Outage:
        always = {"event": outage.event, "scope": outage.scope, "until": until, "cleared": False, "over": outage.over}
        changes = {"$set": always, "$setOnInsert": {"since": outage.since}}
        with self._database.collection("outages") as outages:
            while True:
                try:
                    document = outages.find_one_and_update(
                        {"_id": outage.name}, changes, upsert=True, return_document=ReturnDocument.AFTER
                    )
                except DuplicateKeyError:
                    continue  # another process has inserted it meanwhile
                if document is None:
                    continue  # the same, on servers that do not report it
                return replace(outage, since=document["since"])

    def clear(self, name: str, *, until: datetime) -> None:
        with self._database.collection("outages") as outages:
            outages.update_one({"_id": name, "cleared": False}, {"$set": {"until": until, "cleared": True}})

    def outages(self) -> list[Outage]:
        with self._database.collection("outages") as outages:
            return [
                Outage(**{name: document[name] for name in ("event", "scope", "since", "over")})
                for document in outages.find({}, sort=[("_id", 1)])
            ]

    def end(self, name: str, *, now: datetime) -> bool | None:
        with self._database.collection("outages") as outages:
            document = outages.find_one_and_delete({"_id": name, "until": {"$lte": now}})
        return None if document is None else bool(document["cleared"])

    def claim(self, name: str, *, now: datetime, until: datetime) -> bool:
        with self._database.collection("alert_claims") as claims:
            try:
                claims.update_one({"_id": name, "until": {"$lte": now}}, {"$set": {"until": until}}, upsert=True)
            except DuplicateKeyError:
                return False  # another process holds it, so the upsert tried to insert it again
        return True

    def purge(self, now: datetime) -> None:
        with self._database.collections() as database:
            database["alerts"].delete_many({"due_at": None, "kept_until": {"$lte": now}})
            database["alert_claims"].delete_many({"until": {"$lte": now}})

    def forget_person(self, user: str) -> None:
        with self._database.collection("alerts") as alerts:
            alerts.delete_many({"user": user})


def _content(alert: Alert) -> str:
    return json.dumps(alert_document(alert), ensure_ascii=False)


def _alert(document: Mapping[str, Any]) -> Alert:
    return read_alert(json.loads(document["content"]), lease=document["lease"])
