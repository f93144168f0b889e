"""Refused requests are kept without keeping anybody waiting: collected, counted, written, and dropped at the bound."""

from __future__ import annotations

import logging
from contextlib import closing
from datetime import timedelta

import pytest

from llmgateway.errors import StoreUnavailable
from llmgateway.records import RefusalQuery
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteRefusalLog
from llmgateway.usage import refusals as module
from llmgateway.usage.refusals import MOST_RECENT, MOST_WAITING, NAMED_REPEATS, Refusals
from tests.stores.contract import NEW_YEAR, at_once
from tests.stores.refusal_contract import refusal

EVERYTHING = RefusalQuery(limit=100_000)


class Store:
    """A store that can be away."""

    def __init__(self, log) -> None:
        self.log = log
        self.away = False

    def __getattr__(self, name):
        if self.away:
            raise StoreUnavailable("It is away.")
        return getattr(self.log, name)


@pytest.fixture
def store(tmp_path):
    with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
        yield Store(SQLiteRefusalLog(database))


@pytest.fixture
def dropped():
    return []


@pytest.fixture
def make(store, clock, dropped, monkeypatch):
    """Makes the refusals of a process whose background thread never comes."""
    monkeypatch.setattr(module.Background, "need", lambda _: None)
    clock.now = NEW_YEAR.timestamp()

    def make(**settings) -> Refusals:
        return Refusals(store, **{"clock": clock, "days": 14, "most": 1000, "on_dropped": dropped.append, **settings})

    return make


def at(seconds: float):
    return NEW_YEAR + timedelta(seconds=seconds)


def add(refusals: Refusals, number: int, *, seconds: float = 0, source: str = "192.0.2.17", **fields: object) -> None:
    refusals.add(refusal(number, timestamp=at(seconds), **fields), source=source)


def test_is_found_before_it_is_written_and_after(make, store):
    refusals = make()
    add(refusals, 1)

    assert [] == store.log.list(EVERYTHING)
    assert "req_000001" == refusals.find("req_000001").id
    refusals.close()
    assert ["req_000001"] == [each.id for each in store.log.list(EVERYTHING)]
    assert "req_000001" == refusals.find("req_000001").id
    assert refusals.find("req_000002") is None


def test_a_flood_is_one_entry(make, store):
    """Of one key, one code and one limit within a minute: one entry with the number, whether it was written or not."""
    refusals = make()
    for number in range(100):
        add(refusals, number, seconds=number / 10, message=f"no. {number}")
        if number == 50:
            refusals.close()
    refusals.close()

    (kept,) = store.log.list(EVERYTHING)
    assert ("req_000000", 100, at(0), at(9.9)) == (kept.id, kept.count, kept.timestamp, kept.last_at)
    assert NAMED_REPEATS == len(kept.repeats)
    assert kept == refusals.find("req_000020")
    assert refusals.find("req_000021") is None


def test_what_differs_is_kept_by_itself(make, store):
    """Another key, another code, another limit, another address without a key, and another minute; and the same key
    when it belongs to another person or group, whose admins may not see those before."""
    refusals = make()
    add(refusals, 1)
    add(refusals, 2, key_id="key_0002")
    add(refusals, 3, code="rate_limit_exceeded")
    add(refusals, 4, limit="group.budget")
    add(refusals, 5, key_id=None)
    add(refusals, 6, key_id=None, source="192.0.2.18")
    add(refusals, 7, seconds=61)
    add(refusals, 8, seconds=62)
    add(refusals, 9, seconds=62, group="chemistry")
    add(refusals, 10, seconds=62, user="alan")
    refusals.close()

    assert [1, 1, 1, 1, 1, 1, 1, 1, 2] == sorted(each.count for each in store.log.list(EVERYTHING))


def test_what_is_too_much_is_dropped_and_counted(make, store, dropped):
    """While the store is away a bounded number waits; all of it is written when it is back."""
    refusals = make(most=100_000)
    store.away = True
    for number in range(MOST_WAITING + 7):
        add(refusals, number, key_id=f"key_{number}")
    add(refusals, 9999, key_id="key_5")  # one more of a kind that waits
    refusals._turn()

    assert [1] * 7 == dropped
    store.away = False
    while refusals._turn():
        pass
    kept = store.log.list(EVERYTHING)
    assert (MOST_WAITING, MOST_WAITING + 1) == (len(kept), sum(each.count for each in kept))


def test_an_outage_is_logged_once_each_way(make, store, caplog):
    refusals = make()
    add(refusals, 1)
    store.away = True
    with caplog.at_level(logging.INFO):
        assert [True, True] == [refusals._turn(), refusals._turn()]
        store.away = False
        refusals._turn()

    assert 2 == len(caplog.messages)
    assert ["req_000001"] == [each.id for each in store.log.list(EVERYTHING)]


def test_a_stop_while_the_store_is_away_says_what_is_lost(make, store, caplog):
    refusals = make()
    for number in range(3):
        add(refusals, number)
    store.away = True
    refusals.close()

    assert "3 refused requests could not be kept" in caplog.text


def test_memory_is_bounded(make, clock):
    """However many kinds come, and however many are written meanwhile."""
    refusals = make()
    for number in range(MOST_RECENT + 500):
        add(refusals, number, key_id=f"key_{number}")
        if number % 500 == 0:
            refusals.close()

    assert len(refusals._recent) <= MOST_RECENT
    refusals.close()
    assert not refusals._ids
    assert not refusals._waiting


def test_old_ones_are_deleted(make, store, clock):
    refusals = make(days=14)
    add(refusals, 1)
    assert not refusals._turn()
    clock.advance(14 * 86400 + 1)
    refusals._turn()

    assert [] == store.log.list(EVERYTHING)


def test_the_number_is_bounded(make, store, clock):
    """Between two purges at most a tenth more is kept than allowed."""
    refusals = make(most=100)
    for number in range(450):
        add(refusals, number, key_id=f"key_{number}")
        while refusals._turn():
            pass
        assert len(store.log.list(EVERYTHING)) <= 111

    assert "req_000449" == store.log.list(RefusalQuery(limit=1))[0].id or refusals.find("req_000449")


def test_none_are_kept_for_0_days(make, store):
    refusals = make(days=0)
    add(refusals, 1)
    refusals.close()

    assert [] == store.log.list(EVERYTHING)


def test_counts_all_of_many_threads(make, store):
    refusals = make()

    def flood(first: int) -> None:
        for number in range(500):
            add(refusals, first + number)
            if number % 100 == 0:
                refusals.close()

    at_once(*[lambda first=first: flood(first) for first in range(0, 4000, 500)])
    refusals.close()

    (kept,) = store.log.list(EVERYTHING)
    assert 4000 == kept.count
