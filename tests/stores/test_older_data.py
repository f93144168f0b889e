"""What the program of 2026-11-29 has stored, before it kept sums by day of a time zone, is read on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import pymongo
import pytest
from bson import json_util

from llmgateway.local_time import TimeZones
from llmgateway.records import Batch, RecordQuery, ReportQuery, SelfService
from llmgateway.stores.mongo.database import MongoDatabase
from llmgateway.stores.mongo.organisation import MongoOrganisation
from llmgateway.stores.mongo.usage import MongoUsageLog
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteOrganisation, SQLiteUsageLog

from .contract import usage

OLDER = Path(__file__).parent / "older"
"""30 records, one an hour from 2026-10-24T21:30Z on, with their sums, and a group. They were written by that program
itself, and must not be edited."""

BERLIN = TimeZones(("UTC", "Europe/Berlin"), (datetime(2026, 10, 31, 23, tzinfo=UTC),))
"""An admin chose Berlin after the upgrade."""


@pytest.fixture
def sqlite_stores(tmp_path):
    path = tmp_path / "gateway.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((OLDER / "gateway.sql").read_text())
    with closing(SQLiteDatabase(path)) as database:
        yield SQLiteUsageLog(database, zones=lambda: BERLIN), SQLiteOrganisation(database)


@pytest.fixture
def mongo_stores(mongo_server, database_name):
    with pymongo.MongoClient(mongo_server.url) as client:
        for name, documents in json_util.loads((OLDER / "gateway.json").read_text()).items():
            if documents:
                client[database_name][name].insert_many(documents)
    with closing(MongoDatabase(mongo_server.url, database=database_name)) as database:
        yield MongoUsageLog(database, zones=lambda: BERLIN), MongoOrganisation(database)


@pytest.fixture(params=["sqlite", "mongo"])
def stores(request):
    return request.getfixturevalue(f"{request.param}_stores")


def test_days_before_the_upgrade_are_utc_days(stores):
    """In both kinds of days; the fixture's records are counted, and can be read."""
    log, _ = stores
    in_utc = [("2026-10-24", 3), ("2026-10-25", 24), ("2026-10-26", 3)]

    for query in (ReportQuery(by=["day"]), ReportQuery(by=["day"], in_utc=True)):
        assert in_utc == [(row.by["day"], row.requests) for row in log.report(query)]
    assert 30 == len(log.records(RecordQuery(limit=100)))
    assert in_utc == [(row.by["day"], row.requests) for row in rebuilt(log).report(ReportQuery(by=["day"]))]


def test_the_days_after_it_are_those_of_the_time_zone(stores):
    """The same person and key: the sums go on where those of the older program end."""
    log, _ = stores
    late = [usage(1, timestamp=datetime(2026, 11, 2, 23, 30, tzinfo=UTC), group="physics", total_tokens=1)]

    log.append(late, batch=Batch("new", 1))

    november = {"first_day": date(2026, 11, 1), "by": ["day"]}
    assert ["2026-11-03"] == [row.by["day"] for row in log.report(ReportQuery(**november))]
    assert ["2026-11-02"] == [row.by["day"] for row in log.report(ReportQuery(**november, in_utc=True))]
    assert [31] == [row.requests for row in log.report()]


def test_attempts_of_older_records_count_at_the_last_deployment(stores):
    """They do not say what the others are called at Azure; a rebuild does not invent it."""
    log, _ = stores
    expected = [("gpt-4o-eu", 29), ("gpt-4o-fr", 1)]

    for logged in (log, rebuilt(log)):
        rows = [*logged.report(ReportQuery(by=["deployment"]))]
        assert expected == [(row.by["deployment"], row.requests) for row in rows]
        assert [435, 25] == [row.total_tokens for row in rows]


def test_older_groups_have_no_cost_centre(stores):
    """Until an admin sets one."""
    _, organisation = stores

    assert organisation.load().groups["physics"].cost_centre is None
    assert "4711" == organisation.update_group("physics", {"cost_centre": "4711"}).cost_centre
    assert "4711" == organisation.load().groups["physics"].cost_centre


def test_older_groups_offer_no_keys(stores):
    """Until an admin says how many people may make themselves."""
    _, organisation = stores

    assert organisation.load().groups["physics"].self_service is None
    assert (
        SelfService(keys=2) == organisation.update_group("physics", {"self_service": SelfService(keys=2)}).self_service
    )
    assert SelfService(keys=2) == organisation.load().groups["physics"].self_service


def rebuilt(log):
    for _ in log.rebuild():
        pass
    return log


def test_older_sums_have_no_hours_until_they_are_rebuilt(stores):
    """Coarser sums are made of them at the upgrade; what their records say is found by a rebuild."""
    log, _ = stores
    log.append([usage(1, timestamp=datetime(2026, 11, 2, 12, tzinfo=UTC))], batch=Batch("new", 1))

    assert 31 == sum(day.requests for day in log.spreads())
    rebuilt(log)

    assert [("2026-10-24", 3, 3), ("2026-10-25", 24, 24), ("2026-10-26", 3, 3), ("2026-11-02", 1, 1)] == [
        (day.day, day.requests, day.spread.requests) for day in log.spreads()
    ]


def test_every_report_has_what_is_there_at_the_upgrade(stores):
    """Whatever it groups by, before anything is appended."""
    log, _ = stores

    for by in ((), ("day",), ("group", "model"), ("month", "user"), ("user",), ("day", "key"), ("deployment",)):
        assert 30 == sum(row.requests for row in log.report(ReportQuery(by=by)))


def test_purged_days_stay_in_the_coarser_sums(mongo_stores, mongo_server, database_name):
    """Their records are deleted, so they are made from the sums of keys, once."""
    log, _ = mongo_stores
    with pymongo.MongoClient(mongo_server.url) as client:
        client[database_name]["logs"].delete_many({"timestamp": {"$lt": datetime(2026, 10, 25, tzinfo=UTC)}})
        client[database_name]["usage_state"].update_one({}, {"$set": {"kept_before": "2026-10-25"}})
    log.append([usage(1, timestamp=datetime(2026, 11, 2, 12, tzinfo=UTC))], batch=Batch("new", 1))
    expected = [("2026-10-24", 3), ("2026-10-25", 24), ("2026-10-26", 3), ("2026-11-02", 1)]

    for _ in range(2):
        assert expected == [(row.by["day"], row.requests) for row in log.report(ReportQuery(by=["day"]))]
        assert [0, 24, 3, 1] == [day.spread.requests for day in log.spreads()]
        rebuilt(log)
