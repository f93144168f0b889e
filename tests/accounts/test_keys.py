"""Keys: created, authenticated, refused."""

from __future__ import annotations

import re
from contextlib import closing
from datetime import timedelta

import pytest

from llmgateway.accounts.credential import CredentialCipher
from llmgateway.accounts.keys import PREFIX, Keys, digest, is_usable_key
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


def test_a_generated_key_works(keys, organisation, clock):
    """A generated key has 256 random bits and a known beginning, and only its digest is stored."""
    organisation.set_group(Group(name="physics", created_at=NEW_YEAR))
    record, key = keys.create(user="ada", name="laptop", group="physics")

    assert re.fullmatch(PREFIX + r"[\w-]{43}", key)
    assert (digest(key), moment(clock())) == (record.digest, record.created_at)
    assert key not in repr(record)
    assert record == keys.authenticate(key).key


def test_a_chosen_key_works(keys):
    """An admin may choose a key, for example an existing one."""
    record, key = keys.create(key="k~!1", user="ada", name="laptop")

    assert "k~!1" == key
    assert record == keys.authenticate("k~!1").key


def test_a_key_exists_once(keys):
    """A key cannot be created twice, and the message does not contain it."""
    keys.create(key="my-own-key", user="ada", name="laptop")

    with pytest.raises(Conflict) as refused:
        keys.create(key="my-own-key", user="bob", name="phone")

    assert ("key", 409) == (refused.value.param, refused.value.status)
    assert "my-own-key" not in refused.value.message


def test_returns_the_present_settings(keys, organisation):
    """The principal of a key has the present settings."""
    _, key = keys.create(user="ada", name="laptop")
    organisation.set_prompt("Be brief.", NEW_YEAR)

    assert "Be brief." == keys.authenticate(key).organisation.prompt.text


@pytest.mark.parametrize("nothing", [None, ""])
def test_refuses_no_key(keys, nothing):
    """The message says how to send a key."""
    assert "Authorization: Bearer KEY" in refusal(keys, nothing)


@pytest.mark.parametrize(
    ("wrapped", "says"),
    [
        ('"{}"', "quotation marks"),
        ("'{}'", "quotation marks"),
        ('{}"', "quotation marks"),
        ('"{}', "quotation marks"),
        ("`{}`", "quotation marks"),
        ("\u201c{}\u201d", "quotation marks"),
        ("\u201e{}\u201c", "quotation marks"),
        ("\xe2\x80\x9c{}\xe2\x80\x9d", "no key has"),  # as a header in UTF-8 arrives
        ("<{}>", "brackets"),
        ("[{}]", "brackets"),
        ("Bearer {}", "Bearer"),
        ("bearer Bearer {}", "Bearer"),
        ("Bearer:{}", "Bearer"),
        ("{}\\n", "line end"),
        ("{}\r\n", "line end"),
        ("{} ", "blank"),
        ("{} # of ada", "blank"),
        ("${{{}}}", "variable"),
        ("$API_KEY", "variable"),
        ("%API_KEY%", "variable"),
        ("${{API_KEY}}", "variable"),
        ("{{{{ key }}}}", "variable"),
        ("<your-key>", "quotation marks or brackets"),
        ("YOUR_API_KEY", "placeholder"),
        ("undefined", "placeholder"),
        ("None", "placeholder"),
    ],
)
def test_says_what_was_done_to_a_key(keys, wrapped, says):
    """Instead of that it is not known, which sends people to the admin. The key is not in the message."""
    _, key = keys.create(user="ada", name="laptop")

    message = refusal(keys, wrapped.format(key))

    assert message.startswith("The API key is malformed: ")
    assert says in message
    assert key not in message


@pytest.mark.parametrize("chosen", ['"quoted"', "Bearer-of-news", "$x", "none", "[x]", "your-key"])
def test_takes_odd_keys_that_an_admin_has_chosen(keys, chosen):
    """What looks like a mistake is none if there is such a key."""
    record, _ = keys.create(user="ada", name="laptop", key=chosen)

    assert record == keys.authenticate(chosen).key


@pytest.mark.parametrize("malformed", ["two words", "k\n", "k\t", "k\x00", "schlüssel", "k\ud800", "k" * 513, " "])
def test_refuses_malformed_keys(keys, malformed):
    """A key that cannot be sent in a header is refused without a look-up."""
    assert "malformed" in refusal(keys, malformed)
    assert not is_usable_key(malformed)


def test_refuses_keys_that_do_not_exist(keys):
    """The message does not contain the key."""
    message = refusal(keys, "some-other-key")

    assert "not known" in message
    assert "some-other-key" not in message


def test_refuses_revoked_keys(keys):
    """A revoked key is refused, and works again when it is activated."""
    record, key = keys.create(user="ada", name="laptop")
    keys.update(record.id, {"active": False})

    assert "revoked" in refusal(keys, key)

    keys.update(record.id, {"active": True})
    assert keys.authenticate(key)


def test_refuses_keys_outside_their_validity(keys, clock):
    """A key is valid from its start until just before its end, to the millisecond."""
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


def test_a_removed_key_is_refused(keys):
    """A removed key is refused at once; removing it again finds nothing."""
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
    """If somebody sends the key instead of its id, the message does not contain it."""
    with pytest.raises(GatewayError) as refused:
        act(keys, "llmgw-pasted-in-the-wrong-place")

    assert 404 == refused.value.status
    assert "pasted" not in refused.value.message


def test_finds_and_lists(keys):
    """An admin finds a key by itself or by its id, and lists the keys of a user."""
    ada, key = keys.create(user="ada", name="laptop")
    bob, _ = keys.create(user="bob", name="laptop")

    assert ada == keys.find(key) == keys.get(ada.id)
    assert {ada.id, bob.id} == {record.id for record in keys.list()}
    assert [bob] == keys.list(KeyQuery(user="bob"))


def test_finds_keys_that_are_out_of_use(keys):
    """A key that is not valid can be found, for example to revoke it."""
    record, key = keys.create(user="ada", name="laptop", active=False)

    assert record == keys.find(key)


def test_a_key_is_replaced_at_once(keys):
    """After a rotation the new key works, and the old one is refused as replaced."""
    record, old = keys.create(user="ada", name="laptop")

    rotated, new = keys.rotate(record.id)

    assert (record.id, new) != (rotated.id, old)
    assert record.id == keys.authenticate(new).key.id
    assert "not known" in refusal(keys, old)


def test_an_old_key_works_as_long_as_it_overlaps(keys, clock):
    """Both keys work until the end of the overlap; then only the new one does."""
    record, old = keys.create(user="ada", name="laptop")
    _, new = keys.rotate(record.id, overlap_seconds=60)

    clock.advance(59.999)
    assert keys.authenticate(old).key == keys.authenticate(new).key
    clock.advance(0.001)
    assert "replaced" in refusal(keys, old)
    assert record.id == keys.authenticate(new).key.id


def test_only_the_last_key_overlaps(keys):
    """A second rotation ends the first overlap: at most two keys work."""
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
    """A key that does not exist cannot be rotated."""
    with pytest.raises(NotFound):
        keys.rotate("key_nobody")


def test_a_group_begins_and_ends_by_itself(keys, organisation, clock):
    """The dates of a group apply to all its keys, and the message names the group."""
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
    """All keys of the group are refused and no others; keys that were revoked before are not counted."""
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
