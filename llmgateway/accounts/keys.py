"""Keys: made up, hashed, looked up, refused."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from ..clock import Clock
from ..errors import Conflict, InvalidKey, NotFound
from ..interfaces import KeyStore
from ..records import ALL_KEYS, Group, KeyQuery, KeyRecord, Lookup, moment, new_id
from .policy import OrganisationPolicy
from .principal import Principal, PrincipalCache

PREFIX = "llmgw-"
"""What every made-up key begins with, so that secret scanners can find one that got out."""

# More than RFC 6750 section 2.1 allows (b64token): admins use other characters in keys of their own. No white space,
# and nothing that a header cannot carry.
_KEY = re.compile(r"[\x21-\x7e]{1,512}\Z")


class KeysExist(Conflict):
    """Some of the keys that should be handed out together exist already."""

    def __init__(self, places: Sequence[int]) -> None:
        super().__init__("Some of these keys exist already. Send others, or none to have them made up.", param="key")
        self.places = places
        """Of the rows at fault, from 0."""


class Keys:
    """The keys of everybody in the organisation. Thread-safe."""

    def __init__(
        self,
        store: KeyStore,
        policy: OrganisationPolicy,
        *,
        clock: Clock,
    ) -> None:
        self._store = store
        self._policy = policy
        self._clock = clock
        self._principals = PrincipalCache()

    def authenticate(self, key: str | None) -> Principal:
        """Return the principal that *key* belongs to, with everything that admins have set now.

        Raises:
            InvalidKey: with the reason; the key is not in it.
            StoreUnavailable: no store answers, and this process has never seen the key.
        """
        if not key:
            raise InvalidKey("No API key was sent. Send yours as 'Authorization: Bearer KEY'.")
        if not _KEY.match(key):
            raise InvalidKey("The API key is malformed. Copy it again, without spaces or quotes.")
        sent = digest(key)
        return self._checked(sent, self._store.find(sent))

    def _checked(self, sent: str, lookup: Lookup) -> Principal:
        record, version = lookup
        if record is None:
            raise InvalidKey("The API key is not known here. Ask the admin of this gateway for one.")
        if not record.active:
            raise InvalidKey("The API key has been revoked. Ask the admin of this gateway.")
        if sent != record.digest:
            self._refuse_replaced(record)
        self._refuse_unless_valid_now("The API key", record)
        principal = self._principals.of(record, self._policy.at(version))
        if principal.group is not None:
            self._refuse_unless_valid_now(f"The group {principal.group.name!r} of this API key", principal.group)
        return principal

    def _refuse_replaced(self, record: KeyRecord) -> None:
        if record.retires_at is None or moment(self._clock()) >= record.retires_at:
            raise InvalidKey("The API key has been replaced by a new one. Use that, or ask the admin of this gateway.")

    def _refuse_unless_valid_now(self, what: str, dated: KeyRecord | Group) -> None:
        if dated.starts_at is None and dated.expires_at is None:
            return
        now = moment(self._clock())
        if dated.starts_at is not None and now < dated.starts_at:
            raise InvalidKey(f"{what} is not valid before {_shown(dated.starts_at)}.")
        if dated.expires_at is not None and now >= dated.expires_at:
            raise InvalidKey(f"{what} expired at {_shown(dated.expires_at)}. Ask the admin of this gateway.")

    def create(self, *, key: str | None = None, **fields: Any) -> tuple[KeyRecord, str]:
        """Hand out a key, the given one or a new one, and return its record and the key itself.

        Args:
            fields: Fields of :class:`KeyRecord` but ``id``, ``digest`` and ``created_at``.

        Raises:
            Conflict: the key exists.
            NoSuchGroup: its group does not exist.
        """
        record, key = self._made(key, **fields)
        if not self._store.add(record):
            raise Conflict("This key exists already. Send another one, or none to have one made up.", param="key")
        return record, key

    def create_all(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[KeyRecord, str]]:
        """Hand out a key for each of *rows*, whose items are as for :meth:`create`, or none at all.

        Raises:
            KeysExist: with the places of the rows whose key exists, or is in an earlier row.
            NoSuchGroup: the group of one of them does not exist.
        """
        made = [self._made(**{"key": None, **row}) for row in rows]
        twice = {sent for sent, times in Counter(record.digest for record, _ in made).items() if times > 1}
        taken = twice or self._store.add_all([record for record, _ in made])
        if taken:
            raise KeysExist([place for place, (record, _) in enumerate(made) if record.digest in taken])
        return made

    def rotate(self, key_id: str, *, overlap_seconds: int = 0) -> tuple[KeyRecord, str]:
        """Replace a key by a new one, and return its record and the new key.

        Args:
            overlap_seconds: How long the old key stays valid.

        Raises:
            NotFound: there is no such key.
        """
        key = _made_up()
        retires_at = moment(self._clock()) + timedelta(seconds=overlap_seconds) if overlap_seconds else None
        return _there(self._store.rotate(key_id, digest(key), retires_at=retires_at)), key

    def revoke_group(self, group: str) -> list[str]:
        """Block every key of *group*; return the identifiers of those that were not blocked before."""
        return [record.id for record in self._store.revoke_group(group)]

    def _made(self, key: str | None, **fields: Any) -> tuple[KeyRecord, str]:
        key = key or _made_up()
        now = self._clock()
        return KeyRecord(id=new_id("key", now), digest=digest(key), created_at=moment(now), **fields), key

    def get(self, key_id: str) -> KeyRecord:
        """Raises NotFound if there is no such key."""
        return _there(self._store.get(key_id))

    def find(self, key: str) -> KeyRecord:
        """Return the record of *key*, valid or not; raises NotFound."""
        found: Lookup = self._store.find(digest(key))
        if found.record is None:
            raise NotFound("There is no such key. GET /admin/keys lists those there are.", param="key")
        return found.record

    def list(self, query: KeyQuery = ALL_KEYS) -> list[KeyRecord]:
        return self._store.list(query)

    def update(
        self, key_id: str, changes: Mapping[str, object], *, limits: Mapping[str, object] | None = None
    ) -> KeyRecord:
        """Change the fields that are among *changes*, and those of its limits that are among *limits*.

        Raises:
            NotFound: there is no such key.
            NoSuchGroup: the new group does not exist.
        """
        return _there(self._store.update(key_id, changes, limits=limits))

    def remove(self, key_id: str) -> KeyRecord:
        """Forget a key, and return what it was. Raises NotFound if there is no such key."""
        return _there(self._store.remove(key_id))


def digest(key: str) -> str:
    """SHA-256 of *key* in hex.

    Without salt or stretching: a made-up key has 256 random bits, which nobody can guess, and every
    request computes this once.
    """
    return hashlib.sha256(key.encode()).hexdigest()


def is_usable_key(key: str) -> bool:
    """Whether *key* can travel in an ``Authorization`` header."""
    return bool(_KEY.match(key))


def _made_up() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def _shown(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC")


def _there(record: KeyRecord | None) -> KeyRecord:
    if record is None:
        # What was sent is not repeated: people paste the key itself where its id belongs.
        raise NotFound("There is no key with this id. GET /admin/keys lists those there are.", param="id")
    return record
