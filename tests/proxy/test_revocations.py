"""Requests in flight are cut when their keys are revoked."""

from __future__ import annotations

from llmgateway.azure.cancellation import CancellationToken
from llmgateway.errors import KeyRevoked, StoreUnavailable
from llmgateway.proxy.revocations import POLL_SECONDS, RevocationWatcher, RunningKey
from tests.parts import Stopwatch
from tests.servers import wait_until

ADA, BOB = RunningKey("digest-a", "key_a"), RunningKey("digest-b", "key_b")


class Store:
    """The keys that are revoked, with a version that a test sets, and the look-ups."""

    def __init__(self) -> None:
        self.revoked: set[RunningKey] = set()
        self.version: object = 1
        self.asked: list[RunningKey] = []

    def is_revoked(self, key: RunningKey) -> bool:
        self.asked.append(key)
        return key in self.revoked

    def read_version(self) -> object:
        if isinstance(self.version, Exception):
            raise self.version
        return self.version


def watched(store: Store, *keys: RunningKey, timer: Stopwatch | None = None):
    watcher = RevocationWatcher(store.is_revoked, version=store.read_version, timer=timer or Stopwatch())
    tokens = [CancellationToken() for _ in keys]
    for token, key in zip(tokens, keys, strict=True):
        watcher.add(token, key)
    return watcher, tokens


def test_cuts_all_requests_of_a_revoked_key_and_no_others():
    """The reason is the error for the client."""
    store = Store()
    watcher, (first, second, other) = watched(store, ADA, ADA, BOB)
    assert watcher.look()
    store.revoked, store.version = {ADA}, 2

    assert watcher.look()

    assert [True, True, False] == [token.was_cut for token in (first, second, other)]
    assert isinstance(first.reason, KeyRevoked)
    assert (401, "invalid_api_key") == (first.reason.status, first.reason.code)


def test_looks_keys_up_only_after_a_change():
    """Each new request is looked up once, because its key may have been revoked since it was authenticated."""
    store = Store()
    watcher, _ = watched(store, ADA, ADA)
    for _ in range(5):
        watcher.look()
    assert [ADA] == store.asked

    watcher.add(CancellationToken(), BOB)
    for _ in range(5):
        watcher.look()
    assert [ADA, BOB] == store.asked

    store.version = 2
    for _ in range(5):
        watcher.look()
    assert [ADA, BOB] == sorted(store.asked[2:])


def test_a_store_without_a_version_is_asked_now_and_then():
    """Also while the version cannot be read."""
    store, timer = Store(), Stopwatch()
    store.version = StoreUnavailable("away")
    watcher, (token,) = watched(store, ADA, timer=timer)
    watcher.look()
    assert not store.asked

    store.revoked = {ADA}
    timer.advance(POLL_SECONDS)

    assert not watcher.look()
    assert token.was_cut


def test_a_removed_request_is_not_cut():
    """Its thread may already serve another one."""
    store = Store()
    watcher, (token,) = watched(store, ADA)
    watcher.remove(token)
    watcher.remove(token)
    store.revoked = {ADA}

    assert not watcher.look()
    assert not token.was_cut


def test_the_thread_looks_by_itself():
    """It starts with the first request."""
    store = Store()
    watcher = RevocationWatcher(store.is_revoked, version=store.read_version)
    token = CancellationToken()
    watcher.add(token, ADA)
    store.revoked, store.version = {ADA}, 2

    wait_until(lambda: token.was_cut)
