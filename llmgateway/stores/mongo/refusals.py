"""The refused requests in MongoDB's collection ``refusals``. ``_id`` is the identifier of the request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from pymongo import UpdateOne
from pymongo.database import Database

from llmgateway.erased import refusals_without_erased
from llmgateway.records import Erasure, Kept, Refusal, RefusalCount, RefusalQuery, RefusedAgain

from .database import Document, MongoDatabase, of_groups
from .erasures import erasures_of

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
        key_ids = {refusal.key_id for refusal in refusals if refusal.key_id is not None}
        self._database.ping()  # fails sooner if the server has just gone
        with self._database.collections(seconds=_BATCH_SECONDS) as database:
            replaced = refusals_without_erased(refusals, erasures_of(database, key_ids))
            database["refusals"].bulk_write([change for refusal in replaced for change in _changes(refusal)])
            # An erasure that has begun in between may have missed some.
            for erasure in erasures_of(database, key_ids):
                _erase(database, erasure, key_ids & {*erasure.key_ids})

    def find(self, request_id: str) -> Refusal | None:
        with self._database.collection("refusals") as collection:
            found = collection.find_one({"_id": request_id}) or collection.find_one({"repeats.id": request_id})
        return None if found is None else _refusal(found)

    def list(self, query: RefusalQuery) -> list[Refusal]:
        if query.limit == 0:  # which means "all" to MongoDB
            return []
        equal = {name: getattr(query, name) for name in ("user", "code", "status", "model", "endpoint")}
        wanted: Document = {name: value for name, value in equal.items() if value is not None}
        wanted |= of_groups(query.group, query.groups)
        if query.key_ids is not None:
            wanted["key_id"] = {"$in": [*query.key_ids]}
        period: Document = {}
        if query.since is not None:
            period["$gte"] = query.since
        if query.until is not None:
            period["$lt"] = query.until
        places = []
        if query.before is not None:
            at, id_ = query.before
            period["$lte"] = at
            places.append({"$or": [{"timestamp": {"$lt": at}}, {"_id": {"$lt": id_}}]})
        if query.newer_than is not None:
            at, id_ = query.newer_than
            period["$gte"] = max(at, query.since or at)
            places.append({"$or": [{"timestamp": {"$gt": at}}, {"_id": {"$gt": id_}}]})
        if places:
            wanted["$and"] = places
        if period:
            wanted["timestamp"] = period
        with self._database.collection("refusals") as collection:
            found = collection.find(wanted, sort=[("timestamp", -1), ("_id", -1)], limit=query.limit)
            return [_refusal(document) for document in found]

    def counts(
        self,
        *,
        since: datetime | None,
        until: datetime | None,
        group: str | None = None,
        groups: tuple[str, ...] | None = None,
    ) -> Iterator[RefusalCount]:
        wanted = of_groups(group, groups)
        bounds = {"$gte": since, "$lt": until}
        if period := {bound: moment for bound, moment in bounds.items() if moment is not None}:
            wanted["timestamp"] = period
        minute = {"$dateToString": {"format": "%Y-%m-%dT%H:%M", "date": "$timestamp"}}
        counted = {"_id": {"minute": minute, "code": "$code"}, "requests": {"$sum": "$count"}}
        with self._database.collection("refusals", seconds=self._database.report_timeout) as collection:
            found = [*collection.aggregate([{"$match": wanted}, {"$group": counted}])]
        for document in found:
            at = datetime.fromisoformat(document["_id"]["minute"]).replace(tzinfo=UTC)
            yield RefusalCount(at, document["_id"].get("code"), document["requests"])

    def kept_of(self, user: str) -> Kept:
        with self._database.collection("refusals", seconds=self._database.report_timeout) as collection:
            key_ids = collection.distinct("key_id", {"user": user})
            names = {key_id: frozenset(collection.distinct("user", {"key_id": key_id})) for key_id in key_ids}
            return Kept(names, collection.count_documents({"user": user}))

    def erase(self, erasure: Erasure) -> None:
        with self._database.collections() as database:
            _erase(database, erasure, erasure.key_ids)

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


def _erase(database: Database[Document], erasure: Erasure, key_ids: Iterable[str]) -> None:
    refusals, pseudonym = database["refusals"], erasure.pseudonym
    for key_id in key_ids:
        for name in refusals.distinct("user", {"key_id": key_id}):
            if erasure.covers(key_id, name or ""):
                wanted = {"key_id": key_id, "user": name}
                refusals.update_many(wanted | {"address": {"$ne": None}}, {"$set": {"address": pseudonym}})
                refusals.update_many(wanted, {"$set": {"user": pseudonym}})


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
