"""People: those who have keys, and those for whom something is set."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest

from llmgateway.accounts.credential import CredentialCipher
from llmgateway.accounts.persons import Persons
from llmgateway.accounts.policy import OrganisationPolicy
from llmgateway.errors import StoreUnavailable
from llmgateway.records import UNLIMITED, Limits, Person, Raise
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteKeys, SQLiteOrganisation, SQLitePersons
from tests.parts import NEW_YEAR
from tests.stores.contract import key

FIVE = Limits(requests_per_minute=5)
RAISED = Raise(limits=Limits(requests_per_minute=9), until=NEW_YEAR)
CIPHER = CredentialCipher("secret")


@pytest.fixture
def database(tmp_path):
    with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
        yield database


@pytest.fixture
def noticed():
    return []


@pytest.fixture
def policy(database, clock, noticed):
    return OrganisationPolicy(
        SQLiteOrganisation(database), CIPHER, fallback=None, clock=clock, wait_until_noticed=lambda: noticed.append(1)
    )


@pytest.fixture
def persons(database, policy):
    return Persons(SQLitePersons(database), SQLiteKeys(database), policy)


def test_what_is_set_is_in_memory_before_the_call_returns(persons, policy, noticed):
    """Also in the other processes: the call waits for them."""
    policy.stored()

    assert (Person(user="ada"), Person(user="ada", limits=FIVE)) == persons.set_limits("ada", FIVE)

    assert {"ada": Person(user="ada", limits=FIVE)} == policy.in_memory().persons
    assert [1] == noticed


def test_limits_and_raises_are_changed_apart(persons):
    persons.set_limits("ada", FIVE)
    persons.set_raise("ada", RAISED)
    before, after = persons.update_limits("ada", {"parallel_requests": 2})

    assert Person(user="ada", limits=FIVE, raised=RAISED) == before
    assert Person(user="ada", limits=replace(FIVE, parallel_requests=2), raised=RAISED) == after == persons.get("ada")
    assert after == persons.remove("ada")
    assert Person(user="ada") == persons.remove("ada") == persons.get("ada")


def test_nothing_is_stored_of_people_without_limits(persons, database):
    """Their limits were lifted, one by one or all at once, and their raises ended."""
    persons.set_limits("ada", FIVE)
    persons.set_raise("alan", RAISED)
    persons.update_limits("ada", {"requests_per_minute": None})
    persons.set_raise("alan", None)
    persons.set_limits("grace", UNLIMITED)

    assert {} == SQLiteOrganisation(database).load().persons


def test_both_kinds_of_people_are_listed(persons, database):
    """In the order of names; searched in names of both, and in the addresses of keys."""
    keys = SQLiteKeys(database)
    for number, user in enumerate("acegg", 1):
        keys.add(key(number, user=user, email="ada@example.org" if user == "c" else None))
    for user in "bcfh":
        persons.set_limits(user, FIVE)
    everybody = [("a", 1), ("b", 0), ("c", 1), ("e", 1), ("f", 0), ("g", 2), ("h", 0)]

    assert everybody == [(person.user, number) for person, number in persons.list()]
    assert [("h", 0)] == [(person.user, number) for person, number in persons.list("H")]
    assert [(Person(user="c", limits=FIVE), 1)] == persons.list("ADA@")
    assert [] == persons.list("nobody")


def test_an_error_of_the_store_changes_nothing_in_memory(persons, policy, database, monkeypatch, noticed):
    policy.stored()

    def away(*_):
        raise StoreUnavailable("away")

    monkeypatch.setattr(SQLitePersons, "change", away)
    with pytest.raises(StoreUnavailable):
        persons.set_limits("ada", FIVE)

    assert {} == policy.in_memory().persons
    assert [1] == noticed  # the store may have made the change
