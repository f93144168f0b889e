"""Keys: made up, looked up, refused."""

from __future__ import annotations

import re
from contextlib import closing
from datetime import timedelta

import pytest

from llmgateway.errors import Conflict, GatewayError, InvalidKey, NotFound
from llmgateway.keys import PREFIX, Keys, digest, is_usable_key
from llmgateway.records import moment
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteKeys


@pytest.fixture
def keys(tmp_path, clock):
    with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
        yield Keys(SQLiteKeys(database), clock=clock)


def refusal(keys: Keys, key: str | None) -> str:
    with pytest.raises(InvalidKey) as refused:
        keys.authenticate(key)
    assert (401, "invalid_api_key") == (refused.value.status, refused.value.code)
    return refused.value.message


def test_a_made_up_key_opens(keys, clock):
    """A key that nobody chose has 256 bits of chance, can be recognised, and is stored as its digest only."""
    record, key = keys.create(user="ada", name="laptop", group="physics")

    assert re.fullmatch(PREFIX + r"[\w-]{43}", key)
    assert (digest(key), moment(clock())) == (record.digest, record.created_at)
    assert key not in repr(record)
    assert record == keys.authenticate(key)[0]


def test_a_chosen_key_opens(keys):
    """Keys that people already have go on working."""
    record, key = keys.create(key="k~!1", user="ada", name="laptop")

    assert "k~!1" == key
    assert record == keys.authenticate("k~!1")[0]


def test_a_key_exists_once(keys):
    """The second hand-out of a key is refused without repeating it."""
    keys.create(key="my-own-key", user="ada", name="laptop")

    with pytest.raises(Conflict) as refused:
        keys.create(key="my-own-key", user="bob", name="phone")

    assert ("key", 409) == (refused.value.param, refused.value.status)
    assert "my-own-key" not in refused.value.message


def test_tells_the_generation(keys):
    """The look-up of a key says which state of the admins' settings holds."""
    _, key = keys.create(user="ada", name="laptop")

    assert keys.authenticate(key)[1]


@pytest.mark.parametrize("nothing", [None, ""])
def test_refuses_no_key(keys, nothing):
    """Who sends nothing is told how to send it."""
    assert "Authorization: Bearer KEY" in refusal(keys, nothing)


@pytest.mark.parametrize("malformed", ["two words", "k\n", "k\t", "k\x00", "schlüssel", "k\ud800", "k" * 513, " "])
def test_refuses_malformed_keys(keys, malformed):
    """What no header can carry is called malformed and is not looked up."""
    assert "malformed" in refusal(keys, malformed)
    assert not is_usable_key(malformed)


def test_refuses_unknown_keys(keys):
    """A key that was never handed out is not repeated in the refusal."""
    message = refusal(keys, "some-unknown-key")

    assert "not known" in message
    assert "some-unknown-key" not in message


def test_refuses_revoked_keys(keys):
    """A key that was taken back for a while says so, and works again when it is given back."""
    record, key = keys.create(user="ada", name="laptop")
    keys.update(record.id, {"active": False})

    assert "revoked" in refusal(keys, key)

    keys.update(record.id, {"active": True})
    assert keys.authenticate(key)


def test_refuses_keys_out_of_season(keys, clock):
    """A key works from the first to before the last moment of its time, by the clock, to the millisecond."""
    now = moment(clock())
    _, key = keys.create(
        user="ada", name="x", starts_at=now + timedelta(seconds=10), expires_at=now + timedelta(seconds=20)
    )

    assert "not valid before 2026-01-01 00:00:10 UTC" in refusal(keys, key)
    clock.advance(9.999)
    assert "not valid before" in refusal(keys, key)
    clock.advance(0.001)
    assert keys.authenticate(key)
    clock.advance(9.999)
    assert keys.authenticate(key)
    clock.advance(0.001)
    assert "expired at 2026-01-01 00:00:20 UTC" in refusal(keys, key)
    assert key not in refusal(keys, key)


def test_a_removed_key_is_unknown(keys):
    """Removing a key forgets it at once; removing it again finds nothing."""
    record, key = keys.create(user="ada", name="laptop")

    keys.remove(record.id)

    assert "not known" in refusal(keys, key)
    with pytest.raises(NotFound):
        keys.remove(record.id)


@pytest.mark.parametrize(
    "act",
    [
        lambda keys, key: keys.get(key),
        lambda keys, key: keys.update(key, {"note": "x"}),
        lambda keys, key: keys.remove(key),
        lambda keys, key: keys.find(key),
    ],
)
def test_what_is_not_there_is_not_repeated(keys, act):
    """Whoever pastes the key where its id belongs does not find it in the answer."""
    with pytest.raises(GatewayError) as refused:
        act(keys, "llmgw-pasted-in-the-wrong-place")

    assert 404 == refused.value.status
    assert "pasted" not in refused.value.message


def test_finds_and_lists(keys):
    """An admin finds a key by itself or by its id, and the keys of a user."""
    ada, key = keys.create(user="ada", name="laptop")
    bob, _ = keys.create(user="bob", name="laptop")

    assert ada == keys.find(key) == keys.get(ada.id)
    assert {ada.id, bob.id} == {record.id for record in keys.list()}
    assert [bob] == keys.list(user="bob")


def test_finds_keys_that_are_out_of_use(keys):
    """To take back a key it need not be valid."""
    record, key = keys.create(user="ada", name="laptop", active=False)

    assert record == keys.find(key)
