"""What was used so far: sums of the usage log, and no waiting for one that is away."""

from __future__ import annotations

from contextlib import closing
from datetime import date

import pytest

from llmgateway.errors import StoreUnavailable
from llmgateway.records import Batch
from llmgateway.stores.circuit import Circuit
from llmgateway.stores.spending import LoggedSpending
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteUsageLog
from tests.stores.contract import usage


class Watched:
    """A usage log that is asked, and may be away."""

    def __init__(self, log) -> None:
        self.log = log
        self.asked = 0
        self.away = False

    def report(self, query):
        self.asked += 1
        assert query.promptly
        if self.away:
            raise StoreUnavailable("away")
        return self.log.report(query)


@pytest.fixture
def log(tmp_path):
    with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
        yield Watched(SQLiteUsageLog(database))


@pytest.fixture
def spending(log, clock):
    return LoggedSpending(log, circuit=Circuit("the usage log", retry_after=1, clock=clock))


def test_sums_what_one_or_all_have_used(log, spending):
    """Of a key, of a person, of a member, of a group, of everybody; nothing at all is zero."""
    records = [usage(1), usage(2, key_id="key_2", group="other"), usage(3, user="Ada", group="other")]
    log.log.append(records, batch=Batch("test", 1))
    first = usage(1)

    assert 3 == spending.so_far(first_day=None).requests
    assert 2 == spending.so_far(first_day=None, user="ada").requests
    assert 1 == spending.so_far(first_day=None, user="ada", group="other").requests
    assert 2 == spending.so_far(first_day=None, key_id=first.key_id).requests
    assert 2 == spending.so_far(first_day=None, group="other").requests
    assert 0 == spending.so_far(first_day=date(2099, 1, 1)).requests


def test_asks_a_log_that_is_away_once_a_second(log, spending, clock):
    """Requests that come meanwhile do not wait for it, and it is asked again when it may be back."""
    log.away = True
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            spending.so_far(first_day=None)
    assert 1 == log.asked

    log.away = False
    clock.advance(1)

    assert 0 == spending.so_far(first_day=None).requests
