"""A class' keys come into force together or not at all, wherever their import ends: MongoDB without transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pymongo
import pytest
from pymongo.errors import AutoReconnect

from llmgateway.errors import StoreUnavailable
from llmgateway.records import Imported, KeyChange, KeyQuery
from llmgateway.stores.mongo.database import MongoDatabase
from llmgateway.stores.mongo.keys import MongoKeys
from llmgateway.stores.mongo.organisation import MongoOrganisation
from tests.stores.contract import group, key
from tests.stores.test_exactly_once import FaultyMongo

HOUR = 3600


class Dying(MongoDatabase):
    """Does so many steps (operations on a collection) and then no more, as if its process were dead."""

    steps = 0
    half = False
    """Whether of the last step only half is done."""

    @contextmanager
    def collections(self, **options: Any) -> Iterator[Any]:
        with super().collections(**options) as database:
            yield DyingCollections(database, self)


@dataclass
class DyingCollections:
    database: Any
    life: Dying

    def __getitem__(self, name: str) -> DyingCollection:
        return DyingCollection(self.database[name], self.life)


@dataclass
class DyingCollection:
    collection: Any
    life: Dying

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operation = getattr(self.collection, name)

        def step(subject: Any = None, *arguments: Any, **options: Any) -> Any:
            self.life.steps -= 1
            if self.life.steps < 0:
                raise AutoReconnect("dead")
            if self.life.half and self.life.steps == 0:
                if name in ("insert_many", "bulk_write"):
                    subject = subject[: len(subject) // 2]
                elif name in ("update_many", "delete_many"):
                    found = [document["_id"] for document in self.collection.find(subject)]
                    subject = {"_id": {"$in": found[: len(found) // 2]}}
            return operation(subject, *arguments, **options)

        return step


@pytest.fixture
def database(mongo_server, database_name):
    with closing(MongoDatabase(mongo_server.url, database=database_name)) as database:
        yield database


@pytest.fixture
def keys(database, clock):
    return MongoKeys(database, clock=clock)


@pytest.fixture
def dying(mongo_server, database_name):
    with closing(Dying(mongo_server.url, database=database_name)) as database:
        yield database


@pytest.fixture
def collections(mongo_server, database_name):
    """The database as any other program sees it."""
    with pymongo.MongoClient(mongo_server.url, tz_aware=True) as client:
        yield client[database_name]


def count(keys, records):
    """How many of *records* are there; every way to look says the same."""
    ids = {record.id for record in records}
    listed = len([record for record in keys.list() if record.id in ids])
    assert listed == len([record for record in records if keys.find(record.digest).record is not None])
    assert listed == len([record for record in records if keys.get(record.id) is not None])
    return listed


def die(dying, clock, records, steps, *, half=False):
    """Whether an import that may do so many *steps* died."""
    dying.steps, dying.half = steps, half
    try:
        MongoKeys(dying, clock=clock).add_all(records)
    except StoreUnavailable:
        return True
    return False


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("conflict", [False, True])
def test_an_import_that_dies_anywhere_is_whole_in_the_end(keys, dying, clock, collections, half, conflict):
    """After an hour, by the next import, all of it is there or none; what is not there can be added."""
    ends = set()
    steps = 0
    while True:
        steps += 1
        records = [key(steps * 100 + number) for number in range(6)]
        if conflict:
            keys.add(key(steps * 100 + 99, digest=records[4].digest))
        if not die(dying, clock, records, steps, half=half):
            break
        clock.advance(HOUR + 1)
        assert set() == keys.add_all([key(9000 + steps)])

        there = count(keys, records if not conflict else records[:4] + records[5:])
        ends.add(there)
        if there == 0:
            assert ({records[4].digest} if conflict else set()) == keys.add_all(records)

    assert steps > 5
    assert ends == ({0} if conflict else {0, 6})
    assert 0 == collections["imports"].count_documents({})
    assert 0 == collections["keys"].count_documents({"importing": {"$exists": True}})


@pytest.mark.parametrize("half", [False, True])
def test_a_class_list_that_dies_anywhere_is_whole_in_the_end(keys, dying, clock, collections, half):
    """New keys and changes of others. The next list, two minutes later, finds all of this one there, or none."""
    ends = set()
    steps = 0
    while True:
        steps += 1
        there = [key(steps * 100 + number, user=f"there-{steps}-{number}") for number in range(4)]
        keys.add_all(there)
        new = [key(steps * 100 + 50 + number, user=f"new-{steps}-{number}") for number in range(4)]
        changes = [
            KeyChange(before=each, fields={"note": "changed"}, limits={"parallel_requests": 5}) for each in there
        ]
        dying.steps, dying.half = steps, half
        try:
            MongoKeys(dying, clock=clock).import_all(new, changes, alone=True)
            died = False
        except StoreUnavailable:
            died = True
        clock.advance(121)
        following = [key(9000 + steps, user=f"next-{steps}")]
        assert Imported() == keys.import_all(following, [], alone=True)._replace(changed=())

        after = [keys.get(record.id) for record in there]
        ends.add((count(keys, new), sum(each.note == "changed" for each in after)))
        assert [each.limits.parallel_requests == 5 for each in after] == [each.note == "changed" for each in after]
        if not died:
            break

    assert steps > 8
    assert {(0, 0), (4, 4)} == ends
    clock.advance(HOUR)  # for those that died before it was their turn
    keys.add_all([key(8999)])
    assert 0 == collections["imports"].count_documents({})
    assert 0 == collections["keys"].count_documents({"importing": {"$exists": True}})
    assert 0 == collections["keys"].count_documents({"pending": {"$exists": True}})


def test_a_class_list_that_lives_is_waited_for(keys, dying, clock):
    """Another one is refused if it does not end in time, and stores nothing."""
    dying.steps = 5
    with pytest.raises(StoreUnavailable):
        MongoKeys(dying, clock=clock).import_all([key(1, user="new")], [], alone=True)
    keys._database.report_timeout = 1.0  # how long it waits

    with pytest.raises(StoreUnavailable, match="Other keys are being made"):
        keys.import_all([key(2, user="new")], [], alone=True)

    assert [] == keys.list()
    clock.advance(121)
    assert set() == keys.import_all([key(2, user="new")], [], alone=True).present


def test_of_an_import_that_died_nothing_is_in_force(keys, dying, clock, collections, database):
    """Nobody sees, changes, revokes or removes what is only marked, and it counts as existing until it is removed."""
    MongoOrganisation(database).set_group(group("physics"))
    records = [key(number, group="physics") for number in range(6)]
    keys.add(key(99, digest=records[0].digest.replace("0", "a")))
    assert die(dying, clock, records, 3)
    assert 6 == collections["keys"].count_documents({"importing": {"$exists": True}})

    assert 0 == count(keys, records)
    assert [] == keys.list(KeyQuery(group="physics"))
    assert keys.update(records[1].id, {"name": "x"}) is None
    assert keys.update(records[1].id, {}) is None
    assert keys.rotate(records[1].id, "f" * 64, retires_at=None) is None
    assert [] == keys.revoke_group("physics")
    assert not keys.remove(records[1].id)
    assert {record.digest for record in records} == keys.add_all(records)
    clock.advance(HOUR + 1)
    assert set() == keys.add_all(records)
    assert records == [record for record in keys.list() if record.group == "physics"]


def test_marked_keys_take_no_place_on_a_page(keys, dying, clock):
    """A page is as long as was asked, whatever is marked in between."""
    keys.add_all([key(1), key(9)])
    assert die(dying, clock, [key(number) for number in range(2, 8)], 3)

    assert [key(1), key(9)] == keys.list(KeyQuery(limit=2))


def test_the_lowest_digests_are_stored_first(dying, clock, collections):
    """Whatever the order of the rows: of two imports that share keys one has them all, and neither stops the other."""
    records = [key(number) for number in (5, 2, 4, 1, 3, 6)]

    assert die(dying, clock, records, 3, half=True)

    assert [1, 2, 3] == sorted(int(document["digest"], 16) for document in collections["keys"].find())


def test_an_import_that_lives_is_left_alone(keys, dying, clock):
    """Another one does not take it for dead before an hour is over."""
    records = [key(number) for number in range(6)]
    assert die(dying, clock, records, 3)

    clock.advance(HOUR - 1)
    keys.add_all([key(99)])

    assert {records[0].digest} == keys.add_all([key(77, digest=records[0].digest)])


def test_an_import_that_was_decided_needs_no_hour(keys, dying, clock):
    """If it died while its keys came into force, the next import lets the rest follow at once."""
    records = [key(number) for number in range(6)]
    assert die(dying, clock, records, 5, half=True)
    assert 3 == count(keys, records)

    keys.add_all([key(99)])

    assert 6 == count(keys, records)


def test_an_import_that_was_given_up_stores_nothing(mongo_server, database_name, keys, clock, collections):
    """One that stood still for an hour, and was tidied away, notices before its keys come into force."""
    records = [key(number) for number in range(6)]

    with closing(FaultyMongo(mongo_server.url, database=database_name, timeout=10)) as late:
        # The fourth step is the decision, after what others have left, the announcement and the keys.
        late.fault.set(4, "before")
        late.fault.action = lambda: (clock.advance(HOUR + 1), keys.add_all([key(99)]))
        try:
            with pytest.raises(StoreUnavailable):
                MongoKeys(late, clock=clock).add_all(records)
        finally:
            late.fault.set(0, "")
            late.fault.action = None

    assert 0 == count(keys, records)
    assert 0 == collections["keys"].count_documents({"importing": {"$exists": True}})


def test_what_is_gone_when_it_is_looked_for_was_not_in_the_way(mongo_server, database_name, keys, clock, collections):
    """An import is repeated if it conflicted with a key of another import that then failed."""
    records = [key(number) for number in range(6)]
    keys.add(key(99, digest=records[3].digest))
    with closing(FaultyMongo(mongo_server.url, database=database_name, timeout=10)) as faulty:
        # The fifth step takes back what was inserted, before it is asked whose digests were in the way.
        faulty.fault.set(5, "before")
        faulty.fault.action = lambda: collections["keys"].delete_one({"_id": key(99).id})
        try:
            assert set() == MongoKeys(faulty, clock=clock).add_all(records)
        finally:
            faulty.fault.set(0, "")
            faulty.fault.action = None

    assert 6 == count(keys, records)


@pytest.mark.parametrize("mode", ["before", "half", "after"])
def test_an_answer_is_true_whatever_fails_once(mongo_server, database_name, keys, clock, mode):
    """After success all keys are found at once; after an error none is found."""
    with closing(FaultyMongo(mongo_server.url, database=database_name, timeout=10)) as faulty:
        steps, happened = 0, True
        while happened:
            steps += 1
            records = [key(steps * 100 + number) for number in range(6)]
            faulty.fault.set(steps, mode)
            try:
                stored = set() == MongoKeys(faulty, clock=clock).add_all(records)
            except StoreUnavailable:
                stored = False
            happened = faulty.fault.happened
            faulty.fault.set(0, "")

            assert (6 if stored else 0) == count(keys, records)
    assert steps > 5
