"""Settlements: at once where somebody waits, else together."""

from __future__ import annotations

from llmgateway.reservations import Settlement
from llmgateway.settlements import Settlements
from tests.servers import wait_until


class Calls:
    """A counter store that remembers what it is asked to settle, call by call."""

    def __init__(self) -> None:
        self.settled: list[list[str]] = []

    def settle(self, settlements) -> None:
        self.settled.append([settlement.reservation for settlement in settlements])


def test_settles_at_once_what_is_awaited():
    """Before it returns, whatever else waits."""
    store = Calls()
    settlements = Settlements(store, gather_seconds=3600)
    settlements.soon(Settlement("later", ()))

    settlements.at_once(Settlement("now", ()))

    assert [["now"]] == store.settled


def test_settles_the_rest_together():
    """One call for all that has gathered, by itself after a moment."""
    store = Calls()
    settlements = Settlements(store, gather_seconds=0.2)

    for name in ("a", "b", "c"):
        settlements.soon(Settlement(name, ()))
    wait_until(lambda: store.settled)

    assert [["a", "b", "c"]] == store.settled


def test_settles_what_waits_when_told():
    """Once, and it says whether there was anything."""
    store = Calls()
    settlements = Settlements(store, gather_seconds=3600)
    settlements.soon(Settlement("a", ()))

    assert settlements.flush()
    assert not settlements.flush()

    assert [["a"]] == store.settled


def test_one_that_fails_takes_no_other_along(caplog):
    """A bug with one settlement is told, and the others are settled."""

    class Picky(Calls):
        def settle(self, settlements) -> None:
            if any(settlement.reservation == "bad" for settlement in settlements):
                raise OverflowError("bad")
            super().settle(settlements)

    store = Picky()
    settlements = Settlements(store, gather_seconds=3600)
    for name in ("a", "bad", "b"):
        settlements.soon(Settlement(name, ()))

    settlements.flush()

    assert [["a"], ["b"]] == store.settled
    assert "The request bad could not be settled." in caplog.text
