"""The audit log: one entry for each change that an admin makes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from ..clock import Clock
from ..errors import StoreUnavailable
from ..interfaces import AuditLog
from ..records import AuditEntry, moment, new_id

log = logging.getLogger(__name__)


class Author(Protocol):
    """Who makes a change."""

    @property
    def id(self) -> str | None:
        """None for the first owner."""
        ...

    @property
    def name(self) -> str: ...

    @property
    def key_id(self) -> str:
        """See :attr:`~llmgateway.records.AuditEntry.admin_key_id`."""
        ...


class Audit:
    """Writes entries to the audit log. Thread-safe."""

    def __init__(self, entries: AuditLog, *, clock: Clock) -> None:
        self.entries = entries
        self._clock = clock

    def changed(
        self,
        action: str,
        target: str,
        *,
        admin: Author,
        groups: Iterable[str | None] = (),
        address: str | None,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
    ) -> None:
        """Write an entry for a change that was made.

        If the store does not accept the entry, it is logged instead of raising an error: an error would
        make the admin believe that the change was not made.

        Args:
            groups: The groups that the change is about; None among them if it is also about something else.
            before: The values before the change, as JSON types, without secrets; None if there were none.
            after: The same after the change.
        """
        now = self._clock()
        named = {*groups}
        entry = AuditEntry(
            id=new_id("audit", now),
            timestamp=moment(now),
            address=address,
            admin_key_id=admin.key_id,
            admin_id=admin.id,
            admin_name=None if admin.id is None else admin.name,
            groups=None if None in named else tuple(sorted(filter(None, named))) or None,
            action=action,
            target=target,
            before=before,
            after=after,
        )
        log.info("The admin %s has made the change %s, see %s in the audit log.", admin, action, entry.id)
        try:
            self.entries.append(entry)
        except StoreUnavailable:
            # Without the documents, because they name people, and nobody can erase them from a log.
            log.exception("The store did not accept an entry of the audit log: %s of %s.", action, _loggable(target))


def _loggable(target: str) -> str:
    return target if target.startswith("key_") else "what the log does not name"
