"""The keys of clients: creates, stores and authenticates them."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from ..clock import Clock
from ..current import current_request
from ..errors import Conflict, InvalidKey, NotFound, StoreUnavailable
from ..interfaces import KeyStore
from ..records import ALL_KEYS, Group, GroupSize, Imported, KeyChange, KeyQuery, KeyRecord, Lookup, moment, new_id
from .policy import OrganisationPolicy
from .principal import Principal, PrincipalCache

PREFIX = "llmgw-"
"""The beginning of every generated key. Secret scanners can use it to find keys that were published by mistake."""

# Printable ASCII without white space, which is safe in a header. This is more than RFC 6750 section 2.1 allows
# (b64token), because admins may choose keys with other characters.
_KEY = re.compile(r"[\x21-\x7e]{1,512}\Z")

_UNUSABLE = "it has a blank, a line end or another character that no key has. Copy it again"
_FLAWS = (
    (
        re.compile(r"bearer\b", re.IGNORECASE),
        "it begins with the word Bearer, which your program adds. Set the key alone",
    ),
    (
        re.compile(r"[\"'`<\[({\u2018\u201c\u201e]?[$%{]"),
        "it is the name of a variable, or a placeholder. Set the key",
    ),
    (
        re.compile(
            r"[\"'`<\[(\u00b4\u2018-\u201e\u00ab\u00bb]|.*[\"'`>\])\u00b4\u2018-\u201e\u00ab\u00bb]\Z", re.DOTALL
        ),
        "it has quotation marks or brackets around it. Set it without them",
    ),
    (re.compile(r".*(?:\\r|\\n|[\r\n])", re.DOTALL), "it has a line end within or behind it. Copy it again"),
    (
        re.compile(r"(?:(?:null|none|nil|undefined|api[-_]?key|changeme|x+)\Z|(?:your|insert)[-_ ])", re.IGNORECASE),
        "it is a placeholder. Set the key",
    ),
    (re.compile(r".*\s", re.DOTALL), "it has a blank within it. Copy it again"),
)
"""What people do to keys, the most telling first. Each pattern is for the beginning of the key."""


class Keys:
    """All keys of the organisation. Thread-safe."""

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
        """Return the principal of *key*, with the present settings of the key, its group and the organisation.

        Raises:
            InvalidKey: the key is not valid. The message gives the reason, and does not contain the key.
            StoreUnavailable: no store answers, and this process does not have the key in memory.
        """
        if not key:
            raise InvalidKey("No API key was sent. Send yours as 'Authorization: Bearer KEY'.")
        if not _KEY.match(key):
            raise InvalidKey(f"The API key is malformed: {flaw_of(key) or _UNUSABLE}.")
        sent = digest(key)
        lookup = self._store.find(sent)
        if lookup.record is None and (flaw := flaw_of(key)) is not None:
            # Only now, because an admin may have chosen such a key.
            raise InvalidKey(f"The API key is malformed: {flaw}.")
        return self._checked(sent, lookup)

    def session_mark(self, key: str) -> str:
        """Return what a session that begins with *key* has to remember for :meth:`resume`. It opens nothing."""
        return _session_mark(digest(key))

    def resume(self, key_id: str, mark: str) -> Principal | None:
        """Return the principal of the key with which a session began; None if that key is not valid any more."""
        record = self._store.get(key_id)
        sent = next((each for each in record.digests if _session_mark(each) == mark), None) if record else None
        if sent is None:
            return None
        try:
            return self._checked(sent, self._store.find(sent))
        except InvalidKey:
            return None

    def _checked(self, sent: str, lookup: Lookup) -> Principal:
        record, version = lookup
        if record is None:
            raise InvalidKey("The API key is not known here. Ask the admin of this gateway for one.")
        # Before the checks, because the admin wants to know whose key was refused.
        if (request := current_request()) is not None:
            request.of_key(record.id, record.user, record.group)
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

    def is_revoked(self, sent: str, key_id: str) -> bool:
        """Return whether the key with the digest *sent*, which was valid before, was removed, blocked or replaced.

        Dates do not count, neither that of the key nor the end of a rotation's overlap. False if no store answers.
        """
        try:
            record = self._store.find(sent).record
        except StoreUnavailable:
            return False
        return record is None or record.id != key_id or not record.active

    def create(self, *, key: str | None = None, **fields: Any) -> tuple[KeyRecord, str]:
        """Create a key, and return its record and the key itself.

        Args:
            key: The key; None to generate one.
            fields: Fields of :class:`KeyRecord` except ``id``, ``digest`` and ``created_at``.

        Raises:
            Conflict: the key already exists.
            NoSuchGroup: its group does not exist.
        """
        record, key = self.new_record(key, **fields)
        if not self._store.add(record):
            raise Conflict("This key exists already. Send another one, or none to have one made up.", param="key")
        return record, key

    def create_checked(
        self, check: Callable[[Sequence[KeyRecord]], None], *, user: str, **fields: Any
    ) -> tuple[KeyRecord, str]:
        """Create a key, and return its record and the key itself.

        Args:
            check: As for :meth:`~llmgateway.interfaces.KeyStore.add_checked`.

        Raises:
            NoSuchGroup: its group does not exist.
        """
        record, key = self.new_record(None, user=user, **fields)
        if not self._store.add_checked(record, check):
            raise Conflict("This key exists already. Make another one.", param="key")
        return record, key

    def import_all(self, records: Sequence[KeyRecord], changes: Sequence[KeyChange], *, alone: bool) -> Imported:
        """As :meth:`~llmgateway.interfaces.KeyStore.import_all`."""
        return self._store.import_all(records, changes, alone=alone)

    def of_users(self, users: Collection[str]) -> list[KeyRecord]:
        """As :meth:`~llmgateway.interfaces.KeyStore.of_users`."""
        return self._store.of_users(users)

    def exists(self, key: str) -> bool:
        """Return whether *key* was handed out, valid or not."""
        return self._store.find(digest(key)).record is not None

    def rotate(
        self, key_id: str, *, overlap_seconds: int = 0, check: Callable[[KeyRecord], None] | None = None
    ) -> tuple[KeyRecord, str]:
        """Replace a key by a new one, and return its record and the new key.

        Args:
            overlap_seconds: How long the old key stays valid.
            check: As for :meth:`~llmgateway.interfaces.KeyStore.update`.

        Raises:
            NotFound: there is no such key.
        """
        key = _generated()
        retires_at = moment(self._clock()) + timedelta(seconds=overlap_seconds) if overlap_seconds else None
        return _found(self._store.rotate(key_id, digest(key), retires_at=retires_at, check=check)), key

    def revoke_group(self, group: str) -> list[str]:
        """Revoke all keys of *group*; return the identifiers of those that were active before."""
        return [record.id for record in self._store.revoke_group(group)]

    def new_record(self, key: str | None, **fields: Any) -> tuple[KeyRecord, str]:
        """Make a key up, unless it is given, and return its record and the key itself. Nothing is stored."""
        key = key or _generated()
        now = self._clock()
        return KeyRecord(id=new_id("key", now), digest=digest(key), created_at=moment(now), **fields), key

    def get(self, key_id: str) -> KeyRecord:
        """Return the record of a key; raise NotFound if there is no such key."""
        return _found(self._store.get(key_id))

    def find(self, key: str) -> KeyRecord:
        """Return the record of *key*, valid or not; raise NotFound if there is no such key."""
        found: Lookup = self._store.find(digest(key))
        if found.record is None:
            raise NotFound("There is no such key. GET /admin/keys lists those there are.", param="key")
        return found.record

    def list(self, query: KeyQuery = ALL_KEYS) -> list[KeyRecord]:
        return self._store.list(query)

    def ids(self, query: KeyQuery = ALL_KEYS) -> Sequence[str]:
        """As :meth:`~llmgateway.interfaces.KeyStore.ids`."""
        return self._store.ids(query)

    def count(self, query: KeyQuery = ALL_KEYS) -> int:
        """As :meth:`~llmgateway.interfaces.KeyStore.count`."""
        return self._store.count(query)

    def group_sizes(self) -> Mapping[str, GroupSize]:
        """As :meth:`~llmgateway.interfaces.KeyStore.group_sizes`."""
        return self._store.group_sizes()

    def update(
        self,
        key_id: str,
        changes: Mapping[str, object],
        *,
        limits: Mapping[str, object] | None = None,
        check: Callable[[KeyRecord], None] | None = None,
    ) -> KeyRecord:
        """Change the fields in *changes* and the limits in *limits*; all others stay.

        Args:
            check: As for :meth:`~llmgateway.interfaces.KeyStore.update`.

        Raises:
            NotFound: there is no such key.
            NoSuchGroup: the new group does not exist.
        """
        return _found(self._store.update(key_id, changes, limits=limits, check=check))

    def get_all(self, key_ids: Sequence[str]) -> Sequence[KeyRecord]:
        return self._store.get_all(key_ids)

    def update_all(
        self, key_ids: Sequence[str], changes: Mapping[str, object], *, where: KeyQuery = ALL_KEYS
    ) -> Sequence[KeyRecord]:
        """As :meth:`KeyStore.update_all`."""
        return self._store.update_all(key_ids, changes, where=where) if key_ids else ()

    def remove_all(self, key_ids: Sequence[str], *, where: KeyQuery = ALL_KEYS) -> Sequence[KeyRecord]:
        """As :meth:`KeyStore.remove_all`."""
        return self._store.remove_all(key_ids, where=where) if key_ids else ()

    def remove(self, key_id: str, *, check: Callable[[KeyRecord], None] | None = None) -> KeyRecord:
        """Delete a key, and return its record; raise NotFound if there is no such key.

        Args:
            check: As for :meth:`~llmgateway.interfaces.KeyStore.update`.
        """
        return _found(self._store.remove(key_id, check=check))


def digest(key: str) -> str:
    """Return the SHA-256 of *key* in hex.

    There is no salt and no key stretching: a generated key has 256 random bits, which nobody can guess, and
    each request computes the digest once.
    """
    return hashlib.sha256(key.encode()).hexdigest()


def _session_mark(key_digest: str) -> str:
    return digest(f"session of {key_digest}")[:24]


def flaw_of(key: str) -> str | None:
    """Return what somebody has done to the key by mistake, without quoting it; None if it looks like a key."""
    return next((flaw for pattern, flaw in _FLAWS if pattern.match(key)), None)


def is_usable_key(key: str) -> bool:
    """Return whether *key* can be sent in an ``Authorization`` header."""
    return bool(_KEY.match(key))


def _generated() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def _shown(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC")


def _found(record: KeyRecord | None) -> KeyRecord:
    if record is None:
        # The message does not repeat the id: people sometimes send the key itself instead of its id.
        raise NotFound("There is no key with this id. GET /admin/keys lists those there are.", param="id")
    return record
