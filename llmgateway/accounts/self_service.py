"""Keys that people make for themselves, within what their groups allow.

The caller knows who somebody is. What belongs to others is answered as if it did not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from ..clock import Clock
from ..errors import Forbidden, InvalidFields, NoSuchGroup, NotFound
from ..records import Group, KeyQuery, KeyRecord, Organisation, moment
from ..records import SelfService as Rule
from .keys import Keys
from .policy import OrganisationPolicy


@dataclass(frozen=True, slots=True)
class _SelfService:
    """Stands in the audit log for whoever changes an own key. The person is named in what was changed, where an erasure
    finds the name."""

    id: str
    name: str
    key_id: str


AUTHOR = _SelfService("self-service", "self-service", "self-service")

DOCUMENT = "self_service"
"""The name of the document with what people may make outside of all groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Somebody who looks at keys of their own."""

    user: str
    """As in :attr:`KeyRecord.user`. All keys of this name are the owner's."""
    groups: tuple[str, ...] = ()
    """Groups that this person belongs to, beside those of the keys that admins made for them."""
    key_id: str | None = None
    """The only key of the owner, who has shown nothing but this key itself. It may be rotated, and nothing else."""


class Offer(NamedTuple):
    """What somebody may make in one group."""

    group: str | None
    """``None``: outside of all groups."""
    keys: int
    """How many keys of the owner's own making there may be at the same time."""
    made: int
    """How many there are."""
    models: tuple[str, ...] | None
    """The models that a new key may use; ``None`` for all."""
    latest_end: datetime | None
    """When a new key ends at the latest; ``None`` for no end."""
    refusal: str | None
    """Why no key can be made now; ``None`` if one can be made."""


class Made(NamedTuple):
    """A key that was changed: its record before and after, and the new key itself."""

    before: KeyRecord
    after: KeyRecord
    key: str


class SelfService:
    """What people do with their own keys. Thread-safe."""

    def __init__(self, keys: Keys, policy: OrganisationPolicy, *, clock: Clock) -> None:
        self._keys = keys
        self._policy = policy
        self._clock = clock

    def keys_of(self, owner: Owner) -> list[KeyRecord]:
        """Return the keys of the owner, oldest first."""
        if owner.key_id is None:
            return self._keys.list(KeyQuery(user=owner.user))
        return [key for key in self._keys.get_all([owner.key_id]) if key.user == owner.user]

    def offers(self, owner: Owner) -> list[Offer]:
        """Return what the owner may make, by name of the group; also where no more can be made at the moment."""
        if owner.key_id is not None:
            return []
        organisation, keys = self._policy.stored(), self._keys.list(KeyQuery(user=owner.user))
        names = [name for name in self._groups_of(owner, keys) if name in organisation.groups]
        return [
            self._offer(name, rule, organisation, keys)
            for name in [*sorted(names), None]
            if (rule := _rule(organisation, name)) is not None
        ]

    def create(
        self,
        owner: Owner,
        *,
        name: str,
        group: str | None,
        models: Sequence[str] | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[KeyRecord, str]:
        """Make a key, and return its record and the key itself.

        Args:
            models: Some of those of the :class:`Offer`; None for all of them, also those that its group gets later.
            expires_at: Not later than the end in the :class:`Offer`, which None stands for.

        Raises:
            NotFound: the owner may not make keys in this group.
            Forbidden: there are as many keys as there may be, or one of them is blocked.
            InvalidFields: the models or the end are not within what is offered.
        """
        organisation = self._policy.stored()
        rule = None if owner.key_id is not None else _rule(organisation, group)
        if rule is None:
            raise _no_offer()
        offer = self._offer(group, rule, organisation, [])
        chosen = rule.models if models is None else _chosen_models(offer, models)
        ends_at = self._end(offer, expires_at)

        def check(keys: Sequence[KeyRecord]) -> None:
            if group is not None and group not in self._groups_of(owner, keys):
                raise _no_offer()
            refusal = self._offer(group, rule, organisation, keys).refusal
            if refusal is not None:
                raise Forbidden(refusal)

        try:
            return self._keys.create_checked(
                check,
                user=owner.user,
                name=name,
                group=group,
                models=chosen,
                expires_at=ends_at,
                limits=rule.limits,
                self_made=True,
            )
        except NoSuchGroup:
            raise _no_offer() from None

    def rename(self, owner: Owner, key_id: str, name: str) -> tuple[KeyRecord, KeyRecord]:
        """Give a key another name, and return its record before and after; raise NotFound.

        Raises:
            Forbidden: the owner has shown nothing but the key.
        """
        if owner.key_id is not None:
            raise Forbidden(_ONLY_THIS_KEY)
        found = _Found(owner)
        with _known_to_owner():
            after = self._keys.update(key_id, {"name": name}, check=found)
        return found.key, after

    def rotate(self, owner: Owner, key_id: str, *, overlap_seconds: int = 0) -> Made:
        """Replace a key by a new one; raise NotFound.

        Raises:
            Forbidden: the key is blocked or has expired. A new one would be, too.
        """
        now = moment(self._clock())
        found = _Found(owner, lambda key: _refuse_unless_usable(key, now))
        with _known_to_owner():
            after, key = self._keys.rotate(key_id, overlap_seconds=overlap_seconds, check=found)
        return Made(found.key, after, key)

    def remove(self, owner: Owner, key_id: str) -> KeyRecord:
        """Delete a key that the owner has made, and return its record; raise NotFound.

        Raises:
            Forbidden: an admin has made or blocked it, or the owner has shown nothing but the key.
        """
        if owner.key_id is not None:
            raise Forbidden(_ONLY_THIS_KEY)
        with _known_to_owner():
            return self._keys.remove(key_id, check=_Found(owner, _refuse_unless_removable))

    def _groups_of(self, owner: Owner, keys: Sequence[KeyRecord]) -> set[str]:
        """Return the names of the groups that the owner belongs to.

        A key that the owner has made does not count: otherwise nobody could leave a group. Nor does one that is
        blocked or has expired.
        """
        now = moment(self._clock())
        handed_out = {key.group for key in keys if key.group and not key.self_made and _is_usable(key, now)}
        return {*owner.groups} | handed_out

    def _offer(self, name: str | None, rule: Rule, organisation: Organisation, keys: Sequence[KeyRecord]) -> Offer:
        group = None if name is None else organisation.groups.get(name)
        now = moment(self._clock())
        there = [key for key in keys if key.group == name]
        made = sum(key.self_made for key in there)
        return Offer(
            group=name,
            keys=rule.keys,
            made=made,
            models=_models_of(rule, group),
            latest_end=_latest_end(rule, group, now),
            refusal=_refusal(rule, group, there, made, now),
        )

    def _end(self, offer: Offer, expires_at: datetime | None) -> datetime | None:
        if expires_at is None:
            return offer.latest_end
        if expires_at <= moment(self._clock()):
            raise _invalid("expires_at", "Must be in the future.")
        if offer.latest_end is not None and expires_at > offer.latest_end:
            raise _invalid("expires_at", f"Must not be after {offer.latest_end:%Y-%m-%d}.")
        return expires_at


_ONLY_THIS_KEY = "You have signed in with a key. With it you may look at it and replace it, and nothing else."


class _Found:
    """A check for changes: the key is the owner's. It remembers the key as it was before the change."""

    key: KeyRecord

    def __init__(self, owner: Owner, check: Callable[[KeyRecord], None] = lambda _: None) -> None:
        self._owner = owner
        self._check = check

    def __call__(self, present: KeyRecord) -> None:
        if present.user != self._owner.user or self._owner.key_id not in (None, present.id):
            raise _no_key()
        self._check(present)
        self.key = present


@contextmanager
def _known_to_owner() -> Iterator[None]:
    """Answer alike for a key of somebody else and for one that does not exist."""
    try:
        yield
    except NotFound:
        raise _no_key() from None


def _no_key() -> NotFound:
    return NotFound("You have no key with this id.", param="id")


def _rule(organisation: Organisation, group: str | None) -> Rule | None:
    if group is None:
        return Rule.from_json(organisation.documents.get(DOCUMENT, {}).get("without_group"))
    found = organisation.groups.get(group)
    return None if found is None else found.self_service


def _models_of(rule: Rule, group: Group | None) -> tuple[str, ...] | None:
    allowed = None if group is None else group.models
    if rule.models is None or allowed is None:
        return allowed if rule.models is None else rule.models
    return tuple(model for model in rule.models if model in allowed)


def _latest_end(rule: Rule, group: Group | None, now: datetime) -> datetime | None:
    ends = [None if rule.days is None else now + timedelta(days=rule.days), group.expires_at if group else None]
    return min((end for end in ends if end is not None), default=None)


def _refusal(rule: Rule, group: Group | None, there: Sequence[KeyRecord], made: int, now: datetime) -> str | None:
    if group is not None and group.expires_at is not None and group.expires_at <= now:
        return "The group has ended: no key of it works any more."
    if any(not key.active for key in there):
        # Otherwise whoever is blocked would make another key.
        return "A key of yours in this group is blocked. Ask the admin of this gateway."
    if made >= rule.keys:
        keys = "1 key" if rule.keys == 1 else f"{rule.keys} keys"
        return f"You may have {keys} of your own making here, and have {made}. Remove one first."
    return None


def _chosen_models(offer: Offer, models: Sequence[str]) -> tuple[str, ...]:
    if not models:
        raise _invalid("models", "Choose at least one.")
    if offer.models is not None and not {*models} <= {*offer.models}:
        raise _invalid("models", f"Choose among these: {', '.join(offer.models) or 'there is none'}.")
    return tuple(dict.fromkeys(models))


def _is_usable(key: KeyRecord, now: datetime) -> bool:
    return key.active and (key.expires_at is None or now < key.expires_at)


def _refuse_unless_usable(key: KeyRecord, now: datetime) -> None:
    if not key.active:
        raise Forbidden("This key is blocked, and so would a new one be. Ask the admin of this gateway.")
    if not _is_usable(key, now):
        raise Forbidden("This key has expired, and so would a new one have. Make another one, or ask the admin.")


def _refuse_unless_removable(key: KeyRecord) -> None:
    if not key.self_made:
        raise Forbidden("An admin has made this key for you, and only an admin can remove it. You may replace it.")
    if not key.active:
        raise Forbidden("This key is blocked: it stays until an admin removes it.")


def _invalid(field: str, problem: str) -> InvalidFields:
    message = f"These fields are not right: '{field}'. 'errors' says why."
    return InvalidFields(message, param=field, fields={field: [problem]})


def _no_offer() -> NotFound:
    return NotFound("You may not make keys in this group.", param="group")
