"""Notices that people have left: their account at the identity provider does not exist any more.

The refresh token of each account is tried once a day, by one process of all. Only the provider's clear answer counts
(``invalid_grant``, RFC 6749 section 5.2), and only after a week, because the provider gives it also when somebody has
changed a password. A failure of the provider says nothing. Who signs in again has the keys back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from ..background import Background
from ..clock import Clock, Timer
from ..errors import GrantEnded, IdentityProviderUnavailable, SignInRefused, StoreUnavailable
from ..interfaces import IdentityStore, KeyStore
from ..records import Account, Identity, KeyQuery, moment
from .identities import EVERY, Identities
from .policy import OrganisationPolicy
from .sign_in_rules import claims_of

log = logging.getLogger(__name__)

AGAIN_AFTER = timedelta(hours=1)
"""When an account is tried again that the provider did not answer about."""

ENDS_AFTER = timedelta(days=7)

TURN_SECONDS = 60.0

MOST_AT_ONCE = 50
"""The most accounts that one turn tries."""

LONGEST_TURN_SECONDS = 30.0


class Provider(Protocol):
    """What is needed of the identity provider."""

    issuer: str

    def refresh(self, token: str, *, subject: str, wanted: tuple[str, ...]) -> Account:
        """See :meth:`~llmgateway.oidc.provider.OpenIDProvider.refresh`."""
        ...


class Leavers:
    """Tries the accounts that are due. It starts no thread; :meth:`need` does, so it may be created before a fork.

    Args:
        claim: Returns whether this process may take the turn that it names, until a time; see
            :meth:`~llmgateway.interfaces.AlertStore.claim`.
        announce: Tells admins that the keys of a person were blocked; gets the name and a text.
        max_days: After this number of days without a sign-in the keys of an account without a refresh token are
            blocked; None for never.
    """

    def __init__(
        self,
        provider: Provider,
        identities: Identities,
        store: IdentityStore,
        keys: KeyStore,
        policy: OrganisationPolicy,
        *,
        claim: Callable[[str, datetime, datetime], bool],
        announce: Callable[[str, str], None],
        max_days: int | None,
        clock: Clock,
        timer: Timer = time.monotonic,
    ) -> None:
        self._provider = provider
        self._identities = identities
        self._store = store
        self._keys = keys
        self._policy = policy
        self._claim = claim
        self._announce = announce
        self._most = None if max_days is None else timedelta(days=max_days)
        self._clock = clock
        self._timer = timer
        self._background = Background("leavers", self._turn_and_rest, seconds=TURN_SECONDS)

    def need(self) -> None:
        """Look soon. Starts the thread at the first call."""
        self._background.need()

    def turn(self) -> None:
        """Try the accounts that are due, as many as there is time for."""
        now, began = moment(self._clock()), self._timer()
        if not self._claim("leavers", now, now + timedelta(seconds=TURN_SECONDS * 0.9)):
            return
        for identity in self._store.due(now, limit=MOST_AT_ONCE):
            if self._timer() - began > LONGEST_TURN_SECONDS or not self._try(identity, now):
                return  # the others are due in the next turn, too

    def _turn_and_rest(self) -> bool:
        try:
            self.turn()
        except StoreUnavailable as error:
            log.debug("Leavers: %s", error)
        return False  # need() is called again soon

    def _try(self, identity: Identity, now: datetime) -> bool:
        """Try one account; return False if the provider does not answer, so that trying others is of no use."""
        token = None if identity.refresh_token is None else self._policy.decrypt(identity.refresh_token.encode())
        if identity.issuer != self._provider.issuer:
            self._store_unless_signed_in(identity, due_at=None)  # of a provider that was replaced
            return True
        if token is None:
            self._look_at_date(identity, now)
            return True
        wanted = self._identities.rules.get().claims
        try:
            account = self._provider.refresh(token, subject=identity.subject, wanted=wanted)
        except GrantEnded:
            self._refused(identity, now)
            return True
        except (IdentityProviderUnavailable, SignInRefused):
            self._store_unless_signed_in(identity, due_at=now + AGAIN_AFTER)
            return False
        new = identity.refresh_token if account.refresh_token is None else self._policy.encrypt(account.refresh_token)
        claims = claims_of(account.claims, wanted) if account.claims else identity.claims
        self._store_unless_signed_in(identity, due_at=now + EVERY, refused_since=None, refresh_token=new, claims=claims)
        return True

    def _look_at_date(self, identity: Identity, now: datetime) -> None:
        ends = None if self._most is None else identity.signed_in_at + self._most
        if ends is None or now < ends:
            self._store_unless_signed_in(identity, due_at=ends)
        else:
            self._block(identity, now, f"has not signed in for {(now - identity.signed_in_at).days} days")

    def _refused(self, identity: Identity, now: datetime) -> None:
        since = identity.refused_since or now
        if now - since < ENDS_AFTER:
            self._store_unless_signed_in(identity, due_at=min(now + EVERY, since + ENDS_AFTER), refused_since=since)
        else:
            self._block(identity, now, f"has had no valid account at the identity provider for {ENDS_AFTER.days} days")

    def _block(self, identity: Identity, now: datetime, why: str) -> None:
        """Block the keys of a person who seems to have left.

        What will be blocked is stored first. So each key that this has blocked is unblocked by the next sign-in, also
        if this process dies in between, or the person signs in at this moment.
        """
        if identity.user is None:
            self._store_unless_signed_in(identity, due_at=None, left_at=now, refresh_token=None)
            return
        where = KeyQuery(user=identity.user, active=True)
        found = tuple(key.id for key in self._keys.list(where))
        noted = (*dict.fromkeys((*identity.blocked_keys, *found)),)
        planned = self._store_unless_signed_in(identity, blocked_keys=noted)
        if planned is None:
            return
        blocked = [key.id for key in self._keys.update_all(found, {"active": False}, where=where)] if found else []
        if self._store_unless_signed_in(planned, left_at=now, due_at=None, refresh_token=None) is None:
            self._keys.update_all(blocked, {"active": True}, where=KeyQuery(user=identity.user, active=False))
            return
        self._identities.write_down("user.leave", identity.user, blocked)
        text = (
            f"{identity.user} {why}: the keys are blocked, {len(blocked)} of them. They work again when this person "
            "signs in, or when you unblock them."
        )
        try:
            self._announce(identity.user, text)
        except StoreUnavailable:
            log.exception("The store did not accept an alert about a person who has left; the audit log has it.")

    def _store_unless_signed_in(self, identity: Identity, **fields: object) -> Identity | None:
        """Change an account, and return it; None if somebody else has changed it meanwhile: then it stays so."""
        after: list[Identity] = []

        def changed(before: Identity | None) -> Identity | None:
            after.clear()
            if before != identity:
                return before
            after.append(replace(identity, **fields))  # type: ignore[arg-type]
            return after[0]

        self._store.change(identity.id, changed)
        return after[0] if after else None
