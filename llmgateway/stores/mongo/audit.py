"""The audit log in MongoDB's collection ``audit``. ``_id`` is the identifier of the entry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any

from pymongo.errors import DuplicateKeyError

from llmgateway.records import FIRST_OWNER, AuditEntry, AuditQuery

from .database import Document, MongoDatabase

_FIELDS = tuple(field.name for field in fields(AuditEntry) if field.name != "id")
_AS_JSON = ("before", "after")
"""These fields are stored as text, because names in them (of models, for example) can contain dots and dollar signs,
which some servers do not accept."""


class MongoAuditLog:
    """An :class:`~llmgateway.interfaces.AuditLog` in MongoDB."""

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database

    def append(self, entry: AuditEntry) -> None:
        document = {"_id": entry.id} | {name: getattr(entry, name) for name in _FIELDS}
        for name in _AS_JSON:
            if document[name] is not None:
                document[name] = json.dumps(dict(document[name]), ensure_ascii=False)
        with self._database.collection("audit") as audit, suppress(DuplicateKeyError):
            audit.insert_one(document)

    def entries(self, query: AuditQuery) -> list[AuditEntry]:
        if query.limit == 0:  # which means "all" to MongoDB
            return []
        wanted = _wanted(query)
        with self._database.collection("audit") as audit:
            return [_entry(document) for document in audit.find(wanted, sort=[("_id", -1)], limit=query.limit)]


def _wanted(query: AuditQuery) -> Document:
    wanted: Document = {} if query.target is None else {"target": query.target}
    if query.after:
        wanted["_id"] = {"$lt": query.after}
    period = {"$gte": query.since, "$lt": query.until}
    if given := {bound: time for bound, time in period.items() if time is not None}:
        wanted["timestamp"] = given
    if query.admin == FIRST_OWNER:
        wanted["admin_id"] = None
    elif query.admin is not None:
        wanted["$or"] = [{"admin_id": query.admin}, {"admin_name": query.admin}]
    if query.groups is not None:
        # The first group exists, and there is none that is not in the list.
        wanted["groups.0"] = {"$exists": True}
        wanted["groups"] = {"$not": {"$elemMatch": {"$nin": list(query.groups)}}}
    return wanted


def _entry(document: Mapping[str, Any]) -> AuditEntry:
    # Entries of older versions of this program lack newer fields, which get their defaults.
    values = {name: document[name] for name in _FIELDS if name in document}
    if values.get("groups") is not None:
        values["groups"] = tuple(values["groups"])
    for name in _AS_JSON:
        if values[name] is not None:
            values[name] = json.loads(values[name])
    return AuditEntry(id=document["_id"], **values)
