"""Signing in with the organisation's identity provider: the rules, the accounts, and signing out everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...accounts.sessions import EVERYBODY
from ...accounts.sign_in_rules import Rule, SignInSettings
from ...errors import Forbidden
from ...records import Identity, Role
from .. import examples
from ..context import current_admin, services
from ..errors import invalid_fields
from ..schemas.names import problem_of_user
from ..schemas.sign_in import (
    IdentityChangesSchema,
    IdentityPageSchema,
    IdentityQuerySchema,
    IdentitySchema,
    SignInRulesSchema,
    SignInSchema,
    SignOutSchema,
)
from . import etags
from .audit_helpers import NO_SUCH_GROUP, write_down
from .blueprint import blp
from .users import is_known

_ID_IN_PATH = {
    "in": "path",
    "name": "identity_id",
    "description": "The `id` of an account.",
    "example": examples.IDENTITY["id"],
}
_OWNERS_ONLY = "This account is an admin by the rules: only an owner may do this."


@blp.route("/sign-in", methods=["GET"])
@blp.operation("Show who may sign in, and as what", description="The rules, and the identity provider of the settings.")
@blp.response(200, SignInSchema, description="In force.", example=examples.SIGN_IN)
def get_sign_in() -> dict[str, Any]:
    return _answer(services().identities.rules.get())


@blp.route("/sign-in", methods=["PUT"])
@blp.operation(
    "Set who may sign in, and as what",
    description=(
        "All rules are replaced. They hold at once, also for those who are signed in; a rule for a claim that no rule "
        "has looked at before holds from the next sign-in on. The example is refused until you have put your own "
        "values in."
    ),
)
@blp.arguments(SignInRulesSchema, template=examples.SIGN_IN_REQUEST)
@blp.response(200, SignInSchema, description="In force.", example=examples.SIGN_IN)
def put_sign_in(sent: dict[str, Any]) -> dict[str, Any]:
    wanted = SignInSettings(rules=tuple(map(Rule.from_document, sent["rules"])), admits=sent["admits"])
    _check_groups(wanted.rules)

    def change(before: SignInSettings) -> SignInSettings:
        etags.check(_state, before)
        return wanted

    before, after = services().identities.rules.change(change)
    if before != after:
        write_down("sign-in.set", "", before=_state(before), after=_state(after))
    return _answer(after)


@blp.route("/identities", methods=["GET"])
@blp.operation(
    "List the accounts that have signed in",
    description="`waiting=true` lists those whose name has keys already: say whose they are with `PATCH`.",
)
@blp.arguments(IdentityQuerySchema, location="query")
@blp.response(
    200, IdentityPageSchema, description="By identifier.", example={"items": [examples.IDENTITY], "next": None}
)
def list_identities(query: dict[str, Any]) -> dict[str, Any]:
    identities, limit = services().identities, query["limit"]
    if "user" in query:
        found = identities.of_user(query["user"])
        return {"items": [] if found is None else [_with_rights(found)], "next": None}
    after = query.get("cursor") or ""
    listed = identities.list(waiting=query.get("waiting"), after=after, limit=limit + 1)
    page = listed[:limit]
    return {"items": [*map(_with_rights, page)], "next": page[-1].id if len(listed) > limit else None}


@blp.route("/identities/<identity_id>", methods=["GET"], parameters=[_ID_IN_PATH])
@blp.operation("Look an account up", "UnknownIdentity", description="By the `id`, as `GET /admin/identities` lists it.")
@blp.response(200, IdentitySchema, description="The account.", example=examples.IDENTITY)
def get_identity(identity_id: str) -> dict[str, Any]:
    return _shown_now(services().identities.get(identity_id))


@blp.route("/identities/<identity_id>", methods=["PATCH"], parameters=[_ID_IN_PATH])
@blp.operation(
    "Say whose keys an account has",
    "UnknownIdentity",
    "UserTaken",
    description=(
        "Fields that are sent are set, the others stay. The example changes nothing. In short:\n\n"
        '* `{"user": "ada"}` gives it the keys of ada, and what was used with them\n'
        '* `{"user": null}` takes them from it\n'
        '* `{"active": false}` ends its sessions, and it may not sign in any more\n'
    ),
)
@blp.arguments(IdentityChangesSchema, example={})
@blp.response(200, IdentitySchema, description="The account as it is now.", example=examples.IDENTITY)
def update_identity(changes: dict[str, Any], identity_id: str) -> dict[str, Any]:
    identities, user = services().identities, changes.get("user")
    if user is not None and (problem := problem_of_user(user)) and not is_known(user):
        raise invalid_fields({"user": [problem]})
    if not changes:
        present = identities.get(identity_id)
        etags.check(_changeable, present)
        return _shown_now(present)

    before, after = identities.update(identity_id, **changes, check=_check())
    if before != after:
        # By person, so that an erasure finds it.
        write_down(
            "user.identity",
            after.user or before.user or "",
            before=_identity_state(before),
            after=_identity_state(after),
        )
    return _shown_now(after)


@blp.route("/identities/<identity_id>", methods=["DELETE"], parameters=[_ID_IN_PATH])
@blp.operation(
    "Forget an account",
    "UnknownIdentity",
    description="Its sessions end. The keys stay. If it signs in again, it is a new one.",
)
@blp.response(204, description="Nothing is stored of the account.")
def delete_identity(identity_id: str) -> None:
    removed = services().identities.remove(identity_id, check=_check())
    write_down("user.identity", removed.user or identity_id, before=_identity_state(removed))


@blp.route("/sessions/end", methods=["POST"])
@blp.operation(
    "Sign somebody out everywhere, or everybody",
    description="Whoever looks at the dashboard has to sign in again. Keys go on working.",
)
@blp.arguments(SignOutSchema, example={"who": examples.ADMIN["id"]})
@blp.response(204, description="All of these sessions have ended.")
def end_sessions(sent: dict[str, Any]) -> None:
    who = sent["who"]
    services().sessions.end_all_of(EVERYBODY if who is None else who)
    write_down("sessions.end", "" if who is None else who)


def _check() -> Callable[[Identity], None]:
    """Return what checks that an account is as the client knows it, and that this admin may change it."""
    settings, groups = services().identities.rules.get(), services().policy.stored().groups

    def check(before: Identity) -> None:
        etags.check(_changeable, before)
        if current_admin().role is not Role.OWNER and settings.rights(before.claims, groups).role is not None:
            raise Forbidden(_OWNERS_ONLY)

    return check


def _check_groups(rules: Iterable[Rule]) -> None:
    """Check that the groups exist. Raises InvalidFields."""
    known = services().policy.stored().groups
    problems: dict[str, Any] = {}
    for place, rule in enumerate(rules):
        if rule.group is not None and rule.group not in known:
            problems[str(place)] = {"group": [NO_SUCH_GROUP]}
        if unknown := [name for name in rule.groups if name not in known]:
            problems[str(place)] = {"groups": {str(rule.groups.index(name)): [NO_SUCH_GROUP] for name in unknown}}
    if problems:
        raise invalid_fields({"rules": problems})


def _state(settings: SignInSettings) -> dict[str, Any]:
    return {"rules": [_shown_rule(rule) for rule in settings.rules], "admits": settings.admits}


def _shown_rule(rule: Rule) -> dict[str, Any]:
    return {"role": None, "groups": [], "group": None} | rule.as_document()


def _answer(settings: SignInSettings) -> dict[str, Any]:
    state, configured = _state(settings), services().settings
    etags.show(state)
    return state | {"issuer": configured.oidc_issuer, "user_claim": configured.oidc_user_claim}


def _changeable(identity: Identity) -> dict[str, Any]:
    return {"id": identity.id, "user": identity.user, "active": identity.active}


def _identity_state(identity: Identity) -> dict[str, Any]:
    """What the audit says: its target is the person, so the account is named here."""
    return {"identity": identity.id, "user": identity.user, "active": identity.active}


def _with_rights(identity: Identity) -> Mapping[str, Any]:
    rights = services().identities.rights(identity)
    names = IdentitySchema().fields
    fields = {name: getattr(identity, name) for name in names if name not in ("role", "groups")}
    return fields | {"role": rights.role, "groups": rights.member_of}


def _shown_now(identity: Identity) -> dict[str, Any]:
    etags.show(_changeable(identity))
    return {**_with_rights(identity)}
