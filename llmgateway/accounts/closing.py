"""The end of a group: its keys are removed, blocked or moved, and its members are named, so that they can be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from ..clock import Clock
from ..errors import GroupInUse
from ..records import KeyQuery, KeyRecord, moment
from .groups import Groups
from .keys import Keys

_ATTEMPTS = 5
"""How often keys are looked for that have joined the group in the meantime."""


class Fate(StrEnum):
    """What happens to the keys of the group."""

    REMOVE = "remove"
    BLOCK = "block"
    MOVE = "move"


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """How a group is to be closed."""

    group: str
    fate: Fate
    move_to: str | None = None


class Member(NamedTuple):
    """A key of the group, as it was before."""

    key: KeyRecord
    happened: str
    """``removed``, ``blocked``, ``moved``, or ``was blocked already``."""


class Closings:
    """Closes groups. Thread-safe."""

    def __init__(self, keys: Keys, groups: Groups, *, clock: Clock) -> None:
        self._keys = keys
        self._groups = groups
        self._clock = clock

    def preview(self, closing: Closing) -> list[Member]:
        """Return the members, and what would happen to them. Nothing is changed.

        Raises:
            NotFound: there is no such group.
        """
        self._groups.get(closing.group)
        return [_member(key, closing) for key in self._keys.list(KeyQuery(group=closing.group))]

    def close(self, closing: Closing) -> list[Member]:
        """Close the group, and return its members, sorted by key.

        Blocked keys stay in the group, whose ``expires_at`` becomes now: so it takes no requests, also not of keys
        that join it later. In all other cases the group is removed. If the process dies in between, or if this raises
        an error, some keys may be changed already; the group is the last step, so the call can be repeated.

        Raises:
            NotFound: there is no such group.
            NoSuchGroup: the group to move the keys to does not exist any more.
            GroupInUse: keys have joined the group again and again.
        """
        members: dict[str, Member] = {}
        if closing.fate is Fate.BLOCK:
            self._end(closing.group)
        for attempt in range(_ATTEMPTS):
            new = [one for one in self.preview(closing) if one.key.id not in members]
            changed = {key.id for key in self._change([one.key.id for one in new], closing)}
            # Without keys that somebody else has just moved to another group.
            members |= {one.key.id: one for one in new if one.key.id in changed}
            if closing.fate is Fate.BLOCK:
                break
            try:
                self._groups.remove(closing.group)
                break
            except GroupInUse:
                if attempt == _ATTEMPTS - 1:
                    raise
        return [members[key_id] for key_id in sorted(members)]

    def _change(self, key_ids: Sequence[str], closing: Closing) -> Sequence[KeyRecord]:
        """Change those of the keys that are still in the group, and return them."""
        inside = KeyQuery(group=closing.group)
        if closing.fate is Fate.REMOVE:
            return self._keys.remove_all(key_ids, where=inside)
        fields = {"group": closing.move_to} if closing.fate is Fate.MOVE else {"active": False}
        return self._keys.update_all(key_ids, fields, where=inside)

    def _end(self, name: str) -> None:
        group, now = self._groups.get(name), moment(self._clock())
        changes: dict[str, object] = {}
        if group.expires_at is None or group.expires_at > now:
            changes["expires_at"] = now
        if group.starts_at is not None and group.starts_at >= now:
            changes["starts_at"] = None
        if changes:
            self._groups.update(name, changes)


def _member(key: KeyRecord, closing: Closing) -> Member:
    if closing.fate is Fate.BLOCK and not key.active:
        return Member(key, "was blocked already")
    return Member(key, {Fate.REMOVE: "removed", Fate.BLOCK: "blocked", Fate.MOVE: "moved"}[closing.fate])
