"""The way to MongoDB, and its indexes. A standalone server will do: no transactions are used.

The modules beside this one say what is in the collections.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
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
        # Over the elements: no two documents share a digest, retiring or not.
        IndexModel("digests", unique=True, sparse=True),
        IndexModel("importing", sparse=True),
        IndexModel("joining.group", sparse=True),
        IndexModel([("user", 1), ("_id", 1)]),
        IndexModel([("group", 1), ("_id", 1)]),
    ],
    "prompts": [IndexModel([("scope", 1), ("_id", 1)])],
    "audit": [IndexModel([("target", 1), ("_id", 1)])],
    # With _id, so that a page of equal times needs no sorting.
    "logs": [
        IndexModel([("timestamp", 1), ("_id", 1)]),
        IndexModel([("key_id", 1), ("timestamp", 1), ("_id", 1)]),
        IndexModel([("user", 1), ("timestamp", 1), ("_id", 1)]),
        IndexModel([("outcome", 1), ("timestamp", 1), ("_id", 1)]),
    ],
    "usage_daily": [IndexModel("day"), IndexModel([("key_id", 1), ("day", 1)]), IndexModel([("group", 1), ("day", 1)])],
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
        report_timeout: Seconds for a whole usage report, or a class' keys, which are more than a look-up.
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
    def collection(self, name: str) -> Iterator[Collection[Document]]:
        """The collection, to be used inside the block; the driver's errors leave it as :class:`StoreUnavailable`."""
        with self.collections() as database:
            yield database[name]

    @contextmanager
    def collections(self, *, promptly: bool = False) -> Iterator[Database[Document]]:
        """The database with all collections; otherwise as :meth:`collection`.

        Args:
            promptly: Everything inside the block shares one time-out, because a user waits for it. Without it
                the driver repeats a read that timed out on a new connection.
        """
        with self._open() as database:
            if not self._indexed:
                # Without a deadline: the server would cancel an index that takes longer, every time.
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
                # A look-up must see every change that was made before. So whatever the URL says, it does
                # not read from a secondary, which may lag behind.
                read_preference=ReadPreference.PRIMARY,
                write_concern=WriteConcern("majority", j=True, wtimeout=self._timeout_ms),
            )
        except PyMongoError as error:
            # Clients see this message, and the driver's own message names hosts.
            raise StoreUnavailable(f"MongoDB does not serve ({type(error).__name__}). Try again later.") from error

    def _client(self) -> MongoClient[Document]:
        if not isinstance(self._server, str):
            return self._server
        # One for each process. A child keeps its parent's and never uses it: closing it would send data on
        # the parent's connections. Without a lock, which a fork could copy while it is held.
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
