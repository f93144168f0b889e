"""Divides usage records into batches for the usage log. A batch that is shipped again has the same name."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from ..records import Batch, UsageRecord

BATCH_RECORDS = 500


class Shipment(NamedTuple):
    """Records that are appended to the usage log together."""

    batch: Batch
    records: list[UsageRecord]


def shipments(source: str, part: int, records: Iterator[UsageRecord]) -> Iterator[Shipment]:
    """Divide one part of a journal into batches.

    The name of a batch contains the position of its last record, so it is the same each time.

    Args:
        source: The name of the journal.
        part: The number of the part.
        records: All records of the part.
    """
    number = part << 32
    while batch := [*itertools.islice(records, BATCH_RECORDS)]:
        number += len(batch)
        yield Shipment(Batch(source, number), batch)
