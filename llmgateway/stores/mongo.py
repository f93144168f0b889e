"""Keys and settings in MongoDB, and the way to it. A standalone server will do: no transactions are used.

Collections: ``keys`` (``_id`` is the key's identifier), ``organisation`` (one document, so that
each change is one atomic step), ``prompts`` (the versions that were replaced; ``_id`` is the
version), and those of usage, which ``mongo_usage.py`` describes.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any, TypeAlias

import pymongo
from bson.codec_options import CodecOptions
from pymongo import IndexModel, MongoClient, ReadPreference, ReturnDocument, WriteConcern
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError, PyMongoError
from pymongo.uri_parser import parse_uri

from llmgateway.errors import ConfigurationError, StoreUnavailable
from llmgateway.records import KeyRecord, Lookup, Organisation, Prices, Prompt

Document: TypeAlias = dict[str, Any]

_INDEXES = {
    "keys": [
        IndexModel("digest", unique=True),
        IndexModel([("user", 1), ("_id", 1)]),
        IndexModel([("group", 1), ("_id", 1)]),
    ],
    # With _id, so that a page of equal times needs no sorting.
    "logs": [
        IndexModel([("timestamp", 1), ("_id", 1)]),
        IndexModel([("key_id", 1), ("timestamp", 1), ("_id", 1)]),
        IndexModel([("user", 1), ("timestamp", 1), ("_id", 1)]),
        IndexModel([("outcome", 1), ("timestamp", 1), ("_id", 1)]),
    ],
    "usage_daily": [IndexModel("day"), IndexModel([("key_id", 1), ("day", 1)])],
}


def check_url(url: str) -> None:
    """Refuse a URL that the driver cannot read; asks no server. One of a seed list is read when it is used.

    Raises:
        ConfigurationError: without the driver's words, which may quote a password.
    """
    if url.startswith("mongodb+srv://"):
        return
    try:
        parse_uri(url, warn=False)
    except (PyMongoError, ValueError):
        # Not in one piece: the log hides what stands between :// and @.
        problem = (
            "MONGO_URL cannot be read. It must be like mongodb://HOST:27017/, with USER:PASSWORD@ in front of the "
            "host, and %40 for an @ and %3A for a : within user and password."
        )
        raise ConfigurationError([problem]) from None


class MongoDatabase:
    """One database of a MongoDB server.

    Nothing is asked of the server before the first use, so a gateway starts while it is away;
    indexes are made with the first use that succeeds. Each process makes a client of its own,
    also after a fork. Writes are acknowledged by a majority and are in its journals.

    Args:
        server: A ``mongodb://`` URL, or a client that is ready (which must not be used across a fork).
        timeout: Seconds for each of: choosing a server, connecting, an answer, a write's acknowledgement.
            What the URL says about these is overruled. Not below one: the driver looks only every half
            a second whether a server that was away is back.
        report_timeout: Seconds for a whole usage report, which has more to read than a look-up.
    """

    name = "mongodb"

    def __init__(
        self,
        server: str | MongoClient[Document],
        *,
        database: str = "gateway",
        timeout: float = 2.0,
        report_timeout: float = 30.0,
    ) -> None:
        self._server = server
        self._database = database
        self._timeout_ms = int(timeout * 1000)
        self.report_timeout = report_timeout
        self._clients: dict[int, MongoClient[Document]] = {}
        self._indexed = False

    @contextmanager
    def collection(self, name: str) -> Iterator[Collection[Document]]:
        """The collection, to be used inside the block; the driver's errors leave it as :class:`StoreUnavailable`."""
        with self.collections() as database:
            yield database[name]

    @contextmanager
    def collections(self, *, promptly: bool = False) -> Iterator[Database[Document]]:
        """All of them, as :meth:`collection` gives one.

        Args:
            promptly: Give all that is asked inside the block one time-out together, because users
                wait for it: the driver repeats a read that timed out, and connects anew for that.
        """
        with self._open() as database:
            if not self._indexed:
                # With a deadline the server would give up on an index that takes longer, every time.
                for indexed, models in _INDEXES.items():
                    database[indexed].create_indexes(models)
                self._indexed = True
            with self._deadline() if promptly else nullcontext():
                yield database

    def ping(self) -> None:
        with self._open() as database, self._deadline():
            database.command("ping")

    def _deadline(self) -> AbstractContextManager[None]:
        return pymongo.timeout(self._timeout_ms / 1000)

    def close(self) -> None:
        """Close this process' connections; the next use opens new ones."""
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    @contextmanager
    def _open(self) -> Iterator[Database[Document]]:
        try:
            yield self._client().get_database(
                self._database,
                codec_options=CodecOptions(tz_aware=True, tzinfo=UTC),
                # A change is seen by every look-up that starts after it: whatever the URL says,
                # not from a secondary that lags behind.
                read_preference=ReadPreference.PRIMARY,
                write_concern=WriteConcern("majority", j=True, wtimeout=self._timeout_ms),
            )
        except PyMongoError as error:
            # The driver's text names hosts, and this one is shown to clients.
            raise StoreUnavailable(f"MongoDB does not serve ({type(error).__name__}). Try again later.") from error

    def _client(self) -> MongoClient[Document]:
        if not isinstance(self._server, str):
            return self._server
        # By process, and the parent's is kept in the child and never touched: closing it there
        # would speak on the parent's connections. No lock, which a fork could copy while it is held.
        process = os.getpid()
        client = self._clients.get(process)
        if client is None:
            # retryWrites is left to the driver, which does not do it on a standalone server, and to the URL.
            made: MongoClient[Document] = MongoClient(
                self._server,
                appname="llmgateway",
                connect=False,
                serverSelectionTimeoutMS=self._timeout_ms,
                connectTimeoutMS=self._timeout_ms,
                socketTimeoutMS=self._timeout_ms,
                waitQueueTimeoutMS=self._timeout_ms,
            )
            client = self._clients.setdefault(process, made)
            if client is not made:
                made.close()
        return client


_KEY_FIELDS = tuple(field.name for field in fields(KeyRecord) if field.name != "id")


class MongoKeys:
    """A :class:`~llmgateway.interfaces.KeyStore` in MongoDB.

    :meth:`find` is two round trips, the price of a server without transactions or joins; put Redis in front.
    """

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database

    def find(self, digest: str) -> Lookup:
        with self._database.collections(promptly=True) as database:
            found = database["keys"].find_one({"digest": digest})
            present = database["organisation"].find_one({"_id": _ORGANISATION}, {"generation": 1})
        return Lookup(_key(found), (present or {}).get("generation", ""))

    def add(self, record: KeyRecord) -> bool:
        document = {"_id": record.id} | {name: getattr(record, name) for name in _KEY_FIELDS}
        with self._database.collection("keys") as keys:
            try:
                keys.insert_one(document)
            except DuplicateKeyError:
                return False
        return True

    def get(self, key_id: str) -> KeyRecord | None:
        with self._database.collection("keys") as keys:
            return _key(keys.find_one({"_id": key_id}))

    def list(
        self,
        *,
        user: str | None = None,
        group: str | None = None,
        active: bool | None = None,
        after: str = "",
        limit: int | None = None,
    ) -> list[KeyRecord]:
        if limit == 0:  # which means "all" to MongoDB
            return []
        filters = {"user": user, "group": group, "active": active}
        wanted = {name: value for name, value in filters.items() if value is not None}
        with self._database.collection("keys") as keys:
            found = keys.find({"_id": {"$gt": after}, **wanted}, sort=[("_id", 1)], limit=limit or 0)
            return [key for key in map(_key, found) if key is not None]

    def update(self, key_id: str, changes: Mapping[str, object]) -> KeyRecord | None:
        if not changes:
            return self.get(key_id)
        if unknown := changes.keys() - set(_KEY_FIELDS) | changes.keys() & {"digest"}:
            raise ValueError(f"not fields of a key that can be changed: {sorted(unknown)}")
        with self._database.collection("keys") as keys:
            return _key(
                keys.find_one_and_update({"_id": key_id}, {"$set": dict(changes)}, return_document=ReturnDocument.AFTER)
            )

    def remove(self, key_id: str) -> bool:
        with self._database.collection("keys") as keys:
            return keys.delete_one({"_id": key_id}).deleted_count == 1


def _key(document: Mapping[str, Any] | None) -> KeyRecord | None:
    if document is None:
        return None
    # A document that an older program wrote lacks the newer fields: they take their defaults.
    known = {name: document[name] for name in _KEY_FIELDS if name in document}
    if known.get("models") is not None:
        known["models"] = tuple(known["models"])
    return KeyRecord(id=document["_id"], **known)


_ORGANISATION = "organisation"


class MongoOrganisation:
    """An :class:`~llmgateway.interfaces.OrganisationStore` in MongoDB.

    The one document has the prompt in force, the credential and the generation, and changes
    in one step. A prompt is copied to ``prompts`` before it is replaced, so a process that dies
    at any point leaves neither a gap among the versions nor one that was never in force.
    """

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database

    def load(self) -> Organisation:
        document = self._document()
        return Organisation(
            prompt=_prompt(document.get("prompt")),
            credential=document.get("credential"),
            prices={entry["model"]: _prices(entry) for entry in document.get("prices", ())},
            generation=document.get("generation", ""),
        )

    def set_prompt(self, text: str, set_at: datetime) -> Prompt:
        while True:
            present = _prompt(self._document().get("prompt"))
            self._keep(present)
            following = {"version": present.version + 1, "text": text, "set_at": set_at}
            if self._change({"prompt": following}, if_=_version(present.version)):
                return _prompt(following)
            # Somebody else was faster, and has made the version that this one comes after.

    def prompt_versions(self) -> list[Prompt]:
        # The present one first: if it is replaced in between, it is among those that were kept.
        present = _prompt(self._document().get("prompt"))
        with self._database.collection("prompts") as prompts:
            versions = {
                document["_id"]: _prompt(document | {"version": document["_id"]}) for document in prompts.find()
            }
        if present.version:
            versions[present.version] = present
        return [versions[version] for version in sorted(versions, reverse=True)]

    def set_credential(self, credential: bytes) -> None:
        while not self._change({"credential": credential}):
            pass  # lost the race to create the document; now it is there

    def set_prices(self, model: str, prices: Prices | None) -> None:
        # A list, not a document by model: names of models have dots in them.
        while True:
            before = self._document().get("prices")
            after = [entry for entry in before or () if entry["model"] != model]
            if prices is not None:
                after.append({"model": model} | asdict(prices))
            if self._change({"prices": after}, if_={"prices": before}):
                return

    def _document(self) -> Document:
        with self._database.collections(promptly=True) as database:
            return database["organisation"].find_one({"_id": _ORGANISATION}) or {}

    def _keep(self, prompt: Prompt) -> None:
        if prompt.version:
            with self._database.collection("prompts") as prompts, suppress(DuplicateKeyError):
                prompts.insert_one({"_id": prompt.version, "text": prompt.text, "set_at": prompt.set_at})

    def _change(self, fields: Document, *, if_: Document | None = None) -> bool:
        """Set *fields* and a new generation in one step; False if another process came first."""
        # MongoDB compares a field that is not there with null as equal.
        wanted = {"_id": _ORGANISATION} | (if_ or {})
        changes = {"$set": fields | {"generation": secrets.token_hex(16)}}
        with self._database.collection("organisation") as organisation:
            try:
                organisation.update_one(wanted, changes, upsert=True)
            except DuplicateKeyError:
                # No document is as wanted, and the upsert found that there is one all the same.
                return False
        return True


def _version(version: int) -> Document:
    return {"prompt.version": version or None}


def _prices(entry: Mapping[str, Any]) -> Prices:
    return Prices(prompt=entry["prompt"], cached=entry["cached"], completion=entry["completion"])


def _prompt(document: Mapping[str, Any] | None) -> Prompt:
    if document is None:
        return Prompt()
    return Prompt(version=document["version"], text=document["text"], set_at=document["set_at"])
