"""What admins set for everybody: in memory, and never out of date."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from llmgateway.accounts.credential import CredentialCipher
from llmgateway.accounts.policy import OrganisationPolicy
from llmgateway.errors import StoreUnavailable, UpstreamCredentials
from llmgateway.records import Organisation
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteKeys, SQLiteOrganisation
from tests.parts import NEW_YEAR
from tests.stores.contract import at_once

CIPHER = CredentialCipher("secret")


class Watched:
    """A real store whose loads are counted, and that can be taken away."""

    def __init__(self, store: SQLiteOrganisation) -> None:
        self._store = store
        self.loads = 0
        self.away = False

    def load(self) -> Organisation:
        self.loads += 1
        if self.away:
            raise StoreUnavailable("away")
        return self._store.load()

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


@pytest.fixture
def database(tmp_path):
    with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
        yield database


@pytest.fixture
def store(database):
    return Watched(SQLiteOrganisation(database))


@pytest.fixture
def generation(database):
    """The generation as a request learns it, with the look-up of its key."""
    return lambda: SQLiteKeys(database).find("0" * 64).generation


@pytest.fixture
def policy(store, clock):
    return OrganisationPolicy(store, CIPHER, fallback=None, clock=clock)


def test_asks_the_store_once_for_each_generation(policy, store, generation):
    """A thousand requests of one generation cost one load; a change costs one more."""
    for _ in range(1000):
        policy.at(generation())
    assert 1 == store.loads

    store.set_prompt("Be brief.", NEW_YEAR)
    for _ in range(10):
        assert "Be brief." == policy.at(generation()).prompt.text
    assert 2 == store.loads


def test_threads_that_find_a_new_generation_load_it_once(policy, store, generation):
    """A change does not send every thread to the store."""
    now = generation()

    found = at_once(*[lambda: policy.at(now)] * 16)

    assert 1 == store.loads
    assert all(found[0] is organisation for organisation in found)


def test_a_change_elsewhere_holds_with_the_next_request(policy, store, clock, generation):
    """What another process sets is in force here with the first request that sees the new generation."""
    policy.at(generation())

    elsewhere = OrganisationPolicy(store, CIPHER, fallback=None, clock=clock)
    store.set_prompt("Answer in French.", NEW_YEAR)
    elsewhere.set_credential("azure-key")

    organisation = policy.at(generation())
    assert "Answer in French." == organisation.prompt.text
    assert "azure-key" == policy.credential(organisation)


def test_a_request_that_looked_up_earlier_does_not_bring_the_past_back(policy, store, generation):
    """A slow request with an old generation gets the newer settings and leaves them in force."""
    before = generation()
    store.set_prompt("new", NEW_YEAR)
    after = generation()
    policy.at(after)

    assert "new" == policy.at(before).prompt.text
    assert "new" == policy.at(after).prompt.text


def test_serves_from_memory_while_the_store_is_away(policy, store, clock, generation):
    """Once loaded, the last known settings hold through an outage, and requests catch up within a second of its end.

    In between, requests do not wait for the store one after the other.
    """
    policy.set_credential("azure-key")
    store.set_prompt("old", NEW_YEAR)
    policy.at(generation())
    store.set_prompt("new", NEW_YEAR)
    store.away = True

    organisation = policy.at(generation())
    assert ("old", "azure-key") == (organisation.prompt.text, policy.credential(organisation))

    store.loads = 0
    for _ in range(5):
        policy.at(generation())
    assert 0 == store.loads

    store.away = False
    clock.advance(1)
    assert "new" == policy.at(generation()).prompt.text


def test_knows_nothing_before_the_first_load(policy, store, generation):
    """A process that never reached the store says so instead of leaving the prompt out."""
    store.away = True

    with pytest.raises(StoreUnavailable):
        policy.at(generation())


def test_the_stored_credential_wins(store, clock, generation):
    """Azure's key from the environment serves until an admin stores one."""
    policy = OrganisationPolicy(store, CIPHER, fallback="from-environment", clock=clock)
    assert "from-environment" == policy.credential(policy.at(generation()))
    assert policy.has_credential()

    policy.set_credential("stored")

    assert "stored" == policy.credential(policy.at(generation()))


def test_without_a_credential_the_admin_is_named(policy, generation):
    """Users learn that their own key is fine and whom to tell."""
    with pytest.raises(UpstreamCredentials, match="Your own key is fine"):
        policy.credential(policy.at(generation()))

    assert not policy.has_credential()


@pytest.mark.parametrize("fallback", [None, "from-environment"])
def test_a_credential_stored_under_another_secret_is_unusable(store, clock, generation, fallback):
    """With another SECRET_KEY the stored key is neither read nor silently replaced by another."""
    OrganisationPolicy(store, CredentialCipher("other"), fallback=None, clock=clock).set_credential("stored")
    policy = OrganisationPolicy(store, CIPHER, fallback=fallback, clock=clock)

    with pytest.raises(UpstreamCredentials):
        policy.credential(policy.at(generation()))
    assert not policy.has_credential()


def test_the_credential_is_stored_encrypted(policy, store):
    """What is in the store is not the key."""
    policy.set_credential("azure-key")

    assert b"azure-key" not in store.load().credential


def test_readers_and_admins_at_once_see_whole_settings(policy, store, generation):
    """While prompts change, every request sees one of them, never older than the one before."""
    done = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not done.is_set():
            organisation = policy.at(generation())
            assert organisation.prompt.text == str(organisation.prompt.version or "")
            seen.append(organisation.prompt.version)

    def write() -> None:
        try:
            for version in range(1, 21):
                store.set_prompt(str(version), NEW_YEAR)
        finally:
            done.set()

    at_once(read, write)

    assert sorted(seen) == seen
    assert 20 == policy.at(generation()).prompt.version
