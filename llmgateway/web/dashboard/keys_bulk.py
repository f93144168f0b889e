"""Many keys at once: a filter, a preview of every key, and then exactly that."""

from __future__ import annotations

from typing import Any

from flask import Response, request
from werkzeug.wrappers import Response as BaseResponse

from .api import ApiError
from .blueprint import api, blp, need, notice, page
from .forms import Form
from .keys import group_names
from .links import to

ACTIONS = (
    ("block", "block them"),
    ("unblock", "let them in again"),
    ("move", "move them to another group"),
    ("extend", "prolong them"),
    ("remove", "remove them"),
)
YES_NO = {"yes": True, "no": False}

_SHOWN = 200
"""How many keys of a preview a page shows."""
_TEXTS = ("user", "group", "unused_since", "created_before", "created_since")
_CHOICES = ("active", "expired")


@blp.get("/keys/bulk")
def keys_bulk() -> Response:
    """Show the form. A list of keys hands its filter over."""
    need("POST", "/admin/keys/bulk")
    values = {f"filter.{name}": request.args.get(name, "") for name in ("user", "group")}
    return _page(Form(values))


@blp.post("/keys/bulk")
def keys_bulk_do() -> BaseResponse:
    """Show what would happen; with the token of that preview, do it."""
    form = Form.sent()
    token = form.values.pop("token", None)
    try:
        answer = api().post("/admin/keys/bulk", _body(form) | ({"token": token} if token else {"dry_run": True})).body
    except ApiError as error:
        if error.code == "selection_changed":
            return _again(form, error)
        return _page(form.refused(error))
    if answer["dry_run"]:
        return _page(form, preview=answer)
    changed = sum(item["happens"] != "nothing" for item in answer["items"])
    notice(f"Done: {changed:,} of {answer['count']:,} keys were changed.")
    return to(".keys")


def _again(form: Form, error: ApiError) -> Response:
    """Show a new preview: other keys match by now."""
    preview = api().post("/admin/keys/bulk", _body(form) | {"dry_run": True}).body
    form.status, form.problem = error.status, "Other keys match the filter by now, and nothing was changed. Look again."
    return _page(form, preview=preview)


def _page(form: Form, *, preview: dict[str, Any] | None = None) -> Response:
    return page(
        "keys_bulk.html",
        status=form.status,
        form=form,
        preview=preview,
        shown=_SHOWN,
        actions=ACTIONS,
        groups=group_names(),
    )


def _body(form: Form) -> dict[str, Any]:
    wanted: dict[str, Any] = {name: form.text(f"filter.{name}") for name in _TEXTS}
    wanted |= {name: YES_NO.get(form[f"filter.{name}"]) for name in _CHOICES}
    wanted["all"] = form.checked("filter.all") or None
    action = form["action"]
    changes: dict[str, Any] = {}
    if action == "move":
        changes["group"] = form.text("changes.group")
    if action == "extend":
        changes["expires_at"] = form.text("changes.expires_at")
    return {
        "filter": {name: value for name, value in wanted.items() if value is not None},
        "action": action,
        "changes": changes,
    }
