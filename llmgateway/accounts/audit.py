"""The audit log: one entry for each change that an admin makes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ..clock import Clock
from ..errors import StoreUnavailable
from ..interfaces import AuditLog
from ..records import AuditEntry, moment, new_id

log = logging.getLogger(__name__)

# The salt is fixed, so that entries of all hosts and of all times can be compared.
_SALT = b"llmgateway admin key"


@lru_cache
def fingerprint(admin_key: str) -> str:
    """Return 12 hexadecimal digits that show whether two changes were made with the same key. They have no other use.

    A person who reads the audit log can try keys. scrypt allows about 20 tries per second and processor (n=2**14:
    16 MiB, about 50 ms, once at start; RFC 7914 section 2). Entries of earlier editions have a SHA-256 in its place.
    """
    return hashlib.scrypt(admin_key.encode(), salt=_SALT, n=2**14, r=8, p=1, dklen=6).hex()


class Audit:
    """Writes entries to the audit log. Thread-safe.

    Args:
        admin_key: Each entry contains a fingerprint of this key.
    """

    def __init__(self, entries: AuditLog, *, admin_key: str, clock: Clock) -> None:
        self.entries = entries
        self._admin_key_id = fingerprint(admin_key)
        self._clock = clock

    def changed(
        self,
        action: str,
        target: str,
        *,
        address: str | None,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
    ) -> None:
        """Write an entry for a change that was made.

        If the store does not accept the entry, it is logged instead of raising an error: an error would
        make the admin believe that the change was not made.

        Args:
            before: The values before the change, as JSON types, without secrets; None if there were none.
            after: The same after the change.
        """
        now = self._clock()
        entry = AuditEntry(
            id=new_id("audit", now),
            timestamp=moment(now),
            address=address,
            admin_key_id=self._admin_key_id,
            action=action,
            target=target,
            before=before,
            after=after,
        )
        try:
            self.entries.append(entry)
        except StoreUnavailable:
            # Without the documents, because they name people, and nobody can erase them from a log.
            log.exception("The store did not accept an entry of the audit log: %s of %s.", action, _loggable(target))


def _loggable(target: str) -> str:
    return target if target.startswith("key_") else "what the log does not name"
