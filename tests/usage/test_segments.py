"""What a line of the journal costs those who do not wait for it."""

from __future__ import annotations

import os

import pytest

from llmgateway import syscalls
from llmgateway.usage import segments
from llmgateway.usage.segments import CAREFUL_SECONDS, SLOW_SECONDS, SegmentFolder
from tests.parts import Stopwatch
from tests.usage.test_journal import begun


@pytest.fixture
def timer():
    return Stopwatch()


@pytest.fixture
def folder(tmp_path, timer):
    made = SegmentFolder.create(tmp_path, timer=timer)
    yield made
    made.close(nothing_left=True)


@pytest.fixture
def disk(monkeypatch, timer):
    """How long the disk takes for a line, and which call each line was written by."""

    class Disk:
        seconds = 0.0
        calls: list[str] = []

    def noting(name, write):
        def noted(descriptor: int, data: bytes) -> int:
            timer.advance(Disk.seconds)
            Disk.calls.append(name)
            return write(descriptor, data)

        return noted

    quick, careful = syscalls.write, os.write
    monkeypatch.setattr(segments.syscalls, "write", noting("quick", quick))
    monkeypatch.setattr(segments.os, "write", noting("careful", careful))
    return Disk


def test_a_disk_that_makes_the_process_wait_is_waited_for_by_one_thread(folder, disk, timer, caplog):
    """A call that keeps the interpreter's lock stops everybody: after a slow one, others write for a while."""
    for seconds in (0, SLOW_SECONDS, SLOW_SECONDS * 2, SLOW_SECONDS * 2, 0):
        disk.seconds = seconds
        folder.write("begin", begun(1))
    timer.advance(CAREFUL_SECONDS)
    folder.write("begin", begun(1))

    assert ["quick", "quick", "quick", "careful", "careful", "quick"] == disk.calls
    assert ["The disk made the whole process wait 0.040 s for a line of the journal."] == caplog.messages
