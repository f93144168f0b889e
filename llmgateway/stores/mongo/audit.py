"""The audit log in MongoDB's collection ``audit``. ``_id`` is the identifier of the entry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any

from pymongo.errors import DuplicateKeyError

from llmgateway.records import AuditEntry

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

    def entries(self, *, target: str | None = None, after: str = "", limit: int) -> list[AuditEntry]:
        if limit == 0:  # which means "all" to MongoDB
            return []
        wanted: Document = {} if target is None else {"target": target}
        if after:
            wanted["_id"] = {"$lt": after}
        with self._database.collection("audit") as audit:
            return [_entry(document) for document in audit.find(wanted, sort=[("_id", -1)], limit=limit)]


def _entry(document: Mapping[str, Any]) -> AuditEntry:
    values = {name: document[name] for name in _FIELDS}
    for name in _AS_JSON:
        if values[name] is not None:
            values[name] = json.loads(values[name])
    return AuditEntry(id=document["_id"], **values)
