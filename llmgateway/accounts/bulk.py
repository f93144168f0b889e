"""Changes of many keys at once: what a filter selects is shown first, and then exactly that is changed."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

import orjson

from ..clock import Clock
from ..errors import SelectionChanged
from ..interfaces import UsageLog
from ..records import KeyQuery, KeyRecord, moment
from .keys import Keys

VALID_SECONDS = 600
"""How long a preview can be executed."""

_SALT = b"llmgateway previews of changes"


class Action(StrEnum):
    """What is done with the keys."""

    BLOCK = "block"
    UNBLOCK = "unblock"
    MOVE = "move"
    EXTEND = "extend"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFilter:
    """Selects the keys that match every field that is not ``None``; all keys if there is none."""

    user: str | None = None
    group: str | None = None
    groups: tuple[str, ...] | None = None
    """Only keys of these groups."""
    active: bool | None = None
    expired: bool | None = None
    unused_since: datetime | None = None
    """Not used from this moment on. A key that was never used counts as used when it was created."""
    created_before: datetime | None = None
    created_since: datetime | None = None

    @property
    def query(self) -> KeyQuery:
        """What stores can select by."""
        return KeyQuery(user=self.user, group=self.group, groups=self.groups, active=self.active)

    def selects(self, key: KeyRecord, *, now: datetime) -> bool:
        """Return whether *key* matches, as far as the key itself tells: ``unused_since`` is not checked."""
        return (
            (self.expired is None or self.expired == (key.expires_at is not None and key.expires_at <= now))
            and (self.created_before is None or key.created_at < self.created_before)
            and (self.created_since is None or key.created_at >= self.created_since)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be done with which keys."""

    filter: KeyFilter
    action: Action
    changes: Mapping[str, Any] = field(default_factory=dict)
    """``group`` to move to, or ``expires_at`` to extend to; ``None`` for no group, or no end."""


class Item(NamedTuple):
    """One key that an order selects."""

    key: KeyRecord
    happens: str
    """What the order does with it, as a word; ``nothing`` if it is so already."""
    last_used: datetime | None


class Preview(NamedTuple):
    """What an order would change."""

    items: Sequence[Item]
    token: str
    """Proves that somebody has seen exactly this."""


class InvalidToken(Exception):
    """The token is not of a preview of this order, or is too old. The text says what to do."""


class Bulk:
    """Changes many keys. Thread-safe.

    Args:
        ship: Ships the usage records that wait in this process, so that the last use is known.
        secret: Signs the tokens; the same on all hosts.
    """

    def __init__(
        self, keys: Keys, usage_log: UsageLog, *, ship: Callable[[], object], secret: str, clock: Clock
    ) -> None:
        self._keys = keys
        self._usage_log = usage_log
        self._ship = ship
        self._secret = secret
        self._clock = clock

    def preview(self, order: Order) -> Preview:
        """Return the keys that *order* selects now, and the token to execute it with. Nothing is changed."""
        items = self._select(order)
        return Preview(items, self._sign(order, items, expires=int(self._clock()) + VALID_SECONDS))

    def execute(self, order: Order, token: str) -> Sequence[Item]:
        """Change the keys that the preview with this *token* has shown.

        If the process dies meanwhile, some of them are changed. The order can then be previewed and executed again.

        Raises:
            InvalidToken: see there.
            SelectionChanged: the order selects other keys now. Nothing was changed.
            NoSuchGroup: the group to move to does not exist any more.
        """
        preview = self.preview(order)
        self._check(order, preview.items, token)
        key_ids = [item.key.id for item in preview.items if item.happens != "nothing"]
        if order.action is Action.REMOVE:
            changed = self._keys.remove_all(key_ids, where=order.filter.query)
        else:
            changed = self._keys.update_all(key_ids, _fields(order), where=order.filter.query)
        # Without those that somebody else has changed since, so that they do not match any more.
        done = {key.id for key in changed}
        return [item for item in preview.items if item.happens == "nothing" or item.key.id in done]

    def _select(self, order: Order) -> list[Item]:
        wanted, now = order.filter, moment(self._clock())
        found = [key for key in self._keys.list(wanted.query) if wanted.selects(key, now=now)]
        if wanted.unused_since is not None:
            self._ship()
        used = self._usage_log.last_used([key.id for key in found]) if found else {}
        return [
            Item(key, _happens(order, key), used.get(key.id))
            for key in found
            if wanted.unused_since is None or used.get(key.id, key.created_at) < wanted.unused_since
        ]

    @cached_property
    def _key(self) -> bytes:
        # scrypt, as for Azure's key (accounts/credential.py): ADMIN_KEY may be a simple word.
        return hashlib.scrypt(self._secret.encode(), salt=_SALT, n=2**14, r=8, p=1, dklen=32)

    def _sign(self, order: Order, items: Sequence[Item], *, expires: int) -> str:
        content = orjson.dumps([expires, _digest(order), _digest([item.key.id for item in items])])
        return urlsafe_b64encode(hmac.digest(self._key, content, "sha256") + content).decode()

    def _check(self, order: Order, items: Sequence[Item], token: str) -> None:
        try:
            signed = urlsafe_b64decode(token)
        except ValueError:
            signed = b""
        signature, content = signed[:32], signed[32:]
        if not hmac.compare_digest(signature, hmac.digest(self._key, content, "sha256")):
            raise InvalidToken("Is not one that a preview has answered with. Send 'dry_run': true to get one.")
        expires, of_order, of_keys = orjson.loads(content)
        if of_order != _digest(order):
            raise InvalidToken("Belongs to another filter, action or changes. Send 'dry_run': true to get one.")
        if self._clock() >= expires:
            raise InvalidToken(f"Is older than {VALID_SECONDS // 60} minutes. Send 'dry_run': true to get a new one.")
        if of_keys != _digest([item.key.id for item in items]):
            raise SelectionChanged


def _digest(content: Any) -> str:
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _fields(order: Order) -> Mapping[str, Any]:
    if order.action in (Action.BLOCK, Action.UNBLOCK):
        return {"active": order.action is Action.UNBLOCK}
    return order.changes


def _happens(order: Order, key: KeyRecord) -> str:
    """Return a word for what *order* does with *key*."""
    if order.action is Action.EXTEND:
        return "extended" if _ends_earlier(key.expires_at, order.changes["expires_at"]) else "nothing"
    done = {Action.BLOCK: "blocked", Action.UNBLOCK: "unblocked", Action.MOVE: "moved", Action.REMOVE: "removed"}
    is_so = order.action is not Action.REMOVE and all(
        getattr(key, name) == value for name, value in _fields(order).items()
    )
    return "nothing" if is_so else done[order.action]


def _ends_earlier(end: datetime | None, other: datetime | None) -> bool:
    return end is not None and (other is None or end < other)
