"""Class imports: planned, and done as a whole also if something changes between the plan and the import."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest

from llmgateway.accounts.class_import import Action, ClassImport, Existing, ImportRefused
from llmgateway.accounts.credential import CredentialCipher
from llmgateway.accounts.keys import Keys
from llmgateway.accounts.policy import OrganisationPolicy
from llmgateway.errors import NoSuchGroup
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteKeys, SQLiteOrganisation

ROWS = {2: {"user": "ada", "note": "new"}, 3: {"user": "bob", "note": "new"}}


class Store(SQLiteKeys):
    """Lets somebody else do something after it was looked who is there."""

    meanwhile: Callable[[], object] | None = None

    def of_users(self, users):
        found = super().of_users(users)
        if self.meanwhile is not None:
            act, self.meanwhile = self.meanwhile, None
            act()
        return found


@pytest.fixture
def store(tmp_path):
    with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
        yield Store(database)


@pytest.fixture
def keys(store, clock):
    policy = OrganisationPolicy(SQLiteOrganisation(store._database), CredentialCipher("x"), fallback=None, clock=clock)
    return Keys(store, policy, clock=clock)


def by_user(keys):
    return sorted((record.user, record.name, record.note) for record in keys.list())


@pytest.mark.parametrize(
    ("existing", "action", "note"),
    [(Existing.SKIP, Action.SKIP, "old"), (Existing.UPDATE, Action.UPDATE, "new")],
)
def test_who_comes_meanwhile_is_there(store, keys, existing, action, note):
    """The plan is made again, and nobody gets two keys."""
    store.meanwhile = lambda: keys.create(user="ada", name="other", note="old")

    ada, bob = ClassImport(keys, ROWS, existing).run()

    assert (action, Action.CREATE) == (ada.action, bob.action)
    assert [("ada", "other", note), ("bob", "default", "new")] == by_user(keys)
    assert keys.authenticate(bob.key).key == bob.record
    assert "llmgw" not in repr((ada, bob))


def test_who_comes_meanwhile_is_refused(store, keys):
    """With nothing stored, if nobody may be there."""
    store.meanwhile = lambda: keys.create(user="ada", name="other")

    with pytest.raises(ImportRefused) as refused:
        ClassImport(keys, ROWS, Existing.REFUSE).run()

    assert [Action.REFUSE, Action.CREATE] == [step.action for step in refused.value.steps]
    assert [("ada", "other", None)] == by_user(keys)


def test_a_key_that_is_taken_meanwhile(store, keys):
    """It is named, and nothing is stored."""
    store.meanwhile = lambda: keys.create(user="eve", name="x", key="bobs-own-key")

    with pytest.raises(ImportRefused) as refused:
        ClassImport(keys, {2: {"user": "ada"}, 3: {"user": "bob", "key": "bobs-own-key"}}, Existing.REFUSE).run()

    assert [[], ["key"]] == [[*step.problems] for step in refused.value.steps]
    assert [("eve", "x", None)] == by_user(keys)


def test_a_group_that_is_gone(keys):
    """Nothing is stored."""
    with pytest.raises(NoSuchGroup):
        ClassImport(keys, {2: {"user": "ada"}, 3: {"user": "bob", "group": "gone"}}, Existing.REFUSE).run()

    assert [] == keys.list()


def test_a_key_that_is_removed_before_it_is_changed(store, keys):
    """The others are changed; nobody notices."""
    record, _ = keys.create(user="ada", name="x", note="old")
    keys.create(user="bob", name="x", note="old")
    store.meanwhile = lambda: keys.remove(record.id)

    ClassImport(keys, ROWS, Existing.UPDATE).run()

    assert [("bob", "x", "new")] == by_user(keys)
