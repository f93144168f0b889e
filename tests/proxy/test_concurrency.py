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


def take(slots: ConcurrencyLimit, key: str) -> bool:
    """Take a slot for *key*, as a call does; return whether it got one."""
    try:
        slots.take()
    except Overloaded:
        return False
    try:
        slots.assign(key)
    except Overloaded:
        slots.free()
        return False
    return True


def test_one_key_leaves_slots_to_others():
    """A key that takes all it can gets three quarters of the slots; another key then gets one, ten times of ten."""
    slots = ConcurrencyLimit(124, key_share=0.75)

    assert 93 == sum(take(slots, "greedy") for _ in range(300))

    for _ in range(10):
        assert take(slots, "modest")
        slots.free("modest")
    assert 93 == slots.taken


def test_the_refusal_says_how_much_the_key_holds():
    """The message has the numbers; the slot that was taken before authentication is given back without the key."""
    slots = ConcurrencyLimit(8, key_share=0.75)
    assert 6 == sum(take(slots, "greedy") for _ in range(6))
    slots.take()

    with pytest.raises(Overloaded, match="your key holds 6 of 8 places") as refused:
        slots.assign("greedy")
    slots.free()

    assert (503, "overloaded", 1) == (refused.value.status, refused.value.code, refused.value.retry_after)
    assert (6, 1) == (slots.taken, slots.refused)


def test_the_last_part_goes_to_keys_below_an_equal_share():
    """With two keys, each gets half of the slots if both want all, whoever came first."""
    slots = ConcurrencyLimit(8, key_share=0.75)
    assert 5 == sum(take(slots, "a") for _ in range(5))
    assert take(slots, "b")

    assert not take(slots, "a")
    assert [True, True, False] == [take(slots, "b") for _ in range(3)]


def test_a_key_that_holds_nothing_any_more_is_not_active():
    """The share of the others grows again when a key has ended its requests."""
    slots = ConcurrencyLimit(8, key_share=0.75)
    for key in ("a", "a", "a", "b", "b", "c"):
        assert take(slots, key)
    assert not take(slots, "a")
    slots.free("c")
    assert take(slots, "b")

    assert take(slots, "a")


def test_a_share_of_one_is_no_bound():
    """Then a key may take every slot."""
    slots = ConcurrencyLimit(4, key_share=1)

    assert [True] * 4 + [False] == [take(slots, "greedy") for _ in range(5)]
