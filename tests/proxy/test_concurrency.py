"""The limit on requests in flight."""

from __future__ import annotations

import threading

import pytest

from llmgateway.errors import Overloaded
from llmgateway.proxy.concurrency import ConcurrencyLimit
from tests.stores.contract import at_once


def test_refuses_the_one_too_many_at_once():
    """If all slots are taken, the next request is refused at once, with a time to retry after."""
    slots = ConcurrencyLimit(2)
    slots.take()
    slots.take()

    with pytest.raises(Overloaded) as refused:
        slots.take()

    assert (503, 1) == (refused.value.status, refused.value.retry_after)
    assert (2, 1) == (slots.taken, slots.refused)


def test_a_freed_slot_can_be_taken_again():
    """The capacity limits the slots that are taken at the same time."""
    slots = ConcurrencyLimit(1)
    for _ in range(5):
        slots.take()
        slots.free()

    slots.take()
    assert 1 == slots.taken


def test_never_more_than_the_capacity_under_threads():
    """Threads that race get exactly the free slots."""
    slots = ConcurrencyLimit(5)
    refused = threading.Semaphore(0)

    def take() -> bool:
        try:
            slots.take()
        except Overloaded:
            refused.release()
            return False
        return True

    assert 5 == sum(at_once(*[take] * 24))
    assert 5 == slots.taken


def test_tells_of_every_change():
    """The callback is called after each change, because workers share their state."""
    slots, seen = ConcurrencyLimit(1), []
    slots.on_change = lambda: seen.append(slots.taken)

    slots.take()
    with pytest.raises(Overloaded):
        slots.take()
    slots.free()

    assert [1, 0] == seen
