"""The coarser sums in MongoDB's collection ``usage_days``, see :mod:`llmgateway.stores.day_sums`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from itertools import groupby

from pymongo import UpdateOne
from pymongo.database import Database

from llmgateway.records import Batch, DaySpread

from ..day_sums import DayCell, StoredSpread, add_counts, day_sums, spread_of
from ..sums import SUMS, Cell
from .counting import count_once
from .database import Document

_BYTES = 20


def add_days(
    database: Database[Document],
    sums: Mapping[DayCell, Sequence[float]],
    spreads: Mapping[DayCell, StoredSpread],
    batch: Batch,
) -> None:
    """Add to the coarser sums what *batch* adds to those of keys."""
    additions = {}
    for cell, amounts in sums.items():
        spread = {f"spread.{name}": number for name, number in spreads.get(cell, {}).items()}
        additions[_name(cell)] = (_document(cell), {**dict(zip(SUMS, amounts, strict=True)), **spread})
    count_once(database["usage_days"], additions, batch)


def day_documents(
    sums: Mapping[DayCell, Sequence[float]], spreads: Mapping[DayCell, StoredSpread]
) -> dict[str, Document]:
    """Return what the documents of these sums have, by ``_id``."""
    return {
        _name(cell): _document(cell) | dict(zip(SUMS, amounts, strict=True)) | {"spread": spreads.get(cell, {})}
        for cell, amounts in sums.items()
    }


def add_missing_days(database: Database[Document], before: date) -> None:
    """Make the coarser sums of days before *before* from those of keys, as far as they are not there.

    Their records are deleted, so nothing can be said about their spread.
    """
    order = [("day", 1)]
    daily = database["usage_daily"].find(
        {"day": {"$lt": before.isoformat()}, "requests": {"$exists": True}}, sort=order
    )
    for _, documents in groupby(daily, key=lambda document: str(document["day"])):
        sums = {}
        for number, document in enumerate(documents):
            cell = _cell(document)._replace(key_id=str(number))  # so that no two are the same
            sums[cell] = tuple(document.get(name, 0) for name in SUMS)
        made = [
            UpdateOne(
                {"_id": _name(cell)},
                {"$setOnInsert": _document(cell) | dict(zip(SUMS, amounts, strict=True))},
                upsert=True,
            )
            for cell, amounts in day_sums(sums).items()
        ]
        database["usage_days"].bulk_write(made, ordered=False)


def day_spreads(documents: Iterable[Document]) -> list[DaySpread]:
    """Add up *documents* by day of the organisation."""
    requests: dict[str, int] = {}
    counts: dict[str, StoredSpread] = {}
    for document in documents:
        day = document.get("local_day") or document["day"]
        requests[day] = requests.get(day, 0) + document["requests"]
        add_counts(counts.setdefault(day, {}), document.get("spread") or {})
    return [DaySpread(day=day, requests=requests[day], spread=spread_of(counts[day])) for day in sorted(requests)]


def _cell(document: Document) -> Cell:
    day = date.fromisoformat(document["day"])
    local_day = date.fromisoformat(document.get("local_day") or document["day"])
    # Sums of older versions have no deployment, which stays like that.
    return Cell(day, local_day, "", "", document.get("group"), document["model"], document.get("deployment"))  # type: ignore[arg-type]


def _document(cell: DayCell) -> Document:
    document = cell._asdict() | {"day": cell.day.isoformat(), "local_day": cell.local_day.isoformat()}
    if cell.local_day == cell.day:
        del document["local_day"]
    return document


def _name(cell: DayCell) -> str:
    """Return the ``_id``: a hash, because it is short even if the names in it are long. It has no name of a person."""
    named = json.dumps([cell.day.isoformat(), cell.local_day.isoformat(), *cell.series])
    return hashlib.blake2b(named.encode(), digest_size=_BYTES).hexdigest()
