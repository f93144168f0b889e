"""Sessions of people who look at pages, as far as they are not in the browser's cookie: which were ended, and when.

A session says when it began to belong to whom. It ends when its person, or everybody, is signed out everywhere: that
changes a mark which the session has to have. No clock of another host decides this. Names of sessions that were ended
one by one are kept until they would have ended by themselves.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from ..clock import Clock
from ..interfaces import SessionStore
from ..records import moment

EVERYBODY = "everybody"

_SLACK = timedelta(hours=1)
"""By how much the clocks of hosts may differ."""


class Sessions:
    """Ends sessions, for all processes and hosts at once. Thread-safe.

    Args:
        longest: How long a session lasts at most.
    """

    def __init__(self, store: SessionStore, *, longest: timedelta, clock: Clock) -> None:
        self._store = store
        self._longest = longest
        self._clock = clock

    def mark(self, who: str) -> str:
        """Return the mark that a session of *who* gets when it begins.

        Args:
            who: Identifies the owner of the session: ``owner``, ``admin_…``, ``person_…`` or ``key_…``.
        """
        return self._mark(self._look(who), who)

    def is_valid(self, session_id: str, who: str, mark: str) -> bool:
        """Whether neither this session, nor those of *who*, nor those of everybody were ended."""
        ended, names = _ended(session_id), (_all(EVERYBODY), _all(who))
        found = self._look(who, ended)
        if ended in found:
            return False
        marks = mark.split(".")
        # A mark that has expired is older than any session.
        return len(marks) == len(names) and all(map(lambda name, had: found.get(name, had) == had, names, marks))

    def end(self, session_id: str) -> None:
        """End one session: a copy of its cookie is worth nothing any more."""
        self._store.put(_ended(session_id), "", until=moment(self._clock()) + self._longest + _SLACK)
        self._store.purge(moment(self._clock()))

    def end_all_of(self, who: str) -> None:
        """End all sessions of *who*, or of :data:`EVERYBODY`."""
        # Afterwards no session has the mark from before, also none that began at this moment on another host.
        self._store.put(_all(who), secrets.token_hex(8), until=moment(self._clock()) + self._longest + _SLACK)

    def use_once(self, token: str, *, seconds: float) -> bool:
        """Return whether *token*, which is valid for some *seconds*, was not used before. Atomic."""
        now = moment(self._clock())
        self._store.purge(now)  # nothing else does so where people sign in and never out
        return self._store.add(f"used:{_digest(token)}", "", now=now, until=now + timedelta(seconds=seconds))

    def _look(self, who: str, *others: str) -> dict[str, str]:
        return {**self._store.look((_all(EVERYBODY), _all(who), *others), now=moment(self._clock()))}

    def _mark(self, found: dict[str, str], who: str) -> str:
        return ".".join(found.get(_all(each), "") for each in (EVERYBODY, who))


def _all(who: str) -> str:
    return f"all:{who}"


def _ended(session_id: str) -> str:
    return f"ended:{_digest(session_id)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
