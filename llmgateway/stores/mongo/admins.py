"""The named admins in MongoDB's collection ``admins``. ``_id`` is the identifier of the admin.

``digests`` contains the digest and the retiring digest, for a unique index over both. Every change of a document sets a
new ``revision``, and is made only if the document still has the revision that was read.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any

from pymongo.errors import DuplicateKeyError

from llmgateway.errors import NameTaken
from llmgateway.records import AdminRecord, Role

from .database import Document, MongoDatabase

_FIELDS = tuple(field.name for field in fields(AdminRecord) if field.name != "id")


class MongoAdmins:
    """An :class:`~llmgateway.interfaces.AdminStore` in MongoDB."""

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database

    def find(self, digest: str) -> AdminRecord | None:
        with self._database.collections(promptly=True) as database:
            return _record(database["admins"].find_one({"digests": digest}))

    def get(self, admin_id: str) -> AdminRecord | None:
        return _record(self._document(admin_id))

    def list(self) -> list[AdminRecord]:
        with self._database.collection("admins") as admins:
            return [record for each in admins.find({}, sort=[("_id", 1)]) if (record := _record(each)) is not None]

    def add(self, record: AdminRecord) -> bool:
        with self._database.collection("admins") as admins:
            try:
                admins.insert_one(_as_document(record))
            except DuplicateKeyError:
                return False
        return True

    def change(
        self, admin_id: str, change: Callable[[AdminRecord], AdminRecord | None]
    ) -> tuple[AdminRecord, AdminRecord | None] | None:
        while (before := _record(document := self._document(admin_id))) is not None:
            after = change(before)
            wanted = {"_id": admin_id, "revision": (document or {}).get("revision")}
            with self._database.collection("admins") as admins:
                try:
                    if after is None:
                        done = admins.find_one_and_delete(wanted)
                    else:
                        done = admins.find_one_and_replace(wanted, _as_document(after))
                except DuplicateKeyError:
                    raise NameTaken from None
            if done is not None:
                return before, after
            # Another process has changed or removed the admin in between.
        return None

    def _document(self, admin_id: str) -> Document | None:
        with self._database.collection("admins") as admins:
            return admins.find_one({"_id": admin_id})


def _as_document(record: AdminRecord) -> Document:
    values = asdict(record) | {"role": record.role.value, "groups": list(record.groups)}
    del values["id"]
    return {"_id": record.id, "digests": list(record.digests), "revision": secrets.token_hex(8)} | values


def _record(document: Mapping[str, Any] | None) -> AdminRecord | None:
    if document is None:
        return None
    values = {name: document[name] for name in _FIELDS if name in document}
    return AdminRecord(
        id=document["_id"],
        **values | {"role": Role(document["role"]), "groups": tuple(document.get("groups") or ())},
    )
