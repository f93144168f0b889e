"""Entries in Redis: what was not written by a gateway, for this very name, is not there."""

from __future__ import annotations

import orjson
import pytest

from llmgateway.stores.redis.entries import Entries, EntrySigner
from tests.stores.contract import key

SIGNER = EntrySigner(b"secret")
NAME = "llmgateway:2:{gateway}:key:" + key().digest


@pytest.fixture
def entries(clock):
    return Entries(SIGNER, clock=clock)


@pytest.fixture
def entry(entries):
    return entries.of_key(NAME, key())


def test_are_read_as_they_were_written(entries, entry, clock):
    """The record and the time."""
    assert (key(), clock.now) == entries.key(NAME, entry)


def test_are_the_same_object_for_the_same_bytes(entries, clock):
    """What follows from a key is worked out once; also when the entry was only renewed."""
    first = entries.key(NAME, entries.of_key(NAME, key())).record
    clock.advance(300)
    renewed = entries.key(NAME, entries.of_key(NAME, key()))
    changed = entries.key(NAME, entries.of_key(NAME, key(active=False)))

    assert first is renewed.record
    assert clock.now == renewed.at
    assert not changed.record.active


def test_cannot_be_moved_to_another_name(entries, entry):
    """Also after they have been read under their own."""
    assert entries.key(NAME, entry)

    assert entries.key(NAME.replace(key().digest, "f" * 64), entry) is None


@pytest.mark.parametrize("place", [0, 1, 32, 33, 40, 41, -1])
def test_cannot_be_changed(entries, entry, place):
    """Not a bit of the version, the HMAC, the time and the content."""
    changed = bytearray(entry)
    changed[place] ^= 1

    assert entries.key(NAME, bytes(changed)) is None


@pytest.mark.parametrize("length", [0, 1, 40, 41])
def test_may_be_cut_short(entries, entry, length):
    """Whatever is found under the name is no error."""
    assert entries.key(NAME, entry[:length]) is None


def test_of_another_secret_are_none(entries, clock):
    """A host with another SECRET_KEY writes what nobody else reads."""
    assert entries.key(NAME, Entries(EntrySigner(b"another"), clock=clock).of_key(NAME, key())) is None


def test_of_the_first_build_are_none(entries):
    """They had no signature."""
    assert entries.key(NAME, orjson.dumps({"fresh_until": 2e9, "record": key()})) is None


def test_are_complained_of_once_a_minute(entries, clock, caplog):
    """However many there are; what was written by another version of the program is no complaint."""
    entries.key(NAME, SIGNER.sign(NAME, b'{"later":1}', at=clock.now))
    assert [] == caplog.messages

    for _ in range(3):
        for _ in range(10):
            entries.key(NAME, b"x")
            clock.advance(1)
        clock.advance(50)

    assert 3 == len(caplog.messages)
    assert "SECRET_KEY" in caplog.messages[0]


def test_decoded_ones_are_bounded(clock):
    """However many keys there are, no more than so many are kept."""
    entries = Entries(SIGNER, clock=clock, limit=2)
    names = [NAME + str(number) for number in range(4)]
    written = {name: entries.of_key(name, key()) for name in names}

    first = {name: entries.key(name, entry).record for name, entry in written.items()}

    assert [False, True] == [entries.key(name, written[name]).record is first[name] for name in (names[0], names[3])]


def test_key_is_derived_from_the_secret():
    """The same on all hosts, and another for another secret."""
    made = [EntrySigner.from_secret(secret).sign(NAME, b"x", at=1) for secret in ("one", "one", "two")]

    assert made[0] == made[1] != made[2]
    assert "one" not in repr(EntrySigner.from_secret("one"))
