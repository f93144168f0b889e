"""Alerts on every store, and while the durable one is away."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from datetime import timedelta

import pytest

from llmgateway.errors import StoreUnavailable
from llmgateway.records import Outage
from llmgateway.stores.alerts import FallbackAlerts, MemoryAlerts
from llmgateway.stores.host_lock import HostLock
from llmgateway.stores.mongo.alerts import MongoAlerts
from llmgateway.stores.mongo.database import MongoDatabase
from llmgateway.stores.sqlite import SQLiteAlerts, SQLiteDatabase
from tests.stores.contract import LATER, NEW_YEAR, AlertStoreContract, alert

MINUTE = timedelta(minutes=1)


class TestSQLiteAlerts(AlertStoreContract):
    @pytest.fixture
    def alerts(self, tmp_path):
        with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
            yield SQLiteAlerts(database)

    @pytest.fixture
    def elsewhere(self, alerts, tmp_path):
        with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
            yield SQLiteAlerts(database)


class TestMongoAlerts(AlertStoreContract):
    @pytest.fixture
    def alerts(self, mongo_server, database_name):
        with closing(MongoDatabase(mongo_server.url, database=database_name)) as database:
            yield MongoAlerts(database)

    @pytest.fixture
    def elsewhere(self, mongo_server, database_name):
        with closing(MongoDatabase(mongo_server.url, database=database_name)) as database:
            yield MongoAlerts(database)


class TestMemoryAlerts(AlertStoreContract):
    @pytest.fixture
    def alerts(self):
        return MemoryAlerts()

    @pytest.fixture
    def elsewhere(self, alerts):
        return alerts


class Away:
    """A store that can be away."""

    def __init__(self) -> None:
        self.away = False
        self.alerts = MemoryAlerts()

    def __getattr__(self, name):
        def ask(*args, **kwargs):
            if self.away:
                raise StoreUnavailable("away")
            return getattr(self.alerts, name)(*args, **kwargs)

        return ask


class TestFallback(AlertStoreContract):
    @pytest.fixture
    def shared(self):
        return Away()

    @pytest.fixture
    def alerts(self, shared):
        return fallback(shared, lambda: True)

    @pytest.fixture
    def elsewhere(self, shared):
        return fallback(shared, lambda: False)

    def test_one_process_of_a_host_announces_while_the_store_is_away(self, shared, alerts, elsewhere):
        """It also delivers it, and does so when the store is back."""
        shared.away = True
        with pytest.raises(StoreUnavailable):
            elsewhere.add(alert(1))
        assert alerts.add(alert(1))
        assert not alerts.add(alert(1))
        with pytest.raises(StoreUnavailable):
            elsewhere.recent(limit=9)
        assert ["alert-0001"] == [each.id for each in alerts.recent(limit=9)]

        shared.away = False
        taken = alerts.take(now=LATER, until=LATER + MINUTE)
        assert "alert-0001" == taken.id
        assert alerts.save(taken)
        assert 0 == elsewhere.waiting()

    def test_a_store_that_has_just_failed_is_not_asked(self, shared):
        """Each question could take as long as its time-out."""
        now = [100.0]
        alerts = FallbackAlerts(shared, speaks=lambda: False, clock=lambda: now[0], retry_after=4)
        shared.away = True
        assert 0 == alerts.waiting()
        shared.away = False
        with pytest.raises(StoreUnavailable):
            alerts.add(alert(1))
        now[0] += 4
        assert alerts.add(alert(1))

    def test_the_end_of_an_outage_of_the_store_is_announced_by_one_host(self, shared, alerts):
        """Each host has seen it for itself, and all of them ask the same store when it is back."""
        other_host = fallback(shared, lambda: True)
        away = Outage(event="store", scope="mongodb", since=NEW_YEAR, over="MongoDB is back.")
        shared.away = True
        for host in (alerts, other_host):
            assert away == host.observe(away, until=LATER)
            assert away == host.observe(away, until=LATER)
        shared.away = False
        for host in (alerts, other_host):
            assert [away] == list(host.outages())
            host.clear(away.name, until=LATER)

        assert [True, False] == [host.end(away.name, now=LATER) for host in (alerts, other_host)]
        assert [] == list(alerts.outages())

    def test_an_outage_that_lasts_longer_than_that_of_the_store_goes_on(self, shared, alerts):
        """It is in the shared store then, and nowhere else."""
        refused = Outage(event="credential", scope="", since=NEW_YEAR, over="")
        shared.away = True
        alerts.observe(refused, until=LATER)
        shared.away = False
        alerts.observe(refused, until=LATER + MINUTE)

        assert [refused] == list(alerts.outages())
        assert alerts.end(refused.name, now=LATER) is None


def fallback(shared, speaks):
    return FallbackAlerts(shared, speaks=speaks, clock=lambda: 0.0, retry_after=0)


def test_one_process_holds_the_lock_of_a_host(tmp_path):
    """The next one gets it when that has died, also by SIGKILL."""
    program = (
        "import sys, pathlib; from llmgateway.stores.host_lock import HostLock; "
        "lock = HostLock(pathlib.Path(sys.argv[1])); print(lock.hold(), lock.hold(), flush=True); sys.stdin.read()"
    )
    path = tmp_path / "alerts.lock"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert "True True\n" == other.stdout.readline()
        mine = HostLock(path)
        assert not mine.hold()
        other.kill()
        other.wait(10)
        assert mine.hold()
        assert 0o600 == os.stat(path).st_mode & 0o777


def test_a_lock_that_cannot_be_had_keeps_nobody_silent(tmp_path):
    """Without its folder, or on a full disk, each process speaks."""
    assert HostLock(tmp_path / "no" / "alerts.lock").hold()
