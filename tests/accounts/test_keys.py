"""Keys: made up, looked up, refused."""

from __future__ import annotations

import re
from contextlib import closing
from datetime import timedelta

import pytest

from llmgateway.accounts.credential import CredentialCipher
from llmgateway.accounts.keys import PREFIX, Keys, KeysExist, digest, is_usable_key
from llmgateway.accounts.policy import OrganisationPolicy
from llmgateway.errors import Conflict, GatewayError, InvalidKey, NotFound
from llmgateway.records import Group, KeyQuery, moment
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteKeys, SQLiteOrganisation
from tests.parts import NEW_YEAR

CIPHER = CredentialCipher("secret")


@pytest.fixture
def database(tmp_path):
    with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
        yield database


@pytest.fixture
def organisation(database):
    return SQLiteOrganisation(database)


@pytest.fixture
def keys(database, organisation, clock):
    policy = OrganisationPolicy(organisation, CIPHER, fallback=None, clock=clock)
    return Keys(SQLiteKeys(database), policy, clock=clock)


def refusal(keys: Keys, key: str | None) -> str:
    with pytest.raises(InvalidKey) as refused:
        keys.authenticate(key)
    assert (401, "invalid_api_key") == (refused.value.status, refused.value.code)
    return refused.value.message


def test_a_made_up_key_opens(keys, organisation, clock):
    """A key that nobody chose has 256 bits of chance, can be recognised, and is stored as its digest only."""
    organisation.set_group(Group(name="physics", created_at=NEW_YEAR))
    record, key = keys.create(user="ada", name="laptop", group="physics")

    assert re.fullmatch(PREFIX + r"[\w-]{43}", key)
    assert (digest(key), moment(clock())) == (record.digest, record.created_at)
    assert key not in repr(record)
    assert record == keys.authenticate(key).key


def test_a_chosen_key_opens(keys):
    """Keys that people already have go on working."""
    record, key = keys.create(key="k~!1", user="ada", name="laptop")

    assert "k~!1" == key
    assert record == keys.authenticate("k~!1").key


def test_a_key_exists_once(keys):
    """The second hand-out of a key is refused without repeating it."""
    keys.create(key="my-own-key", user="ada", name="laptop")

    with pytest.raises(Conflict) as refused:
        keys.create(key="my-own-key", user="bob", name="phone")

    assert ("key", 409) == (refused.value.param, refused.value.status)
    assert "my-own-key" not in refused.value.message


def test_tells_what_admins_have_set(keys, organisation):
    """The look-up of a key brings the settings that hold now."""
    _, key = keys.create(user="ada", name="laptop")
    organisation.set_prompt("Be brief.", NEW_YEAR)

    assert "Be brief." == keys.authenticate(key).organisation.prompt.text


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


def test_refuses_keys_outside_their_validity(keys, clock):
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
    assert [bob] == keys.list(KeyQuery(user="bob"))


def test_finds_keys_that_are_out_of_use(keys):
    """To take back a key it need not be valid."""
    record, key = keys.create(user="ada", name="laptop", active=False)

    assert record == keys.find(key)


def test_a_key_is_replaced_at_once(keys):
    """After a rotation the new key opens what the old one did, and the old one says that it was replaced."""
    record, old = keys.create(user="ada", name="laptop")

    rotated, new = keys.rotate(record.id)

    assert (record.id, new) != (rotated.id, old)
    assert record.id == keys.authenticate(new).key.id
    assert "not known" in refusal(keys, old)


def test_an_old_key_works_as_long_as_it_overlaps(keys, clock):
    """Both keys open the same until the last moment of the overlap; then only the new one does."""
    record, old = keys.create(user="ada", name="laptop")
    _, new = keys.rotate(record.id, overlap_seconds=60)

    clock.advance(59.999)
    assert keys.authenticate(old).key == keys.authenticate(new).key
    clock.advance(0.001)
    assert "replaced" in refusal(keys, old)
    assert record.id == keys.authenticate(new).key.id


def test_only_the_last_key_overlaps(keys):
    """A second rotation ends what was left of the first: there are never three keys for one."""
    record, first = keys.create(user="ada", name="laptop")
    _, second = keys.rotate(record.id, overlap_seconds=60)
    _, third = keys.rotate(record.id, overlap_seconds=60)

    assert "not known" in refusal(keys, first)
    assert record.id == keys.authenticate(second).key.id == keys.authenticate(third).key.id

    _, fourth = keys.rotate(record.id)
    for gone in (second, third):
        assert "not known" in refusal(keys, gone)
    assert keys.authenticate(fourth)


def test_a_key_that_is_not_there_cannot_be_replaced(keys):
    """Who rotates by a wrong identifier is told so."""
    with pytest.raises(NotFound):
        keys.rotate("key_nobody")


def test_a_group_begins_and_ends_by_itself(keys, organisation, clock):
    """The dates of a group hold for each of its keys, and its name is in the refusal."""
    now = moment(clock())
    validity = {"starts_at": now + timedelta(seconds=10), "expires_at": now + timedelta(seconds=20)}
    organisation.set_group(Group(name="ml-2026", created_at=now, **validity))
    _, key = keys.create(user="ada", name="x", group="ml-2026")

    assert "'ml-2026' of this API key is not valid before 2026-01-01 00:00:10 UTC" in refusal(keys, key)
    clock.advance(10)
    assert "ml-2026" == keys.authenticate(key).group.name
    clock.advance(10)
    assert "'ml-2026' of this API key expired at 2026-01-01 00:00:20 UTC" in refusal(keys, key)


def test_a_whole_group_is_revoked(keys, organisation):
    """Every key of the group is refused, others are not, and those that were blocked before are not counted."""
    for name in "ab":
        organisation.set_group(Group(name=name, created_at=NEW_YEAR))
    _, first = keys.create(user="ada", name="x", group="a")
    record, second = keys.create(user="bob", name="x", group="a")
    keys.rotate(record.id, overlap_seconds=60)
    keys.create(user="cid", name="x", group="a", active=False)
    _, other = keys.create(user="eve", name="x", group="b")

    assert 2 == len(keys.revoke_group("a"))

    assert "revoked" in refusal(keys, first)
    assert "revoked" in refusal(keys, second)
    assert keys.authenticate(other)


def test_hands_out_many_at_once(keys):
    """Every row gets a key, its own or a made-up one."""
    made = keys.create_all([{"user": "ada", "name": "x"}, {"user": "bob", "name": "x", "key": "bobs-own-key"}])

    assert ["ada", "bob"] == [keys.authenticate(key).key.user for _, key in made]
    assert "bobs-own-key" == made[1][1]


@pytest.mark.parametrize("before", [[], ["mine"]])
def test_hands_out_all_or_none(keys, before):
    """If one of the keys exists, or stands there twice, nobody gets any, and the places are named."""
    for key in before:
        keys.create(user="eve", name="x", key=key)
    rows = [{"user": "ada", "name": "x"}] + [{"user": "bob", "name": "x", "key": "mine"}] * (2 - len(before))

    with pytest.raises(KeysExist) as refused:
        keys.create_all(rows)

    assert [*range(1, len(rows))] == refused.value.places
    assert "mine" not in refused.value.message
    assert len(before) == len(keys.list())
