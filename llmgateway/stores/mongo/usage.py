"""The usage records and their daily sums in MongoDB. Each record is counted exactly once, without transactions.

Collections:

``logs``
    Usage records. ``_id`` is the identifier of the request; ``batch`` is the batch that contained the record.
``usage_daily``
    Sums, with one document for each day, key, model and deployment. ``day`` is in UTC; what is on another day in the
    organisation's time zone has a document of its own, with that ``local_day``. ``counted`` has the highest batch of
    each source that is included in the sums. It changes in the same atomic update as the sums.
``usage_days``
    Coarser sums, without users and keys: one document for each day, group, model and deployment, and one for each day,
    model and deployment of everybody (``whole``). They also say how the requests are spread (``spread``, see
    :mod:`llmgateway.stores.day_sums`). ``day``, ``local_day`` and ``counted`` are as in ``usage_daily``.
``usage_sources``
    For each source: the batch that it is ``sending``, and the ``number`` of the last accepted batch.
``usage_state``
    One document: which process rebuilds the sums, and until when; whether the sums are complete, and in which
    ``version``; what was purged.

A batch takes four steps: it is announced; its records are stored; they are added to the sums; the batch is
acknowledged. The source repeats all four steps until the last one succeeds. Each repetition has the same result,
wherever the attempt before it failed: an existing record is counted if the same batch has stored it, and a sum that
includes the batch is not changed.

A rebuild first forbids shipping. Then it finds the batches that are announced and not acknowledged. It does not count
their records, and makes their acknowledgement fail, so that their sources repeat them after the rebuild. A source
checks for a rebuild after it has announced a batch. So at least one of the two notices the other.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Any

from pymongo import ReplaceOne, ReturnDocument
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from llmgateway.erased import without_erased
from llmgateway.errors import StoreUnavailable
from llmgateway.local_time import TimeZones
from llmgateway.records import (
    ALL_USAGE,
    LONGEST_RECORDED_MODEL,
    UNKNOWN_MODEL,
    Attempt,
    Batch,
    DaySpread,
    Erasure,
    FilterCount,
    Kept,
    Outcome,
    Rebuilding,
    RecordQuery,
    ReportQuery,
    UsageRecord,
    UsageRow,
    UsageSource,
    moment,
)

from ..day_sums import Timed, answers, day_sums, is_about_everybody, spreads
from ..sums import SUMS, Cell, Zones, daily_sums
from .counting import count_once, is_there_already, replace_day
from .database import Document, MongoDatabase, of_groups
from .day_sums import add_days, add_missing_days, day_documents, day_spreads
from .erasures import erasures_of, erasures_since
from .sum_names import SumNames

log = logging.getLogger(__name__)

_FIELDS = tuple(field.name for field in fields(UsageRecord) if field.name != "id")
_FAILED_OVER = "failed_over"
"""Marks records whose attempts have sums of their own, so that a rebuild finds them."""
_STATE = "usage"
_VERSION = 4
"""Version of the sums. Those of version 1 do not count the requests without a known price, nor the tokens that are
estimated or bound. Those of version 2 have names from which that of a person can be found. Version 3 has no coarser
sums."""
_RENAMED_AT_ONCE = 500
_ERASING = timedelta(hours=1)
"""An erasure may run while a rebuild begins that has read the names before."""
_PROMPT_SECONDS = 5.0  # a million sums are added up in two
_BATCH_SECONDS = 10.0  # 500 records at once take longer than a look-up, and nobody waits for them
_SCATTERED = 25
"""How much longer it may take to read a record that the index of a field gives than one of a period."""
_INDEXED = ("key_id", "user", "error_code", "outcome", "usage_source", "status", "model")
_NOT_INDEXED = ("deployment", "endpoint", "stream", "region")
_LOCAL_DAY = {"$ifNull": ["$local_day", "$day"]}
_GROUPINGS: dict[str, object] = {
    "user": "$user",
    "key": "$key_id",
    "group": {"$ifNull": ["$group", None]},
    "model": "$model",
    # Sums of older versions have no deployment.
    "deployment": {"$ifNull": ["$deployment", None]},
}
_NAMES = {"key": "key_id"}  # of the fields of groupings, if they have other names
_SUMMED: dict[str, object] = {name: {"$sum": f"${name}"} for name in SUMS}
_COUNTED: dict[str, object] = {
    **_SUMMED,
    "requests": {"$sum": 1},
    "unpriced_requests": {
        "$sum": {
            "$cond": [
                {"$and": [{"$eq": [{"$ifNull": ["$cost_usd", None]}, None]}, {"$gt": ["$total_tokens", 0]}]},
                1,
                0,
            ]
        }
    },
    "errors": {"$sum": {"$cond": [{"$eq": ["$outcome", "ok"]}, 0, 1]}},
    "estimated_tokens": {"$sum": {"$cond": [{"$eq": ["$usage_source", "estimated"]}, "$total_tokens", 0]}},
    "bound_tokens": {"$sum": {"$cond": [{"$eq": ["$usage_source", "bound"]}, "$total_tokens", 0]}},
}


# Records of older versions do not have the field.
_COUNTED_MODEL = {"$cond": [{"$eq": ["$model_known", False]}, UNKNOWN_MODEL, "$model"]}
_IS_CLIENTS = {"$eq": [{"$substrCP": ["$deployment", 0, LONGEST_RECORDED_MODEL]}, "$model"]}
_COUNTED_DEPLOYMENT = {
    "$cond": [{"$and": [{"$eq": ["$model_known", False]}, _IS_CLIENTS]}, UNKNOWN_MODEL, "$deployment"]
}
_SERIES = {
    "key_id": "$key_id",
    "user": "$user",
    "group": "$group",
    "model": _COUNTED_MODEL,
    "deployment": _COUNTED_DEPLOYMENT,
}

_TIMED = {
    **dict.fromkeys(("timestamp", "group", "ttft_ms", "duration_ms", "outcome", "cost_usd"), 1),
    "model": _COUNTED_MODEL,
    "deployment": _COUNTED_DEPLOYMENT,
}


def _groupings(*, in_utc: bool) -> dict[str, object]:
    day = "$day" if in_utc else _LOCAL_DAY
    # %G and %V are the year and the week of ISO 8601.
    week = {"$dateToString": {"format": "%G-W%V", "date": {"$dateFromString": {"dateString": day}}}}
    return {"day": day, "week": week, "month": {"$substrBytes": [day, 0, 7]}, **_GROUPINGS}


class MongoUsageLog:
    """A :class:`~llmgateway.interfaces.UsageLog` in MongoDB.

    If there are records but no sums, or sums of an older version, the first process that appends records computes the
    sums.

    Args:
        clock: Seconds since the epoch; decides when a rebuild by a dead process no longer blocks shipping.
        secret: The operator's, for the names of the sums.
    """

    def __init__(
        self,
        database: MongoDatabase,
        *,
        clock: Callable[[], float] = time.time,
        zones: Zones = TimeZones,
        secret: str = "",
    ) -> None:
        self._database = database
        self._names = SumNames(secret)
        self._zones = zones
        self._clock = clock
        self._is_complete = False
        self._has_days = False
        # Longer than a rebuild may take for one day.
        self._lease = timedelta(seconds=2 * database.report_timeout)

    def append(self, records: Sequence[UsageRecord], *, batch: Batch) -> None:
        if not records:
            return
        self._database.ping()  # fails sooner if the server has just gone
        self._complete()
        with self._database.collections(seconds=_BATCH_SECONDS) as database:
            source = _announce(database, batch)
            if source.get("number", -1) >= batch.number:
                return
            self._refuse_while_rebuilt(database)
            key_ids = {record.key_id for record in records}
            erasures = erasures_of(database, key_ids)
            counted = _store(database, without_erased(records, erasures), batch)
            zones = self._zones()
            sums = daily_sums(_with_names(counted, records), zones)
            _add(database, sums, batch, erasures, self._names)
            add_days(database, day_sums(sums), spreads(map(Timed.of, counted), zones), batch)
            # An erasure that has begun in between may have missed some of it, and so may one before a repetition.
            for erasure in erasures_of(database, key_ids):
                _erase(database, erasure, key_ids & {*erasure.key_ids})
            _acknowledge(database, batch, fence=source.get("fence"))

    def report(self, query: ReportQuery = ALL_USAGE) -> list[UsageRow]:
        by, groupings = query.by, _groupings(in_utc=query.in_utc)
        seconds = _PROMPT_SECONDS if query.promptly else self._database.report_timeout
        with self._database.collections(seconds=seconds) as database:
            from_days = answers(query) and self._finds_days(database)
            pipeline: list[Document] = [
                {"$match": _wanted(query) | ({"whole": is_about_everybody(query)} if from_days else {})},
                {"$group": {"_id": {name: groupings[name] for name in by} or None, **_SUMMED}},
            ]
            if by:
                order = {"cost_usd": -1} if query.top is not None else {}
                pipeline.append({"$sort": order | {f"_id.{name}": 1 for name in by}})
            if query.top is not None:
                pipeline.append({"$limit": query.top})
            sums = database["usage_days" if from_days else "usage_daily"]
            rows = [_row(document) for document in sums.aggregate(pipeline, allowDiskUse=True)]
        return rows if rows or by else [UsageRow(by={})]

    def spreads(self, query: ReportQuery = ALL_USAGE) -> list[DaySpread]:
        wanted = _wanted(query) | {"whole": is_about_everybody(query)}
        with self._database.collection("usage_days", seconds=self._database.report_timeout) as days:
            return day_spreads(days.find(wanted, {"day": 1, "local_day": 1, "requests": 1, "spread": 1}))

    def _finds_days(self, database: Database[Document]) -> bool:
        """Whether the coarser sums are complete: not yet between an upgrade and the first records that are appended."""
        if not self._has_days:
            state = database["usage_state"].find_one({"_id": _STATE}) or {}
            self._has_days = bool(state.get("complete")) and state.get("version", 1) >= _VERSION
        return self._has_days

    def records(self, query: RecordQuery) -> list[UsageRecord]:
        with self._database.collection("logs", seconds=self._database.report_timeout) as logs:
            if query.after:
                last = logs.find_one({"_id": query.after} | of_groups(None, query.groups), {"timestamp": 1})
                if last is None:
                    return []
                query = replace(query, after="", before=(last["timestamp"], query.after))
            wanted = _indexed(query) | _not_indexed(query)
            found = logs.find(wanted, sort=[("timestamp", -1), ("_id", -1)], limit=query.limit)
            return [_record(document) for document in found]

    def horizon(self, query: RecordQuery, *, most: int) -> datetime | None:
        if not _not_indexed(query):
            return None
        wanted = _indexed(query)
        if wanted.keys() - {"timestamp", "$and"}:
            most //= _SCATTERED
        with self._database.collection("logs", seconds=self._database.report_timeout) as logs:
            found = logs.find(wanted, {"timestamp": 1}, sort=[("timestamp", -1)], limit=1).skip(most)
            return next((document["timestamp"] for document in found), None)

    def find(self, request_id: str) -> UsageRecord | None:
        with self._database.collections() as database:
            logs = database["logs"]
            # One after the other, so that each uses its own index.
            names = ("_id", "upstream_request_id", "attempts.upstream_request_id")
            found = (logs.find_one({name: request_id}) for name in names)
            document = next((each for each in found if each is not None), None)
        return None if document is None else _record(document)

    def find_stored(self, stored_id: str) -> UsageRecord | None:
        with self._database.collections(promptly=True) as database:
            logs = database["logs"]
            # Without sorting: the server might choose the index for the order, and read all records.
            document = logs.find_one({"response_id": stored_id}) or logs.find_one({"stored_ids": stored_id})
        return None if document is None else _record(document)

    def last_used(self, key_ids: Sequence[str]) -> dict[str, datetime]:
        # In this order, and with $first, the server reads one entry of the index for each key (DISTINCT_SCAN):
        # https://www.mongodb.com/docs/manual/reference/operator/aggregation/group/
        latest: list[Document] = [
            {"$match": {"key_id": {"$in": [*key_ids]}}},
            {"$sort": {"key_id": -1, "timestamp": -1, "_id": -1}},
            {"$group": {"_id": "$key_id", "at": {"$first": "$timestamp"}}},
        ]
        with self._database.collections(seconds=self._database.report_timeout) as database:
            found = {each["_id"]: each["at"] for each in database["logs"].aggregate(latest)}
            purged = [key_id for key_id in key_ids if key_id not in found]
            if purged:
                counted = {"key_id": {"$in": purged}, "requests": {"$exists": True}}
                days = {"_id": "$key_id", "day": {"$max": "$day"}}
                last = database["usage_daily"].aggregate([{"$match": counted}, {"$group": days}])
                next_day = timedelta(days=1)
                found |= {each["_id"]: _midnight(date.fromisoformat(each["day"]) + next_day) for each in last}
        return found

    def filter_counts(self, query: ReportQuery = ALL_USAGE) -> list[FilterCount]:
        equal = {"key_id": query.key_id, "user": query.user}
        wanted: Document = _given(equal) | of_groups(query.group, query.groups)
        zones = TimeZones() if query.in_utc else self._zones()
        end = None if query.last_day is None else zones.start(query.last_day + timedelta(days=1))
        start = None if query.first_day is None else zones.start(query.first_day)
        if period := _given({"$gte": start, "$lt": end}):
            wanted["timestamp"] = period
        # Older records have no severities.
        wanted["$or"] = [{"filter_severities.0": {"$exists": True}}, {"content_filter.0": {"$exists": True}}]
        fields = {
            # No time zone changes in the middle of a minute.
            "minute": {"$dateToString": {"format": "%Y-%m-%dT%H:%M", "date": "$timestamp"}},
            **_SERIES,
            "fired": "$content_filter",
            "severities": "$filter_severities",
        }
        pipeline: list[Document] = [{"$match": wanted}, {"$group": {"_id": fields, "requests": {"$sum": 1}}}]
        with self._database.collection("logs", seconds=self._database.report_timeout) as logs:
            found = [*logs.aggregate(pipeline, allowDiskUse=True)]
        counts: Counter[FilterCount] = Counter()
        for document in found:
            minute = datetime.fromisoformat(document["_id"]["minute"]).replace(tzinfo=UTC)
            counts[_filter_count(document["_id"], zones.day(minute))] += document["requests"]
        return [count._replace(requests=requests) for count, requests in counts.items()]

    def purge(self, first_day: date, *, limit: int) -> int:
        with self._database.collections() as database:
            logs = database["logs"]
            old = {"timestamp": {"$lt": _midnight(first_day)}}
            ids = [document["_id"] for document in logs.find(old, {"_id": 1}, limit=limit)]
            if ids:
                self._complete()
                self._refuse_while_rebuilt(database)
                # Before the records are deleted, because a rebuild would miss them. The update also checks that there
                # is no rebuild.
                updated = database["usage_state"].update_one(
                    {"_id": _STATE, "rebuilding": None}, {"$max": {"kept_before": first_day.isoformat()}}
                )
                if not updated.matched_count:
                    raise _being_rebuilt()
                logs.delete_many({"_id": {"$in": ids}})
        return len(ids)

    def kept_of(self, user: str) -> Kept:
        with self._database.collections(seconds=self._database.report_timeout) as database:
            logs, daily = database["logs"], database["usage_daily"]
            key_ids = {*logs.distinct("key_id", {"user": user}), *daily.distinct("key_id", {"user": user})}
            names = {
                key_id: frozenset(name for each in (logs, daily) for name in each.distinct("user", {"key_id": key_id}))
                for key_id in key_ids
            }
            return Kept(names, logs.count_documents({"user": user}))

    def erase(self, erasure: Erasure) -> None:
        with self._database.collections() as database:
            # A rebuild reads names before it writes them: it looks for erasures at its end.
            _erase(database, erasure, erasure.key_ids)

    def rebuild(self) -> Iterator[Rebuilding]:
        mine, began = secrets.token_hex(8), self._now()
        with self._database.collections() as database:
            state = self._take_lease(database, mine)
        try:
            with self._database.collections() as database:
                unfinished = _fence(database, mine)
                kept_before = date.fromisoformat(state["kept_before"]) if "kept_before" in state else None
                days = [day for day in _days(database) if kept_before is None or day >= kept_before]
            yield Rebuilding(done=0, days=len(days), kept_before=kept_before)
            for done, day in enumerate(days, 1):
                with self._database.collections(seconds=self._database.report_timeout) as database:
                    self._prolong_lease(database, mine)
                    _rebuild(database, day, unfinished, self._zones(), self._names)
                yield Rebuilding(done=done, days=len(days), kept_before=kept_before)
            with self._database.collections(seconds=self._database.report_timeout) as database:
                if kept_before is not None:
                    self._prolong_lease(database, mine)
                    _rename_sums(database, kept_before, self._names)
                    self._prolong_lease(database, mine)
                    add_missing_days(database, kept_before)
            with self._database.collections() as database:
                for erasure in erasures_since(database, began - _ERASING):
                    _erase(database, erasure, erasure.key_ids)
                database["usage_state"].update_one(
                    {"_id": _STATE, "rebuilding.by": mine}, {"$set": {"complete": True, "version": _VERSION}}
                )
        finally:
            with self._database.collections() as database:
                _give_lease_back(database, mine)

    def _complete(self) -> None:
        """Make sure that the sums include records that were stored before there were sums of this version."""
        if self._is_complete:
            return
        with self._database.collections() as database:
            states = database["usage_state"]
            empty = database["logs"].find_one({}, {"_id": 1}) is None
            # In this order, because the sums are marked as complete before the first record is stored.
            state = states.find_one({"_id": _STATE}) or {}
            complete = state.get("complete") and state.get("version", 1) >= _VERSION
            if not complete and empty:
                states.update_one({"_id": _STATE}, {"$set": {"complete": True, "version": _VERSION}}, upsert=True)
                complete = True
        if not complete:
            log.warning("The sums of usage are missing, or are of an older version. They are now computed, once.")
            for _ in self.rebuild():
                pass
        self._is_complete = True

    def _refuse_while_rebuilt(self, database: Database[Document]) -> None:
        lease = (database["usage_state"].find_one({"_id": _STATE}) or {}).get("rebuilding")
        if lease is not None:
            if lease["until"] > self._now():
                raise _being_rebuilt()
            _give_lease_back(database, lease["by"])

    def _take_lease(self, database: Database[Document], mine: str) -> Document:
        states, now = database["usage_state"], self._now()
        states.update_one({"_id": _STATE}, {"$setOnInsert": {"complete": False}}, upsert=True)
        state = states.find_one_and_update(
            {"_id": _STATE, "$or": [{"rebuilding": None}, {"rebuilding.until": {"$lte": now}}]},
            {"$set": {"rebuilding": {"by": mine, "until": now + self._lease}}},
            return_document=ReturnDocument.AFTER,
        )
        if state is None:
            raise _being_rebuilt()
        return state

    def _prolong_lease(self, database: Database[Document], mine: str) -> None:
        prolonged = database["usage_state"].update_one(
            {"_id": _STATE, "rebuilding.by": mine}, {"$set": {"rebuilding.until": self._now() + self._lease}}
        )
        if not prolonged.matched_count:
            raise StoreUnavailable(
                "The rebuild stopped for too long, and shipping has begun again. Start the rebuild again."
            )

    def _now(self) -> datetime:
        return moment(self._clock())


def _announce(database: Database[Document], batch: Batch) -> Document:
    # The filter has only _id: then the server repeats the upsert itself if another process inserts the document first.
    source = database["usage_sources"].find_one_and_update(
        {"_id": batch.source},
        {"$set": {"sending": batch.number}},
        upsert=True,
        return_document=ReturnDocument.AFTER,
    )
    return source or {}


def _store(database: Database[Document], records: Sequence[UsageRecord], batch: Batch) -> list[UsageRecord]:
    """Store the records that do not exist yet. Return them, and those that this batch has stored before."""
    name = _name(batch)
    documents = [{"_id": record.id} | _fields(record) | {"batch": name} for record in records]
    stored = {record.id: record for record in records}
    try:
        database["logs"].insert_many(documents, ordered=False)
    except BulkWriteError as error:
        # The insert is unordered, so the other records are stored although some exist already.
        problems = [*error.details["writeErrors"], *error.details["writeConcernErrors"]]
        if not all(map(is_there_already, problems)):
            raise
        there = {documents[problem["index"]]["_id"] for problem in problems}
        ours = database["logs"].find({"_id": {"$in": [*there]}, "batch": name})
        stored = {record.id: record for record in records if record.id not in there}
        # Count these as they are stored: a record of a dead process may get another price in a later attempt.
        stored.update((document["_id"], _record(document)) for document in ours)
    return [*stored.values()]


def _with_names(stored: Sequence[UsageRecord], batch: Sequence[UsageRecord]) -> list[UsageRecord]:
    """Return *stored* with the names that the records have in *batch*.

    The sums are found by these names, also after a person was erased: so a repetition finds those that include it.
    """
    names = {record.id: record.user for record in batch}
    return [replace(record, user=names[record.id]) for record in stored]


def _erase(database: Database[Document], erasure: Erasure, key_ids: Iterable[str]) -> None:
    """Replace the names and addresses that *erasure* covers, of these keys. The sums keep their identifiers."""
    logs, daily = database["logs"], database["usage_daily"]
    pseudonym = erasure.pseudonym
    for key_id in key_ids:
        for name in logs.distinct("user", {"key_id": key_id}):
            if erasure.covers(key_id, name):
                wanted = {"key_id": key_id, "user": name}
                with_address = wanted | {"client_address": {"$ne": None}}
                logs.update_many(with_address, {"$set": {"client_address": pseudonym}})
                logs.update_many(wanted, {"$set": {"user": pseudonym}})
        for name in daily.distinct("user", {"key_id": key_id}):
            if erasure.covers(key_id, name):
                daily.update_many({"key_id": key_id, "user": name}, {"$set": {"user": pseudonym}})


def _add(
    database: Database[Document],
    sums: Mapping[Cell, Sequence[float]],
    batch: Batch,
    erasures: Sequence[Erasure],
    names: SumNames,
) -> None:
    count_once(
        database["usage_daily"],
        {
            names.of(cell): (_document(_shown(cell, erasures)), dict(zip(SUMS, amounts, strict=True)))
            for cell, amounts in sums.items()
        },
        batch,
    )


def _acknowledge(database: Database[Document], batch: Batch, *, fence: str | None) -> None:
    # In MongoDB a missing field is equal to null.
    acknowledged = database["usage_sources"].update_one(
        {"_id": batch.source, "fence": fence}, {"$set": {"number": batch.number}}
    )
    if not acknowledged.matched_count:
        raise _being_rebuilt()


def _fence(database: Database[Document], mine: str) -> list[Batch]:
    """Make the acknowledgement of every unfinished batch fail, and return these batches."""
    sources = database["usage_sources"]
    sources.update_many({}, {"$set": {"fence": mine}})
    return [
        Batch(source["_id"], source["sending"])
        for source in sources.find()
        if source["sending"] > source.get("number", -1)
    ]


def _give_lease_back(database: Database[Document], by: str) -> None:
    database["usage_state"].update_one({"_id": _STATE, "rebuilding.by": by}, {"$unset": {"rebuilding": ""}})


def _days(database: Database[Document]) -> list[date]:
    """Return every day from the first record or sum to the last one."""
    sums = (database["usage_daily"], database["usage_days"])
    found = [date.fromisoformat(day) for each in sums for day in each.distinct("day")]
    for direction in (1, -1):
        end = database["logs"].find_one({}, {"timestamp": 1}, sort=[("timestamp", direction)])
        if end is not None:
            found.append(end["timestamp"].date())
    if not found:
        return []
    first, last = min(found), max(found)
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def _rename_sums(database: Database[Document], before: date, names: SumNames) -> None:
    """Give the sums of the days *before* names with a key. Their records are deleted, so they cannot be rebuilt.

    Each one is copied first, and then deleted. So none is lost; a repetition finds the copy.
    """
    daily = database["usage_daily"]
    days = {"day": {"$lt": before.isoformat()}}
    older = [document["_id"] for document in daily.find(days, {"_id": 1}) if names.is_older(str(document["_id"]))]
    for start in range(0, len(older), _RENAMED_AT_ONCE):
        some = {"_id": {"$in": older[start : start + _RENAMED_AT_ONCE]}}
        copies = [document | {"_id": names.instead_of(document["_id"])} for document in daily.find(some)]
        daily.bulk_write([ReplaceOne({"_id": copy["_id"]}, copy, upsert=True) for copy in copies], ordered=False)
        daily.delete_many(some)


def _rebuild(
    database: Database[Document], day: date, unfinished: Sequence[Batch], zones: TimeZones, names: SumNames
) -> None:
    """Replace the sums of the UTC day *day*. Each single replacement is atomic, so this may stop anywhere."""
    sums = _sums_of(database, day, unfinished, zones)
    finer = {names.of(cell): _document(cell) | dict(zip(SUMS, amounts, strict=True)) for cell, amounts in sums.items()}
    replace_day(database["usage_daily"], day, finer, unfinished)
    wanted = _uncounted(unfinished) | {"timestamp": {"$gte": _midnight(day), "$lt": _midnight(day + timedelta(days=1))}}
    found = database["logs"].aggregate([{"$match": wanted}, {"$project": _TIMED}])
    timed = spreads(map(_timed, found), zones)
    replace_day(database["usage_days"], day, day_documents(day_sums(sums), timed), unfinished)


def _timed(document: Document) -> Timed:
    return Timed(
        document["timestamp"],
        document.get("group"),
        document["model"],
        document["deployment"],
        document.get("ttft_ms"),
        document["duration_ms"] if document["outcome"] == Outcome.OK else None,
        document.get("cost_usd") or 0.0,
    )


def _uncounted(unfinished: Sequence[Batch]) -> Document:
    return {"batch": {"$nin": [_name(batch) for batch in unfinished]}}


def _sums_of(
    database: Database[Document], day: date, unfinished: Sequence[Batch], zones: TimeZones
) -> dict[Cell, tuple[float, ...]]:
    """Add up the records of the UTC day *day*, without those of *unfinished* batches."""
    logs, found = database["logs"], []
    counted = _uncounted(unfinished)
    for start, end, local_day in zones.days(_midnight(day), _midnight(day + timedelta(days=1))):
        wanted = {"timestamp": {"$gte": start, "$lt": end}, **counted}
        pipeline: list[Document] = [
            {"$match": wanted | {_FAILED_OVER: None}},
            {"$group": {"_id": _SERIES, **_COUNTED}},
        ]
        for document in logs.aggregate(pipeline, allowDiskUse=True):
            series = document["_id"]
            names = series["key_id"], series["user"], series.get("group"), series["model"], series["deployment"]
            found.append((Cell(day, local_day, *names), tuple(document[name] for name in SUMS)))
        found.extend(daily_sums(map(_record, logs.find(wanted | {_FAILED_OVER: True})), zones).items())
    sums: dict[Cell, tuple[float, ...]] = {}
    for cell, amounts in found:
        sums[cell] = tuple(a + b for a, b in zip(sums.get(cell, (0,) * len(SUMS)), amounts, strict=True))
    return sums


def _being_rebuilt() -> StoreUnavailable:
    return StoreUnavailable("The sums of usage are being rebuilt. Try again later.")


def _name(batch: Batch) -> str:
    return f"{batch.source}/{batch.number}"


def _shown(cell: Cell, erasures: Sequence[Erasure]) -> Cell:
    for erasure in erasures:
        if erasure.covers(cell.key_id, cell.user):
            return cell._replace(user=erasure.pseudonym)
    return cell


def _document(cell: Cell) -> Document:
    document = cell._asdict() | {"day": cell.day.isoformat(), "local_day": cell.local_day.isoformat()}
    if cell.local_day == cell.day:
        del document["local_day"]
    return document


def _wanted(query: ReportQuery) -> Document:
    # A document without sums was created for a batch that is not added yet.
    equal = {"key_id": query.key_id, "user": query.user}
    wanted: Document = {"requests": {"$exists": True}} | _given(equal) | of_groups(query.group, query.groups)
    if query.among:
        wanted["$and"] = [{_NAMES.get(by, by): {"$in": [*names]}} for by, names in query.among.items()]
    period = _given({"$gte": query.first_day, "$lte": query.last_day})
    if not period:
        return wanted
    within = {bound: day.isoformat() for bound, day in period.items()}
    if query.in_utc:
        return wanted | {"day": within}
    # The index has the UTC day, and no time zone is a whole day away from UTC.
    around = {bound: day + timedelta(days=-1 if bound == "$gte" else 1) for bound, day in period.items()}
    return wanted | {
        "day": {bound: day.isoformat() for bound, day in around.items()},
        "$or": [{"local_day": None, "day": within}, {"local_day": within}],
    }


def _indexed(query: RecordQuery) -> Document:
    """Return the conditions of *query* that have an index, and those of its period."""
    wanted = _given({name: getattr(query, name) for name in _INDEXED}) | of_groups(query.group, query.groups)
    period = _given({"$gte": query.since, "$lt": query.until})
    places = []
    if query.before is not None:
        at, id_ = query.before
        period["$lte"] = at
        places.append({"$or": [{"timestamp": {"$lt": at}}, {"_id": {"$lt": id_}}]})
    if query.newer_than is not None:
        at, id_ = query.newer_than
        period["$gte"] = max(at, query.since or at)
        places.append({"$or": [{"timestamp": {"$gt": at}}, {"_id": {"$gt": id_}}]})
    if places:
        wanted["$and"] = places
    return wanted | ({"timestamp": period} if period else {})


def _not_indexed(query: RecordQuery) -> Document:
    wanted = _given({name: getattr(query, name) for name in _NOT_INDEXED})
    return wanted | ({} if query.min_duration_ms is None else {"duration_ms": {"$gte": query.min_duration_ms}})


def _given(values: Document) -> Document:
    return {name: value for name, value in values.items() if value is not None}


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time_of_day(), UTC)


def _filter_count(found: Document, day: date) -> FilterCount:
    fired = tuple(found.get("fired") or ())
    return FilterCount(
        day=day.isoformat(),
        user=found["user"],
        key_id=found["key_id"],
        group=found.get("group"),
        model=found["model"],
        fired=fired,
        severities=tuple(found.get("severities") or (f"{category}:found" for category in fired)),
        requests=0,
    )


def _row(document: Document) -> UsageRow:
    by = document.pop("_id") or {}
    cost = float(document.pop("cost_usd"))  # the integer 0 if no record has a price
    return UsageRow(by=by, cost_usd=cost, **document)


def _fields(record: UsageRecord) -> Document:
    values = {field: getattr(record, field) for field in _FIELDS}
    if record.attempts:
        values["attempts"] = [asdict(attempt) for attempt in record.attempts]
    if record.attempts_elsewhere:
        values[_FAILED_OVER] = True
    return values


def _record(document: Mapping[str, Any]) -> UsageRecord:
    # Documents of older versions of this program lack newer fields, which get their defaults.
    known = {name: document[name] for name in _FIELDS if name in document}
    known["outcome"] = Outcome(known["outcome"])
    known["usage_source"] = UsageSource(known["usage_source"])
    known["content_filter"] = tuple(known.get("content_filter", ()))
    known["stored_ids"] = tuple(known.get("stored_ids", ()))
    known["filter_severities"] = tuple(known.get("filter_severities", ()))
    known["limits"] = tuple(known.get("limits", ()))
    known["attempts"] = tuple(map(Attempt.from_json, known.get("attempts", ())))
    return UsageRecord(id=document["_id"], **known)
