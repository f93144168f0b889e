"""No key is in a group that is gone, whatever comes between two steps: MongoDB without transactions."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import pytest

from llmgateway.errors import GroupInUse, NoSuchGroup, StoreUnavailable
from llmgateway.stores.mongo.database import MongoDatabase
from llmgateway.stores.mongo.keys import MongoKeys
from llmgateway.stores.mongo.organisation import MongoOrganisation
from tests.stores.contract import group, key, refused
from tests.stores.test_exactly_once import Fault, FaultyMongo
from tests.stores.test_mongo_import import Dying

HOUR = 3600

JOINS = {
    "add": lambda keys: keys.add(key(1, group="physics")),
    "add_all": lambda keys: keys.add_all([key(1, group="physics"), key(2, group="chemistry")]),
    "update": lambda keys: keys.update("key_0003", {"group": "physics", "name": "new"}),
}
joins = pytest.mark.parametrize("join", JOINS.values(), ids=JOINS)


class Store:
    """The keys and groups of one process."""

    def __init__(self, database, clock):
        self.database = database
        self.keys = MongoKeys(database, clock=clock)
        self.organisation = MongoOrganisation(database, clock=clock)

    def reset(self):
        with self.database.collections() as collections:
            for name in ("keys", "imports", "organisation"):
                collections[name].delete_many({})
        for name in ("physics", "chemistry"):
            self.organisation.set_group(group(name))
        self.keys.add(key(3))

    @property
    def members(self):
        return [record for record in self.keys.list() if record.group == "physics"]

    def check(self):
        """Every key's group is there."""
        groups = self.organisation.load().groups
        assert {record.group for record in self.keys.list()} <= {None, *groups}


@pytest.fixture
def store(mongo_server, database_name, clock):
    with closing(MongoDatabase(mongo_server.url, database=database_name)) as database:
        yield Store(database, clock)


@pytest.fixture
def faulty(mongo_server, database_name, clock):
    """Another process, between whose steps something happens."""
    with closing(FaultyMongo(mongo_server.url, database=database_name, timeout=10)) as database:
        yield Store(database, clock)
        database.fault.set(0, "")
        database.fault.action = None


@pytest.fixture
def other(mongo_server, database_name, clock):
    """A third process, with steps of its own."""
    with closing(FaultyMongo(mongo_server.url, database=database_name, timeout=10)) as database:
        database.fault = Fault()
        yield Store(database, clock)


@pytest.fixture
def dying(mongo_server, database_name, clock):
    with closing(Dying(mongo_server.url, database=database_name)) as database:
        yield Store(database, clock)


def at_every_step(store, faulty, call, meanwhile):
    """Make a *call* again and again, with *meanwhile* before its first step, its second one and so on."""
    fault = faulty.database.fault
    step, happened = 0, True
    while happened:
        step += 1
        store.reset()
        fault.set(step, "before")
        fault.action = meanwhile
        yield refused(call)
        happened = fault.happened
        fault.set(0, "")
    assert step > 2


@joins
def test_a_group_that_is_removed_between_two_steps_is_not_joined(store, faulty, join):
    """Whenever the removal comes: it is refused, or the key's call is, or both are."""
    removed = []

    def remove():
        removed.append(not refused(lambda: store.organisation.remove_group("physics")))

    ends = set()
    for was_refused in at_every_step(store, faulty, lambda: join(faulty.keys), remove):
        store.check()
        assert was_refused == (not store.members)
        ends.add((was_refused, removed.pop() if removed else None))

    assert (True, True) in ends
    assert (False, False) in ends


@joins
def test_a_group_that_is_joined_between_two_steps_is_not_removed(store, faulty, join):
    """Whenever the key comes: it is refused, or the removal is, or both are."""
    joined = []

    def come():
        joined.append(not refused(lambda: join(store.keys)))

    ends = set()
    remove = lambda: faulty.organisation.remove_group("physics")  # noqa: E731
    for was_refused in at_every_step(store, faulty, remove, come):
        store.check()
        assert was_refused == ("physics" in store.organisation.load().groups)
        ends.add((was_refused, joined.pop() if joined else None))

    assert (False, False) in ends
    assert (True, True) in ends


@joins
def test_what_dies_on_the_way_into_a_group_does_not_keep_it_for_ever(store, dying, clock, join):
    """An hour later the group can be removed, if the key did not come into it, and the key can come."""
    steps, ends = 0, set()
    while True:
        steps += 1
        store.reset()
        dying.database.steps = steps
        try:
            join(dying.keys)
        except StoreUnavailable:
            pass
        else:
            break
        with suppress(GroupInUse):
            store.organisation.remove_group("physics")
        store.check()
        clock.advance(HOUR + 1)

        if store.members:
            assert refused(lambda: store.organisation.remove_group("physics"))
        else:
            assert not refused(lambda: store.organisation.remove_group("physics"))
            store.organisation.set_group(group())
            join(store.keys)
            assert 1 == len(store.members)
            store.keys.update(store.members[0].id, {"group": None})
            assert not refused(lambda: store.organisation.remove_group("physics"))
        ends.add(bool(store.members))
        store.check()
    assert steps > 3


def test_a_removal_that_dies_keeps_nobody_out_for_ever(store, dying, clock):
    """A minute later the group is as it was, or gone; a removal that was only slow does not take it away then."""
    steps = 0
    while True:
        steps += 1
        store.reset()
        dying.database.steps = steps
        try:
            dying.organisation.remove_group("physics")
        except StoreUnavailable:
            pass
        else:
            break
        clock.advance(61)

        assert store.keys.add(key(1, group="physics"))
        assert refused(lambda: store.organisation.remove_group("physics"))
        store.check()
    assert steps > 3


def test_a_removal_that_was_slow_begins_again(store, faulty, clock):
    """Its mark was taken for a dead process' by a key that came: it sees the key then."""

    def late():
        clock.advance(61)
        store.keys.add(key(1, group="physics"))

    for was_refused in at_every_step(store, faulty, lambda: faulty.organisation.remove_group("physics"), late):
        store.check()
        assert was_refused == ("physics" in store.organisation.load().groups)


def test_a_key_that_was_slow_begins_again(store, faulty, clock):
    """Its mark was taken for a dead process' by the group's removal: it is refused then."""

    def late():
        clock.advance(HOUR + 1)
        with suppress(GroupInUse):
            store.organisation.remove_group("physics")

    for was_refused in at_every_step(store, faulty, lambda: JOINS["update"](faulty.keys), late):
        store.check()
        assert was_refused == (not store.members)


def test_a_key_that_stays_in_its_group_does_not_come_back_to_it(store, faulty):
    """Sent as it was read, its group is none that it comes into; if it has left that in between, it is."""

    def leave():
        store.keys.update(key(1).id, {"group": None})
        store.organisation.remove_group("physics")

    def stay():
        store.keys.add(key(1, group="physics"))
        faulty.database.fault.step = step.pop()
        faulty.keys.update(key(1).id, {"group": "physics", "name": "new"})

    for number in range(1, 6):
        store.reset()
        step = [number]
        faulty.database.fault.action = leave
        refused(stay)
        faulty.database.fault.set(0, "")
        store.check()


@joins
@pytest.mark.parametrize("stop", range(1, 8))
def test_a_key_comes_while_its_group_is_removed(store, faulty, other, join, stop):
    """Whichever steps of the one come between whichever steps of the other: at least one is refused."""
    step, happened = 0, True
    while happened:
        step += 1
        store.reset()
        stopped, go_on = threading.Event(), threading.Event()
        faulty.database.fault.set(stop, "before")
        faulty.database.fault.action = lambda stopped=stopped, go_on=go_on: (stopped.set(), go_on.wait(10))
        with ThreadPoolExecutor(1) as thread:
            joining = thread.submit(refused, lambda: join(faulty.keys))
            joining.add_done_callback(lambda _, stopped=stopped: stopped.set())
            assert stopped.wait(10)

            other.database.fault.set(step, "before")
            other.database.fault.action = lambda go_on=go_on, joining=joining: (go_on.set(), joining.result(10))
            stays = refused(lambda: other.organisation.remove_group("physics"))
            happened = other.database.fault.happened
            go_on.set()

            store.check()
            assert stays == ("physics" in store.organisation.load().groups)
            assert joining.result(10) == (not store.members)
    assert step > 3


def test_a_prompt_brings_no_removed_group_back(store, faulty):
    """A change of a group during its removal either happens before it, or finds no group."""
    call = lambda: faulty.organisation.update_group("physics", {"note": "new"})  # noqa: E731
    for _ in at_every_step(store, faulty, call, lambda: store.organisation.remove_group("physics")):
        assert store.organisation.load().groups.get("physics") in (None, group(note="new"))


def test_keys_of_a_group_that_is_being_removed_are_as_before(store, dying):
    """The mark changes nothing of what holds for them, and a key may leave the group."""
    store.reset()
    store.keys.add(key(1, group="physics"))
    dying.database.steps = 4
    with pytest.raises(StoreUnavailable):
        dying.organisation.remove_group("physics")

    assert group() == store.organisation.load().groups["physics"]
    with pytest.raises(NoSuchGroup):
        store.keys.add(key(2, group="physics"))
    assert key(1, group="physics", name="new") == store.keys.update(key(1).id, {"group": "physics", "name": "new"})
    assert key(1, name="new") == store.keys.update(key(1).id, {"group": None})
