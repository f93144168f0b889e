"""Single requests: the usage records of those that were sent to Azure, and those that the gateway refused."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from flask import Response

from ...errors import NotFound
from ...records import Outcome, RecordQuery, Refusal, RefusalQuery, UsageRecord, UsageSource
from ...usage.segments import Line
from .. import examples
from ..context import services
from ..dates import shown as at_organisation
from ..error_docs import UNKNOWN_REQUEST
from ..schemas.fields import AnswerSchema
from ..schemas.logs import (
    ALL,
    RECORD,
    REFUSAL,
    FoundRecordSchema,
    FoundRefusalSchema,
    LogQuerySchema,
    LogRecordSchema,
    LogRefusalSchema,
    cursor_before,
    cursor_of,
    place_of,
)
from ..tables import csv_table
from . import reach
from .blueprint import blp
from .what_to_do import about_record, about_refusal

_ID = re.compile(r"[\w.-]{1,200}", re.ASCII)
_ATTEMPT = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-\d{1,3}")
"""What Azure is told as ``x-ms-client-request-id`` of a further attempt."""

SEARCHED_AT_ONCE = 50_000
"""The most records that a page looks at, if not every filter has an index."""

_OF_BOTH = ("key", "user", "group", "code", "status", "model", "endpoint")
_OF_RECORDS_ALONE = ("deployment", "stream", "region", "min_duration_ms")
_FIELDS = {"key": "key_id", "code": "error_code"}
"""The fields of filters that have other names, in records."""

_OF_RECORDS = tuple(LogRecordSchema().fields)
_OF_REFUSALS = tuple(LogRefusalSchema().fields)
_COLUMNS = {
    RECORD: _OF_RECORDS,
    REFUSAL: _OF_REFUSALS,
    ALL: (*_OF_REFUSALS, *(name for name in _OF_RECORDS if name not in _OF_REFUSALS)),
}
"""Of CSV, by kind."""

_STATES = {"begin": "running", "end": "waiting"}

_PAGE = {
    "type": "object",
    "required": ["items", "next", "newest", "searched_from"],
    "properties": {
        "items": {"type": "array", "items": {"oneOf": [LogRecordSchema, LogRefusalSchema]}},
        "next": {
            "type": "string",
            "nullable": True,
            "description": "`cursor` of the next page; null on the last one.",
            "example": None,
        },
        "newest": {
            "type": "string",
            "nullable": True,
            "description": "`newer_than` for what comes after this answer; null if there is nothing yet.",
            "example": examples.LOG_CURSOR,
        },
        "searched_from": {
            "type": "string",
            "format": "date-time",
            "nullable": True,
            "description": "From when on was searched, if that was not everything: filters that match few of many "
            "records take several pages. Then a page may have fewer items than `limit`, or none, and the next page has "
            "what is older.",
            "example": None,
        },
    },
}


def _answer(description: str, schema: dict[str, Any], shown: dict[str, Any]) -> dict[int, dict[str, Any]]:
    cases = {name: {"value": value} for name, value in shown.items()}
    return {200: {"description": description, "content": {"application/json": {"schema": schema, "examples": cases}}}}


@blp.route("/logs", methods=["GET"])
@blp.operation(
    "Read single requests",
    description=(
        "By default those that reached Azure (`kind=record`): each leaves one usage record. Its text is not stored. "
        "Records that are older than `LLMGATEWAY_LOG_DAYS` are gone, and stay in the sums of `GET /admin/usage`. "
        "`kind=refusal` lists those that the gateway refused, for `LLMGATEWAY_REFUSAL_DAYS`; `kind=all` both."
    ),
    responses=_answer("Newest first.", _PAGE, {"records": examples.LOG_PAGE, "refusals": examples.REFUSAL_PAGE}),
)
@blp.alt_response(
    200,
    schema={"type": "string"},
    content_type="text/csv",
    description="Newest first.",
    example=examples.LOG_CSV,
    success=True,
)
@blp.arguments(LogQuerySchema, location="query")
def list_usage_records(query: dict[str, Any]) -> dict[str, Any] | Response:
    limit, kind = query["limit"], query["kind"]
    reach.check_filter(query.get("group"))
    items: list[UsageRecord | Refusal] = []
    searched_from = None
    if query.get("id"):
        items += _found(query)
    else:
        records = _record_query(query)
        if kind in (RECORD, ALL):
            searched_from = services().usage_log.horizon(records, most=SEARCHED_AT_ONCE)
        if searched_from is not None:
            query["since"] = searched_from
        if kind in (RECORD, ALL):
            items += services().usage_log.records(replace(records, since=query.get("since")))
        if kind in (REFUSAL, ALL):
            items += _refusals(query)
    items.sort(key=_place, reverse=True)
    page = items[:limit]
    shown = [*map(_shown, page)]
    following = None if searched_from is None else cursor_before(searched_from)
    if len(items) > limit:
        following, searched_from = cursor_of(*_place(page[-1])), None
    if query["format"] == "csv":
        return csv_table(
            shown,
            _COLUMNS[kind],
            name=f"{kind}.csv",
            reader=query.get("reader"),
            next_cursor=following,
        )
    return {
        "items": shown,
        "next": following,
        "newest": cursor_of(*_place(page[0])) if page else query.get("newer_than") or None,
        "searched_from": None if searched_from is None else at_organisation(searched_from).isoformat(),
    }


def _place(item: UsageRecord | Refusal) -> tuple[datetime, str]:
    return item.timestamp, item.id


def _record_query(query: dict[str, Any]) -> RecordQuery:
    cursor = query.get("cursor", "")
    before = place_of(cursor)
    return RecordQuery(
        **{_FIELDS.get(name, name): query.get(name) for name in (*_OF_BOTH, *_OF_RECORDS_ALONE)},
        groups=reach.reach(),
        since=query.get("since"),
        until=query.get("until"),
        outcome=Outcome(query["outcome"]) if "outcome" in query else None,
        usage_source=UsageSource(query["usage_source"]) if "usage_source" in query else None,
        after="" if before else cursor,
        before=before,
        newer_than=place_of(query.get("newer_than", "")),
        limit=query["limit"] + 1,
    )


def _refusals(query: dict[str, Any]) -> list[Refusal]:
    cursor = query.get("cursor", "")
    before = place_of(cursor)
    if cursor and before is None:
        return []  # no cursor of ours
    return services().refusals.stored.list(
        RefusalQuery(
            key_ids=None if query.get("key") is None else (query["key"],),
            **{name: query.get(name) for name in _OF_BOTH if name != "key"},
            groups=reach.reach(),
            since=query.get("since"),
            until=query.get("until"),
            before=before,
            newer_than=place_of(query.get("newer_than", "")),
            limit=query["limit"] + 1,
        )
    )


def _found(query: dict[str, Any]) -> list[UsageRecord | Refusal]:
    """Return the request with the ``id`` of *query*, if it matches the rest of it."""
    wanted = _id(query["id"])
    record = _record(wanted)[0] if query["kind"] in (RECORD, ALL) else None
    refusal = services().refusals.find(wanted) if record is None and query["kind"] in (REFUSAL, ALL) else None
    item = record or refusal
    return [item] if item is not None and not query.get("cursor") and _matches(item, query) else []


def _matches(item: UsageRecord | Refusal, query: dict[str, Any]) -> bool:
    if not reach.reaches(item.group):
        return False
    names = {name: _FIELDS.get(name, name) for name in _OF_BOTH}
    if isinstance(item, UsageRecord):
        names |= {name: name for name in ("outcome", "usage_source", "deployment", "stream", "region")}
        if item.duration_ms < (query.get("min_duration_ms") or 0):
            return False
    else:
        names["code"] = "code"
    if any(query.get(name) is not None and query[name] != getattr(item, field) for name, field in names.items()):
        return False
    since, until, after = query.get("since"), query.get("until"), place_of(query.get("newer_than", ""))
    return (
        (since is None or since <= item.timestamp)
        and (until is None or item.timestamp < until)
        and (after is None or _place(item) > after)
    )


def _shown(item: UsageRecord | Refusal) -> dict[str, Any]:
    return _dumped(LogRecordSchema() if isinstance(item, UsageRecord) else LogRefusalSchema(), item)


def _dumped(schema: AnswerSchema, item: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = schema.dump(item)
    return dumped


@blp.route(
    "/logs/<request_id>",
    methods=["GET"],
    parameters=[
        {
            "in": "path",
            "name": "request_id",
            "description": "What the user saw as `x-request-id`, or Azure's `apim-request-id`.",
            "example": examples.REQUEST_ID,
        }
    ],
)
@blp.operation(
    "Find a user's error",
    "UnknownRequest",
    description=(
        "By the `x-request-id` of the answer, or by an id of Azure's (`upstream_request_id`, also of one of the "
        "`attempts`): the usage record, or the refusal, and what to do about it."
    ),
    responses=_answer(
        "The request.",
        {"oneOf": [FoundRecordSchema, FoundRefusalSchema]},
        {"sent to Azure": examples.FOUND_RECORD, "refused": examples.FOUND_REFUSAL},
    ),
)
def get_request(request_id: str) -> dict[str, Any]:
    wanted = _id(request_id)
    refusal = services().refusals.find_waiting(wanted)  # first, because it is found while the stores are away, too
    if refusal is None:
        record, state = _record(wanted)
        if record is not None and reach.reaches(record.group):
            return _dumped(FoundRecordSchema(), {**asdict(record), "state": state, "what_to_do": about_record(record)})
        refusal = services().refusals.find(wanted)
    if refusal is None or not reach.reaches(refusal.group):
        raise NotFound(UNKNOWN_REQUEST, param="request_id")
    found = _asked_for(refusal, wanted)
    return _dumped(FoundRefusalSchema(), {**asdict(found), "first_id": refusal.id, "what_to_do": about_refusal(found)})


def _id(text: str) -> str:
    """Return the identifier in *text*, as people paste it.

    Raises:
        NotFound: it cannot be one.
    """
    text = text.strip(" \t\r\n\"'`")
    if not _ID.fullmatch(text):
        raise NotFound("This is no id of a request: they consist of letters, digits and hyphens.", param="request_id")
    attempt = _ATTEMPT.fullmatch(text.lower())
    return attempt[1] if attempt else text


def _record(wanted: str) -> tuple[UsageRecord | None, str]:
    """Return the usage record with this identifier, and whether it is stored, waits in the journal, or still runs."""
    # The journal comes first: a record is in it until it is in the usage log.
    line: Line | None = services().journal.find(wanted)
    stored = services().usage_log.find(wanted) if line is None or line.kind == "cancel" else None
    if stored is not None or line is None or line.kind == "cancel":
        return stored, "stored"
    return line.record, _STATES[line.kind]


def _asked_for(refusal: Refusal, wanted: str) -> Refusal:
    """Return *refusal*, with what belongs to one of its repetitions if that was asked for."""
    for again in refusal.repeats:
        if again.id == wanted:
            return replace(refusal, **again._asdict())
    return refusal
