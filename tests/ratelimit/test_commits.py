"""Settlements: at once where somebody waits, else together."""

from __future__ import annotations

from llmgateway.ratelimit.commits import Commits
from llmgateway.ratelimit.reservations import Commit
from tests.servers import wait_until


class Calls:
    """A counter store that remembers what it is asked to settle, call by call."""

    def __init__(self) -> None:
        self.committed: list[list[str]] = []

    def commit(self, commits) -> None:
        self.committed.append([commit.reservation for commit in commits])


def test_settles_at_once_what_is_awaited():
    """Before it returns, whatever else waits."""
    store = Calls()
    commits = Commits(store, gather_seconds=3600)
    commits.soon(Commit("later", ()))

    commits.at_once(Commit("now", ()))

    assert [["now"]] == store.committed


def test_settles_the_rest_together():
    """One call for all that has gathered, by itself after a moment."""
    store = Calls()
    commits = Commits(store, gather_seconds=0.2)

    for name in ("a", "b", "c"):
        commits.soon(Commit(name, ()))
    wait_until(lambda: store.committed)

    assert [["a", "b", "c"]] == store.committed


def test_settles_what_waits_when_told():
    """Once, and it says whether there was anything."""
    store = Calls()
    commits = Commits(store, gather_seconds=3600)
    commits.soon(Commit("a", ()))

    assert commits.flush()
    assert not commits.flush()

    assert [["a"]] == store.committed


def test_one_that_fails_takes_no_other_along(caplog):
    """A bug with one settlement is told, and the others are settled."""

    class Picky(Calls):
        def commit(self, commits) -> None:
            if any(commit.reservation == "bad" for commit in commits):
                raise OverflowError("bad")
            super().commit(commits)

    store = Picky()
    commits = Commits(store, gather_seconds=3600)
    for name in ("a", "bad", "b"):
        commits.soon(Commit(name, ()))

    commits.flush()

    assert [["a"], ["b"]] == store.committed
    assert "The request bad could not be settled." in caplog.text
