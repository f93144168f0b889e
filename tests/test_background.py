"""Work in the background: one thread, only while there is something to do."""

from __future__ import annotations

import logging
import os
import threading

from llmgateway.background import Background
from tests.servers import wait_until


def threads(name: str) -> int:
    return sum(thread.name == name for thread in threading.enumerate())


def test_starts_when_it_is_needed_and_once():
    """Made before a fork it starts nothing; however often it is needed, there is one thread."""
    turns = []
    background = Background("test-starts", lambda: turns.append(1), seconds=0)
    assert 0 == threads("test-starts")

    for _ in range(3):
        background.need()
    wait_until(lambda: turns)

    assert 1 == threads("test-starts")


def test_goes_on_as_long_as_there_is_more():
    """Turn after turn until one says that nothing is left; then it sleeps until it is needed again."""
    left, turns = [3], []

    def turn() -> bool:
        turns.append(left[0])
        left[0] -= 1
        return left[0] > 0

    background = Background("test-goes-on", turn, seconds=0)
    background.need()
    wait_until(lambda: turns == [3, 2, 1])
    background.need()
    wait_until(lambda: turns == [3, 2, 1, 0])

    assert not background._needed.is_set()


def test_what_is_needed_during_a_turn_is_not_lost():
    """A need that comes while a turn is at work makes another one."""
    entered, go_on, turns = threading.Event(), threading.Event(), []

    def turn() -> bool:
        turns.append(1)
        entered.set()
        go_on.wait(10)
        return False

    background = Background("test-not-lost", turn, seconds=0)
    background.need()
    assert entered.wait(10)
    background.need()
    go_on.set()

    wait_until(lambda: len(turns) == 2)


def test_a_failing_turn_is_not_the_last(caplog):
    """A bug is told, and the next turn comes."""
    turns = []

    def turn() -> bool:
        turns.append(1)
        if len(turns) == 1:
            raise ValueError("first")
        return False

    with caplog.at_level(logging.ERROR):
        Background("test-fails", turn, seconds=0).need()
        wait_until(lambda: len(turns) == 2)

    assert "test-fails failed" in caplog.text


def test_a_child_has_a_thread_of_its_own():
    """What a parent began does not keep its child from beginning."""
    reading, writing = os.pipe()
    background = Background("test-child", lambda: os.write(writing, b"x") and False, seconds=0)
    background.need()
    assert b"x" == os.read(reading, 1)

    pid = os.fork()
    if pid == 0:
        background.need()
        threading.Event().wait(10)
        os._exit(1)
    try:
        assert b"x" == os.read(reading, 1)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(reading)
        os.close(writing)
