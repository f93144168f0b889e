"""Ships abandoned journals: those of processes that have died."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

from ..records import UsageRecord, UsageSource
from .batches import Shipment, shipments
from .booking import written_at_most
from .segments import SegmentFolder, Started, ended_in, number_of

log = logging.getLogger(__name__)

TOUCH_SECONDS = 2.0
"""A process notes about every second that it lives. It may have lived this much longer than the last note says."""


class AbandonedJournals:
    """Finds and ships the abandoned journals in a folder.

    Several processes may do this at the same time; each journal is shipped by only one of them. A request that had not
    ended when its process died gets a record with outcome ``interrupted``, and with the most completion tokens that
    Azure can have written until then.

    Args:
        folder: The folder that contains the journals of all processes.
        append: Appends shipments to the usage log, one after the other; returns False if one was not accepted.
        price: Returns the record of an interrupted request with its cost.
        on_left: Called with each of these records when the usage log has it.
        on_ended: Called when the usage log has the whole journal, with the first and the last ended record of each key,
            group and UTC day. The last records of a dead process may be missing in the counters.
    """

    def __init__(
        self,
        folder: Path,
        append: Callable[[Iterator[Shipment]], bool],
        *,
        price: Callable[[UsageRecord], UsageRecord],
        on_left: Callable[[UsageRecord], None],
        on_ended: Callable[[Iterable[UsageRecord]], None],
    ) -> None:
        self._folder = folder
        self._append = append
        self._price = price
        self._on_left = on_left
        self._on_ended = on_ended

    def ship(self) -> None:
        """Ship all abandoned journals."""
        for path in sorted(self._folder.glob("[!.]*")):
            abandoned = SegmentFolder.adopt(path)
            if abandoned is None:
                continue
            log.warning("A process ended without shipping its journal %s. It is shipped now.", path.name)
            try:
                self._ship(abandoned)
            finally:
                abandoned.release()

    def _ship(self, abandoned: SegmentFolder) -> None:
        contents = _Contents()
        if self._append(self._shipments(abandoned, contents)):
            self._on_ended(contents.first_and_last())
            abandoned.remove()
            for record in contents.interrupted:
                self._on_left(record)

    def _shipments(self, abandoned: SegmentFolder, contents: _Contents) -> Iterator[Shipment]:
        """Yield all records of *abandoned* in shipments, and collect in *contents* what the callbacks need."""
        for segment in abandoned.sealed():
            yield from shipments(abandoned.name, number_of(segment), contents.collect(ended_in(segment)))
        # There are two open segments if the process died while it began a new one.
        running: dict[str, Started] = {}
        last = 0
        for segment in abandoned.open():
            last = number_of(segment)
            yield from shipments(abandoned.name, last, contents.collect(ended_in(segment, running)))
        died = abandoned.alive_until() + TOUCH_SECONDS
        contents.interrupted.extend(self._price(_interrupted(started, died)) for started in running.values())
        yield from shipments(abandoned.name, last + 1, iter(contents.interrupted))


def _interrupted(started: Started, died: float) -> UsageRecord:
    """Return the record of a request whose process died at *died*, without its cost."""
    record, bound = started
    if bound is None:
        return record
    written = written_at_most(bound, seconds=died - record.timestamp.timestamp())
    attempts = record.attempts
    if attempts:
        attempts = (*attempts[:-1], replace(attempts[-1], completion_tokens=written))
    # Attempts that had failed before may have been billed, too.
    completion = record.completion_tokens + written
    return replace(
        record,
        completion_tokens=completion,
        total_tokens=record.prompt_tokens + completion,
        usage_source=UsageSource.BOUND,
        attempts=attempts,
    )


class _Contents:
    """The records of an abandoned journal that the callbacks get."""

    def __init__(self) -> None:
        self.interrupted: list[UsageRecord] = []
        self.ended: dict[tuple[str, str | None, date], tuple[UsageRecord, UsageRecord]] = {}
        """The first and the last record of each key, group and UTC day: that day is a part of two days in another time
        zone. After an outage there may be too many records to keep all of them."""

    def first_and_last(self) -> list[UsageRecord]:
        """Return the records that were kept, each once."""
        return [
            record for first, last in self.ended.values() for record in ((first,) if first is last else (first, last))
        ]

    def collect(self, records: Iterator[UsageRecord]) -> Iterator[UsageRecord]:
        """Yield *records*, and keep the first and the last one of each key, group and UTC day."""
        for record in records:
            place = record.key_id, record.group, record.timestamp.date()
            first, last = self.ended.get(place, (record, record))
            if record.timestamp < first.timestamp:
                first = record
            self.ended[place] = first, record if record.timestamp > last.timestamp else last
            yield record
