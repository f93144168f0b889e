"""Groups: created, replaced, changed and removed."""

from __future__ import annotations

from contextlib import closing

import pytest

from llmgateway.accounts.credential import CredentialCipher
from llmgateway.accounts.groups import Groups
from llmgateway.accounts.keys import Keys
from llmgateway.accounts.policy import OrganisationPolicy
from llmgateway.errors import InUse, NotFound
from llmgateway.records import UNLIMITED, Limits, Prompt, moment
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteKeys, SQLiteOrganisation

SMALL = Limits(requests_per_minute=5)


@pytest.fixture
def database(tmp_path):
    with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
        yield database


@pytest.fixture
def policy(database, clock):
    return OrganisationPolicy(SQLiteOrganisation(database), CredentialCipher("x"), fallback=None, clock=clock)


@pytest.fixture
def groups(policy, clock):
    return Groups(policy, clock=clock)


@pytest.fixture
def keys(database, policy, clock):
    return Keys(SQLiteKeys(database), policy, clock=clock)


def test_a_group_is_made_and_found(groups, clock):
    """A created group is found by name, with the time of its creation."""
    made = groups.put("ml-2026", limits=SMALL, note="Mondays")

    assert made == groups.get("ml-2026") == groups.find("ml-2026")
    assert (moment(clock()), SMALL) == (made.created_at, made.limits)
    groups.put("alpha")
    assert ["alpha", "ml-2026"] == [group.name for group in groups.list()]


def test_putting_again_replaces_all_but_what_is_not_put(groups, clock):
    """The second put replaces all fields except the time of creation and the prompt."""
    first = groups.put("ml", limits=SMALL, note="Mondays", models=("gpt",))
    groups.update("ml", {"prompt": Prompt(version=1, text="Be brief.", scope="group:ml")})
    clock.advance(60)

    again = groups.put("ml", note="Tuesdays")

    assert again == groups.get("ml")
    assert (first.created_at, "Tuesdays", UNLIMITED, None) == (
        again.created_at,
        again.note,
        again.limits,
        again.models,
    )
    assert "Be brief." == again.prompt.text


def test_a_group_with_keys_in_it_stays(groups, keys):
    """Its keys would lose their limits."""
    groups.put("ml")
    record, _ = keys.create(user="ada", name="x", group="ml", active=False)

    with pytest.raises(InUse):
        groups.remove("ml")

    keys.update(record.id, {"group": None})
    groups.remove("ml")
    assert [] == groups.list()


@pytest.mark.parametrize("act", [Groups.get, Groups.remove, lambda groups, name: groups.update(name, {})])
def test_what_is_not_there_is_not_found(groups, act):
    """A group that does not exist cannot be read, removed or changed."""
    with pytest.raises(NotFound):
        act(groups, "nobody")
    assert groups.find("nobody") is None
