"""The audit log: it records changes, and contains no secrets."""

from __future__ import annotations

import logging
from contextlib import closing

import pytest
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from llmgateway.accounts.admins import Admin, first_owner
from llmgateway.accounts.audit import Audit
from llmgateway.errors import StoreUnavailable
from llmgateway.records import AuditQuery, Role, moment
from llmgateway.stores.sqlite import SQLiteAuditLog, SQLiteDatabase

ADMIN_KEY = "the-admin-key-of-this-test"
CHANGE = {"address": "10.0.0.1", "before": {"note": "a"}, "after": {"note": "b"}}


@pytest.fixture
def store(tmp_path):
    with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
        yield SQLiteAuditLog(database)


def test_says_who_changed_what_when_and_from_where(store, clock):
    """Each change has one entry, with the values before and after it."""
    Audit(store, clock=clock).changed("key.change", "key_1", admin=first_owner(ADMIN_KEY), **CHANGE)

    (entry,) = store.entries(AuditQuery(limit=10))
    assert ("key.change", "key_1", "10.0.0.1") == (entry.action, entry.target, entry.address)
    assert (moment(clock()), {"note": "a"}, {"note": "b"}) == (entry.timestamp, entry.before, entry.after)


def test_tells_admin_keys_apart_without_saying_them(store, clock):
    """The fingerprint of a key is the same in every process, and differs from that of another key."""
    for key in (ADMIN_KEY, ADMIN_KEY, ADMIN_KEY + "!"):
        Audit(store, clock=clock).changed("limits.set", "", admin=first_owner(key), **CHANGE)
        clock.advance(1)

    third, second, first = (entry.admin_key_id for entry in store.entries(AuditQuery(limit=10)))
    assert first == second != third
    assert ADMIN_KEY not in first


def test_a_fingerprint_takes_long_to_guess(store, clock):
    """It is derived with scrypt, so that whoever reads the log can try about 20 keys in a second and not 400,000."""
    Audit(store, clock=clock).changed("limits.set", "", admin=first_owner(ADMIN_KEY), **CHANGE)

    (entry,) = store.entries(AuditQuery(limit=10))
    derived = Scrypt(salt=b"llmgateway admin key", length=6, n=2**14, r=8, p=1).derive(ADMIN_KEY.encode())
    assert derived.hex() == entry.admin_key_id


def test_an_entry_that_cannot_be_stored_goes_to_the_log(clock, caplog):
    """The change was made, so the admin gets no error; the log says what it was, and names nobody."""

    class Away:
        def append(self, entry):
            raise StoreUnavailable("away")

    with caplog.at_level(logging.ERROR):
        audit = Audit(Away(), clock=clock)
        owner = first_owner(ADMIN_KEY)
        audit.changed("key.change", "key_1", admin=owner, address=None, before={"user": "ada"}, after={"user": "bob"})
        audit.changed("user.set", "ada", admin=owner, **CHANGE)

    assert "key.change of key_1" in caplog.text
    assert "user.set of" in caplog.text
    assert not {"ada", "bob"} & {*caplog.text.replace(".", " ").split()}
    assert ADMIN_KEY not in caplog.text


def test_names_the_admin_and_the_groups(store, clock, caplog):
    """The log of the program has the id alone: a name may be a person's."""
    grace = Admin(id="admin_1", name="Grace", role=Role.GROUP, groups=("physics",), key_id="a1b2c3")
    audit = Audit(store, clock=clock)
    with caplog.at_level(logging.INFO):
        for admin, groups in (
            (grace, ("physics", "art", "physics")),
            (grace, ("physics", None)),
            (first_owner(ADMIN_KEY), ()),
        ):
            audit.changed("key.update", "key_1", admin=admin, groups=groups, **CHANGE)
            clock.advance(1)

    owner, mixed, entry = store.entries(AuditQuery(limit=10))
    assert ("admin_1", "Grace", "a1b2c3") == (entry.admin_id, entry.admin_name, entry.admin_key_id)
    assert (("art", "physics"), None, None) == (entry.groups, mixed.groups, owner.groups)
    assert (None, None) == (owner.admin_id, owner.admin_name)
    assert "The admin admin_1 has made the change key.update" in caplog.text
    assert "The admin ADMIN_KEY has made" in caplog.text
    assert "Grace" not in caplog.text
