"""The batches in which usage records go to the log: each has a name, and whoever ships it again gives it the same."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from ..records import Batch, UsageRecord

BATCH_RECORDS = 500


class Shipment(NamedTuple):
    """Records that go to the usage log together."""

    batch: Batch
    records: list[UsageRecord]


def shipments(source: str, part: int, records: Iterator[UsageRecord]) -> Iterator[Shipment]:
    """Cut one part of a journal into batches, whose names say where they end: the same at every repetition."""
    number = part << 32
    while batch := [*itertools.islice(records, BATCH_RECORDS)]:
        number += len(batch)
        yield Shipment(Batch(source, number), batch)
