"""A link that lets whoever has started the gateway in without typing a key: once, from this machine, for a while."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import threading

from ..clock import Clock

SECONDS = 600
"""How long a link is valid."""


class OneTimeLink:
    """Remembers a token until it is used. Thread-safe.

    It is known to the process that has made it, and stored nowhere.

    Args:
        key_id: Of the owner whom it lets in, see :func:`~llmgateway.accounts.admins.first_owner`.
    """

    def __init__(self, key_id: str, *, clock: Clock) -> None:
        self._key_id = key_id
        self._clock = clock
        self._lock = threading.Lock()
        self._digest = b""
        self._ends = 0.0

    def issue(self) -> str:
        """Return a token. One that was issued before is not valid any more."""
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._digest, self._ends = _digest(token), self._clock() + SECONDS
        return token

    def redeem(self, token: str, address: str) -> str | None:
        """Return whom *token* lets in, for the first time that it comes from this machine; None if it does not."""
        with self._lock:
            if not self._digest or self._clock() >= self._ends or not _is_this_machine(address):
                return None
            if not hmac.compare_digest(self._digest, _digest(token)):
                return None
            self._digest = b""
            return self._key_id


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _is_this_machine(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
