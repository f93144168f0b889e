"""Adds many keys atomically, on a server without transactions.

Each key is first stored with the mark ``importing``. All other operations ignore marked keys. The collection
``imports`` has one document for each import that has not ended. Its ``outcome`` is set once, atomically, and decides
what happens to the marked keys: from then on, any process may remove the marks, or delete the keys. So an import is
either complete or has no effect, wherever it stops. The next import cleans up the imports of dead processes.

An import of a class list also changes keys that exist. What is to be set is first stored in each of them as
``pending``, which nobody else looks at, and set when the outcome says so. Such an import takes its turn: there is one
at a time, so that two of the same list do not both find that nobody is there. The collection ``turns`` says whose turn
it is. A key that a person makes takes a turn of that person, so that nobody gets one more than is allowed.

A single key that is added to a group is imported, too: it is stored with the mark, its group is checked, and then the
mark is removed (see ``organisation.py``).
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pymongo
from pymongo import ReturnDocument, UpdateOne
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DuplicateKeyError, PyMongoError

from llmgateway.errors import NoSuchGroup, StoreUnavailable

from .database import Document

UNMARKED: Document = {"importing": None}
"""Selects the keys without a mark. In MongoDB a missing field is equal to null."""

_KEPT, _DROPPED = "kept", "dropped"
_ABANDONED_AFTER = timedelta(hours=1)
_TURN_ABANDONED_AFTER = timedelta(minutes=2)
"""More than an import may take with its cleaning up. One that is still alive then notices, and stores nothing."""
_ASK_AGAIN_SECONDS = 0.05
_DUPLICATE_KEY = 11000  # https://www.mongodb.com/docs/manual/reference/error-codes/
NAMES_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What an import does that no other one may do at the same time."""

    is_free: Callable[[], bool]
    """Returns whether the new keys may be stored."""
    changes: Mapping[str, Document]
    """The fields to set of keys that exist, by identifier."""
    name: str = "import"
    """Turns of different names do not wait for each other."""


def import_keys(
    database: Database[Document],
    documents: Sequence[Document],
    *,
    check_groups: Callable[[], None],
    now: datetime,
    timeout: float,
    turn: Turn | None = None,
) -> bool:
    """Insert all of *documents*, or none; False if one of them exists, or *turn* says that they may not be stored.

    Args:
        check_groups: As :meth:`MongoOrganisation.check_groups`, for the groups of *documents*.
        timeout: Seconds for the whole import; and again for cleaning up if it fails.

    Raises:
        NoSuchGroup: raised by *check_groups*.
        StoreUnavailable: the import took so long that another process has cancelled it, or it was not its *turn* in
            time.
    """
    mine = secrets.token_hex(8)
    with pymongo.timeout(timeout):
        end_abandoned_imports(database, now)
        database["imports"].insert_one({"_id": mine, "begun_at": now, "outcome": None, "changes": turn is not None})
    outcome = None
    try:
        with pymongo.timeout(timeout):
            if turn is not None:
                _take_turn(database, turn.name, mine, now, timeout=timeout / 2)
            inserted = (turn is None or turn.is_free()) and _insert(database["keys"], documents, mine)
            if inserted:
                if turn is not None:
                    _announce(database["keys"], turn.changes, mine)
                check_groups()
            outcome = _decide(database, mine, _KEPT if inserted else _DROPPED)
            _carry_out(database, mine, outcome, changes=turn is not None)
    except (PyMongoError, StoreUnavailable, NoSuchGroup):
        with pymongo.timeout(timeout):
            # If only an answer was lost, the outcome may be set already.
            outcome = outcome or _decide(database, mine, _DROPPED)
            _carry_out(database, mine, outcome, changes=turn is not None)
        if outcome == _DROPPED:
            raise
        inserted = True
    if inserted and outcome == _DROPPED:
        raise StoreUnavailable("The import took too long, and another process has cancelled it. Start it again.")
    return inserted


def names_that_exist(keys: Collection[Document], names: Sequence[str]) -> set[str]:
    """Return the *names* that are an identifier or a digest of a key, including marked keys."""
    there: set[str] = set()
    for first in range(0, len(names), NAMES_AT_ONCE):
        asked = {"$in": names[first : first + NAMES_AT_ONCE]}
        # One query for each field, without $or. "digest", because documents of older versions have no "digests".
        for field in ("_id", "digest", "digests"):
            for document in keys.find({field: asked}, {"digest": 1, "digests": 1}):
                there.update(document.get("digests", ()), (document["_id"], document["digest"]))
    return there & {*names}


def turn_of(user: str) -> str:
    """Return the name of the turn for keys that a person makes. It does not say who that is."""
    return hashlib.sha256(user.encode()).hexdigest()


def _take_turn(database: Database[Document], name: str, mine: str, now: datetime, *, timeout: float) -> None:
    """Wait until no other import has its turn of this *name*.

    A turn ends with its import, also if it is not given back: if the document of the import is gone, the turn is free.
    An import that has stopped is ended first, whatever it has done.
    """
    turns, imports = database["turns"], database["imports"]
    deadline = time.monotonic() + timeout
    while True:
        found = turns.find_one({"_id": name})
        if found is None:
            try:
                turns.insert_one({"_id": name, "by": mine, "since": now})
            except DuplicateKeyError:
                continue
            return
        if imports.find_one({"_id": found["by"]}) is None:
            took = turns.update_one(
                {"_id": name, "by": found["by"]}, {"$set": {"by": mine, "since": now}}
            ).modified_count
            if took:
                return
            continue
        if found["since"] < now - _TURN_ABANDONED_AFTER:
            _carry_out(database, found["by"], _decide(database, found["by"], _DROPPED), changes=True)
            continue
        if time.monotonic() > deadline:
            raise StoreUnavailable("Other keys are being made at the moment. Nothing was stored: try again.")
        time.sleep(_ASK_AGAIN_SECONDS)


def _announce(keys: Collection[Document], changes: Mapping[str, Document], mine: str) -> None:
    """Store in each key what will be set. As a list, because names of nested fields have a dot."""
    announced = [
        UpdateOne({"_id": key_id, **UNMARKED}, {"$set": {"pending": {"by": mine, "set": [*map(list, fields.items())]}}})
        for key_id, fields in changes.items()
    ]
    if announced:
        keys.bulk_write(announced, ordered=False)


def _insert(keys: Collection[Document], documents: Sequence[Document], mine: str) -> bool:
    # Sorted by digest: if two imports share several keys, the one that stores the first of these stores all of them.
    # In different orders, each import could stop at a key that the other one has stored.
    if not documents:
        return True
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


def _carry_out(database: Database[Document], name: str, outcome: str, *, changes: bool) -> None:
    """Do what the *outcome* of an import says. May be done several times, and by several processes.

    Args:
        changes: Whether the import may have announced changes of keys that exist.
    """
    keys = database["keys"]
    if outcome == _KEPT:
        if changes:
            _set_pending(keys, name)
        keys.update_many({"importing": name}, {"$unset": {"importing": ""}})
    else:
        if changes:
            keys.update_many({"pending.by": name}, {"$unset": {"pending": ""}})
        keys.delete_many({"importing": name})
    database["imports"].delete_one({"_id": name})
    if changes:
        database["turns"].delete_many({"by": name})  # there are turns for each person, which would stay


def _set_pending(keys: Collection[Document], name: str) -> None:
    announced = [
        UpdateOne(
            {"_id": document["_id"], "pending.by": name},
            {"$set": dict(document["pending"]["set"]), "$unset": {"pending": ""}},
        )
        for document in keys.find({"pending.by": name}, {"pending": 1})
    ]
    if announced:
        keys.bulk_write(announced, ordered=False)


def end_abandoned_imports(database: Database[Document], now: datetime) -> None:
    """Clean up imports of dead processes: at once if the outcome is set, after an hour if not."""
    for document in database["imports"].find():
        outcome = document["outcome"]
        if outcome is None and document["begun_at"] < now - _ABANDONED_AFTER:
            outcome = _decide(database, document["_id"], _DROPPED)
        if outcome is not None:
            # Imports of earlier versions of this program change no keys.
            _carry_out(database, document["_id"], outcome, changes=document.get("changes", False))
