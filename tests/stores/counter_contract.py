"""What every counter store must do, whatever it is made of; see ``contract.py``."""

from __future__ import annotations

import secrets
from functools import partial

import pytest

from llmgateway.interfaces import CounterStore
from llmgateway.ratelimit.reservations import Commit, CounterRequest, Decision, Kind, Reading
from tests.stores.contract import at_once

LARGE = 2**53 - 1
"""The largest whole number that every store counts exactly."""


def window(
    amount: int = 1, limit: int | None = 10, *, counter: str = "key:tokens", own: str | None = None
) -> CounterRequest:
    return CounterRequest(counter=counter, kind=Kind.WINDOW, amount=amount, limit=limit, own=own)


def gauge(amount: int = 1, limit: int | None = 10, *, counter: str = "key:parallel") -> CounterRequest:
    return CounterRequest(counter=counter, kind=Kind.GAUGE, amount=amount, limit=limit)


def total(
    amount: int = 1,
    limit: int | None = 10,
    *,
    counter: str = "key:usd:2026-01",
    until: int | None = None,
    at_least: int | None = None,
) -> CounterRequest:
    return CounterRequest(counter=counter, kind=Kind.TOTAL, amount=amount, limit=limit, until=until, at_least=at_least)


def shared(own: str, amount: int = 1, limit: int = 10) -> tuple[CounterRequest, CounterRequest]:
    """What one of several wants of a window that they share, and of its own window."""
    return window(amount, limit, counter="organisation:tokens", own=own), window(amount, None, counter=own)


def reserve(
    counters: CounterStore, *counter_requests: CounterRequest, name: str | None = None, lease: float = 100
) -> Decision:
    return counters.reserve(name or secrets.token_hex(8), counter_requests, lease=lease)


def commit(counters: CounterStore, name: str, *counter_requests: CounterRequest) -> None:
    counters.commit([Commit(name, counter_requests)])


def look(counters: CounterStore, counter_request: CounterRequest) -> Reading:
    (reading,) = counters.look([counter_request]).readings
    return reading


def used(counters: CounterStore, counter_request: CounterRequest) -> int:
    return look(counters, counter_request).used


class CounterStoreContract:
    """The time is the fixture ``clock``'s."""

    @pytest.fixture
    def counters(self) -> CounterStore:
        raise NotImplementedError

    @pytest.fixture
    def elsewhere(self) -> CounterStore:
        raise NotImplementedError

    # All or none

    def test_reserves_all(self, counters, elsewhere):
        """What fits everywhere is reserved of every counter, and everybody who shares the store sees it."""
        counters.initialise("key:usd:2026-01", 3, until=None)

        decision = reserve(counters, window(4), gauge(2), total(5))

        assert decision == Decision(
            admitted=True,
            readings=(Reading(0, 0, True, 0, 0), Reading(0, 0, True, 0, 0), Reading(3, 0, True, 0, 0)),
        )
        assert [4, 2, 8] == [used(elsewhere, counter_request) for counter_request in (window(), gauge(), total())]
        assert [0, 2, 5] == [look(elsewhere, counter_request).held for counter_request in (window(), gauge(), total())]

    @pytest.mark.parametrize("full", [window(11), gauge(11), total(11)])
    def test_reserves_nothing_unless_all_fits(self, counters, full):
        """One amount that does not fit, and none is reserved; the readings say which it was."""
        counters.initialise("key:usd:2026-01", 0, until=None)
        counter_requests = [
            full if full.kind == counter_request.kind else counter_request
            for counter_request in (window(), gauge(), total())
        ]

        decision = reserve(counters, *counter_requests)

        assert not decision.admitted
        assert [counter_request is not full for counter_request in counter_requests] == [
            reading.fits for reading in decision.readings
        ]
        assert [0, 0, 0] == [reading.used for reading in counters.look(counter_requests).readings]

    def test_fits_up_to_the_limit(self, counters):
        """The limit itself is within the limit, and one more is not."""
        assert reserve(counters, window(10)).admitted
        assert not reserve(counters, window(1)).admitted
        assert reserve(counters, window(0)).admitted
        assert reserve(counters, gauge(4)).admitted
        assert not reserve(counters, gauge(7)).admitted
        assert reserve(counters, gauge(6)).admitted

    def test_counts_without_a_limit(self, counters):
        """No limit: everything fits, and is counted all the same."""
        counters.initialise("key:usd:2026-01", 0, until=None)
        counter_requests = (window(1000, None), gauge(1000, None), total(1000, None))

        assert reserve(counters, *counter_requests).admitted
        assert reserve(counters, *counter_requests).admitted

        assert [2000, 2000, 2000] == [reading.used for reading in counters.look(counter_requests).readings]

    def test_reserves_nothing_of_nothing(self, counters):
        """A request without limits is admitted."""
        assert reserve(counters) == Decision(admitted=True, readings=())

    def test_counts_large_numbers_exactly(self, counters):
        """Nanodollars go far beyond what a rounded number would keep."""
        counters.initialise("key:usd:2026-01", LARGE - 5, until=None)

        assert reserve(counters, total(2, LARGE), window(LARGE - 1, None), gauge(LARGE - 1, None), name="one").admitted
        assert not reserve(counters, total(4, LARGE)).admitted
        assert reserve(counters, total(3, LARGE)).admitted

        assert LARGE == used(counters, total())
        assert LARGE - 1 == used(counters, window())
        commit(counters, "one", total(1), window(LARGE - 2), gauge())
        assert LARGE - 1 == used(counters, total())
        assert LARGE - 2 == used(counters, window())
        assert 0 == used(counters, gauge())

    def test_keeps_names_apart(self, counters):
        """A counter is what its name says, whatever is in the name."""
        names = ["a", "a:b", "a b", "ä", "日本:{x}", "a%20b", "A"]
        for amount, name in enumerate(names, 1):
            reserve(counters, window(amount, None, counter=name))

        assert [1, 2, 3, 4, 5, 6, 7] == [used(counters, window(counter=name)) for name in names]

    # Windows

    def test_a_window_forgets_when_it_is_long_enough_ago(self, counters, clock):
        """An amount leaves when it is more than 60 seconds old and its own second is over."""
        clock.advance(0.75)
        reserve(counters, window(4))

        clock.advance(60)
        assert 4 == used(counters, window())
        clock.advance(0.2)
        assert 4 == used(counters, window())
        clock.advance(0.05)
        assert 0 == used(counters, window())

    def test_a_window_says_how_long_to_wait(self, counters, clock):
        """Until enough of the oldest has left; it is empty when the youngest has."""
        clock.advance(0.25)
        reserve(counters, window(4))
        clock.advance(10)
        reserve(counters, window(4))
        clock.advance(10)

        assert Reading(8, 0, True, 0, 50.75) == look(counters, window(2))
        assert Reading(8, 0, False, 40.75, 50.75) == look(counters, window(3))
        assert Reading(8, 0, False, 40.75, 50.75) == look(counters, window(6))
        assert Reading(8, 0, False, 50.75, 50.75) == look(counters, window(7))
        assert Reading(8, 0, False, 50.75, 50.75) == look(counters, window(11))
        assert Reading(8, 0, False, 40.75, 50.75) == reserve(counters, window(3)).readings[0]

    def test_who_waited_gets_in(self, counters, clock):
        """The wait is long enough, and not longer than it must be."""
        reserve(counters, window(6))
        clock.advance(7.5)
        reserve(counters, window(4))
        wait = look(counters, window(5)).wait

        clock.advance(wait - 0.001)
        assert not reserve(counters, window(5)).admitted
        clock.advance(0.001)
        assert reserve(counters, window(5)).admitted

    def test_no_sixty_seconds_see_more_than_the_limit(self, counters, clock):
        """However the seconds are cut, a minute's edge admits nothing twice."""
        admitted: list[float] = []
        for _ in range(900):
            clock.advance(0.25)
            if reserve(counters, window(1)).admitted:
                admitted.append(clock.now)

        assert all(later - earlier > 60 for earlier, later in zip(admitted, admitted[10:], strict=False))
        assert 40 == len(admitted)

    def test_a_window_is_committed_in_the_second_of_the_reservation(self, counters, clock):
        """The true amount stands where the estimate stood, and leaves when that would have left."""
        reserve(counters, window(8), name="one")
        clock.advance(30)

        commit(counters, "one", window(3))

        assert Reading(3, 0, True, 0, 31) == look(counters, window())
        clock.advance(31)
        assert 0 == used(counters, window())

    def test_a_window_is_committed_as_long_as_it_counts(self, counters, clock):
        """Up to the last moment of the reservation's second."""
        reserve(counters, window(8), name="one")
        clock.advance(60.9)

        commit(counters, "one", window(3))

        assert 3 == used(counters, window())

    def test_a_window_may_be_committed_with_more(self, counters):
        """An estimate that was too low is put right, above the limit too."""
        reserve(counters, window(8), name="one")

        commit(counters, "one", window(20))

        assert 20 == used(counters, window())

    def test_a_window_gets_the_rest_of_what_has_left(self, counters, clock):
        """Of an answer that took longer than a minute, what it used beyond its reservation counts when it ends."""
        reserve(counters, window(8), name="one", lease=100)
        clock.advance(60)
        reserve(counters, window(1))
        clock.advance(1)

        commit(counters, "one", window(20))

        assert 13 == used(counters, window())
        clock.advance(60)
        assert 12 == used(counters, window())
        clock.advance(1)
        assert 0 == used(counters, window())

    @pytest.mark.parametrize("amount", [0, 3, 8])
    def test_a_window_gives_nothing_back_of_what_has_left(self, counters, clock, amount):
        """What was reserved and not used is not subtracted from what others use now."""
        reserve(counters, window(8), name="one", lease=100)
        clock.advance(61)
        reserve(counters, window(5))

        commit(counters, "one", window(amount))

        assert 5 == used(counters, window())

    def test_a_refund_leaves_nothing_behind(self, counters):
        """What was not used at all is as if it had never been there."""
        reserve(counters, window(8), name="one")

        commit(counters, "one", window(0))

        assert Reading(0, 0, True, 0, 0) == look(counters, window())

    def test_what_was_estimated_as_nothing_can_turn_out_as_something(self, counters, clock):
        """A reservation of 0 has its second, too."""
        reserve(counters, window(0), name="one")
        clock.advance(10)
        reserve(counters, window(2))

        commit(counters, "one", window(5))

        assert Reading(7, 0, False, 51, 61) == look(counters, window(4))

    def test_a_clock_that_was_put_back_does_not_fill_windows(self, counters, clock):
        """An hour back on the wall is not an hour without the limit's worth."""
        reserve(counters, window(10))

        clock.advance(-3600)

        assert reserve(counters, window(10)).admitted
        assert 10 == used(counters, window())

    # Gauges

    def test_a_gauge_comes_back(self, counters, elsewhere):
        """When a request ends its place is free, whatever amount the commit says."""
        reserve(counters, gauge(6), name="one")
        reserve(counters, gauge(4), name="two")

        commit(elsewhere, "one", gauge(1000))

        assert Reading(4, 4, True, 0, 0) == look(counters, gauge())

    def test_a_gauge_comes_back_when_the_lease_runs_out(self, counters, clock):
        """Not before, not never, and not twice."""
        reserve(counters, gauge(6), name="one", lease=30)
        reserve(counters, gauge(4), name="two", lease=100)

        clock.advance(29.9)
        assert 10 == used(counters, gauge())
        clock.advance(0.1)
        assert 4 == used(counters, gauge())
        commit(counters, "one", gauge(6))
        assert 4 == used(counters, gauge())

    def test_a_reserve_finds_what_leases_gave_back(self, counters, clock):
        """Nobody has to look for a dead process' places before the next one gets them."""
        reserve(counters, gauge(10), lease=30)

        clock.advance(30)

        assert reserve(counters, gauge(10)).admitted

    def test_many_leases_may_run_out_at_once(self, counters, clock):
        """What a call has not cleared away is left to the next ones."""
        for _ in range(120):
            reserve(counters, gauge(1, None), lease=30)
        clock.advance(30)

        for _ in range(3):
            counters.look([gauge()])

        assert 0 == used(counters, gauge())

    def test_a_renewed_lease_runs_on(self, counters, elsewhere, clock):
        """From the moment of renewal."""
        reserve(counters, gauge(6), name="one", lease=30)
        reserve(counters, gauge(4), name="two", lease=30)
        clock.advance(20)

        elsewhere.renew(["one"], lease=30)

        clock.advance(29.9)
        assert 6 == used(counters, gauge())
        clock.advance(0.1)
        assert 0 == used(counters, gauge())

    def test_what_is_gone_cannot_be_renewed(self, counters, clock):
        """A lease that ran out, or was committed, or never was, stays so."""
        reserve(counters, gauge(6), name="late", lease=30)
        reserve(counters, gauge(4), name="committed", lease=30)
        commit(counters, "committed", gauge())
        clock.advance(30)

        counters.renew(["late", "committed", "unheard of"], lease=30)

        assert reserve(counters, gauge(10)).admitted

    def test_renews_nothing(self, counters):
        """No running request is no error."""
        counters.renew([], lease=30)
        counters.commit([])
        counters.forget([])
        assert () == counters.look([]).readings

    # Totals

    def test_a_total_has_to_be_initialised(self, counters, elsewhere):
        """Nothing is reserved, and nothing read, before it is known what was used."""
        decision = reserve(counters, window(), total(), total(counter="group:usd"), gauge())

        assert decision == Decision(admitted=False, readings=(), uninitialised=("key:usd:2026-01", "group:usd"))
        assert [0, 0] == [used(counters, counter_request) for counter_request in (window(), gauge())]
        counters.initialise("group:usd", 0, until=None)
        assert ("key:usd:2026-01",) == reserve(counters, total(), total(counter="group:usd")).uninitialised
        assert Decision(admitted=False, readings=(), uninitialised=("key:usd:2026-01",)) == counters.look(
            [window(), total()]
        )
        elsewhere.initialise("key:usd:2026-01", 4, until=None)
        assert reserve(counters, total(6), total(counter="group:usd")).admitted

    def test_a_total_that_is_old_can_be_confirmed(self, counters, elsewhere, clock):
        """It is trusted again, with what is held of it, for as long as one that was initialised just now."""
        counters.initialise("key:usd:2026-01", 4, until=None)
        reserve(counters, total(2), name="running", lease=100_000)
        clock.advance(3601)
        assert ("key:usd:2026-01",) == reserve(counters, total(1)).uninitialised

        assert elsewhere.confirm("key:usd:2026-01")

        assert Reading(6, 2, True, 0, 0) == look(counters, total(1))
        commit(counters, "running", total(3))
        assert Reading(7, 0, True, 0, 0) == look(counters, total(1))
        clock.advance(601)
        assert ("key:usd:2026-01",) == reserve(counters, total(1)).uninitialised

    def test_what_nobody_has_initialised_cannot_be_confirmed(self, counters):
        """It stays uninitialised."""
        assert not counters.confirm("key:usd:2026-01")
        assert ("key:usd:2026-01",) == reserve(counters, total(1)).uninitialised

    def test_a_total_is_initialised_once(self, counters):
        """Who comes second with what it has read does not undo what has been counted since."""
        counters.initialise("key:usd:2026-01", 4, until=None)
        reserve(counters, total(2))

        counters.initialise("key:usd:2026-01", 0, until=None)

        assert Reading(6, 2, True, 0, 0) == look(counters, total())

    def test_a_total_is_committed(self, counters, clock):
        """What was held becomes what was used; time changes nothing."""
        counters.initialise("key:usd:2026-01", 1, until=None)
        reserve(counters, total(5), name="one", lease=1000)
        clock.advance(100)

        commit(counters, "one", total(2))

        assert Reading(3, 0, True, 0, 0) == look(counters, total())

    def test_a_total_gives_back_what_a_dead_process_held(self, counters, clock):
        """The lease runs out, and what it held is free; what is committed after that is added."""
        counters.initialise("key:usd:2026-01", 1, until=None)
        reserve(counters, total(5), name="one", lease=30)

        clock.advance(30)
        assert Reading(1, 0, True, 0, 0) == look(counters, total())
        commit(counters, "one", total(2))

        assert Reading(3, 0, True, 0, 0) == look(counters, total())

    def test_a_total_that_was_forgotten_is_uninitialised(self, counters, elsewhere):
        """Forgetting makes others ask the usage log again."""
        counters.initialise("key:usd:2026-01", 4, until=None)

        elsewhere.forget(["key:usd:2026-01", "group:usd"])

        assert ("key:usd:2026-01",) == reserve(counters, total()).uninitialised

    def test_what_was_held_of_a_forgotten_total_is_added(self, counters):
        """The new total holds nothing of requests that began before it, and gets the truth when they end."""
        counters.initialise("key:usd:2026-01", 1, until=None)
        reserve(counters, total(5), name="old")
        counters.forget(["key:usd:2026-01"])
        counters.initialise("key:usd:2026-01", 3, until=None)
        reserve(counters, total(2), name="new")

        commit(counters, "old", total(4))

        assert Reading(9, 2, True, 0, 0) == look(counters, total())
        commit(counters, "new", total(1))
        assert Reading(8, 0, True, 0, 0) == look(counters, total())

    def test_a_dead_process_takes_nothing_from_a_new_total(self, counters, clock):
        """What is given back was never held in a total that was initialised since."""
        counters.initialise("key:usd:2026-01", 1, until=None)
        reserve(counters, total(5), lease=30)
        counters.forget(["key:usd:2026-01"])
        counters.initialise("key:usd:2026-01", 3, until=None)
        reserve(counters, total(2), lease=100)

        clock.advance(30)

        assert Reading(5, 2, True, 0, 0) == look(counters, total())

    def test_an_uninitialised_total_is_left_alone(self, counters):
        """It begins with what the usage log says, which knows of the committed request, too."""
        counters.initialise("key:usd:2026-01", 1, until=None)
        reserve(counters, total(5), name="one")
        counters.forget(["key:usd:2026-01"])

        commit(counters, "one", total(4))

        assert ("key:usd:2026-01",) == reserve(counters, total()).uninitialised

    # What is left of a total

    def test_reserves_what_is_left(self, counters, elsewhere):
        """If the amount does not fit, but enough for the request is left, all that is left is reserved."""
        counters.initialise("key:usd:2026-01", 3, until=None)

        decision = reserve(counters, total(100, at_least=2), name="one")

        assert decision == Decision(admitted=True, readings=(Reading(3, 0, True, 0, 0),))
        assert Reading(10, 7, False, 0, 0) == look(elsewhere, total())
        commit(elsewhere, "one", total(1))
        assert Reading(4, 0, True, 0, 0) == look(counters, total())

    def test_reserves_the_amount_if_it_fits(self, counters):
        """What is enough matters only if the amount does not fit."""
        counters.initialise("key:usd:2026-01", 3, until=None)

        assert reserve(counters, total(7, at_least=2)).admitted

        assert Reading(10, 7, False, 0, 0) == look(counters, total())

    def test_the_amount_must_fit_while_something_is_held(self, counters):
        """Otherwise many requests that exceed their reservations could run at once."""
        counters.initialise("key:usd:2026-01", 0, until=None)
        reserve(counters, total(4), name="one")

        refused = reserve(counters, total(7, at_least=1))

        assert refused == Decision(admitted=False, readings=(Reading(4, 4, False, 0, 0),))
        assert reserve(counters, total(6, at_least=1), name="two").admitted
        commit(counters, "one", total(4))
        commit(counters, "two", total(5))
        assert reserve(counters, total(7, at_least=1)).admitted
        assert Reading(10, 1, False, 0, 0) == look(counters, total())

    def test_a_total_with_less_left_than_is_enough_refuses(self, counters):
        """What is enough may use the total up, and must not exceed it."""
        counters.initialise("key:usd:2026-01", 8, until=None)

        assert not reserve(counters, total(7, at_least=3)).admitted
        assert not look(counters, total(7, at_least=3)).fits
        assert look(counters, total(7, at_least=2)).fits
        assert reserve(counters, total(7, at_least=2)).admitted

    def test_what_is_left_is_given_back_when_the_lease_runs_out(self, counters, clock):
        """As much as was reserved, not as much as was asked for."""
        counters.initialise("key:usd:2026-01", 3, until=None)
        reserve(counters, total(100, at_least=2), lease=30)

        clock.advance(30)

        assert Reading(3, 0, True, 0, 0) == look(counters, total())
        assert reserve(counters, total(7)).admitted

    def test_a_renewed_lease_keeps_what_was_left(self, counters, clock):
        """A long answer is not joined by a second one."""
        counters.initialise("key:usd:2026-01", 3, until=None)
        reserve(counters, total(100, at_least=2), name="one", lease=30)
        clock.advance(20)
        counters.renew(["one"], lease=30)
        clock.advance(20)

        assert not reserve(counters, total(100, at_least=2)).admitted

    def test_what_is_left_beside_other_limits(self, counters):
        """Nothing is reserved if another limit is reached, and each total has its own rest."""
        counters.initialise("key:usd:2026-01", 3, until=None)
        counters.initialise("group:usd", 5, until=None)
        both = total(100, at_least=2), total(4, counter="group:usd", at_least=2)

        assert not reserve(counters, *both, gauge(11)).admitted
        assert [3, 5] == [reading.used for reading in counters.look(both).readings]
        assert reserve(counters, *both, gauge(1)).admitted
        assert [7, 4] == [reading.held for reading in counters.look(both).readings]

    def test_what_is_enough_has_no_meaning_without_a_limit(self, counters):
        """The amount fits, and is reserved."""
        counters.initialise("key:usd:2026-01", 3, until=None)

        assert reserve(counters, total(100, None, at_least=2)).admitted

        assert 103 == used(counters, total())

    def test_other_kinds_need_the_amount(self, counters):
        """A window or a gauge is never given in part."""
        reserve(counters, window(5), gauge(5))

        for request in (window(6), gauge(6)):
            assert not reserve(counters, request._replace(at_least=1)).admitted
        for request in (window(5), gauge(5)):
            assert reserve(counters, request._replace(at_least=1)).admitted
        assert [10, 10] == [used(counters, request) for request in (window(), gauge())]

    def test_what_is_left_is_counted_exactly(self, counters):
        """Nanodollars go far beyond what a rounded number would keep."""
        counters.initialise("key:usd:2026-01", 3, until=None)

        assert reserve(counters, total(LARGE, LARGE, at_least=LARGE - 3)).admitted

        assert Reading(LARGE, LARGE - 3, False, 0, 0) == look(counters, total(1, LARGE))

    def test_a_total_outlives_its_period(self, counters, clock):
        """A request that began within the period and ends after it still counts."""
        until = int(clock.now) + 10
        counters.initialise("key:usd:2026-01", 1, until=until)
        reserve(counters, total(5, until=until), name="one", lease=100)
        clock.advance(60)

        commit(counters, "one", total(3, until=until))

        assert 4 == used(counters, total())

    def test_a_total_may_be_initialised_after_its_period(self, counters, clock):
        """Whoever is late does not ask for ever."""
        until = int(clock.now) - 1_000_000
        counters.initialise("key:usd:2026-01", 1, until=until)

        assert reserve(counters, total(5, until=until)).admitted

    def test_a_total_is_uninitialised_when_it_has_grown_old(self, counters, elsewhere, clock):
        """Whatever made it wrong, the usage log is asked again, and what it says takes its place."""
        counters.initialise("key:usd:2026-01", 4, until=None)
        clock.advance(600)
        counters.initialise("key:usd:2026-01", 7, until=None)
        assert 4 == used(counters, total())
        clock.advance(1)

        decision = reserve(counters, window(), total())

        assert decision == Decision(admitted=False, readings=(), uninitialised=("key:usd:2026-01",))
        assert ("key:usd:2026-01",) == elsewhere.look([total()]).uninitialised
        assert 0 == used(counters, window())
        elsewhere.initialise("key:usd:2026-01", 7, until=None)
        clock.advance(600)
        assert Reading(7, 0, True, 0, 0) == look(counters, total())

    def test_a_total_that_is_held_grows_older(self, counters, clock):
        """What runs is not counted anew while it runs: the usage log does not know it yet."""
        counters.initialise("key:usd:2026-01", 4, until=None)
        reserve(counters, total(2), name="one", lease=10_000)
        clock.advance(3600)
        counters.initialise("key:usd:2026-01", 7, until=None)
        assert Reading(6, 2, True, 0, 0) == look(counters, total())

        commit(counters, "one", total(1))

        assert ("key:usd:2026-01",) == reserve(counters, total()).uninitialised
        counters.initialise("key:usd:2026-01", 7, until=None)
        assert Reading(7, 0, True, 0, 0) == look(counters, total())

    def test_a_total_is_initialised_again_while_it_is_held(self, counters, clock):
        """Of one that is in use day and night the truth is asked once an hour; what runs is added when it ends."""
        counters.initialise("key:usd:2026-01", 1, until=None)
        reserve(counters, total(5), name="old", lease=10_000)
        clock.advance(3601)

        assert ("key:usd:2026-01",) == reserve(counters, total()).uninitialised
        counters.initialise("key:usd:2026-01", 3, until=None)

        assert Reading(3, 0, True, 0, 0) == look(counters, total())
        reserve(counters, total(2), name="new")
        commit(counters, "old", total(4))
        assert Reading(9, 2, True, 0, 0) == look(counters, total())

    def test_an_old_total_is_committed(self, counters, clock):
        """Until it is initialised again nothing of it is lost."""
        counters.initialise("key:usd:2026-01", 1, until=None)
        reserve(counters, total(5), name="one", lease=10_000)
        clock.advance(3601)

        commit(counters, "one", total(2))
        commit(counters, "unheard of", total(3))

        clock.advance(-3601)
        assert Reading(6, 0, True, 0, 0) == look(counters, total())

    def test_a_total_from_far_ahead_is_uninitialised(self, counters, clock):
        """It was initialised before the clock was put back, and would not grow old for long."""
        counters.initialise("key:usd:2026-01", 1, until=None)

        clock.advance(-601)

        assert ("key:usd:2026-01",) == reserve(counters, total()).uninitialised

    # Settling

    def test_commits_many_at_once(self, counters):
        """A batch of any size, of one counter or many."""
        counters.initialise("key:usd:2026-01", 0, until=None)
        counter_requests = (window(1, None), gauge(1, None), total(2, None))
        names = [f"request {number}" for number in range(250)]
        for name in names:
            reserve(counters, *counter_requests, name=name)

        counters.commit([Commit(name, (window(3), gauge(1), total(1))) for name in names])

        assert [750, 0, 250] == [reading.used for reading in counters.look(counter_requests).readings]

    def test_adds_the_truth_of_a_reservation_it_does_not_know(self, counters):
        """Of an emptied store: windows and initialised totals get what was used, gauges nothing."""
        counters.initialise("key:usd:2026-01", 1, until=None)

        commit(counters, "unheard of", window(3), gauge(4), total(5), total(6, counter="new"))

        assert [3, 0, 6] == [used(counters, counter_request) for counter_request in (window(), gauge(), total())]
        assert ("new",) == reserve(counters, total(counter="new")).uninitialised

    def test_adds_the_truth_after_the_lease(self, counters, clock):
        """A request that was thought dead counts when it ends after all."""
        reserve(counters, window(3), name="one", lease=90)
        clock.advance(90)

        commit(counters, "one", window(5))

        assert 5 == used(counters, window())

    def test_what_a_commit_does_not_name_was_not_used(self, counters):
        """Nothing that a request held stays behind when it has ended."""
        counters.initialise("key:usd:2026-01", 1, until=None)
        reserve(counters, window(3), gauge(2), total(4), name="one")

        commit(counters, "one", window(3))

        assert [3, 0, 1] == [used(counters, counter_request) for counter_request in (window(), gauge(), total())]

    def test_adds_what_was_not_reserved(self, counters):
        """A counter that only the commit names is counted, too."""
        counters.initialise("key:usd:2026-01", 1, until=None)
        reserve(counters, window(3), name="one")

        commit(counters, "one", window(3), total(4))

        assert 5 == used(counters, total())

    # Fair shares

    def test_alone_one_may_use_everything(self, counters):
        """A share is for those who ask; what nobody wants is free."""
        for _ in range(10):
            assert reserve(counters, *shared("ada")).admitted
        assert not reserve(counters, *shared("ada")).admitted

    def test_what_others_leave_may_be_used(self, counters):
        """That others ask is no reason to keep anything back while nobody waits."""
        reserve(counters, *shared("bob"))

        for _ in range(9):
            assert reserve(counters, *shared("ada")).admitted

    def test_what_becomes_free_is_for_the_one_who_waits(self, counters, clock):
        """A batch job that always asks does not get ahead of a student with a full window."""
        for _ in range(10):
            reserve(counters, *shared("batch"))
            clock.advance(1)
        refused = reserve(counters, *shared("student"))
        assert not refused.admitted
        assert 51 == refused.readings[0].wait

        clock.advance(51)  # the oldest has left
        held_back = reserve(counters, *shared("batch"))

        assert not held_back.admitted
        assert Reading(9, 0, False, 1, 9) == held_back.readings[0]
        assert held_back.readings[1].fits
        assert reserve(counters, *shared("student")).admitted
        clock.advance(1)
        assert reserve(counters, *shared("batch")).admitted  # nobody waits any more

    def test_nobody_waits_for_ever(self, counters, clock):
        """What is kept for one who does not come back is free some seconds later."""
        reserve(counters, *shared("batch", 4))
        clock.advance(20)
        reserve(counters, *shared("batch", 6))
        reserve(counters, *shared("student"))
        clock.advance(41)

        held_back = reserve(counters, *shared("batch", 4))
        assert Reading(6, 0, False, 5, 20) == held_back.readings[0]
        assert reserve(counters, *shared("batch", 3)).admitted  # beside what is kept
        clock.advance(4.9)
        assert not reserve(counters, *shared("batch", 1)).admitted
        clock.advance(0.1)
        assert reserve(counters, *shared("batch", 1)).admitted

    def test_those_below_their_share_do_not_wait_for_each_other(self, counters, clock):
        """Who comes first gets what has become free; it is the others that stand back."""
        reserve(counters, *shared("batch", 10))
        reserve(counters, *shared("ada", 6))
        reserve(counters, *shared("bob", 6))
        clock.advance(61)

        assert reserve(counters, *shared("bob", 6)).admitted

    def test_who_is_above_its_share_waits_like_everybody(self, counters, clock):
        """Nothing is kept for one who has had its share."""
        reserve(counters, *shared("ada", 5))
        reserve(counters, *shared("bob", 5))
        reserve(counters, *shared("ada", 1))  # of two, each has 5
        clock.advance(61)

        assert reserve(counters, *shared("bob", 10)).admitted

    def test_who_is_refused_for_another_reason_keeps_nothing_back(self, counters, clock):
        """What somebody could not use anyway is for those who can."""
        reserve(counters, *shared("batch", 10))
        reserve(counters, *shared("student", 1), gauge(11, 10))
        clock.advance(60)
        assert not reserve(counters, *shared("batch", 1)).admitted
        clock.advance(1)
        reserve(counters, *shared("batch", 5))
        reserve(counters, *shared("other"))

        assert reserve(counters, *shared("batch", 4)).admitted

    def test_a_request_above_a_share_is_not_shut_out(self, counters, clock):
        """With many askers a share is less than one request; who has used nothing is below it all the same."""
        reserve(counters, *shared("batch", 10))
        for number in range(20):
            reserve(counters, *shared(f"student {number}", 4))
        clock.advance(61)
        reserve(counters, *shared("batch", 1))

        assert not reserve(counters, *shared("batch", 1)).admitted
        assert reserve(counters, *shared("student 7", 4)).admitted

    def test_nine_students_and_a_batch_job(self, counters, clock):
        """The job asks repeatedly; every student is admitted after its wait, and no place stays unused."""
        for _ in range(6):
            assert 10 == sum(reserve(counters, *shared("batch", limit=60)).admitted for _ in range(10))
            clock.advance(1)
        returns: dict[str, float] = {}
        for number in range(9):
            refused = reserve(counters, *shared(f"student {number}", limit=60))
            assert not refused.admitted
            returns[f"student {number}"] = clock.now + refused.readings[0].wait
            clock.advance(1)

        admitted = []
        while returns:
            clock.advance(0.5)
            for _ in range(20):
                reserve(counters, *shared("batch", limit=60))
            for student in [student for student, at in returns.items() if at <= clock.now]:
                admitted.append(reserve(counters, *shared(student, limit=60)).admitted)
                del returns[student]
        reserve(counters, *shared("batch", limit=60))

        assert [True] * 9 == admitted
        assert 60 == used(counters, window(counter="organisation:tokens"))

    # Many at once

    @pytest.mark.parametrize(
        "counter_request", [window(1), window(3, 32), gauge(1), gauge(3, 32), total(1), total(3, 32)]
    )
    def test_admits_exactly_the_limit(self, counters, elsewhere, counter_request):
        """Of thirty at once ten get in."""
        counters.initialise("key:usd:2026-01", 0, until=None)

        decisions = at_once(
            *(partial(reserve, store, counter_request) for store in (counters, elsewhere) for _ in range(15))
        )

        assert 10 == sum(decision.admitted for decision in decisions)

    def test_one_gets_what_is_left(self, counters, elsewhere):
        """Of thirty at once one gets in: each may need more than there is."""
        counters.initialise("key:usd:2026-01", 0, until=None)

        decisions = at_once(
            *(partial(reserve, store, total(100, at_least=1)) for store in (counters, elsewhere) for _ in range(15))
        )

        assert 1 == sum(decision.admitted for decision in decisions)
        assert Reading(10, 10, False, 0, 0) == look(counters, total())

    def test_loses_nothing_when_many_commit_at_once(self, counters, elsewhere):
        """Reservations and commits of many threads add up."""
        counters.initialise("key:usd:2026-01", 0, until=None)

        def work(store, worker):
            for turn in range(10):
                name = f"{worker}:{turn}"
                reserve(store, window(5, None), gauge(1, None), total(5, None), name=name)
                commit(store, name, window(2), gauge(), total(3))

        at_once(*(partial(work, store, secrets.token_hex(4)) for _ in range(4) for store in (counters, elsewhere)))

        assert 160 == used(counters, window())
        assert Reading(0, 0, True, 0, 0) == look(counters, gauge())
        assert Reading(240, 0, True, 0, 0) == look(counters, total(limit=None))
