"""Compares Azure's bill, or its token metrics, with the usage that was recorded."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from itertools import chain
from typing import Any, BinaryIO, TypeVar, cast

from werkzeug.datastructures import FileStorage, MultiDict

from ...errors import Overloaded
from ...reconcile.compare import reconcile
from ...reconcile.files import UnusableFile
from ...reconcile.meters import own_meter
from ...reconcile.results import own_model
from ...records import ReportQuery
from ...usage.report import report
from .. import examples
from ..body import read_files
from ..context import services
from ..errors import invalid_fields
from ..schemas.reconcile import RECONCILE_FORM, ReconciliationSchema
from .blueprint import blp

_BUSY_SECONDS = 10
_NAME = 200
"""The most characters of a file's name that an answer repeats."""

_running = threading.Lock()

T = TypeVar("T")


@blp.route("/reconcile", methods=["POST"])
@blp.operation(
    "Compare Azure's bill with the usage",
    "BodyTooLarge",
    "UnsupportedMediaType",
    "InvalidFields",
    "ReconcileBusy",
    description=(
        "Send exports of costs (cost and usage details, or FOCUS; CSV, also with gzip or ZIP) or token metrics of "
        "Azure Monitor (CSV or JSON), in a form. Says for each deployment, kind of tokens and UTC day what Azure "
        "has counted and what the gateway has recorded. Nothing is stored. At most "
        "`LLMGATEWAY_MAX_BODY_BYTES` are sent, and `LLMGATEWAY_RECONCILE_BYTES` unpacked; `llmgateway reconcile` "
        "takes any size."
    ),
    requestBody=RECONCILE_FORM,
)
@blp.response(200, ReconciliationSchema, description="Both sides.", example=examples.RECONCILIATION)
def reconcile_bill() -> dict[str, Any]:
    settings = services().settings
    fields, files = read_files(settings.instance)
    try:
        # It takes a processor for a while: one at a time, so that requests of users go on.
        if not _running.acquire(blocking=False):
            raise Overloaded("Another bill is being compared at the moment. Try again soon.", retry_after=_BUSY_SECONDS)
        try:
            return _compared(fields, files.getlist("file"), most_bytes=settings.reconcile_bytes)
        finally:
            _running.release()
    finally:
        for each in chain.from_iterable(files.listvalues()):
            each.close()


def _compared(fields: MultiDict[str, str], files: list[FileStorage], *, most_bytes: int) -> dict[str, Any]:
    sent = [(_name(file), cast(BinaryIO, file.stream)) for file in files if file.filename]
    if not sent:
        raise invalid_fields({"file": ["Choose a file: an export of costs or of metrics."]})
    threshold = _threshold(fields.get("threshold", ""))
    try:
        result = reconcile(
            sent,
            _usage,
            meters=_own(fields, "meter", own_meter),
            models=_own(fields, "model", own_model),
            most_bytes=most_bytes,
        )
    except UnusableFile as error:
        raise invalid_fields({"file": [str(error)]}) from error
    beyond = [] if threshold is None else result.beyond(threshold)
    return result.as_json() | {"threshold": threshold, "beyond": [each.as_json() for each in beyond]}


def _name(file: FileStorage) -> str:
    name = (file.filename or "").replace("\\", "/").rpartition("/")[2]
    return "".join(character for character in name if character.isprintable())[:_NAME] or "the file"


def _usage(first: date, last: date) -> Iterable[Mapping[str, Any]]:
    query = ReportQuery(by=("day", "deployment", "model"), first_day=first, last_day=last, in_utc=True)
    rows, _ = report(services().usage_log.report, query, groups={})
    return [row.as_json(None) for row in rows]


def _threshold(text: str) -> float | None:
    if not text.strip():
        return None
    try:
        percent = float(text)
    except ValueError:
        percent = math.nan
    if not 0 <= percent < math.inf:
        raise invalid_fields({"threshold": ["Must be a number of per cent, from 0 on."]})
    return percent


def _own(fields: MultiDict[str, str], name: str, read: Callable[[str], tuple[str, T]]) -> dict[str, T]:
    """Return what somebody says about names in the file, one in each field or line."""
    try:
        return dict(read(line) for text in fields.getlist(name) for line in text.splitlines() if line.strip())
    except ValueError as error:
        raise invalid_fields({name: [str(error)]}) from error
