"""The lock for short sections."""

from __future__ import annotations

import threading

from llmgateway.usage.locks import ShortLock


def test_only_one_is_inside():
    """However many want to be, and each gets its turn."""
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
                threading.Event().wait(0)  # lets others run
                turns += 1
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (1, 1600) == (most, turns)


def test_who_finds_it_taken_sleeps_without_it_and_comes_again():
    """It gets the lock when it is awake, not before: or all others would wait for its waking."""
    slept = []

    def free_it(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            lock._lock.release()

    lock = ShortLock(sleep=free_it)
    lock._lock.acquire()
    with lock:
        assert 3 == len(slept)
        assert all(seconds > 0 for seconds in slept)


def test_an_error_inside_frees_it():
    """As every lock does."""
    lock = ShortLock(sleep=lambda _: None)
    for _ in range(2):
        try:
            with lock:
                raise ValueError
        except ValueError:
            pass
    assert lock._lock.acquire(blocking=False)
