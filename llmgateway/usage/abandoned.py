"""The journals of processes that died: whoever finds one ships it, and tells what was left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path

from ..records import UsageRecord
from .batches import Shipment, shipments
from .segments import SegmentFolder, ended_in, number_of

log = logging.getLogger(__name__)


class AbandonedJournals:
    """Those below *folder* whose process has died. Several processes may look at once: each journal is shipped by one.

    What had not ended there becomes a record with outcome ``interrupted``.

    Args:
        append: Gives shipments to the usage log, one after the other; False if the log did not take them all.
        price: Completes the record of a request that a dead process left.
        on_left: Told each of these, once the usage log has it.
        on_ended: Told what had ended there, one record for each key, group and day, once the log has all of it:
            the last of it may have got nowhere else.
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
        """Ship every one that there is."""
        for path in sorted(self._folder.glob("[!.]*")):
            abandoned = SegmentFolder.adopt(path)
            if abandoned is None:
                continue
            log.warning("A process ended without shipping its journal %s; it is shipped now.", path.name)
            try:
                self._ship(abandoned)
            finally:
                abandoned.release()

    def _ship(self, abandoned: SegmentFolder) -> None:
        left = _Left()
        if self._append(self._shipments(abandoned, left)):
            self._on_ended(left.ended.values())
            abandoned.remove()
            for record in left.running:
                self._on_left(record)

    def _shipments(self, abandoned: SegmentFolder, left: _Left) -> Iterator[Shipment]:
        """Everything in *abandoned*, of which *left* takes note."""
        for segment in abandoned.sealed():
            yield from shipments(abandoned.name, number_of(segment), left.ending(ended_in(segment)))
        # A process that dies while it changes segments leaves two open ones.
        running: dict[str, UsageRecord] = {}
        last = 0
        for segment in abandoned.open():
            last = number_of(segment)
            yield from shipments(abandoned.name, last, left.ending(ended_in(segment, running)))
        left.running.extend(map(self._price, running.values()))
        yield from shipments(abandoned.name, last + 1, iter(left.running))


class _Left:
    """What a dead process left."""

    def __init__(self) -> None:
        self.running: list[UsageRecord] = []
        self.ended: dict[tuple[str, str | None, date], UsageRecord] = {}
        """One for each key, group and day: in an outage there may be very many."""

    def ending(self, records: Iterator[UsageRecord]) -> Iterator[UsageRecord]:
        for record in records:
            self.ended.setdefault((record.key_id, record.group, record.timestamp.date()), record)
            yield record
