"""Who may call the admin API."""

from __future__ import annotations

import hmac
import threading
from collections import OrderedDict

from ..clock import Clock
from ..errors import AdminThrottled, InvalidAdminKey

ATTEMPTS = 10
"""Wrong keys that one address may send within ``WINDOW_SECONDS``."""

WINDOW_SECONDS = 60.0

REMEMBERED_ADDRESSES = 10_000


class AdminGuard:
    """Compares admin keys, and slows down an address that guesses. Thread-safe; counts per process."""

    def __init__(self, admin_key: str, *, clock: Clock) -> None:
        self._admin_key = admin_key.encode()
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    def check(self, key: str | None, address: str) -> None:
        """Let a request from *address* with this admin key pass.

        Raises:
            AdminThrottled: too many wrong ones came from there; the right one has to wait as
                well, or guessing would go on at full speed.
            InvalidAdminKey: missing or wrong.
        """
        now = self._clock()
        with self._lock:
            recent = [at for at in self._failures.get(address, ()) if at > now - WINDOW_SECONDS]
            if len(recent) >= ATTEMPTS:
                wait = int(recent[0] + WINDOW_SECONDS - now) + 1
                raise AdminThrottled("Too many wrong admin keys came from your address.", retry_after=wait)
            if key is None:
                # No guess: a scraper without a key must not lock the admin out of the same address.
                raise InvalidAdminKey("The admin API needs the header 'AdminKey'.")
            if hmac.compare_digest(key.encode("latin-1", "replace"), self._admin_key):
                return
            self._failures[address] = [*recent, now]
            self._failures.move_to_end(address)
            if len(self._failures) > REMEMBERED_ADDRESSES:
                self._failures.popitem(last=False)
        raise InvalidAdminKey("The AdminKey is wrong. It is the ADMIN_KEY that this gateway was started with.")
