"""Many keys that come into force together or not at all, on a server without transactions.

Each key is stored with a mark, ``importing``; all other operations ignore keys that have it. The
collection ``imports`` has one document for each import that is not over. Its ``outcome`` is set once, in one step,
and decides what happens to the marked keys: from then on any process may take the marks off, or remove
these keys. So an import is complete or has no effect, wherever it stops, and the next import cleans up what a dead
process has left.

A single key that comes into a group is imported, too: it is stored with the mark, then its group is checked, then
the mark is taken off (see ``organisation.py``).
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
"""Selects the keys that are in force; MongoDB compares a field that is not there with null as equal."""

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
        timeout: Seconds for all of it; and again, if it fails, for cleaning up.

    Raises:
        NoSuchGroup: as *check_groups* does.
        StoreUnavailable: it took so long that others have ended it.
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
            # The outcome may have been set, and only the answer was lost.
            outcome = outcome or _decide(database, mine, _DROPPED)
            _carry_out(database, mine, outcome)
        if outcome == _DROPPED:
            raise
        inserted = True
    if inserted and outcome == _DROPPED:
        raise StoreUnavailable("The import took too long, and another process has cancelled it. Start it again.")
    return inserted


def names_that_exist(keys: Collection[Document], names: Sequence[str]) -> set[str]:
    """Return those of *names* that are an identifier or a digest of a key, also of a marked one."""
    there: set[str] = set()
    for first in range(0, len(names), _NAMES_AT_ONCE):
        asked = {"$in": names[first : first + _NAMES_AT_ONCE]}
        # One field after the other, not with $or. "digest", because documents of an older program have no "digests".
        for field in ("_id", "digest", "digests"):
            for document in keys.find({field: asked}, {"digest": 1, "digests": 1}):
                there.update(document.get("digests", ()), (document["_id"], document["digest"]))
    return there & {*names}


def _insert(keys: Collection[Document], documents: Sequence[Document], mine: str) -> bool:
    # Sorted by digest: of two imports that share several keys, the one that stores the first of these
    # gets all of them. In different orders, each might stop at a key that the other one has stored.
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
        # Another process has set it. If the import is gone, that process took it for abandoned.
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
