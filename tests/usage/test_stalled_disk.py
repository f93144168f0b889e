"""A stalled disk delays only the threads that write to it.

A full pipe stands in for it. It takes a write as a stalled volume does: the call returns when there is room again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from llmgateway.usage import journal as journal_module
from llmgateway.usage import segments
from llmgateway.usage.journal import Journal
from tests.servers import wait_until

from .test_journal import BOUND, begun, ended, priced, run, serve, without_its_thread

WRITERS = 16


class StalledFile:
    """Replaces the file *path* by a pipe, which accepts nothing between :meth:`stall` and :meth:`resume`."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._path = path
        self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def stall(self) -> StalledFile:
        filler = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        try:
            while True:
                os.write(filler, b"x")
        except BlockingIOError:
            os.close(filler)
        return self

    def resume(self) -> None:
        """Read what is written from now on, in a thread."""
        os.set_blocking(self._reader, True)
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        while os.read(self._reader, 65536):
            pass


def begin_at_once(journal: Journal) -> list[threading.Thread]:
    threads = [
        threading.Thread(target=journal.begin, args=(begun(100 + number), BOUND), daemon=True)
        for number in range(WRITERS)
    ]
    for thread in threads:
        thread.start()
    return threads


def a_line(journal: Journal, folder: Path) -> tuple[StalledFile, list[threading.Thread]]:
    """A write to the present segment stalls."""
    stalled = StalledFile(next(folder.iterdir()) / "00000002.open").stall()
    assert journal.flush()  # begins the segment
    return stalled, begin_at_once(journal)


def a_segment(journal: Journal, folder: Path) -> tuple[StalledFile, list[threading.Thread]]:
    """A write of the running requests to the next segment stalls, and no request can write until it is done."""
    stalled = StalledFile(next(folder.iterdir()) / "00000002.open").stall()
    journal.begin(begun(99), BOUND)
    thread = threading.Thread(target=journal.flush, daemon=True)
    thread.start()
    wait_until(lambda: journal.backlog().problem)
    return stalled, [thread, *begin_at_once(journal)]


@pytest.mark.parametrize("stall", [a_line, a_segment])
def test_only_those_wait_who_write(tmp_path, clock, monkeypatch, stall: Callable[..., object]):
    """Other threads go on, the backlog names the problem, waiting costs no CPU time, and ends with the stall."""
    monkeypatch.setattr(journal_module, "STALLED_SECONDS", 0.05)
    monkeypatch.setattr(segments, "QUIET_SECONDS", 0.1)

    class Log:
        def append(self, records, *, batch):
            pass

    def child() -> None:  # a call that keeps the interpreter's lock would block it for ever
        folder = tmp_path / "journal"
        journal = without_its_thread(partial(Journal, folder, Log(), clock=clock, price=priced))
        serve(journal, 1)
        file, threads = stall(journal, folder)

        wait_until(lambda: journal.backlog().problem)
        assert "journal on disk: a line has waited 0 s for it" == journal.backlog().problem
        cpu, began = time.process_time(), time.monotonic()
        for _ in range(50):
            time.sleep(0.01)  # other work
        assert time.process_time() - cpu < (time.monotonic() - began) / 2
        assert all(thread.is_alive() for thread in threads)

        file.resume()
        for thread in threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in threads)
        assert journal.backlog().problem is None

    run(child)


def test_a_segment_is_not_shipped_while_a_line_is_on_its_way(tmp_path, clock, monkeypatch):
    """A segment is not sealed while a line of it is being written; it is shipped afterwards."""
    monkeypatch.setattr(segments, "QUIET_SECONDS", 0.1)

    class Log:
        shipped = 0

        def append(self, records, *, batch):
            self.shipped += len(records)

    def child() -> None:
        folder = tmp_path / "journal"
        log = Log()
        journal = without_its_thread(partial(Journal, folder, log, clock=clock, price=priced))
        journal.begin(begun(2), BOUND)
        serve(journal, 1)
        file = StalledFile(next(folder.iterdir()) / "00000002.open")
        journal.flush()
        file.stall()
        thread = threading.Thread(target=journal.end, args=(ended(2),), daemon=True)
        thread.start()
        wait_until(lambda: 1 == journal.backlog().records)

        journal.flush()
        journal.flush()
        assert 1 == log.shipped
        assert ["00000002.open", "00000003.open"] == sorted(path.name for path in folder.glob("*/*.open"))
        file.resume()
        thread.join(10)
        journal.flush()
        assert ["00000003.open"] == [path.name for path in folder.glob("*/*.open")]

    run(child)
