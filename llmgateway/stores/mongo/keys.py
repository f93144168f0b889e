"""The keys in MongoDB's collection ``keys``. ``_id`` is the identifier of the key.

``digests`` contains the digest and the retiring digest, for a unique index over both. A key that changes its group is
first marked with ``joining``; ``organisation.py`` explains how this and the removal of the group notice each other. The
group is set only if the mark still exists. So another process may remove the mark of a dead process.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Collection as Several
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

import pymongo
from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from llmgateway.clock import Clock
from llmgateway.errors import Conflict, NoSuchGroup
from llmgateway.records import (
    ALL_KEYS,
    EXPIRES_SOON,
    SEARCHED,
    GroupSize,
    Imported,
    KeyChange,
    KeyQuery,
    KeyRecord,
    KeyState,
    Limits,
    Lookup,
    Prompt,
    Raise,
    User,
    moment,
)

from .database import Document, MongoDatabase, of_groups
from .imports import NAMES_AT_ONCE, UNMARKED, Turn, import_keys, names_that_exist, turn_of
from .organisation import ORGANISATION, MongoOrganisation, limits_fields, prompt_of

_FIELDS = tuple(field.name for field in fields(KeyRecord) if field.name != "id")
_CHANGEABLE = frozenset(_FIELDS) - {"digest", "retiring_digest"}
_NEVER = datetime(9999, 1, 1, tzinfo=UTC)
"""Sorts keys without an end after all others."""


class MongoKeys:
    """A :class:`~llmgateway.interfaces.KeyStore` in MongoDB.

    :meth:`find` takes two round trips, or three if the key is retiring or unknown, because it uses no transactions or
    joins. With Redis in front it takes one.

    Args:
        clock: Seconds since the epoch; decides when the marks of dead processes are removed.
    """

    def __init__(self, database: MongoDatabase, *, clock: Clock = time.time) -> None:
        self._database = database
        self._clock = clock
        self._organisation = MongoOrganisation(database, clock=clock)

    def find(self, digest: str) -> Lookup:
        with self._database.collections(promptly=True) as database:
            # First by "digest", which finds nearly all keys, also those of older versions of this program, which have
            # no "digests". The second query also finds a key that was rotated in between.
            keys = database["keys"]
            found = keys.find_one({"digest": digest}) or keys.find_one({"digests": digest})
            present = database["organisation"].find_one({"_id": ORGANISATION}, {"generation": 1})
        return Lookup(_key(found), (present or {}).get("generation", ""))

    def add(self, record: KeyRecord) -> bool:
        if record.group is not None:
            return not self._import([record], timeout=self._database.timeout)
        with self._database.collection("keys") as keys:
            try:
                keys.insert_one(_document(record))
            except DuplicateKeyError:
                return False
        return True

    def add_all(self, records: Sequence[KeyRecord]) -> set[str]:
        if twice := _twice(records):
            return twice
        if not records:
            return set()
        return self._import(records, timeout=self._database.report_timeout)

    def add_checked(self, record: KeyRecord, check: Callable[[Sequence[KeyRecord]], None]) -> bool:
        refusals: list[Exception] = []

        def is_free() -> bool:
            if refusals:
                return False
            try:
                check(self.of_users([record.user]))
            except Exception as refusal:  # noqa: BLE001 - raised again when the import has been cleaned up
                refusals.append(refusal)
            return not refusals

        turn = Turn(is_free=is_free, changes={}, name=turn_of(record.user))
        taken = self._import([record], timeout=self._database.timeout, turn=turn)
        if refusals:
            raise refusals[0]
        return not taken

    def import_all(self, records: Sequence[KeyRecord], changes: Sequence[KeyChange], *, alone: bool) -> Imported:
        new = {(record.user, record.group) for record in records}
        present: set[tuple[str, str | None]] = set()

        def is_free() -> bool:
            there = self.of_users({user for user, _ in new}) if alone else []
            present.update({(record.user, record.group) for record in there} & new)
            return not present

        changes_by_id = {each.before.id: _assignments(each.fields, each.limits) for each in changes}
        taken = self._import(
            records, timeout=self._database.report_timeout, turn=Turn(is_free=is_free, changes=changes_by_id)
        )
        if taken or present:
            return Imported(taken, present)
        with self._database.collection("keys", seconds=self._database.report_timeout) as keys:
            found = [*map(_key, keys.find({"_id": {"$in": [*changes_by_id]}}))]
        return Imported(changed=[record for record in found if record is not None])

    def of_users(self, users: Several[str]) -> list[KeyRecord]:
        with self._database.collection("keys", seconds=self._database.report_timeout) as keys:
            found: list[Document] = []
            names = [*users]
            # Not all names at once: some servers take the square of their number.
            for first in range(0, len(names), NAMES_AT_ONCE):
                some = names[first : first + NAMES_AT_ONCE]
                found.extend(keys.find({"user": {"$in": some}, **UNMARKED}))
            return [record for record in map(_key, sorted(found, key=itemgetter("_id"))) if record is not None]

    def _import(self, records: Sequence[KeyRecord], *, timeout: float, turn: Turn | None = None) -> set[str]:
        documents = [_document(record) for record in records]
        groups = sorted({record.group for record in records if record.group is not None})
        self._database.ping()  # with the longer deadline, the driver would wait that long for an unavailable server
        while True:
            with self._database.collections() as database:
                if import_keys(
                    database,
                    documents,
                    check_groups=lambda: self._organisation.check_groups(groups),
                    now=moment(self._clock()),
                    timeout=timeout,
                    turn=turn,
                ):
                    return set()
                if turn is not None and not turn.is_free():
                    return set()
                with pymongo.timeout(timeout):
                    taken = _taken(database["keys"], records)
            if taken:
                return taken
            # The conflicting key no longer exists. For example, it belonged to another import that failed.

    def get(self, key_id: str) -> KeyRecord | None:
        with self._database.collection("keys") as keys:
            return _key(keys.find_one({"_id": key_id}))

    def get_all(self, key_ids: Sequence[str]) -> Sequence[KeyRecord]:
        return self._find_all({"_id": {"$in": [*key_ids]}})

    def list(self, query: KeyQuery = ALL_KEYS) -> list[KeyRecord]:
        return [key for key in map(_key, self._selected(query)) if key is not None]

    def ids(self, query: KeyQuery = ALL_KEYS) -> Sequence[str]:
        return [document["_id"] for document in self._selected(query, {"_id": 1})]

    def _selected(self, query: KeyQuery, fields: Document | None = None) -> Sequence[Document]:
        limit = query.limit
        if limit == 0:  # which means "all" to MongoDB
            return []
        wanted = {"_id": {"$gt": query.after}, **_conditions(query), **UNMARKED}
        # All keys of a group take longer than a page, so they get the same timeout as revoking them.
        seconds = self._database.report_timeout if limit is None or query.order or query.text else None
        with self._database.collection("keys", seconds=seconds) as keys:
            if query.order is None:
                return [*keys.find(wanted, fields, sort=[("_id", 1)], skip=query.offset, limit=limit or 0)]
            return [*keys.aggregate(_sorted(query, wanted, fields), allowDiskUse=True)]

    def count(self, query: KeyQuery = ALL_KEYS) -> int:
        with self._database.collection("keys", seconds=self._database.report_timeout) as keys:
            return keys.count_documents(_conditions(query) | UNMARKED)

    def users(self, *, text: str | None = None) -> Sequence[User]:
        pipeline: list[Document] = [
            {"$match": UNMARKED},
            {"$group": {"_id": "$user", "keys": {"$sum": 1}, "emails": {"$addToSet": "$email"}}},
            {"$sort": {"_id": 1}},
        ]
        if text is not None:
            pipeline.append({"$match": _occurs(("_id", "emails"), text)})
        with self._database.collection("keys", seconds=self._database.report_timeout) as keys:
            return [User(found["_id"], found["keys"]) for found in keys.aggregate(pipeline)]

    def group_sizes(self) -> dict[str, GroupSize]:
        pipeline: Sequence[Document] = [
            {"$match": {"group": {"$ne": None}} | UNMARKED},
            {"$group": {"_id": {"group": "$group", "user": "$user"}, "keys": {"$sum": 1}}},
            {"$group": {"_id": "$_id.group", "keys": {"$sum": "$keys"}, "users": {"$sum": 1}}},
        ]
        with self._database.collection("keys", seconds=self._database.report_timeout) as keys:
            return {found["_id"]: GroupSize(found["keys"], found["users"]) for found in keys.aggregate(pipeline)}

    def update(
        self,
        key_id: str,
        changes: Mapping[str, object],
        *,
        limits: Mapping[str, object] | None = None,
        check: Callable[[KeyRecord], None] | None = None,
    ) -> KeyRecord | None:
        if unknown := changes.keys() - _CHANGEABLE:
            raise ValueError(f"not fields of a key that can be changed: {sorted(unknown)}")
        update = {"$set": _assignments(changes, limits or {})}
        group = changes.get("group")
        if group is None and check is None and update["$set"]:
            return self._update(key_id, {}, update)
        while (document := self._document_of(key_id)) is not None:
            if_ = _checked(document, check)
            if not update["$set"]:
                return _key(document)
            if group is None or document.get("group") == group:
                updated = self._update(key_id, if_ or {"group": document.get("group")}, update)
            else:
                updated = self._join(key_id, str(group), update, if_)
            if updated is not None:
                return updated
            # Another process has changed the key in between, or has removed it.
        return None

    def _document_of(self, key_id: str) -> Document | None:
        with self._database.collection("keys") as keys:
            return keys.find_one({"_id": key_id} | UNMARKED)

    def _update(self, key_id: str, if_: Document, update: Document) -> KeyRecord | None:
        with self._database.collection("keys") as keys:
            return _key(
                keys.find_one_and_update({"_id": key_id} | if_ | UNMARKED, update, return_document=ReturnDocument.AFTER)
            )

    def _join(self, key_id: str, group: str, update: Document, if_: Document) -> KeyRecord | None:
        """Change a key that is as *if_* says, and put it into *group*; None if another process came first."""
        mark = {"by": secrets.token_hex(8), "group": group, "since": moment(self._clock())}
        marked, unmark = {"joining.by": mark["by"]}, {"$unset": {"joining": ""}}
        self._update(key_id, {}, {"$set": {"joining": mark}})
        try:
            self._organisation.check_groups([group])
        except NoSuchGroup:
            self._update(key_id, marked, unmark)
            raise
        return self._update(key_id, marked | if_, update | unmark)

    def rotate(
        self,
        key_id: str,
        digest: str,
        *,
        retires_at: datetime | None,
        check: Callable[[KeyRecord], None] | None = None,
    ) -> KeyRecord | None:
        while (document := self._document_of(key_id)) is not None and (before := _key(document)) is not None:
            if_ = _checked(document, check)
            if digest == before.digest:
                raise _taken_already()
            retiring = None if retires_at is None else before.digest
            changes = {
                "digest": digest,
                "digests": replace(before, digest=digest, retiring_digest=retiring).digests,
                "retiring_digest": retiring,
                "retires_at": retires_at,
            }
            with self._database.collection("keys") as keys:
                try:
                    rotated = keys.find_one_and_update(
                        {"_id": key_id, "digest": before.digest} | if_,
                        {"$set": changes},
                        return_document=ReturnDocument.AFTER,
                    )
                except DuplicateKeyError:
                    raise _taken_already() from None
            if rotated is not None:
                return _key(rotated)
            # Another process has rotated or removed the key in between.
        return None

    def revoke_group(self, group: str) -> Sequence[KeyRecord]:
        mine = secrets.token_hex(8)
        with self._database.collection("keys", seconds=self._database.report_timeout) as keys:
            # The mark identifies exactly the keys that this call has revoked.
            keys.update_many({"group": group, "active": True} | UNMARKED, {"$set": {"active": False, "revoked": mine}})
            revoked = keys.find({"group": group, "revoked": mine})
            return [record for record in map(_key, revoked) if record is not None]

    def remove(self, key_id: str, *, check: Callable[[KeyRecord], None] | None = None) -> KeyRecord | None:
        while (document := self._document_of(key_id)) is not None:
            if_ = _checked(document, check)
            with self._database.collection("keys") as keys:
                removed = keys.find_one_and_delete({"_id": key_id} | if_ | UNMARKED)
            if removed is not None:
                return _key(removed)
            # Another process has changed the key in between, or has removed it.
        return None

    def update_all(
        self, key_ids: Sequence[str], changes: Mapping[str, object], *, where: KeyQuery = ALL_KEYS
    ) -> Sequence[KeyRecord]:
        if unknown := changes.keys() - _CHANGEABLE:
            raise ValueError(f"not fields of a key that can be changed: {sorted(unknown)}")
        mine = secrets.token_hex(8)
        # The mark identifies exactly the keys that this call has changed.
        update: Document = {"$set": {name: _stored(value) for name, value in changes.items()} | {"changed": mine}}
        group = changes.get("group")
        wanted: Document = {"_id": {"$in": [*key_ids]}, "changed": {"$ne": mine}} | _conditions(where)
        while True:
            if group is None:
                self._update_many(wanted, update)
                break
            self._join_all(wanted, str(group), update)
            if not self._find_all(wanted, limit=1):
                break
            # Another process has changed the groups of some keys in between.
        return self._find_all({"_id": {"$in": [*key_ids]}, "changed": mine})

    def _join_all(self, if_: Document, group: str, update: Document) -> None:
        """Do the same as :meth:`_join` for many keys."""
        mark = {"by": secrets.token_hex(8), "group": group, "since": moment(self._clock())}
        marked, unmark = {"joining.by": mark["by"]}, {"$unset": {"joining": ""}}
        self._update_many(if_, {"$set": {"joining": mark}})
        try:
            self._organisation.check_groups([group])
        except NoSuchGroup:
            self._update_many(marked, unmark)
            raise
        self._update_many(if_ | marked, update | unmark)
        self._update_many(marked, unmark)  # of those that do not match any more

    def _update_many(self, if_: Document, update: Document) -> None:
        with self._database.collection("keys", seconds=self._database.report_timeout) as keys:
            keys.update_many(if_ | UNMARKED, update)

    def _find_all(self, if_: Document, *, limit: int = 0) -> Sequence[KeyRecord]:
        with self._database.collection("keys", seconds=self._database.report_timeout) as keys:
            found = keys.find(if_ | UNMARKED, sort=[("_id", 1)], limit=limit)
            return [record for record in map(_key, found) if record is not None]

    def remove_all(self, key_ids: Sequence[str], *, where: KeyQuery = ALL_KEYS) -> Sequence[KeyRecord]:
        some: Document = {"_id": {"$in": [*key_ids]}} | _conditions(where)
        found = self._find_all(some)
        with self._database.collection("keys", seconds=self._database.report_timeout) as keys:
            keys.delete_many(some | {"_id": {"$in": [record.id for record in found]}} | UNMARKED)
        left = {record.id for record in self.get_all([record.id for record in found])}  # which match no more
        return [record for record in found if record.id not in left]


def _conditions(query: KeyQuery) -> Document:
    """Return the conditions of *query*, without those of pages."""
    filters = {"user": query.user, "active": query.active}
    wanted: Document = {name: value for name, value in filters.items() if value is not None}
    if query.state is not None:
        wanted["$and"] = [_in_state(query.state, query.now)]
    if query.text is not None:
        wanted |= _occurs(("_id", *SEARCHED), query.text)
    return wanted | of_groups(query.group, query.groups)


def _in_state(state: KeyState, now: datetime | None) -> Document:
    if now is None:
        raise ValueError("a query for a state needs the time")
    # A missing date does not match $lte or $gt, so $not selects it.
    begun, open_ended = {"$not": {"$gt": now}}, {"$not": {"$lte": now}}
    conditions: dict[KeyState, Document] = {
        KeyState.BLOCKED: {"active": False},
        KeyState.EXPIRED: {"active": True, "expires_at": {"$lte": now}},
        KeyState.NOT_YET_VALID: {"active": True, "starts_at": {"$gt": now}, "expires_at": open_ended},
        KeyState.EXPIRING: {
            "active": True,
            "starts_at": begun,
            "expires_at": {"$gt": now, "$lte": now + EXPIRES_SOON},
        },
        KeyState.ACTIVE: {"active": True, "starts_at": begun, "expires_at": open_ended},
    }
    return conditions[state]


def _occurs(names: Sequence[str], text: str) -> Document:
    """Return the condition that *text* occurs in one of these fields, in any case."""
    return {"$or": [{name: {"$regex": re.escape(text), "$options": "i"}} for name in names]}


def _sorted(query: KeyQuery, wanted: Document, fields: Document | None) -> list[Document]:
    """Return the pipeline of a page of keys in the order of *query*."""
    field = f"${query.order}"
    by: Document = {"$toLower": {"$ifNull": [field, ""]}}
    if query.order == "expires_at":
        by = {"$ifNull": [field, _NEVER]}
    elif query.order == "created_at":
        by = {"$ifNull": [field, None]}
    direction = -1 if query.descending else 1
    pipeline: list[Document] = [
        {"$match": wanted},
        {"$addFields": {"sorted_by": by}},
        {"$sort": {"sorted_by": direction, "_id": direction}},
        {"$skip": query.offset},
    ]
    if query.limit is not None:
        pipeline.append({"$limit": query.limit})
    return pipeline if fields is None else [*pipeline, {"$project": fields}]


def _checked(document: Document, check: Callable[[KeyRecord], None] | None) -> Document:
    """Check the key in *document*, and return the condition that nobody has changed it since."""
    record = _key(document)
    if check is None or record is None:
        return {}
    check(record)
    # In MongoDB a missing field is equal to null.
    return {name: document.get(name) for name in _FIELDS}


def _twice(records: Sequence[KeyRecord]) -> set[str]:
    """Return the digests of the records that have an identifier or a digest of an earlier record."""
    twice: set[str] = set()
    seen: set[str] = set()
    for record in records:
        names = {record.id, *record.digests}
        if names & seen:
            twice.add(record.digest)
        seen |= names
    return twice


def _taken(keys: Collection[Document], records: Sequence[KeyRecord]) -> set[str]:
    names = [name for record in records for name in (record.id, *record.digests)]
    there = names_that_exist(keys, names)
    return {record.digest for record in records if there & {record.id, *record.digests}}


def _document(record: KeyRecord) -> Document:
    values = {name: _stored(getattr(record, name)) for name in _FIELDS}
    return {"_id": record.id, "digests": record.digests} | values


def _assignments(changes: Mapping[str, object], limits: Mapping[str, object]) -> Document:
    return {name: _stored(value) for name, value in changes.items()} | limits_fields(limits)


def _stored(value: object) -> object:
    if isinstance(value, Raise):
        return value.as_json()
    return asdict(value) if isinstance(value, (Limits, Prompt)) else value


def _key(document: Mapping[str, Any] | None) -> KeyRecord | None:
    if document is None or document.get("importing") is not None:
        return None
    # Documents of older versions of this program lack newer fields, which get their defaults.
    known = {name: document[name] for name in _FIELDS if name in document}
    known["limits"] = Limits.from_json(known.get("limits"))
    if known.get("models") is not None:
        known["models"] = tuple(known["models"])
    if known.get("prompt") is not None:
        known["prompt"] = prompt_of(known["prompt"])
    known["raised"] = Raise.from_json(known.get("raised"))
    return KeyRecord(id=document["_id"], **known)


def _taken_already() -> Conflict:
    return Conflict("This key exists already. Send another one, or none to have one made up.", param="key")
