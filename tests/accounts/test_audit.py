"""The audit log: it records changes, and contains no secrets."""

from __future__ import annotations

import logging
from contextlib import closing

import pytest
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from llmgateway.accounts.audit import Audit
from llmgateway.errors import StoreUnavailable
from llmgateway.records import moment
from llmgateway.stores.sqlite import SQLiteAuditLog, SQLiteDatabase

ADMIN_KEY = "the-admin-key-of-this-test"
CHANGE = {"address": "10.0.0.1", "before": {"note": "a"}, "after": {"note": "b"}}


@pytest.fixture
def store(tmp_path):
    with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
        yield SQLiteAuditLog(database)


def test_says_who_changed_what_when_and_from_where(store, clock):
    """Each change has one entry, with the values before and after it."""
    Audit(store, admin_key=ADMIN_KEY, clock=clock).changed("key.change", "key_1", **CHANGE)

    (entry,) = store.entries(limit=10)
    assert ("key.change", "key_1", "10.0.0.1") == (entry.action, entry.target, entry.address)
    assert (moment(clock()), {"note": "a"}, {"note": "b"}) == (entry.timestamp, entry.before, entry.after)


def test_tells_admin_keys_apart_without_saying_them(store, clock):
    """The fingerprint of a key is the same in every process, and differs from that of another key."""
    for key in (ADMIN_KEY, ADMIN_KEY, ADMIN_KEY + "!"):
        Audit(store, admin_key=key, clock=clock).changed("limits.set", "", **CHANGE)
        clock.advance(1)

    third, second, first = (entry.admin_key_id for entry in store.entries(limit=10))
    assert first == second != third
    assert ADMIN_KEY not in first


def test_a_fingerprint_takes_long_to_guess(store, clock):
    """It is derived with scrypt, so that whoever reads the log can try about 20 keys in a second and not 400,000."""
    Audit(store, admin_key=ADMIN_KEY, clock=clock).changed("limits.set", "", **CHANGE)

    (entry,) = store.entries(limit=10)
    derived = Scrypt(salt=b"llmgateway admin key", length=6, n=2**14, r=8, p=1).derive(ADMIN_KEY.encode())
    assert derived.hex() == entry.admin_key_id


def test_an_entry_that_cannot_be_stored_goes_to_the_log(clock, caplog):
    """The change was made, so the admin gets no error; the log says what it was, and names nobody."""

    class Away:
        def append(self, entry):
            raise StoreUnavailable("away")

    with caplog.at_level(logging.ERROR):
        audit = Audit(Away(), admin_key=ADMIN_KEY, clock=clock)
        audit.changed("key.change", "key_1", address=None, before={"user": "ada"}, after={"user": "bob"})
        audit.changed("user.set", "ada", **CHANGE)

    assert "key.change of key_1" in caplog.text
    assert "user.set of" in caplog.text
    assert not {"ada", "bob"} & {*caplog.text.replace(".", " ").split()}
    assert ADMIN_KEY not in caplog.text
