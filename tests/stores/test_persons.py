"""People in every store, with one contract."""

from __future__ import annotations

from contextlib import closing

import pytest

from llmgateway.stores.mongo.database import MongoDatabase
from llmgateway.stores.mongo.keys import MongoKeys
from llmgateway.stores.mongo.organisation import MongoOrganisation
from llmgateway.stores.mongo.persons import MongoPersons
from llmgateway.stores.redis.cache import RedisCache
from llmgateway.stores.redis.entries import EntrySigner
from llmgateway.stores.redis.keys import RedisKeys
from llmgateway.stores.redis.organisation import RedisOrganisation
from llmgateway.stores.redis.persons import RedisPersons
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteKeys, SQLiteOrganisation, SQLitePersons

from .person_contract import PersonStoreContract

SIGNER = EntrySigner(b"a secret of this test")


class TestSQLitePersons(PersonStoreContract):
    @pytest.fixture
    def database(self, tmp_path):
        with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
            yield database

    @pytest.fixture
    def other_database(self, tmp_path, database):
        with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as other:
            yield other

    @pytest.fixture
    def persons(self, database):
        return SQLitePersons(database)

    @pytest.fixture
    def elsewhere(self, other_database):
        return SQLitePersons(other_database)

    @pytest.fixture
    def organisation(self, other_database):
        return SQLiteOrganisation(other_database)

    @pytest.fixture
    def keys(self, other_database):
        return SQLiteKeys(other_database)


class TestMongoPersons(PersonStoreContract):
    @pytest.fixture
    def database(self, mongo_server, database_name):
        with closing(MongoDatabase(mongo_server.url, database=database_name)) as database:
            yield database

    @pytest.fixture
    def other_database(self, mongo_server, database_name):
        with closing(MongoDatabase(mongo_server.url, database=database_name)) as database:
            yield database

    @pytest.fixture
    def persons(self, database):
        return MongoPersons(database, begin_version=MongoOrganisation(database).begin_version)

    @pytest.fixture
    def elsewhere(self, other_database):
        return MongoPersons(other_database, begin_version=MongoOrganisation(other_database).begin_version)

    @pytest.fixture
    def organisation(self, other_database):
        return MongoOrganisation(other_database)

    @pytest.fixture
    def keys(self, other_database):
        return MongoKeys(other_database)


class TestRedisPersons(TestSQLitePersons):
    """Redis in front of SQLite."""

    @pytest.fixture
    def cache(self, redis_server, namespace):
        with closing(RedisCache(redis_server.url, signer=SIGNER, namespace=namespace)) as cache:
            yield cache

    @pytest.fixture
    def other_cache(self, redis_server, namespace):
        with closing(RedisCache(redis_server.url, signer=SIGNER, namespace=namespace)) as cache:
            yield cache

    @pytest.fixture
    def persons(self, cache, database):
        return RedisPersons(cache, SQLitePersons(database))

    @pytest.fixture
    def elsewhere(self, other_cache, other_database):
        return RedisPersons(other_cache, SQLitePersons(other_database))

    @pytest.fixture
    def organisation(self, other_cache, other_database):
        return RedisOrganisation(other_cache, SQLiteOrganisation(other_database))

    @pytest.fixture
    def keys(self, other_cache, other_database):
        return RedisKeys(other_cache, SQLiteKeys(other_database))

    def test_the_copy_in_redis_has_people(self, persons, organisation, other_cache):
        """It is what a process has that starts while the durable store is away."""
        from .person_contract import ADA

        persons.change("ada", lambda _: ADA)
        organisation.load()

        assert {"ada": ADA} == other_cache.organisation().persons
