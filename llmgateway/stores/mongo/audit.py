"""The audit log in MongoDB's collection ``audit``. ``_id`` is the identifier of the entry."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from llmgateway.erased import entry_without_erased, is_about
from llmgateway.records import FIRST_OWNER, AuditEntry, AuditQuery

from .database import Document, MongoDatabase
from .erasures import erasures_of

_FIELDS = tuple(field.name for field in fields(AuditEntry) if field.name != "id")
_AS_JSON = ("before", "after")
"""These fields are stored as text, because names in them (of models, for example) can contain dots and dollar signs,
which some servers do not accept."""


class MongoAuditLog:
    """An :class:`~llmgateway.interfaces.AuditLog` in MongoDB."""

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database

    def append(self, entry: AuditEntry) -> None:
        with self._database.collections() as database:
            with suppress(DuplicateKeyError):
                database["audit"].insert_one(
                    _document(entry_without_erased(entry, erasures_of(database, [entry.target])))
                )
            # An erasure that has begun in between may have missed the entry.
            for erasure in erasures_of(database, [entry.target]):
                _set(database, entry, entry_without_erased(entry, [erasure]))

    def entries(self, query: AuditQuery) -> list[AuditEntry]:
        if query.limit == 0:  # which means "all" to MongoDB
            return []
        wanted = _wanted(query)
        with self._database.collection("audit") as audit:
            return [_entry(document) for document in audit.find(wanted, sort=[("_id", -1)], limit=query.limit)]

    def about(self, user: str | None, key_ids: Collection[str]) -> list[AuditEntry]:
        with self._database.collections(seconds=self._database.report_timeout) as database:
            return _about(database, user, key_ids)

    def replace(self, user: str | None, key_ids: Collection[str], change: Callable[[AuditEntry], AuditEntry]) -> None:
        with self._database.collections(seconds=self._database.report_timeout) as database:
            for entry in _about(database, user, key_ids):
                _set(database, entry, change(entry))


def _wanted(query: AuditQuery) -> Document:
    wanted: Document = {} if query.target is None else {"target": query.target}
    if query.action is not None:
        wanted["action"] = {"$regex": rf"^{re.escape(query.action)}(\.|$)"}
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


def _set(database: Database[Document], entry: AuditEntry, after: AuditEntry) -> None:
    if after != entry:
        changed = _document(after)
        database["audit"].update_one(
            {"_id": entry.id}, {"$set": {name: changed[name] for name in ("target", *_AS_JSON)}}
        )


def _about(database: Database[Document], user: str | None, key_ids: Collection[str]) -> list[AuditEntry]:
    audit = database["audit"]
    found = {document["_id"]: _entry(document) for document in audit.find({"target": {"$in": [*key_ids]}})}
    if user is not None:
        # As in the texts, so that few other entries are read.
        quoted = {"$regex": re.escape(json.dumps(user, ensure_ascii=False))}
        wanted = {"$or": [{"target": user}, {"before": quoted}, {"after": quoted}]}
        entries = map(_entry, audit.find(wanted))
        found |= {entry.id: entry for entry in entries if is_about(entry, user)}
    return [found[entry_id] for entry_id in sorted(found)]


def _document(entry: AuditEntry) -> Document:
    document = {"_id": entry.id} | {name: getattr(entry, name) for name in _FIELDS}
    for name in _AS_JSON:
        if document[name] is not None:
            document[name] = json.dumps(dict(document[name]), ensure_ascii=False)
    return document


def _entry(document: Mapping[str, Any]) -> AuditEntry:
    # Entries of older versions of this program lack newer fields, which get their defaults.
    values = {name: document[name] for name in _FIELDS if name in document}
    if values.get("groups") is not None:
        values["groups"] = tuple(values["groups"])
    for name in _AS_JSON:
        if values[name] is not None:
            values[name] = json.loads(values[name])
    return AuditEntry(id=document["_id"], **values)
