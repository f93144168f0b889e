"""The settings of the organisation: kept in memory, and never out of date."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import replace

import pytest

from llmgateway.accounts.credential import CredentialCipher
from llmgateway.accounts.policy import OrganisationPolicy
from llmgateway.errors import StoreUnavailable, UpstreamCredentials
from llmgateway.records import Attempt, Limits, Organisation, Prices
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteKeys, SQLiteOrganisation
from tests.parts import NEW_YEAR
from tests.stores.contract import at_once, group, usage

CIPHER = CredentialCipher("secret")


class Watched:
    """A real store that counts loads, and can be made unavailable."""

    def __init__(self, store: SQLiteOrganisation) -> None:
        self._store = store
        self.loads = 0
        self.away = False

    def load(self) -> Organisation:
        self.loads += 1
        if self.away:
            raise StoreUnavailable("away")
        return self._store.load()

    def load_anyway(self) -> Organisation:
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
def version(database):
    """Return the present version, which a request gets with the look-up of its key."""
    return lambda: SQLiteKeys(database).find("0" * 64).version


@pytest.fixture
def policy(store, clock):
    return OrganisationPolicy(store, CIPHER, fallback=None, clock=clock)


def test_asks_the_store_once_for_each_version(policy, store, version):
    """Many requests with the same version load the settings once; a change loads them once more."""
    for _ in range(1000):
        policy.at(version())
    assert 1 == store.loads

    store.set_prompt("Be brief.", NEW_YEAR)
    for _ in range(10):
        assert "Be brief." == policy.at(version()).prompt.text
    assert 2 == store.loads


def test_threads_that_find_a_new_version_load_it_once(policy, store, version):
    """If many threads see a new version, one of them loads the settings."""
    now = version()

    found = at_once(*[lambda: policy.at(now)] * 16)

    assert 1 == store.loads
    assert all(found[0] is organisation for organisation in found)


def test_a_change_elsewhere_holds_with_the_next_request(policy, store, clock, version):
    """A change by another process applies to the first request that sees the new version."""
    policy.at(version())

    elsewhere = OrganisationPolicy(store, CIPHER, fallback=None, clock=clock)
    store.set_prompt("Answer in French.", NEW_YEAR)
    elsewhere.set_credential("azure-key")

    organisation = policy.at(version())
    assert "Answer in French." == organisation.prompt.text
    assert "azure-key" == policy.credential(organisation)


def test_a_request_that_looked_up_earlier_does_not_bring_the_past_back(policy, store, version):
    """A slow request with an old version gets the newer settings, and does not replace them."""
    before = version()
    store.set_prompt("new", NEW_YEAR)
    after = version()
    policy.at(after)

    assert "new" == policy.at(before).prompt.text
    assert "new" == policy.at(after).prompt.text


def test_serves_from_memory_while_the_store_is_away(policy, store, clock, version):
    """The last known settings are used during an outage, and loaded again within a second of its end.

    In between, requests do not wait for the store one after the other.
    """
    policy.set_credential("azure-key")
    store.set_prompt("old", NEW_YEAR)
    policy.at(version())
    store.set_prompt("new", NEW_YEAR)
    store.away = True

    organisation = policy.at(version())
    assert ("old", "azure-key") == (organisation.prompt.text, policy.credential(organisation))

    store.loads = 0
    for _ in range(5):
        policy.at(version())
    assert 0 == store.loads

    store.away = False
    clock.advance(1)
    assert "new" == policy.at(version()).prompt.text


CHANGES = {
    "prompt": lambda policy: policy.set_prompt("new", NEW_YEAR),
    "credential": lambda policy: policy.set_credential("new-key"),
    "limits": lambda policy: policy.set_limits(Limits(requests_per_minute=1)),
    "one limit": lambda policy: policy.update_limits({"parallel_requests": 1}),
    "prices": lambda policy: policy.set_model("gpt", {"prices": Prices(prompt=1, cached=1, completion=1)}),
    "no prices": lambda policy: policy.set_model("old", None),
    "document": lambda policy: policy.update_document("new", lambda _: {"a": 1}),
    "no document": lambda policy: policy.update_document("old", lambda _: {}),
    "new group": lambda policy: policy.set_group(group("new")),
    "replaced group": lambda policy: policy.set_group(group("old", note="new")),
    "changed group": lambda policy: policy.update_group("old", {"note": "new"}, limits={"tokens_per_minute": 1}),
    "removed group": lambda policy: policy.remove_group("old"),
    "no such group": lambda policy: policy.update_group("never there", {"note": "new"}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_that_was_made_here_is_known_without_the_store(policy, store, version, change):
    """A change is kept in memory by the process that made it, even if the store fails right after it."""
    store.set_model("old", {"prices": Prices(prompt=2, cached=2, completion=2)})
    store.set_group(group("old"))
    store.update_document("old", lambda _: {"b": 2})
    policy.set_credential("old-key")
    before = version()
    policy.at(before)

    change(policy)
    store.away = True

    expected = store.load_anyway()
    for seen in (before, version()):
        current = policy.at(seen)
        assert replace(expected, version="") == replace(current, version="")
        assert ("new-key" if change is CHANGES["credential"] else "old-key") == policy.credential(current)


def test_a_look_at_what_is_stored_leaves_what_requests_use(policy, version):
    """Health checks load the settings every second; the object in memory stays the same if nothing has changed."""
    before = policy.at(version())

    assert before == policy.stored()
    assert policy.stored_credential() is None

    assert before is policy.at(version())


def test_a_change_here_does_not_hide_one_elsewhere(policy, store, version):
    """Changes of other processes apply to the next request."""
    policy.at(version())
    store.set_prompt("elsewhere", NEW_YEAR)

    policy.set_limits(Limits(requests_per_minute=1))

    current = policy.at(version())
    assert ("elsewhere", 1) == (current.prompt.text, current.limits.requests_per_minute)


def test_knows_nothing_before_the_first_load(policy, store, version):
    """A process that never reached the store raises an error, because requests would be without the prompt."""
    store.away = True

    with pytest.raises(StoreUnavailable):
        policy.at(version())


def test_the_stored_credential_wins(store, clock, version):
    """Azure's key from the environment is used until an admin stores one."""
    policy = OrganisationPolicy(store, CIPHER, fallback="from-environment", clock=clock)
    assert "from-environment" == policy.credential(policy.at(version()))
    assert policy.stored_credential() is not None

    policy.set_credential("stored")

    assert "stored" == policy.credential(policy.at(version()))


def test_without_a_credential_the_admin_is_named(policy, version):
    """The message says that the user's own key is valid, and whom to ask."""
    with pytest.raises(UpstreamCredentials, match="Your own key is fine"):
        policy.credential(policy.at(version()))

    assert policy.stored_credential() is None


@pytest.mark.parametrize("fallback", [None, "from-environment"])
def test_a_credential_stored_under_another_secret_is_unusable(store, clock, version, fallback):
    """A key that was stored with another SECRET_KEY is not used, and not replaced by the one from the environment."""
    OrganisationPolicy(store, CredentialCipher("other"), fallback=None, clock=clock).set_credential("stored")
    policy = OrganisationPolicy(store, CIPHER, fallback=fallback, clock=clock)

    with pytest.raises(UpstreamCredentials):
        policy.credential(policy.at(version()))
    assert policy.stored_credential() is None


def test_the_credential_is_stored_encrypted(policy, store):
    """The stored value does not contain the key."""
    policy.set_credential("azure-key")

    assert b"azure-key" not in store.load().credential


def test_readers_and_admins_at_once_see_whole_settings(policy, store, version):
    """While the prompt changes, each request gets one of the versions, and never an older one than before."""
    done = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not done.is_set():
            organisation = policy.at(version())
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
    assert 20 == policy.at(version()).prompt.version


PRICES = Prices(prompt=1, cached=1, completion=2)


@pytest.mark.parametrize(("failed", "total"), [(0.5, 2.5), (None, None)])
def test_the_cost_of_a_request_that_died_is_that_of_its_attempts(policy, version, failed, total):
    """Those that had failed before have theirs; the last one gets it, although the cost of all may not be known."""
    policy.set_model("gpt-4o-eu", {"prices": PRICES})
    policy.at(version())
    attempts = (
        Attempt(deployment="east", prompt_tokens=7, cost_usd=failed),
        Attempt(deployment="west", prompt_tokens=1_000_000, completion_tokens=500_000),
    )

    priced = policy.priced(usage(prompt_tokens=1_000_007, completion_tokens=500_000, attempts=attempts))

    assert (failed, 2.0) == tuple(each.cost_usd for each in priced.attempts)
    assert total == priced.cost_usd


def test_the_cost_of_a_request_that_died_without_other_deployments(policy, version):
    """It has no attempts."""
    policy.set_model("gpt-4o-eu", {"prices": PRICES})
    policy.at(version())

    assert 2.0 == policy.priced(usage(prompt_tokens=1_000_000, completion_tokens=500_000)).cost_usd


def test_days_begin_in_the_time_zone_that_was_set(store, clock, version):
    """Of the organisation that is asked for, or else the present one; an admin's replaces that of the environment."""
    policy = OrganisationPolicy(store, CIPHER, fallback=None, clock=clock, timezone="Asia/Tokyo")
    assert ("Asia/Tokyo",) == policy.time_zones().names
    before = policy.at(version())

    assert [("Asia/Tokyo",), ("Asia/Tokyo", "Europe/Berlin")] == [
        zones.names for zones in policy.set_timezone("Europe/Berlin")
    ]

    assert ("Asia/Tokyo", "Europe/Berlin") == policy.time_zones().names == policy.time_zones(store.load()).names
    assert ("Asia/Tokyo",) == policy.time_zones(before).names


def test_days_are_those_of_a_new_store_while_it_is_away(store, clock):
    """Nothing fails because the time zone cannot be read."""
    policy = OrganisationPolicy(store, CIPHER, fallback=None, clock=clock, timezone="Asia/Tokyo")
    store.away = True

    assert ("Asia/Tokyo",) == policy.time_zones().names
