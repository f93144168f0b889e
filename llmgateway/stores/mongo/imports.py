"""Keys that come into force together or not at all, on a server without transactions.

Each is stored with a mark, ``importing``, which every other operation on keys leaves alone. The
collection ``imports`` has one document for each import that is not over, and says what becomes
of what is marked: once its ``outcome`` is set, which happens in one step and only once, anybody
may take the marks off, or remove what has them. So an import is whole wherever it ends, and
what a process has left when it died is put in order by the next import.

A key that comes into a group is imported too, also a single one: it is written down, with the mark, before its
group is looked at, and in force after that (see ``organisation.py``).
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
        timeout: Seconds for all of it; and again, if it fails, for putting things in order.

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
            # It may have been decided, and only the answer was lost.
            outcome = outcome or _decide(database, mine, _DROPPED)
            _carry_out(database, mine, outcome)
        if outcome == _DROPPED:
            raise
        inserted = True
    if inserted and outcome == _DROPPED:
        raise StoreUnavailable("The import stood still for too long, and was given up. Start it again.")
    return inserted


def names_that_exist(keys: Collection[Document], names: Sequence[str]) -> set[str]:
    """Those of *names* that a key has as its identifier or a digest; of keys of unfinished imports, too."""
    there: set[str] = set()
    for first in range(0, len(names), _NAMES_AT_ONCE):
        asked = {"$in": names[first : first + _NAMES_AT_ONCE]}
        # One by one, and not with $or; "digest" because an older program's documents have no "digests".
        for field in ("_id", "digest", "digests"):
            for document in keys.find({field: asked}, {"digest": 1, "digests": 1}):
                there.update(document.get("digests", ()), (document["_id"], document["digest"]))
    return there & {*names}


def _insert(keys: Collection[Document], documents: Sequence[Document], mine: str) -> bool:
    # In the order of digests: of two imports that share several, the one that has the first
    # of these gets all of them. Otherwise each might stop at one that the other has.
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
    """Set what becomes of an import, unless that is set already; return it."""
    imports = database["imports"]
    decided = imports.find_one_and_update(
        {"_id": name, "outcome": None}, {"$set": {"outcome": outcome}}, return_document=ReturnDocument.AFTER
    )
    if decided is None:
        # Others have decided; and if they are through with it, it was abandoned.
        decided = imports.find_one({"_id": name}) or {"outcome": _DROPPED}
    return str(decided["outcome"])


def _carry_out(database: Database[Document], name: str, outcome: str) -> None:
    if outcome == _KEPT:
        database["keys"].update_many({"importing": name}, {"$unset": {"importing": ""}})
    else:
        database["keys"].delete_many({"importing": name})
    database["imports"].delete_one({"_id": name})


def end_abandoned_imports(database: Database[Document], now: datetime) -> None:
    """End what dead processes have left: at once if it is decided, after an hour if it is not."""
    for document in database["imports"].find():
        outcome = document["outcome"]
        if outcome is None and document["begun_at"] < now - _ABANDONED_AFTER:
            outcome = _decide(database, document["_id"], _DROPPED)
        if outcome is not None:
            _carry_out(database, document["_id"], outcome)
