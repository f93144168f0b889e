"""Rules that say what people who sign in may do, from what the identity provider says of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import StoreUnavailable
from ..records import Claim, Role
from .policy import OrganisationPolicy

log = logging.getLogger(__name__)

DOCUMENT = "sign_in"
"""Name of the document (:attr:`~llmgateway.records.Organisation.documents`)."""

MOST_RULES = 500

ANY = "*"
"""As the value of a rule: whatever the claim says, as long as it says something."""

EVERYBODY, MATCHED = ADMITTED = ("everybody", "matched")

_RANKS = (Role.OWNER, Role.ADMIN, Role.VIEWER, Role.GROUP, Role.METRICS)
_MOST_VALUES = 2000  # Entra ID puts at most 200 groups into a token


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Whoever has *value* in *claim* gets a role, or belongs to a group: one of the two."""

    claim: str
    """A name, or a path with dots: ``realm_access.roles``."""
    value: str
    """Compared exactly; :data:`ANY` for every value."""
    role: Role | None = None
    groups: tuple[str, ...] = ()
    """Which groups somebody of the role ``group`` manages."""
    group: str | None = None

    def matches(self, claims: Mapping[str, Claim]) -> bool:
        said = claims.get(self.claim, ())
        values = (said,) if isinstance(said, str) else said
        return bool(values) if self.value == ANY else self.value in values

    def as_document(self) -> dict[str, Any]:
        document: dict[str, Any] = {"claim": self.claim, "value": self.value}
        if self.role is not None:
            document["role"] = str(self.role)
        if self.groups:
            document["groups"] = list(self.groups)
        if self.group is not None:
            document["group"] = self.group
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Rule:
        role = document.get("role")
        return cls(
            claim=document["claim"],
            value=document["value"],
            role=None if role is None else Role(role),
            groups=tuple(document.get("groups") or ()),
            group=document.get("group"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What the rules give to somebody."""

    role: Role | None = None
    """The highest of those that match; ``None`` for no admin."""
    manages: tuple[str, ...] = ()
    """The groups that somebody of the role ``group`` manages."""
    member_of: tuple[str, ...] = ()
    matched: bool = False
    """Whether any rule matches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInSettings:
    """Who may sign in, and what they may do then."""

    rules: tuple[Rule, ...] = ()
    admits: str = EVERYBODY
    """``everybody`` who has an account at the provider, or only those whom a rule matches (``matched``)."""

    @property
    def claims(self) -> tuple[str, ...]:
        """The claims that the rules look at."""
        return tuple(dict.fromkeys(rule.claim for rule in self.rules))

    def rights(self, claims: Mapping[str, Claim], groups: Iterable[str]) -> Rights:
        """Return what the rules give to somebody with these *claims*.

        Args:
            groups: The names of all groups: a rule can name one that was removed.
        """
        known, matching = {*groups}, [rule for rule in self.rules if rule.matches(claims)]
        roles = {rule.role for rule in matching if rule.role is not None}
        role = next((each for each in _RANKS if each in roles), None)
        manages = {name for rule in matching if rule.role is Role.GROUP for name in rule.groups} & known
        if role is Role.GROUP and not manages:
            role = None
        return Rights(
            role=role,
            manages=tuple(sorted(manages)) if role is Role.GROUP else (),
            member_of=tuple(sorted({rule.group for rule in matching if rule.group is not None} & known)),
            matched=bool(matching),
        )

    def as_document(self) -> dict[str, Any]:
        """Return the document to store; empty if nothing is set."""
        if self == SignInSettings():
            return {}
        return {"rules": [rule.as_document() for rule in self.rules], "admits": self.admits}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> SignInSettings:
        """Read what :meth:`as_document` has made."""
        rules = tuple(Rule.from_document(each) for each in document.get("rules", ()))
        return cls(rules=rules, admits=document.get("admits", EVERYBODY))


class SignInRules:
    """The rules of the organisation. Thread-safe."""

    def __init__(self, policy: OrganisationPolicy) -> None:
        self._policy = policy

    def get(self) -> SignInSettings:
        return SignInSettings.from_document(self._policy.stored().documents.get(DOCUMENT, {}))

    def rights(self, claims: Mapping[str, Claim]) -> Rights:
        """Return what the present rules give to somebody with these *claims*."""
        organisation = self._policy.stored()
        settings = SignInSettings.from_document(organisation.documents.get(DOCUMENT, {}))
        return settings.rights(claims, organisation.groups)

    def change(self, change: Callable[[SignInSettings], SignInSettings]) -> tuple[SignInSettings, SignInSettings]:
        """Replace the rules by the result of *change*; return them as before and as after. Atomic.

        Args:
            change: Gets the rules before. If it raises an error, nothing changes. It may be called several times.
        """
        seen: list[SignInSettings] = []

        def changed(document: Mapping[str, Any]) -> Mapping[str, Any]:
            seen.append(SignInSettings.from_document(document))
            return change(seen[-1]).as_document()

        after = self._policy.update_document(DOCUMENT, changed)
        return seen[-1], SignInSettings.from_document(after)

    def forget_group(self, name: str) -> None:
        """Take a group that was removed out of the rules, which would give people a later group of the same name.

        Raises nothing: the group is removed in any case.
        """
        try:
            if any(name == rule.group or name in rule.groups for rule in self.get().rules):
                self.change(lambda before: replace(before, rules=tuple(_without(before.rules, name))))
        except StoreUnavailable:
            log.exception("Rules for signing in still name the group that was removed, until they are changed.")


def claims_of(said: Mapping[str, Any], wanted: Iterable[str]) -> dict[str, Claim]:
    """Return the values of the *wanted* claims, as text, in what the provider has *said*.

    An e-mail address that the provider has not verified says nothing: at some providers people choose it themselves.
    """
    found = {path: _values(_at(said, path)) for path in wanted}
    if said.get("email_verified") is not True:
        found.pop("email", None)
    return {path: values for path, values in found.items() if values}


def _at(said: Any, path: str) -> Any:
    """Return what is at *path*. A name may have dots itself, as in ``https://example.org/roles``."""
    if not isinstance(said, Mapping):
        return None
    if path in said:
        return said[path]
    parts = path.split(".")
    for count in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:count])
        if name in said:
            return _at(said[name], ".".join(parts[count:]))
    return None


def _values(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(text for each in values[:_MOST_VALUES] if (text := _text(each)))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else ""


def _without(rules: Iterable[Rule], group: str) -> Iterable[Rule]:
    for rule in rules:
        if rule.group == group or rule.groups == (group,):
            continue
        yield replace(rule, groups=tuple(name for name in rule.groups if name != group))
