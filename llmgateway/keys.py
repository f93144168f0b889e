"""Keys: made up, hashed, looked up, refused."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from .clock import Clock
from .errors import Conflict, InvalidKey, NotFound
from .interfaces import KeyStore
from .records import KeyRecord, Lookup, moment, new_id

PREFIX = "llmgw-"
"""What every made-up key begins with, so that secret scanners can find one that got out."""

# RFC 6750 section 2.1 (b64token), with the underscore and the rest that admins like to use in keys of
# their own; no white space and nothing that a header cannot carry.
_KEY = re.compile(r"[\x21-\x7e]{1,512}\Z")


class Keys:
    """The keys of the organisation's people. Thread-safe."""

    def __init__(self, store: KeyStore, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def authenticate(self, key: str | None) -> tuple[KeyRecord, str]:
        """Return whose *key* it is, and the present generation of what admins set.

        Raises:
            InvalidKey: with the reason; the key is not in it.
            StoreUnavailable: nothing can be said about the key now.
        """
        if not key:
            raise InvalidKey("No API key was sent. Send yours as 'Authorization: Bearer KEY'.")
        if not _KEY.match(key):
            raise InvalidKey("The API key is malformed. Copy it again, without spaces or quotes.")
        record, generation = self._store.find(digest(key))
        if record is None:
            raise InvalidKey("The API key is not known here. Ask the admin of this gateway for one.")
        self._refuse_out_of_season(record)
        return record, generation

    def _refuse_out_of_season(self, record: KeyRecord) -> None:
        if not record.active:
            raise InvalidKey("The API key has been revoked. Ask the admin of this gateway.")
        if record.starts_at is None and record.expires_at is None:
            return
        now = moment(self._clock())
        if record.starts_at is not None and now < record.starts_at:
            raise InvalidKey(f"The API key is not valid before {_shown(record.starts_at)}.")
        if record.expires_at is not None and now >= record.expires_at:
            raise InvalidKey(f"The API key expired at {_shown(record.expires_at)}. Ask the admin of this gateway.")

    def create(self, *, key: str | None = None, **fields: Any) -> tuple[KeyRecord, str]:
        """Hand out a key, the given one or a new one, and return its record and the key itself.

        Args:
            fields: Fields of :class:`KeyRecord` but ``id``, ``digest`` and ``created_at``.

        Raises:
            Conflict: the key exists.
        """
        key = key or PREFIX + secrets.token_urlsafe(32)
        now = self._clock()
        record = KeyRecord(id=new_id("key", now), digest=digest(key), created_at=moment(now), **fields)
        if not self._store.add(record):
            raise Conflict("This key exists already. Send another one, or none to have one made up.", param="key")
        return record, key

    def get(self, key_id: str) -> KeyRecord:
        """Raises NotFound if there is no such key."""
        record = self._store.get(key_id)
        if record is None:
            raise _unknown()
        return record

    def find(self, key: str) -> KeyRecord:
        """Return the record of *key*, valid or not; raises NotFound."""
        found: Lookup = self._store.find(digest(key))
        if found.record is None:
            raise NotFound("There is no such key. GET /admin/keys lists those there are.", param="key")
        return found.record

    def list(self, **filters: Any) -> list[KeyRecord]:
        """As :meth:`KeyStore.list`."""
        return self._store.list(**filters)

    def update(self, key_id: str, changes: Mapping[str, object]) -> KeyRecord:
        """Raises NotFound if there is no such key."""
        record = self._store.update(key_id, changes)
        if record is None:
            raise _unknown()
        return record

    def remove(self, key_id: str) -> None:
        """Raises NotFound if there is no such key."""
        if not self._store.remove(key_id):
            raise _unknown()


def digest(key: str) -> str:
    """SHA-256 of *key* in hex.

    No salt and no stretching: a made-up key has 256 random bits, which nobody guesses, and every
    request hashes once.
    """
    return hashlib.sha256(key.encode()).hexdigest()


def is_usable_key(key: str) -> bool:
    """Whether *key* can travel in an ``Authorization`` header."""
    return bool(_KEY.match(key))


def _shown(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC")


def _unknown() -> NotFound:
    # What was sent is not repeated: people paste the key itself where its id belongs.
    return NotFound("There is no key with this id. GET /admin/keys lists those there are.", param="id")
