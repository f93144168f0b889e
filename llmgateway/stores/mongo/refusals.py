"""The refused requests in MongoDB's collection ``refusals``. ``_id`` is the identifier of the request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

import pymongo
from pymongo import UpdateOne

from llmgateway.records import Refusal, RefusalQuery, RefusedAgain

from .database import Document, MongoDatabase

_BATCH_SECONDS = 10.0  # many at once take longer than a look-up, and nobody waits for them
_COUNTED = ("count", "last_at", "repeats")
"""What changes when a refusal is repeated."""
_FIELDS = tuple(field.name for field in fields(Refusal) if field.name not in ("id", *_COUNTED))


class MongoRefusalLog:
    """A :class:`~llmgateway.interfaces.RefusalLog` in MongoDB."""

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database

    def append(self, refusals: Sequence[Refusal]) -> None:
        if not refusals:
            return
        changes = [change for refusal in refusals for change in _changes(refusal)]
        # ping() first: with the longer deadline below, the driver would wait that long for an unavailable server.
        self._database.ping()
        with self._database.collection("refusals") as collection, pymongo.timeout(_BATCH_SECONDS):
            collection.bulk_write(changes)

    def find(self, request_id: str) -> Refusal | None:
        with self._database.collection("refusals") as collection:
            found = collection.find_one({"_id": request_id}) or collection.find_one({"repeats.id": request_id})
        return None if found is None else _refusal(found)

    def list(self, query: RefusalQuery) -> list[Refusal]:
        if query.limit == 0:  # which means "all" to MongoDB
            return []
        equal = {"user": query.user, "group": query.group, "code": query.code}
        wanted: Document = {name: value for name, value in equal.items() if value is not None}
        if query.key_ids is not None:
            wanted["key_id"] = {"$in": [*query.key_ids]}
        period: Document = {}
        if query.since is not None:
            period["$gte"] = query.since
        if query.until is not None:
            period["$lt"] = query.until
        if query.before is not None:
            at, id_ = query.before
            period["$lte"] = at
            wanted["$or"] = [{"timestamp": {"$lt": at}}, {"_id": {"$lt": id_}}]
        if period:
            wanted["timestamp"] = period
        with self._database.collection("refusals") as collection:
            found = collection.find(wanted, sort=[("timestamp", -1), ("_id", -1)], limit=query.limit)
            return [_refusal(document) for document in found]

    def replace_person(self, key_ids: Sequence[str], replacement: str) -> int:
        of_keys = {"key_id": {"$in": [*key_ids]}}
        with self._database.collection("refusals") as collection:
            collection.update_many(of_keys | {"address": {"$ne": None}}, {"$set": {"address": replacement}})
            return collection.update_many(of_keys, {"$set": {"user": replacement}}).matched_count

    def purge(self, before: datetime, *, most: int, limit: int) -> int:
        order = [("timestamp", 1), ("_id", 1)]
        with self._database.collection("refusals") as collection:
            old = [
                document["_id"]
                for document in collection.find({"timestamp": {"$lt": before}}, {"_id": 1}, sort=order, limit=limit)
            ]
            excess = min(collection.count_documents({}) - most, limit)
            if excess > len(old):
                old = [document["_id"] for document in collection.find({}, {"_id": 1}, sort=order, limit=excess)]
            if old:
                collection.delete_many({"_id": {"$in": old}})
        return len(old)


def _changes(refusal: Refusal) -> list[UpdateOne]:
    """Return two changes: a single upsert could not compare the count that is stored with the one to store."""
    values: Document = {name: getattr(refusal, name) for name in _FIELDS}
    counted: Document = {
        "count": refusal.count,
        "last_at": refusal.last_at,
        "repeats": [again._asdict() for again in refusal.repeats],
    }
    made = UpdateOne({"_id": refusal.id}, {"$setOnInsert": values | counted}, upsert=True)
    if refusal.count == 1:
        return [made]
    return [made, UpdateOne({"_id": refusal.id, "count": {"$lt": refusal.count}}, {"$set": counted})]


def _refusal(document: Mapping[str, Any]) -> Refusal:
    return Refusal(
        id=document["_id"],
        count=document["count"],
        last_at=document["last_at"],
        repeats=tuple(RefusedAgain(**again) for again in document["repeats"]),
        **{name: document[name] for name in _FIELDS},
    )
