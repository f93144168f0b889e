"""Sessions that were ended, one by one or everywhere."""

from __future__ import annotations

from datetime import timedelta

import pytest

from llmgateway.accounts.sessions import EVERYBODY, Sessions
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteSessions


@pytest.fixture
def open_sessions(tmp_path, clock):
    """Opens them as another process would, perhaps with a clock of its own."""

    def opened(own_clock=clock):
        database = SQLiteDatabase(tmp_path / "gateway.sqlite")
        return Sessions(SQLiteSessions(database), longest=timedelta(hours=12), clock=own_clock)

    return opened


def test_one_ends_everywhere_and_the_others_stay(open_sessions):
    """A copy of its cookie is worth nothing, also at another process."""
    sessions, elsewhere = open_sessions(), open_sessions()
    mark = sessions.mark("person_1")

    elsewhere.end("session-1")

    assert not sessions.is_valid("session-1", "person_1", mark)
    assert sessions.is_valid("session-2", "person_1", mark)


@pytest.mark.parametrize("who", ["person_1", EVERYBODY])
def test_all_end_and_new_ones_begin(open_sessions, who):
    """Also those that began at the same moment; those of others stay unless all end."""
    sessions = open_sessions()
    mark, other = sessions.mark("person_1"), sessions.mark("person_2")

    open_sessions().end_all_of(who)

    assert not sessions.is_valid("s", "person_1", mark)
    assert (who != EVERYBODY) == sessions.is_valid("s", "person_2", other)
    assert sessions.is_valid("s", "person_1", sessions.mark("person_1"))
    assert not sessions.is_valid("s", "person_1", "")


def test_clocks_of_hosts_do_not_matter(open_sessions, clock):
    """A session that seems to begin later than the sign-out, by the clock of a host that is fast, ends, too."""
    fast, slow = open_sessions(lambda: clock() + 300), open_sessions()
    mark = fast.mark("owner")
    slow.end_all_of("owner")
    assert not fast.is_valid("s", "owner", mark)


def test_marks_are_forgotten_when_no_session_can_have_them(open_sessions, clock):
    """A session that began after a sign-out goes on when the mark of that is forgotten."""
    sessions = open_sessions()
    sessions.end_all_of("owner")
    clock.advance(3600 * 12)
    mark = sessions.mark("owner")
    clock.advance(3600 * 2)
    sessions.end("another")  # which purges

    assert "." == sessions.mark("owner")
    assert sessions.is_valid("s", "owner", mark)


def test_a_token_is_used_once(open_sessions, clock):
    assert [True, False] == [open_sessions().use_once("state", seconds=600) for _ in range(2)]
    clock.advance(601)
    assert open_sessions().use_once("state", seconds=600)
