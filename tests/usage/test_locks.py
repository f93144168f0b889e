"""The lock for short critical sections."""

from __future__ import annotations

import threading

import pytest

from llmgateway.usage.locks import AGAIN_SECONDS, SELDOM_SECONDS, ShortLock


def test_only_one_is_inside():
    """However many threads want the lock, one at a time has it, and each gets it."""
    lock = ShortLock()
    inside = 0
    most = 0
    turns = 0

    def work() -> None:
        nonlocal inside, most, turns
        for _ in range(200):
            with lock:
                inside += 1
                most = max(most, inside)
                threading.Event().wait(0)  # lets other threads run
                turns += 1
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (1, 1600) == (most, turns)


class Taken:
    """A lock that another thread holds until the waiting thread has slept *seconds*."""

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds
        self.slept: list[float] = []
        self.lock = ShortLock(sleep=self._sleep)
        self.lock.__enter__()

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if sum(self.slept) >= self._seconds:
            self.lock.__exit__(None, None, None)


def test_who_finds_it_taken_sleeps_without_it_and_tries_again():
    """A waiting thread gets the lock when it is awake, not before: this avoids a convoy."""
    taken = Taken(seconds=3 * AGAIN_SECONDS)

    with taken.lock:
        assert [AGAIN_SECONDS] * 3 == taken.slept


def test_who_waits_long_tries_seldom():
    """A hundred threads that wait for a stalled disk must not keep a processor busy."""
    taken = Taken(seconds=10)

    with taken.lock:
        assert sorted(taken.slept) == taken.slept
        assert SELDOM_SECONDS == taken.slept[-1]
        assert len(taken.slept) < 300


def test_an_error_inside_frees_it():
    """The lock is released after an error."""
    lock = ShortLock(sleep=lambda _: pytest.fail("it is taken"))
    for _ in range(2):
        with pytest.raises(ValueError, match="inside"), lock:
            raise ValueError("inside")
