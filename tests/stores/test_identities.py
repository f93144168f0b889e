"""People who sign in, and sessions, in every store: one contract."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from llmgateway.errors import UserTaken
from llmgateway.records import Identity
from llmgateway.stores.mongo.database import MongoDatabase
from llmgateway.stores.mongo.identities import MongoIdentities, MongoSessions
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteIdentities, SQLiteSessions

from .contract import LATER, NEW_YEAR, at_once

ISSUER = "https://id.example.org"


def identity(subject: str, **fields) -> Identity:
    defaults = {"claimed": "ada", "first_at": NEW_YEAR, "signed_in_at": NEW_YEAR}
    return Identity(id=Identity.id_of(ISSUER, subject), issuer=ISSUER, subject=subject, **defaults | fields)


FULL = identity(
    "s-1",
    user="Zoë/ада 🎓",
    email="ada@example.org",
    claims={"groups": ("a", "b"), "dept": "x"},
    refresh_token="encrypted",
    due_at=NEW_YEAR,
    refused_since=NEW_YEAR + timedelta(milliseconds=1),
    blocked_keys=("key_1",),
    left_at=LATER,
    active=False,
)


@pytest.fixture(params=["sqlite", "mongo"])
def opened(request, tmp_path):
    """Opens the stores as another process would."""
    stack = []

    def open_one():
        if request.param == "sqlite":
            database = SQLiteDatabase(tmp_path / "gateway.sqlite")
            stores = SQLiteIdentities(database), SQLiteSessions(database)
        else:
            server, name = (request.getfixturevalue(each) for each in ("mongo_server", "database_name"))
            database = MongoDatabase(server.url, database=name)
            stores = MongoIdentities(database), MongoSessions(database)
        stack.append(database)
        return stores

    yield open_one
    for database in stack:
        with closing(database):
            pass


@pytest.fixture
def identities(opened):
    return opened()[0]


@pytest.fixture
def sessions(opened):
    return opened()[1]


def put(store, each):
    return store.change(each.id, lambda _: each)


class TestIdentities:
    def test_come_back_as_they_were_stored(self, identities, opened):
        """Another process finds them by their identifier and by the person."""
        assert (None, FULL) == put(identities, FULL)

        elsewhere = opened()[0]
        assert FULL == elsewhere.get(FULL.id) == elsewhere.of_user(FULL.user)
        assert elsewhere.get("person_0") is None
        assert elsewhere.of_user("zoë/ада 🎓") is None

    def test_no_two_have_the_same_person(self, identities, opened):
        """Of several processes at once one gets the name, and the others are told."""
        stores, taken = [opened()[0] for _ in range(4)], []

        def take(store, number):
            def run():
                try:
                    put(store, identity(f"s-{number}", user="ada"))
                except UserTaken:
                    taken.append(number)

            return run

        at_once(*(take(store, number) for number, store in enumerate(stores)))

        assert 3 == len(taken)
        put(identities, identity("s-9"))
        with pytest.raises(UserTaken):
            put(identities, identity("s-9", user="ada"))
        assert identities.get(identity("s-9").id).user is None

    def test_no_change_is_lost(self, identities, opened):
        elsewhere = opened()[0]
        put(identities, identity("s-1"))

        def change(store, **fields):
            return lambda: store.change(identity("s-1").id, lambda before: replace(before, **fields))

        at_once(change(identities, email="e"), change(elsewhere, user="ada"), change(elsewhere, due_at=LATER))

        assert identity("s-1", email="e", user="ada", due_at=LATER) == identities.get(identity("s-1").id)

    def test_a_change_that_is_refused_stores_nothing(self, identities):
        def refuse(_):
            raise KeyError("no")

        with pytest.raises(KeyError):
            identities.change(FULL.id, refuse)
        assert identities.get(FULL.id) is None

    def test_removed_ones_leave_their_person_to_others(self, identities):
        put(identities, FULL)
        assert (FULL, None) == identities.change(FULL.id, lambda _: None)
        assert (None, None) == identities.change(FULL.id, lambda _: None)
        put(identities, identity("s-2", user=FULL.user))

    def test_are_listed_page_by_page(self, identities):
        """All, those that wait, or those with a person."""
        some = sorted((identity(f"s-{n}", user=f"u-{n}" if n % 2 else None) for n in range(6)), key=lambda one: one.id)
        for each in some:
            put(identities, each)

        assert some == list(identities.list(limit=10))
        assert some[2:4] == list(identities.list(after=some[1].id, limit=2))
        assert [each for each in some if each.user is None] == list(identities.list(waiting=True, limit=10))
        assert [each for each in some if each.user] == list(identities.list(waiting=False, limit=10))

    def test_are_due_oldest_first(self, identities):
        for number, due in enumerate((LATER, NEW_YEAR, None, NEW_YEAR - timedelta(days=1))):
            put(identities, identity(f"s-{number}", due_at=due))

        assert ["s-3", "s-1"] == [each.subject for each in identities.due(NEW_YEAR, limit=10)]
        assert ["s-3"] == [each.subject for each in identities.due(NEW_YEAR, limit=1)]

    def test_fields_of_a_newer_version_are_ignored(self):
        assert FULL == Identity.from_json(FULL.as_json() | {"of_later": 1})


class TestSessions:
    def test_last_until_their_time(self, sessions, opened):
        """They are found everywhere, and expire."""
        sessions.put("all", "x", until=LATER)
        sessions.put("all", "y", until=LATER)

        elsewhere = opened()[1]
        assert {"all": "y"} == elsewhere.look(["all", "none"], now=NEW_YEAR)
        assert {} == elsewhere.look(["all"], now=LATER)
        elsewhere.purge(LATER)
        assert {} == sessions.look(["all"], now=NEW_YEAR)

    def test_are_added_once(self, opened):
        """Of several processes at once, one adds it; it can be added again when it has expired."""
        added = []
        stores = [opened()[1] for _ in range(4)]
        at_once(*(lambda s=s: added.append(s.add("state", "", now=NEW_YEAR, until=LATER)) for s in stores))

        assert [False, False, False, True] == sorted(added)
        assert stores[0].add("state", "", now=LATER, until=LATER + timedelta(days=1))
