"""Adds many keys atomically, on a server without transactions.

Each key is first stored with the mark ``importing``. All other operations ignore marked keys. The collection
``imports`` has one document for each import that has not ended. Its ``outcome`` is set once, atomically, and decides
what happens to the marked keys: from then on, any process may remove the marks, or delete the keys. So an import is
either complete or has no effect, wherever it stops. The next import cleans up the imports of dead processes.

A single key that is added to a group is imported, too: it is stored with the mark, its group is checked, and then the
mark is removed (see ``organisation.py``).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pymongo
from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import BulkWriteError, PyMongoError

from llmgateway.errors import NoSuchGroup, StoreUnavailable

from .database import Document

UNMARKED: Document = {"importing": None}
"""Selects the keys without a mark. In MongoDB a missing field is equal to null."""

_KEPT, _DROPPED = "kept", "dropped"
_ABANDONED_AFTER = timedelta(hours=1)
_DUPLICATE_KEY = 11000  # https://www.mongodb.com/docs/manual/reference/error-codes/
_NAMES_AT_ONCE = 500


def import_keys(
    database: Database[Document],
    documents: Sequence[Document],
    *,
    check_groups: Callable[[], None],
    now: datetime,
    timeout: float,
) -> bool:
    """Insert all of *documents*, or none; False if one of them exists.

    Args:
        check_groups: As :meth:`MongoOrganisation.check_groups`, for the groups of *documents*.
        timeout: Seconds for the whole import; and again for cleaning up if it fails.

    Raises:
        NoSuchGroup: raised by *check_groups*.
        StoreUnavailable: the import took so long that another process has cancelled it.
    """
    mine = secrets.token_hex(8)
    with pymongo.timeout(timeout):
        end_abandoned_imports(database, now)
        database["imports"].insert_one({"_id": mine, "begun_at": now, "outcome": None})
    outcome = None
    try:
        with pymongo.timeout(timeout):
            inserted = _insert(database["keys"], documents, mine)
            if inserted:
                check_groups()
            outcome = _decide(database, mine, _KEPT if inserted else _DROPPED)
            _carry_out(database, mine, outcome)
    except (PyMongoError, StoreUnavailable, NoSuchGroup):
        with pymongo.timeout(timeout):
            # If only an answer was lost, the outcome may be set already.
            outcome = outcome or _decide(database, mine, _DROPPED)
            _carry_out(database, mine, outcome)
        if outcome == _DROPPED:
            raise
        inserted = True
    if inserted and outcome == _DROPPED:
        raise StoreUnavailable("The import took too long, and another process has cancelled it. Start it again.")
    return inserted


def names_that_exist(keys: Collection[Document], names: Sequence[str]) -> set[str]:
    """Return the *names* that are an identifier or a digest of a key, including marked keys."""
    there: set[str] = set()
    for first in range(0, len(names), _NAMES_AT_ONCE):
        asked = {"$in": names[first : first + _NAMES_AT_ONCE]}
        # One query for each field, without $or. "digest", because documents of older versions have no "digests".
        for field in ("_id", "digest", "digests"):
            for document in keys.find({field: asked}, {"digest": 1, "digests": 1}):
                there.update(document.get("digests", ()), (document["_id"], document["digest"]))
    return there & {*names}


def _insert(keys: Collection[Document], documents: Sequence[Document], mine: str) -> bool:
    # Sorted by digest: if two imports share several keys, the one that stores the first of these stores all of them.
    # In different orders, each import could stop at a key that the other one has stored.
    marked = sorted((document | {"importing": mine} for document in documents), key=_digest)
    try:
        keys.insert_many(marked, ordered=True)
    except BulkWriteError as error:
        problems = [*error.details["writeErrors"], *error.details["writeConcernErrors"]]
        if any(problem.get("code") != _DUPLICATE_KEY for problem in problems):
            raise
        return False
    return True


def _digest(document: Document) -> Any:
    return document["digest"]


def _decide(database: Database[Document], name: str, outcome: str) -> str:
    """Set the outcome of an import, unless it is set already; return the one that is set."""
    imports = database["imports"]
    decided = imports.find_one_and_update(
        {"_id": name, "outcome": None}, {"$set": {"outcome": outcome}}, return_document=ReturnDocument.AFTER
    )
    if decided is None:
        # Another process has set it. If the document is gone, that process has cancelled the import as abandoned.
        decided = imports.find_one({"_id": name}) or {"outcome": _DROPPED}
    return str(decided["outcome"])


def _carry_out(database: Database[Document], name: str, outcome: str) -> None:
    if outcome == _KEPT:
        database["keys"].update_many({"importing": name}, {"$unset": {"importing": ""}})
    else:
        database["keys"].delete_many({"importing": name})
    database["imports"].delete_one({"_id": name})


def end_abandoned_imports(database: Database[Document], now: datetime) -> None:
    """Clean up imports of dead processes: at once if the outcome is set, after an hour if not."""
    for document in database["imports"].find():
        outcome = document["outcome"]
        if outcome is None and document["begun_at"] < now - _ABANDONED_AFTER:
            outcome = _decide(database, document["_id"], _DROPPED)
        if outcome is not None:
            _carry_out(database, document["_id"], outcome)
