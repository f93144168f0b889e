"""Checks the admin key."""

from __future__ import annotations

import hashlib
import hmac
import logging
import threading
from collections.abc import Iterable

from ..accounts.admins import Admin, Admins, first_owner
from ..accounts.attempts import ATTEMPTS, WINDOW_SECONDS, WrongKeys, source_of
from ..clock import Clock
from ..errors import AdminThrottled, InvalidAdminKey
from ..settings import SHORT_ADMIN_KEY

log = logging.getLogger(__name__)

LINES_PER_MINUTE = 20
"""Of the log, about wrong keys, from each process."""


class AdminGuard:
    """Checks admin keys, and limits how many wrong ones an address may send. Thread-safe.

    Args:
        keys: The keys of the first owner, which need no store.
        admins: The other admins.
        wrong_keys: Counts the others.
    """

    def __init__(self, keys: Iterable[str], *, admins: Admins, wrong_keys: WrongKeys, clock: Clock) -> None:
        self.replace_keys(keys)
        self._admins = admins
        self._wrong_keys = wrong_keys
        self._lines = _LinesPerMinute(clock)

    def replace_keys(self, keys: Iterable[str]) -> None:
        """Replace the keys of the first owner."""
        self._keys = [
            (digest, len(key) >= SHORT_ADMIN_KEY, owner)
            for key, owner in ((key, first_owner(key)) for key in keys)
            for digest in _digests(key)
        ]

    def owner(self, key_id: str) -> Admin | None:
        """Return the first owner who has signed in with the key *key_id*; None if it was replaced since."""
        owners = (owner for _, _, owner in self._keys)
        return next((owner for owner in owners if hmac.compare_digest(owner.key_id, key_id)), None)

    def is_owners(self, key: str) -> bool:
        """Whether this is the key of the first owner. It takes the same time for each key."""
        sent = hashlib.sha256(_bytes(key)).digest()
        return sum(hmac.compare_digest(digest, sent) for digest, _, _ in self._keys) > 0

    def refuse_who_has_to_wait(self, address: str) -> None:
        """Raise AdminThrottled if too much was tried from this address, whatever it sends now."""
        if wait := self._wrong_keys.wait(address):
            raise AdminThrottled("Too much was tried from your address.", retry_after=wait)

    def count(self, address: str) -> None:
        """Count something else that was tried in vain, such as a user's key.

        Raises:
            AdminThrottled: it was too much.
        """
        wait, count = self._wrong_keys.add(address)
        if wait:
            raise AdminThrottled("Too much was tried from your address.", retry_after=wait)
        self._report(address, count)

    def check(self, key: str | None, address: str) -> Admin:
        """Check the admin key of a request from *address*, and return whose it is.

        Raises:
            AdminThrottled: too many wrong keys came from this address. A right key is refused, too, if it is so short
                that it can be guessed: otherwise an attacker could go on at full speed until one is let in.
            InvalidAdminKey: the key is missing or wrong.
            StoreUnavailable: it may be the key of a named admin, and the store does not answer.
        """
        if key is None:
            # Not counted as an attempt: a client without a key must not lock out an admin with the same address.
            raise InvalidAdminKey("The admin API needs the header 'AdminKey'.")
        sent = hashlib.sha256(_bytes(key)).digest()
        # Digests have the same length, and all are compared. So the time says nothing about the keys.
        matches = [
            (unguessable, owner) for digest, unguessable, owner in self._keys if hmac.compare_digest(digest, sent)
        ]
        for unguessable, owner in matches:
            if unguessable:
                return owner
        admin, problem = (None, "") if matches else self._admins.authenticate(key)
        if admin is not None:
            return admin
        if matches:
            wait, count = self._wrong_keys.wait(address), 0
        else:
            wait, count = self._wrong_keys.add(address)
        if wait:
            raise AdminThrottled("Too many wrong admin keys came from your address.", retry_after=wait)
        for _, owner in matches:
            return owner
        self._report(address, count)
        raise InvalidAdminKey(
            f"The AdminKey is wrong: it {problem}. Send the ADMIN_KEY of this gateway, or the key that an owner gave "
            "you."
        )

    def _report(self, address: str, count: int) -> None:
        """Log the first wrong key of an address within a minute, and the last one before it has to wait."""
        if count not in (1, ATTEMPTS):
            return
        left = self._lines.take()
        if left < 0:
            return
        source = source_of(address)
        shown = address[:64] if source == address else f"{address[:64]} (counted as {source})"
        log.warning(
            "A wrong key came from %s, number %d within a minute.%s%s",
            shown,
            count,
            f" It has to wait for up to {WINDOW_SECONDS:g} s now." if count == ATTEMPTS else "",
            " Wrong keys are not logged for the rest of this minute." if left == 0 else "",
        )


class _LinesPerMinute:
    """Counts lines of the log. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._minute = 0
        self._left = LINES_PER_MINUTE

    def take(self) -> int:
        """Return how many lines are left in this minute after this one; less than 0 if it must not be written."""
        with self._lock:
            minute = int(self._clock() // 60)
            if minute != self._minute:
                self._minute, self._left = minute, LINES_PER_MINUTE
            self._left -= 1
            return self._left


def _digests(key: str) -> set[bytes]:
    """Return the digests of the bytes that clients send: curl sends UTF-8, browsers and Python send Latin-1."""
    return {hashlib.sha256(sent).digest() for sent in (key.encode(), _bytes(key))}


def _bytes(key: str) -> bytes:
    """Return the bytes of a header, which WSGI servers decode as Latin-1 (PEP 3333)."""
    try:
        return key.encode("latin-1")
    except UnicodeEncodeError:
        return key.encode("utf-8", "surrogatepass")
