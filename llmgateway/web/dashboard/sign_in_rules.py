"""Who may sign in with the identity provider, and as what; people who wait; accounts; signing others out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from flask import Response, request
from werkzeug.wrappers import Response as BaseResponse

from ...records import Role
from .api import ApiError
from .blueprint import api, blp, notice, page
from .forms import Form
from .links import to
from .sign_in import public_address

MEMBER = "member"
"""What a rule gives that names a group in place of a role."""

REMOVE = "remove"
"""What somebody chooses to take a rule away."""

GIVES = (
    ("", "choose …"),
    (REMOVE, "nothing: remove this rule"),
    (MEMBER, "belongs to the groups"),
    (Role.GROUP, "manages the groups (role group)"),
    (Role.VIEWER, "role viewer: looks, and changes nothing"),
    (Role.ADMIN, "role admin: everything except admins"),
    (Role.OWNER, "role owner: everything"),
    (Role.METRICS, "role metrics: reads the metrics"),
)
ADMITS = (
    ("everybody", "everybody who has an account there"),
    ("matched", "only those whom a rule matches"),
)
EMPTY_RULES = 2
"""Below those that there are."""

_MOST_WAITING = 50
_PAGE = 50
_ROW = re.compile(r"rules\.(\d{1,4})\.(claim|value|gives|groups)")


@blp.get("/sign-in-rules")
def sign_in_rules() -> Response:
    """Show the provider, the rules, and who waits."""
    return _rules_page()


@blp.post("/sign-in-rules")
def sign_in_rules_change() -> BaseResponse:
    """Replace the rules."""
    form = Form.sent()
    sent, rows = _rules(form)
    if _half_filled(form):
        return _rules_page(form)
    try:
        api().put("/admin/sign-in", {"rules": sent, "admits": form.text("admits") or "everybody"}, etag=form.etag)
    except ApiError as error:
        form.refused(error)
        form.errors = dict(_in_rows(form.errors, rows))
        return _rules_page(form)
    notice("The rules hold from now on.")
    return to(".sign_in_rules")


@blp.get("/sign-in-rules/accounts")
def sign_in_rules_accounts() -> Response:
    """List the accounts that have signed in."""
    found = api().get("/admin/identities", cursor=request.args.get("cursor"), limit=_PAGE)
    return page("sign_in_rules_accounts.html", accounts=found["items"], next=found["next"])


@blp.get("/sign-in-rules/accounts/<identity_id>")
def sign_in_rules_account(identity_id: str) -> Response:
    """Show one of them."""
    return _account_page(identity_id)


@blp.post("/sign-in-rules/accounts/<identity_id>/user")
def sign_in_rules_link(identity_id: str) -> BaseResponse:
    """Say whose keys an account has."""
    form = Form.sent()
    user = form.text("user")
    try:
        api().patch(_path(identity_id), {"user": user}, etag=form.etag)
    except ApiError as error:
        return _account_page(identity_id, form.refused(error))
    notice("The account has no keys any more." if user is None else f"The keys of {user} belong to this account now.")
    return to(".sign_in_rules_account", identity_id=identity_id)


@blp.post("/sign-in-rules/accounts/<identity_id>/active")
def sign_in_rules_active(identity_id: str) -> BaseResponse:
    """Keep an account out, or let it in again."""
    active = Form.sent().text("active") == "yes"
    api().patch(_path(identity_id), {"active": active})
    notice("This account may sign in again." if active else "This account is signed out, and may not sign in any more.")
    return to(".sign_in_rules_account", identity_id=identity_id)


@blp.post("/sign-in-rules/accounts/<identity_id>/remove")
def sign_in_rules_remove(identity_id: str) -> BaseResponse:
    """Forget an account."""
    form = Form.sent()
    try:
        api().delete(_path(identity_id), etag=form.etag)
    except ApiError as error:
        return _account_page(identity_id, form.refused(error))
    notice("Nothing is stored of this account any more. The keys stay.")
    return to(".sign_in_rules_accounts")


@blp.post("/sign-in-rules/sign-out")
def sign_in_rules_sign_out() -> BaseResponse:
    """Sign somebody out everywhere, or everybody."""
    who = Form.sent().text("who")
    api().post("/admin/sessions/end", {"who": who})
    if who is None:
        notice("Everybody has to sign in again.")
        return to(".sign_in")
    notice("Signed out everywhere.")
    return to(".sign_in_rules_account", identity_id=who)


def _rules_page(form: Form | None = None) -> Response:
    answer = api().ask("GET", "/admin/sign-in")
    if form is None:
        form = Form(_values(answer.body), etag=answer.etag)
    waiting = api().get("/admin/identities", waiting="true", limit=_MOST_WAITING)
    return page(
        "sign_in_rules.html",
        status=form.status,
        form=form,
        rows=_rows(form),
        gives=GIVES,
        admits=ADMITS,
        issuer=answer.body["issuer"],
        user_claim=answer.body["user_claim"],
        address=public_address(),
        waiting=waiting["items"],
        more=waiting["next"] is not None,
        groups=[group["name"] for group in api().get("/admin/groups", remaining="false")["items"]],
    )


def _account_page(identity_id: str, form: Form | None = None) -> Response:
    answer = api().ask("GET", _path(identity_id))
    if form is None:
        # What the provider calls the person is the most probable answer, but only an admin knows.
        form = Form({"user": answer.body["user"] or answer.body["claimed"]}, etag=answer.etag)
    return page("sign_in_rules_account.html", status=form.status, account=answer.body, form=form, etag=answer.etag)


def _path(identity_id: str) -> str:
    return f"/admin/identities/{quote(identity_id, safe='')}"


def _values(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rules as values of the form, with empty ones at the end."""
    values: dict[str, Any] = {"admits": shown["admits"]}
    for number, rule in enumerate(shown["rules"]):
        groups = rule["groups"] if rule["group"] is None else [rule["group"]]
        row = {"claim": rule["claim"], "value": rule["value"], "gives": rule["role"] or MEMBER}
        values |= {f"rules.{number}.{name}": value for name, value in row.items()}
        values[f"rules.{number}.groups"] = ", ".join(groups)
    for number in range(len(shown["rules"]), len(shown["rules"]) + EMPTY_RULES):
        values[f"rules.{number}.claim"] = ""
    return values


def _rows(form: Form) -> list[int]:
    """Return the numbers of the rules in the form."""
    found = (match for match in map(_ROW.fullmatch, form.values) if match)
    return sorted({int(match[1]) for match in found})


def _rules(form: Form) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the rules as the API takes them, and for each of them its number in the form. Empty ones are left out."""
    rules: list[dict[str, Any]] = []
    rows: list[int] = []
    for number in _rows(form):
        claim, value = form.text(f"rules.{number}.claim"), form.text(f"rules.{number}.value")
        gives, groups = form.text(f"rules.{number}.gives"), form.list(f"rules.{number}.groups") or []
        if gives in (None, REMOVE) or (claim is None and value is None):
            continue
        # One rule for each group that people belong to: that is how the API has it.
        parts: Sequence[dict[str, Any]] = (
            [{"group": name} for name in groups or [""]] if gives == MEMBER else [{"role": gives, "groups": groups}]
        )
        for part in parts:
            rules.append({"claim": claim or "", "value": value or ""} | part)
            rows.append(number)
    return rules, rows


def _half_filled(form: Form) -> bool:
    """Note and return whether a rule says what somebody has, and not what that gives: it would be lost unseen."""
    for number in _rows(form):
        prefix = f"rules.{number}."
        if form.text(f"{prefix}gives") is None and (form.text(f"{prefix}claim") or form.text(f"{prefix}value")):
            form.errors[f"{prefix}gives"] = ["Choose what whoever has this becomes, or remove the rule."]
            form.status = 422
    return bool(form.errors)


def _in_rows(errors: Mapping[str, list[str]], rows: Sequence[int]) -> Iterator[tuple[str, list[str]]]:
    """Yield the messages of the API at the fields of the form."""
    for name, texts in errors.items():
        match = re.fullmatch(r"rules\.(\d+)\.(\w+).*", name)
        if match is None:
            yield name, texts
            continue
        field = {"group": "groups", "role": "gives"}.get(match[2], match[2])
        yield f"rules.{rows[int(match[1])]}.{field}", texts
