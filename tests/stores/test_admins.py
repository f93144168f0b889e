"""The named admins, in every combination of stores: one contract."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from llmgateway.errors import NameTaken, StoreUnavailable
from llmgateway.records import FIRST_OWNER, AdminRecord, AuditQuery, Role
from llmgateway.stores.cached_admins import CachedAdmins
from llmgateway.stores.mongo.audit import MongoAuditLog
from llmgateway.stores.mongo.database import MongoDatabase
from llmgateway.stores.recent_version import RecentVersion
from llmgateway.stores.sqlite import SQLiteAdmins, SQLiteAuditLog, SQLiteDatabase
from llmgateway.stores.sqlite.schema import MIGRATIONS
from tests.stores.backends import COMBINATIONS, backends
from tests.stores.contract import LATER, NEW_YEAR, at_once


@pytest.fixture(params=COMBINATIONS)
def opened(request, tmp_path):
    yield from backends(request, request.param, tmp_path)


@pytest.fixture
def admins(opened):
    return opened().admins


@pytest.fixture
def elsewhere(opened):
    return opened().admins


def admin(number: int = 1, **fields: object) -> AdminRecord:
    record = AdminRecord(
        id=f"admin_{number:04}",
        digest=f"{number:064x}",
        name=f"Grace {number}",
        role=Role.GROUP,
        groups=("physics", "Büro. $1"),
        created_at=NEW_YEAR,
    )
    return replace(record, **fields)


FULL = admin(
    7,
    note="Teaching assistant",
    active=False,
    expires_at=LATER,
    retiring_digest="f" * 64,
    retires_at=LATER,
    name="Zoë",
    role=Role.OWNER,
    groups=(),
)


def test_begins_empty(admins):
    assert ([], None, None) == (admins.list(), admins.get("admin_1"), admins.find("0" * 64))


def test_shows_an_admin_as_it_went_in(admins, elsewhere):
    """Every field comes back, by the identifier and by each digest."""
    for record in (FULL, admin(1)):
        assert admins.add(record)

    assert [admin(1), FULL] == elsewhere.list()
    assert FULL == elsewhere.get(FULL.id)
    assert FULL == elsewhere.find(FULL.digest) == elsewhere.find("f" * 64)
    assert elsewhere.find("e" * 64) is None


@pytest.mark.parametrize("taken", [{"id": "admin_0001"}, {"name": "Grace 1"}, {"digest": admin(1).digest}])
def test_nothing_is_there_twice(admins, elsewhere, taken):
    """No identifier, no name, no digest."""
    assert admins.add(admin(1))

    assert not elsewhere.add(admin(2, **taken))
    assert [admin(1)] == elsewhere.list()


def test_a_change_is_seen_everywhere_when_it_returns(admins, elsewhere):
    """Also by a process that has looked the admin up before."""
    admins.add(admin(1))
    assert admin(1) == elsewhere.find(admin(1).digest)

    for after in (admin(1, active=False), admin(1, role=Role.VIEWER, groups=()), admin(1, digest="a" * 64)):
        before, changed = admins.change("admin_0001", lambda _, after=after: after)
        assert after == changed == elsewhere.find(after.digest) == admins.find(after.digest)
    assert elsewhere.find(admin(1).digest) is None
    assert (admin(1, digest="a" * 64), None) == admins.change("admin_0001", lambda _: None)
    assert elsewhere.find("a" * 64) is None
    assert admins.find("a" * 64) is None
    assert admins.change("admin_0001", lambda record: record) is None
    assert Role.VIEWER == before.role


def test_a_refused_change_is_not_made(admins, elsewhere):
    admins.add(admin(1))

    def refuse(record: AdminRecord) -> AdminRecord:
        raise LookupError(record.id)

    with pytest.raises(LookupError):
        elsewhere.change("admin_0001", refuse)
    assert [admin(1)] == admins.list()


def test_no_admin_gets_the_name_of_another(admins):
    admins.add(admin(1))
    admins.add(admin(2))

    with pytest.raises(NameTaken):
        admins.change("admin_0002", lambda record: replace(record, name="Grace 1"))
    assert [admin(1), admin(2)] == admins.list()
    assert (admin(2), admin(2)) == admins.change("admin_0002", lambda record: record)


def test_changes_at_once_are_all_kept(admins, elsewhere):
    """Each begins with what the other has left."""
    admins.add(admin(1, groups=()))

    def join(group: str) -> AdminRecord:
        store = elsewhere if int(group) % 2 else admins
        return store.change("admin_0001", lambda record: replace(record, groups=(*record.groups, group)))

    at_once(*[lambda number=number: join(str(number)) for number in range(8)])

    assert {str(number) for number in range(8)} == {*admins.get("admin_0001").groups}


def test_a_look_up_asks_the_store_only_after_a_change(opened):
    """Wherever there is a version: MongoDB alone has none, so that each look-up asks it."""
    backend, other = opened(), opened()
    backend.admins.add(admin(1))
    asked = []

    class Counting:
        def find(self, digest: str) -> AdminRecord | None:
            asked.append(digest)
            return backend.durable_admins.find(digest)

    version = getattr(backend.keys, "version", None)
    if version is None:
        pytest.skip("MongoDB alone has no version")
    cached = CachedAdmins(Counting(), circuit=None, version=RecentVersion(version))
    for _ in range(50):
        assert admin(1) == cached.find(admin(1).digest)
    assert 1 == len(asked)

    other.admins.change("admin_0001", lambda record: replace(record, active=False))
    assert not cached.find(admin(1).digest).active
    assert 2 == len(asked)


def test_a_known_admin_is_let_in_while_the_store_is_away():
    """An unknown one gets the store's error, not a refusal."""

    class Store:
        is_away = False

        def find(self, digest: str) -> AdminRecord | None:
            if self.is_away:
                raise StoreUnavailable("away")
            return admin(1) if digest == admin(1).digest else None

    store = Store()
    cached = CachedAdmins(store, circuit=None)
    assert admin(1) == cached.find(admin(1).digest)
    store.is_away = True

    assert admin(1) == cached.find(admin(1).digest)
    with pytest.raises(StoreUnavailable):
        cached.find("0" * 64)


def test_a_change_by_hand_is_noticed(tmp_path, request):
    """Also one in sqlite3, which an operator may use when all else is lost."""
    (opened,) = [next(backends(request, "sqlite", tmp_path))]
    admins = opened().admins
    admins.add(admin(1))
    assert admins.find(admin(1).digest).active

    with sqlite3.connect(tmp_path / "gateway.sqlite") as connection:
        connection.execute("UPDATE admins SET active = 0")
    connection.close()
    RecentVersion(lambda: None).wait_until_noticed()

    assert not admins.find(admin(1).digest).active


def test_entries_of_an_older_program_are_the_first_owners(tmp_path):
    """SQLite: the file of a program without named admins is converted."""
    place = next(index for index, step in enumerate(MIGRATIONS) if "CREATE TABLE admins" in step[0])
    path = tmp_path / "gateway.sqlite"
    SQLiteDatabase(path, migrations=MIGRATIONS[:place]).close()
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO audit (id, timestamp, admin_key_id, action, target) VALUES (?, 0, 'a1', 'key.create', '')",
            ["audit_1"],
        )
    connection.close()

    with closing(SQLiteDatabase(path)) as database:
        log = SQLiteAuditLog(database)
        (entry,) = log.entries(AuditQuery(admin=FIRST_OWNER, limit=10))
        assert (None, None, None) == (entry.admin_id, entry.admin_name, entry.groups)
        assert [] == log.entries(AuditQuery(groups=("physics",), limit=10))
        assert [] == SQLiteAdmins(database).list()


def test_documents_of_an_older_program_are_the_first_owners(mongo_server, database_name):
    """MongoDB: they lack the newer fields."""
    with closing(MongoDatabase(mongo_server.url, database=database_name)) as database:
        document = {"_id": "audit_1", "timestamp": NEW_YEAR, "address": None, "admin_key_id": "a1", "target": ""}
        with database.collection("audit") as collection:
            collection.insert_one(document | {"action": "key.create", "before": None, "after": None})

        log = MongoAuditLog(database)
        (entry,) = log.entries(AuditQuery(admin=FIRST_OWNER, limit=10))
        assert (None, None, None) == (entry.admin_id, entry.admin_name, entry.groups)
        assert [] == log.entries(AuditQuery(groups=("physics",), limit=10))
