"""Adds numbers to documents, each batch exactly once, and replaces those of a day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from llmgateway.records import Batch

from .database import Document

_DUPLICATE_KEY = 11000  # https://www.mongodb.com/docs/manual/reference/error-codes/


def count_once(
    collection: Collection[Document], additions: Mapping[str, tuple[Document, Mapping[str, float]]], batch: Batch
) -> None:
    """Add numbers to documents, and make those that are not there. What has counted *batch* already is not changed.

    Args:
        additions: By ``_id``: what a new document has beside the numbers, and the numbers by field.
    """
    if not additions:
        return
    counted = f"counted.{batch.source}"
    # First create the documents, then add the numbers. After a failed upsert with the filter below, it would be unclear
    # whether the batch is already counted or another process has just created the document.
    made = [UpdateOne({"_id": which}, {"$setOnInsert": made}, upsert=True) for which, (made, _) in additions.items()]
    try:
        collection.bulk_write(made, ordered=False)
    except BulkWriteError as error:
        if not all(map(is_there_already, [*error.details["writeErrors"], *error.details["writeConcernErrors"]])):
            raise
    collection.bulk_write(
        [
            UpdateOne(
                {"_id": which, counted: {"$not": {"$gte": batch.number}}},
                {"$inc": dict(numbers), "$set": {counted: batch.number}},
            )
            for which, (_, numbers) in additions.items()
        ],
        ordered=False,
    )


def replace_day(
    collection: Collection[Document], day: date, documents: Mapping[str, Document], unfinished: Sequence[Batch]
) -> None:
    """Replace the fields of the documents of the UTC day *day*, and delete those that are not among *documents*.

    Args:
        documents: By ``_id``.
        unfinished: These batches will be repeated, and must be added then.
    """
    again = {f"counted.{batch.source}": "" for batch in unfinished}
    there = {document["_id"] for document in collection.find({"day": day.isoformat()}, {"_id": 1})}
    if stale := there - documents.keys():
        collection.delete_many({"_id": {"$in": [*stale]}})
    if documents:
        changes = {
            which: {"$set": fields} | ({"$unset": again} if again else {}) for which, fields in documents.items()
        }
        updates = [UpdateOne({"_id": which}, change, upsert=True) for which, change in changes.items()]
        collection.bulk_write(updates, ordered=False)


def is_there_already(problem: Mapping[str, Any]) -> bool:
    # An operator may have added another unique index. Servers before 4.4 do not say which index it was.
    return problem.get("code") == _DUPLICATE_KEY and problem.get("keyPattern", {"_id": 1}) == {"_id": 1}
