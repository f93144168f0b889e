"""The connection to MongoDB, and its indexes. A standalone server is enough, because no transactions are used.

The other modules of this package describe the collections.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC
from typing import Any, TypeAlias

import pymongo
from bson.codec_options import CodecOptions
from pymongo import IndexModel, MongoClient, ReadPreference, WriteConcern
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from llmgateway.errors import ConfigurationError, StoreUnavailable

Document: TypeAlias = dict[str, Any]

_INDEXES = {
    "keys": [
        IndexModel("digest", unique=True),
        # Unique over the elements of the list: no two keys share a digest, retiring or not.
        IndexModel("digests", unique=True, sparse=True),
        IndexModel("importing", sparse=True),
        IndexModel("joining.group", sparse=True),
        IndexModel("pending.by", sparse=True),
        IndexModel([("user", 1), ("_id", 1)]),
        IndexModel([("group", 1), ("_id", 1)]),
    ],
    "prompts": [IndexModel([("scope", 1), ("_id", 1)])],
    "admins": [IndexModel("name", unique=True), IndexModel("digests", unique=True)],
    "audit": [IndexModel([("target", 1), ("_id", 1)]), IndexModel([("admin_id", 1), ("_id", 1)])],
    "alerts": [IndexModel([("due_at", 1), ("_id", 1)]), IndexModel([("at", 1), ("_id", 1)]), IndexModel("user")],
    # With _id, so that records with equal times need not be sorted.
    "logs": [
        IndexModel([("timestamp", 1), ("_id", 1)]),
        IndexModel([("key_id", 1), ("timestamp", 1), ("_id", 1)]),
        IndexModel([("user", 1), ("timestamp", 1), ("_id", 1)]),
        IndexModel([("outcome", 1), ("timestamp", 1), ("_id", 1)]),
        IndexModel([("usage_source", 1), ("timestamp", 1), ("_id", 1)]),
        IndexModel([("model", 1), ("timestamp", 1), ("_id", 1)]),
        # Partial, because nearly every record has 200.
        IndexModel([("status", 1), ("timestamp", 1), ("_id", 1)], partialFilterExpression={"status": {"$gt": 200}}),
        # Partial, because a request without a stored response has null and an empty list here. Every text is greater
        # than the empty one, which the server knows when it chooses an index; of $type it may not know it.
        *(
            IndexModel(name, partialFilterExpression={name: {"$gt": ""}})
            for name in ("response_id", "stored_ids", "upstream_request_id", "attempts.upstream_request_id")
        ),
        *(
            IndexModel([(name, 1), ("timestamp", 1), ("_id", 1)], partialFilterExpression={name: {"$gt": ""}})
            for name in ("group", "error_code")
        ),
    ],
    "refusals": [
        IndexModel([("timestamp", 1), ("_id", 1)]),
        IndexModel([("key_id", 1), ("timestamp", 1), ("_id", 1)]),
        IndexModel([("user", 1), ("timestamp", 1), ("_id", 1)]),
        IndexModel("repeats.id", partialFilterExpression={"repeats.id": {"$gt": ""}}),
    ],
    "identities": [IndexModel("user", unique=True, sparse=True), IndexModel([("due_at", 1), ("_id", 1)])],
    "sessions": [IndexModel("until")],
    "erasures": [IndexModel("key_ids"), IndexModel("erased_at")],
    "usage_days": [IndexModel("day"), IndexModel([("whole", 1), ("day", 1)])],
    "usage_daily": [IndexModel("day"), *(IndexModel([(name, 1), ("day", 1)]) for name in ("key_id", "user", "group"))],
}


def of_groups(group: str | None, groups: Sequence[str] | None) -> Document:
    """Return the condition that a document is of this group, and of one of these groups; None for no condition."""
    wanted = {"$eq": group, "$in": None if groups is None else list(groups)}
    conditions = {operator: value for operator, value in wanted.items() if value is not None}
    return {"group": conditions} if conditions else {}


def check_url(url: str) -> None:
    """Check that the driver can parse *url*, without connecting. ``mongodb+srv`` URLs are parsed when they are used.

    Raises:
        ConfigurationError: does not contain the driver's message, which may quote a password.
    """
    if url.startswith("mongodb+srv://"):
        return
    try:
        parse_uri(url, warn=False)
    except (PyMongoError, ValueError):
        # USER:PASSWORD@ is not inside the URL, because the log hides what is between :// and @.
        problem = (
            "MONGO_URL cannot be read. It must be like mongodb://HOST:27017/, with USER:PASSWORD@ in front of the "
            "host. Write %40 for an @ and %3A for a : in the user and the password."
        )
        raise ConfigurationError([problem]) from None


class MongoDatabase:
    """One database of a MongoDB server.

    It connects at the first use, so a gateway starts even if the server is unavailable. Indexes are created at the
    first use that succeeds. Each process creates a client of its own, also after a fork. A write returns when a
    majority of the replica set has it in its journals.

    Args:
        server: A ``mongodb://`` URL, or a client (which must not be used across a fork).
        timeout: Seconds for each of: choosing a server, connecting, an answer, the acknowledgement of a write. It
            replaces the timeouts in the URL. It should be at least one second, because the driver checks only every
            half second whether an unavailable server is available again.
        report_timeout: Seconds for a usage report, or for all keys of a class. Both take longer than a look-up.
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
        self.timeout = timeout
        self._timeout_ms = int(timeout * 1000)
        self.report_timeout = report_timeout
        self._clients: dict[int, MongoClient[Document]] = {}
        self._indexed = False

    @contextmanager
    def collection(self, name: str, *, seconds: float | None = None) -> Iterator[Collection[Document]]:
        """Yield a collection. The driver's errors in the block are converted to :class:`StoreUnavailable`.

        Args:
            seconds: As for :meth:`collections`.
        """
        with self.collections(seconds=seconds) as database:
            yield database[name]

    @contextmanager
    def collections(self, *, promptly: bool = False, seconds: float | None = None) -> Iterator[Database[Document]]:
        """Yield the database with all collections. Everything else is as for :meth:`collection`.

        Args:
            promptly: The whole block has one timeout, because a user waits for it. Otherwise the driver repeats a
                read that timed out, on a new connection.
            seconds: For the whole block, if it takes longer than a look-up.
        """
        with self._open() as database:
            if seconds is not None:
                # Waits until a server is known. With the longer deadline, the driver would wait that long for it.
                with self._deadline():
                    database.client.is_primary  # noqa: B018
            if not self._indexed:
                # Without a deadline, because the server would cancel an index that takes longer, each time.
                for indexed, models in _INDEXES.items():
                    database[indexed].create_indexes(models)
                self._indexed = True
            with self._deadline(seconds) if promptly or seconds is not None else nullcontext():
                yield database

    def ping(self) -> None:
        with self._open() as database, self._deadline():
            database.command("ping")

    def _deadline(self, seconds: float | None = None) -> AbstractContextManager[None]:
        return pymongo.timeout(self._timeout_ms / 1000 if seconds is None else seconds)

    def close(self) -> None:
        """Close the connections of this process; the next use opens new ones."""
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    @contextmanager
    def _open(self) -> Iterator[Database[Document]]:
        try:
            yield self._client().get_database(
                self._database,
                codec_options=CodecOptions(tz_aware=True, tzinfo=UTC),
                # A look-up must see every earlier change. So it never reads from a secondary, which may be out of
                # date, even if the URL says so.
                read_preference=ReadPreference.PRIMARY,
                write_concern=WriteConcern("majority", j=True, wtimeout=self._timeout_ms),
            )
        except PyMongoError as error:
            # Clients see this message, and the driver's own message names hosts.
            raise StoreUnavailable(f"MongoDB does not serve ({type(error).__name__}). Try again later.") from error

    def _client(self) -> MongoClient[Document]:
        if not isinstance(self._server, str):
            return self._server
        # One client for each process. A child keeps the client of its parent, but never uses or closes it: closing
        # would send data on the parent's connections. Without a lock, because a fork could copy it while it is held.
        process = os.getpid()
        client = self._clients.get(process)
        if client is None:
            # retryWrites is not set: the driver knows whether the server supports it, and the URL can change it.
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
