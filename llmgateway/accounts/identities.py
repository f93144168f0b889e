"""People who sign in with the organisation's identity provider, and whose keys are theirs.

An account is told from others by its issuer and its subject, which never change. A name is only what the provider calls
the account at present: another account may claim the same name, for example when somebody leaves and somebody else with
the same name comes. So the first account under a name that has nothing yet gets it, and keeps it. If the name has
anything already, such as keys that an admin has handed out, an admin says whose they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from ..clock import Clock
from ..errors import NotFound, SignInRefused, UserTaken
from ..interfaces import IdentityStore, KeyStore, UsageLog
from ..records import Account, Identity, KeyQuery, Person, ReportQuery, Role, moment
from .admins import Admin
from .audit import Audit
from .persons import Persons
from .policy import OrganisationPolicy
from .sign_in_rules import MATCHED, Rights, SignInRules, claims_of

log = logging.getLogger(__name__)

EMAIL = "email"

LONGEST_EMAIL = 320

EVERY = timedelta(days=1)
"""How often a refresh token is tried."""

Check = Callable[[Identity], None]
"""Called with the account before a change. Nobody changes it between this and the change, which is not made if it
raises an error."""

_KEEP: Any = object()


class Identities:
    """The accounts that have signed in. Thread-safe.

    Args:
        user_claim: The claim that has the name of the person.
        problem_of_name: Returns what is wrong with a name, or None.
    """

    def __init__(
        self,
        store: IdentityStore,
        rules: SignInRules,
        keys: KeyStore,
        persons: Persons,
        usage_log: UsageLog,
        policy: OrganisationPolicy,
        audit: Audit,
        *,
        user_claim: str,
        problem_of_name: Callable[[str], str | None],
        clock: Clock,
    ) -> None:
        self.rules = rules
        self._store = store
        self._keys = keys
        self._persons = persons
        self._usage_log = usage_log
        self._policy = policy
        self._audit = audit
        self._user_claim = user_claim
        self._problem_of_name = problem_of_name
        self._clock = clock

    @property
    def wanted_claims(self) -> tuple[str, ...]:
        """The claims that a sign-in needs."""
        return (self._user_claim, *self.rules.get().claims)

    def sign_in(self, account: Account) -> Identity:
        """Store that *account* has signed in, and return it.

        Raises:
            SignInRefused: it may not sign in. The message is for the person.
        """
        name, settings = self._name_of(account), self.rules.get()
        claims = claims_of(account.claims, settings.claims)
        if settings.admits == MATCHED and not settings.rights(claims, self._policy.stored().groups).matched:
            raise SignInRefused("Your account may not use this gateway. Ask its admin.")
        identity_id, now = Identity.id_of(account.issuer, account.subject), moment(self._clock())
        email = account.claims.get(EMAIL)
        # An address that people choose themselves must not tell an admin whose keys are theirs.
        is_known = isinstance(email, str) and email != "" and account.claims.get("email_verified") is True
        token = None if account.refresh_token is None else self._policy.encrypt(account.refresh_token)

        def signed_in(before: Identity | None) -> Identity:
            known = before or Identity(
                id=identity_id,
                issuer=account.issuer,
                subject=account.subject,
                claimed=name,
                first_at=now,
                signed_in_at=now,
            )
            if not known.active:
                raise SignInRefused("Your account has been blocked at this gateway. Ask its admin.")
            return replace(
                known,
                claimed=name,
                email=str(email)[:LONGEST_EMAIL] if is_known else None,
                claims=claims,
                signed_in_at=now,
                refresh_token=token,
                due_at=now if token is None else now + EVERY,
                refused_since=None,
                left_at=None,
            )

        _, identity = self._store.change(identity_id, signed_in)
        return self._welcomed(self._linked(_found(identity)))

    def get(self, identity_id: str) -> Identity:
        """Return an account; raise NotFound if there is none with this identifier."""
        return _found(self._store.get(identity_id))

    def find(self, identity_id: str) -> Identity | None:
        return self._store.get(identity_id)

    def of_user(self, user: str) -> Identity | None:
        """Return the account that has the keys of *user*."""
        return self._store.of_user(user)

    def list(self, *, waiting: bool | None = None, after: str = "", limit: int) -> Sequence[Identity]:
        """As :meth:`~llmgateway.interfaces.IdentityStore.list`."""
        return self._store.list(waiting=waiting, after=after, limit=limit)

    def update(
        self, identity_id: str, *, user: str | None = _KEEP, active: bool = _KEEP, check: Check
    ) -> tuple[Identity, Identity]:
        """Say whose keys the account has (None: nobody's), or whether it may sign in; return it before and after.

        Raises:
            NotFound: there is no such account.
            UserTaken: another account has the keys of *user*.
        """

        def changed(before: Identity | None) -> Identity:
            present = _found(before)
            check(present)
            return replace(
                present,
                user=present.user if user is _KEEP else user,
                active=present.active if active is _KEEP else active,
                # What was blocked belongs to the one who had it then.
                blocked_keys=present.blocked_keys if user in (_KEEP, present.user) else (),
            )

        before, after = self._store.change(identity_id, changed)
        return _found(before), _found(after)

    def remove(self, identity_id: str, *, check: Check | None = None) -> Identity:
        """Forget an account, and return it; raise NotFound. The keys stay. It may sign in again, as a new one."""

        def removed(before: Identity | None) -> None:
            present = _found(before)
            if check is not None:
                check(present)

        before, _ = self._store.change(identity_id, removed)
        return _found(before)

    def may_enter(self, identity: Identity) -> bool:
        """Whether the account may use pages now."""
        return identity.active and identity.left_at is None

    def rights(self, identity: Identity) -> Rights:
        """Return what the present rules give to this account."""
        return self.rules.rights(identity.claims)

    def admin(self, identity: Identity, rights: Rights) -> Admin | None:
        """Return the account as an admin; None if its *rights* make it none."""
        if rights.role is None or not self.may_enter(identity):
            return None
        return Admin(
            id=identity.id,
            name=identity.user or identity.claimed,
            role=rights.role,
            groups=rights.manages,
            key_id=identity.id[-12:],
        )

    def _name_of(self, account: Account) -> str:
        claim, said = self._user_claim, account.claims
        if claim == EMAIL and said.get("email_verified") is not True:
            raise SignInRefused("Your identity provider has not verified your e-mail address. Ask its admin.")
        name = said.get(claim)
        if not isinstance(name, str) or not name:
            raise SignInRefused(f"Your identity provider does not tell your name: there is no claim {claim!r}.")
        if problem := self._problem_of_name(name):
            raise SignInRefused(f"The name that your identity provider has for you cannot be used here. {problem}")
        return name

    def _linked(self, identity: Identity) -> Identity:
        """Give the account the name that it claims, if it has none yet, and the name has nothing."""
        name = identity.claimed
        if identity.user is not None or not self._is_free(name):
            return identity

        def linked(before: Identity | None) -> Identity | None:
            return before if before is None or before.user is not None else replace(before, user=name)

        try:
            _, after = self._store.change(identity.id, linked)
        except UserTaken:
            return identity
        return after or identity

    def _is_free(self, user: str) -> bool:
        """Whether nothing is known of *user*: no account, no keys, also none that were removed, and no limits."""
        if self._store.of_user(user) is not None or self._keys.list(KeyQuery(user=user, limit=1)):
            return False
        if self._persons.get(user) != Person(user=user):
            return False
        return not any(row.requests for row in self._usage_log.report(ReportQuery(user=user)))

    def _welcomed(self, identity: Identity) -> Identity:
        """Unblock the keys that were blocked because the account seemed to have ended."""
        if not identity.blocked_keys or identity.user is None:
            return identity
        where = KeyQuery(user=identity.user, active=False)
        unblocked = [key.id for key in self._keys.update_all(identity.blocked_keys, {"active": True}, where=where)]

        def cleared(before: Identity | None) -> Identity | None:
            return before if before is None else replace(before, blocked_keys=())

        _, after = self._store.change(identity.id, cleared)
        if unblocked:
            self.write_down("user.return", identity.user, unblocked)
        return after or identity

    def write_down(self, action: str, user: str, key_ids: Sequence[str]) -> None:
        """Record in the audit log what was done with the keys of *user* because of a sign-in, or because of none."""
        document: Mapping[str, Any] = {"user": user, "keys": list(key_ids)}
        self._audit.changed(action, user, admin=ITSELF, groups=(None,), address=None, before=None, after=document)


ITSELF = Admin(id="llmgateway", name="LLMGateway", role=Role.OWNER, key_id="none")
"""Who has made a change that no admin has made."""


def _found(identity: Identity | None) -> Identity:
    if identity is None:
        raise NotFound("There is no account with this id. GET /admin/identities lists those there are.", param="id")
    return identity
