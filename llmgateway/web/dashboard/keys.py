"""Keys: found, handed out, changed, blocked, replaced and removed."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from flask import Response, redirect, request
from werkzeug.wrappers import Response as BaseResponse

from ..tables import NEXT_CURSOR
from . import raises
from .api import ApiError
from .blueprint import allowed, api, blp, need, notice, page
from .edits import changes, values_of
from .forms import Form, was_sent
from .links import link, to, wanted_page
from .raises import Raised
from .usage_charts import usage_chart

SIZE = 25
STATES = {
    "active": ("active", "good"),
    "expiring": ("expires soon", "warn"),
    "not_yet_valid": ("not yet valid", ""),
    "expired": ("expired", "bad"),
    "blocked": ("blocked", "bad"),
}
"""How each state is called, and its colour."""
OVERLAPS = (
    (0, "at once"),
    (3600, "in an hour"),
    (86_400, "in a day"),
    (604_800, "in a week"),
    (2_592_000, "in 30 days"),
)

_FILTERS = ("q", "user", "group", "state", "sort")
_TEXTS = ("user", "name", "group", "email", "note")
_EVERYTHING = "spent,remaining,last_used,trend,state"
_EXPORTED_AT_ONCE = 1000


@blp.get("/keys")
def keys() -> Response:
    """List keys: searched, filtered, sorted, page by page."""
    wanted = {name: request.args.get(name) for name in _FILTERS}
    number = request.args.get("page") or "1"
    found = api().get("/admin/keys", **wanted, page=number, limit=SIZE, include=_EVERYTHING)
    return page(
        "keys.html", keys=found["items"], total=found["total"], number=int(number), size=SIZE, states=STATES,
        groups=group_names(), filtered={name: value for name, value in wanted.items() if value},
    )  # fmt: skip


@blp.get("/keys/export")
def keys_export() -> Response:
    """Return the list, filtered as the page was, as CSV."""
    wanted: dict[str, Any] = {name: request.args.get(name) for name in (*_FILTERS, "for")}
    parts: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query = wanted | {"format": "csv", "limit": _EXPORTED_AT_ONCE, "cursor": cursor}
        answer = api().ask("GET", "/admin/keys", query=query)
        # Each page has a head of its own.
        parts.append(answer.body if not parts else answer.body.partition("\n")[2])
        cursor = answer.headers.get(NEXT_CURSOR)
    return Response(
        "".join(parts), mimetype="text/csv", headers={"Content-Disposition": "attachment; filename=keys.csv"}
    )


@blp.get("/keys/new")
def keys_new() -> Response:
    """Show the form that hands out a key."""
    need("POST", "/admin/keys")
    return _new(Form({"user": request.args.get("user", ""), "group": request.args.get("group", "")}))


@blp.post("/keys/new")
def keys_create() -> BaseResponse:
    """Hand out a key, and show it this once."""
    if was_sent():
        notice("This key was made already, and is shown only once. Replace it by a new one if it got lost.")
        return to(".keys", sort="-created_at")
    form = Form.sent()
    # What is left empty is not sent: then the API has a say in it, such as the only group of an admin.
    body = {name: value for name, value in changes(form, {}, _TEXTS).items() if value is not None}
    try:
        made = api().post("/admin/keys", body).body
    except ApiError as error:
        return _new(form.refused(error))
    return page("keys_key.html", key=made, again=False)


def _new(form: Form) -> Response:
    return page("keys_new.html", status=form.status, form=form, groups=group_names(), models=model_names())


@blp.get("/keys/<key_id>")
def keys_one(key_id: str) -> Response:
    """Show everything about one key."""
    return _one(key_id)


@blp.post("/keys/<key_id>")
def keys_change(key_id: str) -> BaseResponse:
    """Change what somebody has typed anew, and nothing else."""
    form = Form.sent()
    try:
        before = values_of(api().get(_path(key_id)), _TEXTS)
        api().patch(_path(key_id), changes(form, before, _TEXTS), etag=form.etag)
    except ApiError as error:
        return _one(key_id, form.refused(error))
    notice("Changed. It holds from the next request on.")
    return to(".keys_one", key_id=key_id)


@blp.post("/keys/<key_id>/active")
def keys_active(key_id: str) -> BaseResponse:
    """Block a key, or let it in again."""
    form = Form.sent()
    active = form.text("active") == "yes"
    api().patch(_path(key_id), {"active": active})
    notice("The key is let in again." if active else "Blocked: the next request with this key is refused.")
    back = wanted_page(form.text("back"))
    return to(".keys_one", key_id=key_id) if back is None else redirect(back, 303)


@blp.post("/keys/<key_id>/rotate")
def keys_rotate(key_id: str) -> BaseResponse:
    """Replace a key by a new one, and show it this once."""
    if was_sent():
        return to(".keys_one", key_id=key_id)
    form = Form.sent()
    try:
        made = api().post(f"{_path(key_id)}/rotate", {"overlap_seconds": form.number("overlap") or 0}, etag=form.etag)
    except ApiError as error:
        return _one(key_id, form.refused(error), typed=False)
    return page("keys_key.html", key=made.body, again=True)


@blp.post("/keys/<key_id>/remove")
def keys_remove(key_id: str) -> BaseResponse:
    """Remove a key."""
    form = Form.sent()
    try:
        api().delete(_path(key_id), etag=form.etag)
    except ApiError as error:
        return _one(key_id, form.refused(error), typed=False)
    notice("Removed. What the key has used stays in the reports.")
    return to(".keys")


@blp.get("/keys/<key_id>/raise")
def keys_raise(key_id: str) -> Response:
    """Show the form that raises its limits for a while."""
    return raises.raise_page(_raised(key_id))


@blp.post("/keys/<key_id>/raise")
def keys_raise_set(key_id: str) -> BaseResponse:
    """Raise its limits for a while."""
    return raises.raise_limits(_raised(key_id), lambda: to(".keys_one", key_id=key_id))


@blp.post("/keys/<key_id>/raise/end")
def keys_raise_end(key_id: str) -> BaseResponse:
    """End that early."""
    return raises.end_raise(_raised(key_id), lambda: to(".keys_one", key_id=key_id))


def _raised(key_id: str) -> Raised:
    return Raised(
        path=_path(key_id),
        rule="/admin/keys/<key_id>/raise",
        title="Raise the limits of a key",
        crumb=(".keys", "Keys"),
        back=link(".keys_one", key_id=key_id),
        action=link(".keys_raise_set", key_id=key_id),
        end=link(".keys_raise_end", key_id=key_id),
    )


def _path(key_id: str) -> str:
    return f"/admin/keys/{quote(key_id, safe='')}"


def _one(key_id: str, form: Form | None = None, *, typed: bool = True) -> Response:
    """Show one key.

    Args:
        form: That was refused.
        typed: Whether it has what was typed about the key; otherwise only its problems are shown.
    """
    answer = api().ask("GET", _path(key_id), query={"include": _EVERYTHING})
    key = answer.body
    shown = form if form is not None and typed else Form(values_of(key, _TEXTS), etag=answer.etag)
    return page(
        "keys_one.html",
        status=shown.status if form is None else form.status,
        key=key,
        etag=answer.etag,
        form=shown,
        refused=form if not typed else None,
        states=STATES,
        overlaps=OVERLAPS,
        groups=group_names(),
        models=model_names(),
        group=_group_of(key),
        chart=usage_chart(key=key_id),
        requests=api().get("/admin/logs", key=key_id, kind="all", limit=10)["items"],
        prompt=api().get("/admin/prompt", key=key_id),
    )


def _group_of(key: dict[str, Any]) -> dict[str, Any] | None:
    """Return the group of a key, whose limits and dates hold for it, too."""
    if key["group"] is None:
        return None
    try:
        found: dict[str, Any] = api().get(f"/admin/groups/{quote(key['group'], safe='')}")
    except ApiError as error:
        if error.status != 404:  # it was removed in between
            raise
        return None
    return found


def group_names() -> list[tuple[str, str]]:
    """Return the groups that this admin sees, for a choice."""
    return [(group["name"], group["name"]) for group in api().get("/admin/groups", remaining="false")["items"]]


def model_names() -> list[str]:
    """Return the models that there are settings for, as proposals; an admin of a group may not read them."""
    if not allowed("GET", "/admin/models"):
        return []
    return [model["name"] for model in api().get("/admin/models")["items"]]
