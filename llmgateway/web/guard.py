"""Checks the admin key."""

from __future__ import annotations

import hmac
import threading
from collections import OrderedDict

from ..clock import Clock
from ..errors import AdminThrottled, InvalidAdminKey

ATTEMPTS = 10
"""Number of wrong keys that an address may send within ``WINDOW_SECONDS``."""

WINDOW_SECONDS = 60.0

REMEMBERED_ADDRESSES = 10_000


class AdminGuard:
    """Checks admin keys, and limits the attempts of each address. Thread-safe. Each process counts on its own."""

    def __init__(self, admin_key: str, *, clock: Clock) -> None:
        self._admin_key = admin_key.encode()
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    def check(self, key: str | None, address: str) -> None:
        """Check the admin key of a request from *address*.

        Raises:
            AdminThrottled: too many wrong keys came from this address. The right key is refused, too, because
                otherwise an attacker could continue to guess at full speed.
            InvalidAdminKey: the key is missing or wrong.
        """
        now = self._clock()
        with self._lock:
            recent = [at for at in self._failures.get(address, ()) if at > now - WINDOW_SECONDS]
            if len(recent) >= ATTEMPTS:
                wait = int(recent[0] + WINDOW_SECONDS - now) + 1
                raise AdminThrottled("Too many wrong admin keys came from your address.", retry_after=wait)
            if key is None:
                # Not counted as an attempt: a client without a key must not lock out an admin with the same address.
                raise InvalidAdminKey("The admin API needs the header 'AdminKey'.")
            if hmac.compare_digest(key.encode("latin-1", "replace"), self._admin_key):
                return
            self._failures[address] = [*recent, now]
            self._failures.move_to_end(address)
            if len(self._failures) > REMEMBERED_ADDRESSES:
                self._failures.popitem(last=False)
        raise InvalidAdminKey("The AdminKey is wrong. It is the ADMIN_KEY that this gateway was started with.")
