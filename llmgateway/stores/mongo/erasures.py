"""The erasures in MongoDB's collection ``erasures``. ``_id`` is the pseudonym."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from pymongo.database import Database

from llmgateway.records import Erasure, NameDigest

from .database import Document, MongoDatabase


class MongoErasures:
    """An :class:`~llmgateway.interfaces.Erasures` in MongoDB."""

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database

    def begin(self, erasure: Erasure) -> None:
        name = erasure.name
        with self._database.collection("erasures") as erasures:
            erasures.update_one(
                {"_id": erasure.pseudonym},
                {
                    "$setOnInsert": {
                        "erased_at": erasure.erased_at,
                        "salt": name and name.salt,
                        "digest": name and name.digest,
                        "finished": False,
                    },
                    "$addToSet": {
                        "key_ids": {"$each": [*erasure.key_ids]},
                        "shared": {"$each": [*erasure.shared]},
                    },
                },
                upsert=True,
            )

    def of(self, key_ids: Collection[str]) -> Sequence[Erasure]:
        with self._database.collections() as database:
            return erasures_of(database, key_ids)

    def unfinished(self) -> Sequence[Erasure]:
        return self._find({"finished": False})

    def finish(self, pseudonym: str) -> None:
        with self._database.collection("erasures") as erasures:
            erasures.update_one({"_id": pseudonym}, {"$set": {"finished": True}})
            erasures.update_one({"_id": pseudonym, "shared": []}, {"$set": {"salt": None, "digest": None}})

    def since(self, time: datetime) -> Sequence[Erasure]:
        return self._find({"erased_at": {"$gte": time}})

    def _find(self, wanted: Document) -> list[Erasure]:
        with self._database.collection("erasures") as erasures:
            return [*map(_erasure, erasures.find(wanted, sort=[("erased_at", 1), ("_id", 1)]))]


def erasures_of(database: Database[Document], key_ids: Collection[str]) -> list[Erasure]:
    """Return the erasures of these keys."""
    return [*map(_erasure, database["erasures"].find({"key_ids": {"$in": [*key_ids]}}, sort=[("_id", 1)]))]


def erasures_since(database: Database[Document], time: datetime) -> list[Erasure]:
    return [*map(_erasure, database["erasures"].find({"erased_at": {"$gte": time}}))]


def _erasure(document: Mapping[str, Any]) -> Erasure:
    salt = document["salt"]
    return Erasure(
        pseudonym=document["_id"],
        erased_at=document["erased_at"],
        key_ids=tuple(sorted(document["key_ids"])),
        shared=tuple(sorted(document["shared"])),
        name=None if salt is None else NameDigest(salt=salt, digest=document["digest"]),
    )
