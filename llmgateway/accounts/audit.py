"""Who changed what: one entry for every change that an admin makes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import orjson

from ..clock import Clock
from ..errors import StoreUnavailable
from ..interfaces import AuditLog
from ..records import AuditEntry, moment, new_id

log = logging.getLogger(__name__)


class Audit:
    """Writes entries. Thread-safe.

    Args:
        admin_key: Each entry has its fingerprint.
    """

    def __init__(self, entries: AuditLog, *, admin_key: str, clock: Clock) -> None:
        self.entries = entries
        # A digest that is used for nothing else: it only tells whether two entries were made with the same key.
        self._admin_key_id = hashlib.sha256(b"llmgateway admin key\0" + admin_key.encode()).hexdigest()[:12]
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
        """Write down a change, with values as JSON has them. They must not contain secrets.

        If the store does not accept the entry, it is logged instead: the change is in force already, and
        an error would say that it is not.
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
            log.exception("The audit log did not take an entry: %s", orjson.dumps(entry).decode())
