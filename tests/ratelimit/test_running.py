"""Running reservations are renewed; urgent commits are made at once, the others in batches."""

from __future__ import annotations

import threading

import pytest

from llmgateway.ratelimit.memory import MemoryCounters
from llmgateway.ratelimit.reservations import Commit, CounterRequest, Kind
from llmgateway.ratelimit.running import LEASE_SECONDS, RunningReservations
from tests.servers import wait_until

PLACE = CounterRequest(counter="key:1:parallel", kind=Kind.GAUGE, amount=1, limit=1)


class Calls:
    """A counter store that records the calls of commit and renew."""

    def __init__(self) -> None:
        self.committed: list[list[str]] = []
        self.renewed: list[list[str]] = []

    def commit(self, commits) -> None:
        self.committed.append([commit.reservation for commit in commits])

    def renew(self, reservations, *, lease) -> None:
        assert LEASE_SECONDS == lease
        self.renewed.append(sorted(reservations))


@pytest.fixture
def calls():
    return Calls()


@pytest.fixture
def running(calls):
    """Nothing happens by itself."""
    return RunningReservations(calls, renew_seconds=3600, gather_seconds=3600)


@pytest.fixture
def counters(clock):
    return MemoryCounters(clock=clock)


def test_commits_at_once_what_is_awaited(calls, running):
    """The commit is made before the method returns, even if other commits wait."""
    running.commit_soon(Commit("later", ()))

    running.commit_at_once(Commit("now", ()))

    assert [["now"]] == calls.committed


def test_commits_the_rest_together(calls):
    """The collected commits are made in one call, in the background."""
    running = RunningReservations(calls, gather_seconds=0.2)

    for name in ("a", "b", "c"):
        running.commit_soon(Commit(name, ()))
    wait_until(lambda: calls.committed)

    assert [["a", "b", "c"]] == calls.committed


def test_commits_what_has_gathered_when_told(calls, running):
    """Flushing commits once, and returns whether there was anything to commit."""
    running.commit_soon(Commit("a", ()))

    assert running.flush()
    assert not running.flush()

    assert [["a"]] == calls.committed


def test_a_commit_that_fails_affects_no_other(caplog):
    """If one commit raises an exception, it is logged, and the other commits are made."""

    class Picky(Calls):
        def commit(self, commits) -> None:
            if any(commit.reservation == "bad" for commit in commits):
                raise OverflowError("bad")
            super().commit(commits)

    calls = Picky()
    running = RunningReservations(calls, gather_seconds=3600)
    for name in ("a", "bad", "b"):
        running.commit_soon(Commit(name, ()))

    running.flush()

    assert [["a"], ["b"]] == calls.committed
    assert "The request bad could not be committed." in caplog.text


@pytest.mark.parametrize("end", [RunningReservations.commit_at_once, RunningReservations.commit_soon])
def test_renews_what_runs_and_nothing_else(calls, running, end):
    """Reservations are renewed until their requests end."""
    assert not running.renew()
    running.add("a")
    running.add("b")
    assert running.renew()

    end(running, Commit("a", ()))
    end(running, Commit("unheard of", ()))
    running.renew()
    end(running, Commit("b", ()))

    assert not running.renew()
    assert [["a", "b"], ["b"]] == calls.renewed


def test_what_runs_is_kept_for_as_long_as_it_runs(clock, counters):
    """A request that runs longer than a lease keeps its reservation until it ends."""
    running = RunningReservations(counters, renew_seconds=3600)
    assert counters.reserve("long", [PLACE], lease=LEASE_SECONDS).admitted
    running.add("long")

    for _ in range(10):
        clock.advance(LEASE_SECONDS / 2)
        running.renew()
    assert not counters.reserve("next", [PLACE], lease=LEASE_SECONDS).admitted

    running.commit_at_once(Commit("long", (PLACE,)))
    assert counters.reserve("next", [PLACE], lease=LEASE_SECONDS).admitted


def test_renews_by_itself_with_one_thread(calls):
    """The thread starts with the first request, and renews all reservations."""

    def threads() -> int:
        return sum(thread.name == "leases" for thread in threading.enumerate())

    before = threads()
    running = RunningReservations(calls, renew_seconds=0.01)
    assert before == threads()

    running.add("a")
    running.add("b")
    wait_until(lambda: ["a", "b"] in calls.renewed)

    assert before + 1 == threads()
    for name in ("a", "b"):
        running.commit_at_once(Commit(name, ()))
