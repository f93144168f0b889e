"""Refused requests in SQLite and in MongoDB."""

from __future__ import annotations

from contextlib import closing

import pytest

from llmgateway.errors import StoreUnavailable
from llmgateway.records import RefusalQuery
from llmgateway.stores.mongo.database import MongoDatabase
from llmgateway.stores.mongo.erasures import MongoErasures
from llmgateway.stores.mongo.refusals import MongoRefusalLog
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteErasures, SQLiteRefusalLog
from tests.servers import free_port
from tests.stores.contract import NEW_YEAR, erasure
from tests.stores.refusal_contract import RefusalLogContract, refusal


class TestSQLiteRefusalLog(RefusalLogContract):
    @pytest.fixture
    def log(self, tmp_path):
        with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
            yield SQLiteRefusalLog(database)

    @pytest.fixture
    def elsewhere(self, log, tmp_path):
        with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
            yield SQLiteRefusalLog(database)

    @pytest.fixture
    def erasures(self, log, tmp_path):
        with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
            yield SQLiteErasures(database)


class TestMongoRefusalLog(RefusalLogContract):
    @pytest.fixture
    def log(self, mongo_server, database_name):
        with closing(MongoDatabase(mongo_server.url, database=database_name)) as database:
            yield MongoRefusalLog(database)

    @pytest.fixture
    def elsewhere(self, mongo_server, database_name):
        with closing(MongoDatabase(mongo_server.url, database=database_name)) as database:
            yield MongoRefusalLog(database)

    @pytest.fixture
    def erasures(self, mongo_server, database_name):
        with closing(MongoDatabase(mongo_server.url, database=database_name)) as database:
            yield MongoErasures(database)


def test_an_unavailable_server_is_the_stores_error():
    with closing(MongoDatabase(f"mongodb://127.0.0.1:{free_port()}/", timeout=0.1)) as database:
        log = MongoRefusalLog(database)
        for action in (
            lambda: log.append([refusal()]),
            lambda: log.find("req_1"),
            lambda: log.list(RefusalQuery(limit=1)),
            lambda: log.erase(erasure()),
            lambda: log.kept_of("ada"),
            lambda: log.purge(NEW_YEAR, most=1, limit=1),
        ):
            with pytest.raises(StoreUnavailable):
                action()
