"""Named admins: who they are, what they may do, and their keys."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from flask import Response
from werkzeug.wrappers import Response as BaseResponse

from ...records import Role
from .api import ApiError
from .blueprint import api, blp, need, notice, page
from .forms import Form, fields, was_sent
from .links import to

ROLES = (
    (Role.ADMIN, "admin: everything except admins"),
    (Role.VIEWER, "viewer: looks, and changes nothing"),
    (Role.GROUP, "group: looks after some groups, and sees nothing else"),
    (Role.METRICS, "metrics: reads the metrics, for Prometheus"),
    (Role.OWNER, "owner: everything, also admins"),
)
OVERLAPS = ((0, "at once"), (3600, "in an hour"), (86_400, "in a day"), (604_800, "in a week"))
MOST_BOXES = 150
"""Of more groups than this, the names are typed: a page has at most 150 KB."""
_FIELDS = ("name", "role", "note", "expires_at")


@blp.get("/admins")
def admins() -> Response:
    """List the named admins."""
    return page("admins.html", admins=api().get("/admin/admins")["items"])


@blp.get("/admins/new")
def admins_new() -> Response:
    """Show the form that lets another admin in."""
    need("POST", "/admin/admins")
    return _form_page(Form({"role": Role.VIEWER}))


@blp.post("/admins/new")
def admins_create() -> BaseResponse:
    """Let another admin in, and show the key this once."""
    if was_sent():
        return to(".admins")
    form = Form.sent()
    try:
        made = api().post("/admin/admins", _body(form)).body
    except ApiError as error:
        return _form_page(form.refused(error))
    return page("admins_key.html", admin=made, again=False)


@blp.get("/admins/<admin_id>")
def admins_one(admin_id: str) -> Response:
    """Show one of them."""
    return _one(admin_id)


@blp.post("/admins/<admin_id>")
def admins_change(admin_id: str) -> BaseResponse:
    """Change name, role, groups, date and note."""
    form = Form.sent()
    try:
        api().patch(_path(admin_id), _body(form), etag=form.etag)
    except ApiError as error:
        return _one(admin_id, form.refused(error))
    notice("Changed. It holds from the next request on.")
    return to(".admins_one", admin_id=admin_id)


@blp.post("/admins/<admin_id>/active")
def admins_active(admin_id: str) -> BaseResponse:
    """Block an admin, or let them in again."""
    active = Form.sent().text("active") == "yes"
    api().patch(_path(admin_id), {"active": active})
    notice("This admin gets in again." if active else "Blocked: the next request with the key is refused.")
    return to(".admins_one", admin_id=admin_id)


@blp.post("/admins/<admin_id>/rotate")
def admins_rotate(admin_id: str) -> BaseResponse:
    """Replace the key by a new one, and show it this once."""
    if was_sent():
        return to(".admins_one", admin_id=admin_id)
    form = Form.sent()
    try:
        sent = {"overlap_seconds": form.number("overlap") or 0}
        made = api().post(f"{_path(admin_id)}/rotate", sent, etag=form.etag)
    except ApiError as error:
        return _one(admin_id, form.refused(error), typed=False)
    return page("admins_key.html", admin=made.body, again=True)


@blp.post("/admins/<admin_id>/remove")
def admins_remove(admin_id: str) -> BaseResponse:
    """Remove an admin."""
    form = Form.sent()
    try:
        api().delete(_path(admin_id), etag=form.etag)
    except ApiError as error:
        return _one(admin_id, form.refused(error), typed=False)
    notice("Removed. What this admin has changed stays in the audit.")
    return to(".admins")


def _path(admin_id: str) -> str:
    return f"/admin/admins/{quote(admin_id, safe='')}"


def _body(form: Form) -> dict[str, Any]:
    role = form["role"]
    body: dict[str, Any] = {
        "name": form["name"],
        "role": role,
        "note": form.text("note"),
        "expires_at": form.text("expires_at"),
    }
    return body | {"groups": _chosen_groups(form)} if role == Role.GROUP else body


def _chosen_groups(form: Form) -> list[str]:
    """Return the groups whose boxes were ticked, or which were typed, one on each line."""
    lines = [line for text in form.chosen("groups") for line in text.splitlines()]
    return [line.strip() for line in lines if line.strip()]


def _form_page(form: Form) -> Response:
    return page("admins_new.html", status=form.status, form=form, roles=ROLES, groups=_groups(form))


def _one(admin_id: str, form: Form | None = None, *, typed: bool = True) -> Response:
    """Show one admin.

    Args:
        form: That was refused.
        typed: Whether it has what was typed about the admin; otherwise only its problems are shown.
    """
    answer = api().ask("GET", _path(admin_id))
    admin = answer.body
    shown = Form(fields(admin, _FIELDS) | {"groups": admin["groups"]}, etag=answer.etag)
    if form is not None and typed:
        shown = form
    return page(
        "admins_one.html",
        status=shown.status if form is None else form.status,
        admin=admin,
        etag=answer.etag,
        form=shown,
        refused=form if form is not None and not typed else None,
        roles=ROLES,
        overlaps=OVERLAPS,
        groups=_groups(shown),
    )


def _groups(form: Form) -> list[tuple[str, str]] | None:
    """Return the groups as boxes of *form*; None if there are too many, so that their names are typed."""
    names = [group["name"] for group in api().get("/admin/groups", remaining="false")["items"]]
    if len(names) > MOST_BOXES:
        form.values["groups"] = "\n".join(_chosen_groups(form))
        return None
    return [(name, name) for name in names]
