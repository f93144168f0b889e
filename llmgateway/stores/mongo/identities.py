"""People who sign in at the identity provider, and what is known of sessions, in MongoDB.

Collections: ``identities``, whose ``_id`` is the identifier of the account, and ``sessions``, whose ``_id`` is the
name. ``user`` is missing in an account that has none, because its index is unique.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any

from pymongo.errors import DuplicateKeyError

from llmgateway.errors import UserTaken
from llmgateway.records import Identity

from .database import Document, MongoDatabase


class MongoIdentities:
    """An :class:`~llmgateway.interfaces.IdentityStore` in MongoDB."""

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database

    def get(self, identity_id: str) -> Identity | None:
        return next(iter(self._find({"_id": identity_id})), None)

    def of_user(self, user: str) -> Identity | None:
        return next(iter(self._find({"user": user})), None)

    def list(self, *, waiting: bool | None = None, after: str = "", limit: int) -> Sequence[Identity]:
        condition = {} if waiting is None else {"user": {"$exists": not waiting}}
        return self._find({"_id": {"$gt": after}, **condition}, sort=[("_id", 1)], limit=limit)

    def due(self, now: datetime, *, limit: int) -> Sequence[Identity]:
        return self._find({"due_at": {"$lte": now}}, sort=[("due_at", 1), ("_id", 1)], limit=limit)

    def change(
        self, identity_id: str, change: Callable[[Identity | None], Identity | None]
    ) -> tuple[Identity | None, Identity | None]:
        while True:
            with self._database.collection("identities") as identities:
                document = identities.find_one({"_id": identity_id})
            before = None if document is None else _identity(document)
            after = change(before)
            if after == before or self._replace(identity_id, document, after):
                return before, after
            # Another process has changed the account in between.

    def _replace(self, identity_id: str, before: Document | None, after: Identity | None) -> bool:
        """Replace an account; False if another process came first."""
        wanted = {"_id": identity_id, "revision": None if before is None else before["revision"]}
        with self._database.collection("identities") as identities:
            if after is None:
                return identities.delete_one(wanted).deleted_count == 1
            try:
                if before is not None:
                    return identities.replace_one(wanted, _document(after)).matched_count == 1
                identities.insert_one(_document(after))
            except DuplicateKeyError:
                if before is None and identities.find_one({"_id": identity_id}) is not None:
                    return False
                raise UserTaken from None
        return True

    def _find(self, condition: Document, **options: Any) -> Sequence[Identity]:
        with self._database.collection("identities") as identities:
            return [_identity(document) for document in identities.find(condition, **options)]


class MongoSessions:
    """A :class:`~llmgateway.interfaces.SessionStore` in MongoDB."""

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database

    def look(self, names: Collection[str], *, now: datetime) -> dict[str, str]:
        with self._database.collection("sessions") as sessions:
            found = sessions.find({"_id": {"$in": [*names]}, "until": {"$gt": now}})
            return {document["_id"]: document["content"] for document in found}

    def add(self, name: str, text: str, *, now: datetime, until: datetime) -> bool:
        with self._database.collection("sessions") as sessions:
            try:
                expired = {"_id": name, "until": {"$lte": now}}
                sessions.update_one(expired, {"$set": {"until": until, "content": text}}, upsert=True)
            except DuplicateKeyError:
                return False  # there is one, so the upsert tried to insert it again
        return True

    def put(self, name: str, text: str, *, until: datetime) -> None:
        document = {"_id": name, "until": until, "content": text}
        with self._database.collection("sessions") as sessions:
            while True:
                try:
                    sessions.replace_one({"_id": name}, document, upsert=True)
                except DuplicateKeyError:
                    continue  # another process has inserted it meanwhile
                return

    def purge(self, now: datetime) -> None:
        with self._database.collection("sessions") as sessions:
            sessions.delete_many({"until": {"$lte": now}})


def _document(identity: Identity) -> Document:
    document: Document = {
        "_id": identity.id,
        "due_at": identity.due_at,
        "revision": secrets.token_hex(8),
        "content": json.dumps(identity.as_json(), ensure_ascii=False),
    }
    return document if identity.user is None else document | {"user": identity.user}


def _identity(document: Document) -> Identity:
    return Identity.from_json(json.loads(document["content"]))
