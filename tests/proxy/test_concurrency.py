"""Places for requests in flight."""

from __future__ import annotations

import threading

import pytest

from llmgateway.errors import Overloaded
from llmgateway.proxy.concurrency import ConcurrencyLimit
from tests.stores.contract import at_once


def test_refuses_the_one_too_many_at_once():
    """With every place taken the next request is told so, and when to come back, instead of waiting."""
    places = ConcurrencyLimit(2)
    places.take()
    places.take()

    with pytest.raises(Overloaded) as refused:
        places.take()

    assert (503, 1) == (refused.value.status, refused.value.retry_after)
    assert (2, 1) == (places.taken, places.refused)


def test_a_freed_place_can_be_taken_again():
    """Capacity is what is free, not what was ever used."""
    places = ConcurrencyLimit(1)
    for _ in range(5):
        places.take()
        places.free()

    places.take()
    assert 1 == places.taken


def test_never_more_than_the_capacity_under_threads():
    """Takers that race get exactly the places there are."""
    places = ConcurrencyLimit(5)
    refused = threading.Semaphore(0)

    def take() -> bool:
        try:
            places.take()
        except Overloaded:
            refused.release()
            return False
        return True

    assert 5 == sum(at_once(*[take] * 24))
    assert 5 == places.taken


def test_tells_of_every_change():
    """Whoever shares the places of several processes out has to know."""
    places, seen = ConcurrencyLimit(1), []
    places.on_change = lambda: seen.append(places.taken)

    places.take()
    with pytest.raises(Overloaded):
        places.take()
    places.free()

    assert [1, 0] == seen
