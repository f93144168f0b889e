"""Keys that people make for themselves."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta

import pytest

from llmgateway.accounts.credential import CredentialCipher
from llmgateway.accounts.groups import Groups
from llmgateway.accounts.keys import Keys
from llmgateway.accounts.policy import OrganisationPolicy
from llmgateway.accounts.self_service import DOCUMENT, Owner, SelfService
from llmgateway.errors import Forbidden, InvalidFields, NotFound
from llmgateway.records import Limits, moment
from llmgateway.records import SelfService as Rule
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteKeys, SQLiteOrganisation
from tests.stores.contract import at_once

ADA = Owner(user="ada", groups=("ml",))
EVE = Owner(user="eve", groups=("ml",))
FIVE = Limits(requests_per_minute=5)


@pytest.fixture
def policy(tmp_path, clock):
    with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
        yield OrganisationPolicy(SQLiteOrganisation(database), CredentialCipher("x"), fallback=None, clock=clock)


@pytest.fixture
def keys(tmp_path, policy, clock):
    with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
        yield Keys(SQLiteKeys(database), policy, clock=clock)


@pytest.fixture
def groups(policy, clock):
    groups = Groups(policy, clock=clock)
    groups.put("ml", self_service=Rule(keys=2, days=180, limits=FIVE))
    groups.put("chemistry")
    return groups


@pytest.fixture
def own(keys, policy, groups, clock):
    return SelfService(keys, policy, clock=clock)


def make(own, owner=ADA, group="ml", **fields):
    return own.create(owner, name="laptop", group=group, **fields)


def test_a_key_of_their_own_is_like_any_other(own, keys, clock):
    """It opens at once what the group opens, and shows that its user has made it."""
    record, key = make(own)

    found = keys.authenticate(key).key
    assert record == found
    assert ("ada", "laptop", "ml", True, FIVE) == (found.user, found.name, found.group, found.self_made, found.limits)
    assert moment(clock()) + timedelta(days=180) == found.expires_at
    assert [record] == own.keys_of(ADA)
    assert [] == own.keys_of(EVE)


def test_there_are_no_more_than_the_group_allows(own, keys):
    """A key that an admin handed out does not count, nor do those of others; a removed one makes room."""
    keys.create(user="ada", name="handed out", group="ml")
    make(own, EVE)
    first, _ = make(own)
    make(own)

    with pytest.raises(Forbidden, match="2 keys of your own making here, and have 2"):
        make(own)

    own.remove(ADA, first.id)
    make(own)
    assert 2 == own.offers(ADA)[0].made


def test_two_browsers_at_once_make_none_too_many(own, keys):
    def tried():
        try:
            return make(own)
        except Forbidden:
            return None

    assert 2 == sum(made is not None for made in at_once(*[tried] * 6))
    assert 2 == len(own.keys_of(ADA))


@pytest.mark.parametrize("group", ["chemistry", "nobody's", None])
def test_where_nothing_is_offered_nothing_can_be_made(own, keys, group):
    """Also by a member of the group; one answer for all of it."""
    keys.create(user="ada", name="handed out", group="chemistry")

    with pytest.raises(NotFound, match="You may not make keys in this group"):
        make(own, group=group)

    assert ["ml"] == [offer.group for offer in own.offers(ADA)]


def test_others_make_nothing_in_a_group(own):
    """Not even with its name."""
    with pytest.raises(NotFound, match="You may not make keys in this group"):
        make(own, Owner(user="mallory", groups=("chemistry",)))


def test_a_key_from_an_admin_makes_a_member(own, keys, clock):
    """While it works; a key of the person's own making does not: nobody could leave a group."""
    bob = Owner(user="bob")
    handed_out, _ = keys.create(user="bob", name="course", group="ml", expires_at=moment(clock() + 60))
    make(own, bob)

    clock.advance(60)

    assert [] == own.offers(bob)
    with pytest.raises(NotFound):
        make(own, bob)
    keys.update(handed_out.id, {"expires_at": None})
    make(own, bob)


def test_who_is_blocked_makes_no_other_key(own, keys):
    """Whoever made the blocked key; and the key stays, so that it cannot be replaced."""
    record, _ = make(own)
    keys.update(record.id, {"active": False})

    for refused in (
        lambda: make(own),
        lambda: own.remove(ADA, record.id),
        lambda: own.rotate(ADA, record.id),
    ):
        with pytest.raises(Forbidden, match="blocked"):
            refused()
    assert [record.id] == [key.id for key in own.keys_of(ADA)]


def test_models_are_those_of_the_offer_or_some_of_them(own, groups, keys):
    """Without a choice, also those that the group gets later."""
    groups.update("ml", {"models": ("a", "b"), "self_service": Rule(keys=9, models=("b", "c"))})

    assert ("b",) == own.offers(ADA)[0].models
    _, key = make(own)
    assert ("b",) == keys.authenticate(key).models
    assert ("b",) == make(own, models=["b", "b"])[0].models
    for models in (["a"], ["c"], ["b", "x"], []):
        with pytest.raises(InvalidFields) as refusal:
            make(own, models=models)
        assert ["models"] == [*refusal.value.fields]
    groups.update("ml", {"models": ("a", "b", "c")})
    assert ("b", "c") == keys.authenticate(key).models


def test_a_key_ends_when_its_group_does(own, groups, clock):
    """Or earlier; never later than the group allows, nor before now."""
    end = moment(clock() + 86_400 * 10)
    groups.update("ml", {"expires_at": end})

    assert end == make(own)[0].expires_at
    assert end - timedelta(days=1) == make(own, expires_at=end - timedelta(days=1))[0].expires_at
    for wrong in (end + timedelta(seconds=1), moment(clock()), moment(0)):
        with pytest.raises(InvalidFields) as refusal:
            make(own, expires_at=wrong)
        assert ["expires_at"] == [*refusal.value.fields]


def test_nothing_is_made_in_a_group_that_has_ended(own, groups, clock):
    groups.update("ml", {"expires_at": moment(clock() + 60)})
    clock.advance(61)

    with pytest.raises(Forbidden, match="has ended"):
        make(own)


def test_nothing_is_made_any_more_when_an_admin_says_so(own, groups):
    """What there is stays, and can be looked after."""
    record, _ = make(own)

    groups.update("ml", {"self_service": None})

    with pytest.raises(NotFound):
        make(own)
    assert [] == own.offers(ADA)
    assert "new" == own.rename(ADA, record.id, "new")[1].name
    own.rotate(ADA, record.id)
    own.remove(ADA, record.id)


def test_keys_outside_of_all_groups(own, policy):
    """For everybody, if an admin says so."""
    policy.update_document(DOCUMENT, lambda _: {"without_group": {"keys": 1}})
    bob = Owner(user="bob")

    assert [None] == [offer.group for offer in own.offers(bob)]
    assert make(own, bob, group=None)[0].expires_at is None
    with pytest.raises(Forbidden, match="1 key of your own"):
        make(own, bob, group=None)


def test_a_key_gets_another_name_and_a_successor(own, keys):
    """Also a key that an admin handed out."""
    record, key = keys.create(user="ada", name="course")

    before, after = own.rename(ADA, record.id, "thesis")
    assert ("course", "thesis") == (before.name, after.name)
    made = own.rotate(ADA, record.id, overlap_seconds=60)

    assert record.id == made.after.id == keys.authenticate(made.key).key.id == keys.authenticate(key).key.id
    assert made.before.retires_at is None
    assert made.after.retires_at is not None


def test_an_admins_key_is_not_removed(own, keys):
    record, _ = keys.create(user="ada", name="course")

    with pytest.raises(Forbidden, match="An admin has made this key"):
        own.remove(ADA, record.id)


def test_an_expired_key_gets_no_successor(own, clock):
    record, _ = make(own)
    clock.advance(180 * 86_400)

    with pytest.raises(Forbidden, match="has expired"):
        own.rotate(ADA, record.id)
    own.remove(ADA, record.id)


def test_keys_of_others_do_not_exist(own, keys):
    """Whether there is such a key or not: the same answer, and nothing changes."""
    record, key = make(own, EVE)
    messages = set()

    for key_id in (record.id, "key_nobodys"):
        for tried in (
            lambda key_id=key_id: own.rename(ADA, key_id, "mine"),
            lambda key_id=key_id: own.rotate(ADA, key_id),
            lambda key_id=key_id: own.remove(ADA, key_id),
        ):
            with pytest.raises(NotFound) as refusal:
                tried()
            messages.add(str(refusal.value))

    assert {"You have no key with this id."} == messages
    assert record == keys.authenticate(key).key


def test_with_a_key_alone_only_this_key_can_be_replaced(own, keys, policy):
    """Whoever has a key does not see the others of its user, and makes none."""
    policy.update_document(DOCUMENT, lambda _: {"without_group": {"keys": 9}})
    record, _ = make(own)
    other, _ = make(own)
    holder = Owner(user="ada", groups=("ml",), key_id=record.id)

    assert [record] == own.keys_of(holder)
    assert [] == own.offers(holder)
    assert record.id == own.rotate(holder, record.id).after.id
    with pytest.raises(NotFound):
        own.rotate(holder, other.id)
    for tried in (lambda: own.rename(holder, record.id, "x"), lambda: own.remove(holder, record.id)):
        with pytest.raises(Forbidden, match="signed in with a key"):
            tried()
    for group in ("ml", None):
        with pytest.raises(NotFound):
            make(own, holder, group=group)
    assert [] == own.keys_of(Owner(user="eve", key_id=record.id))
