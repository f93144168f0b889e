"""Groups: courses and teams, with what their keys share, and their end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from flask import Response, request
from werkzeug.wrappers import Response as BaseResponse

from . import raises
from .api import ApiError
from .blueprint import api, blp, need, notice, page
from .edits import changes, differs, limit_changes, values_of
from .forms import Form, limit_values, was_sent
from .keys import SIZE, STATES, group_names, model_names
from .links import link, to
from .raises import Raised
from .usage_charts import usage_chart

FATES = (
    ("remove", "are removed, and the group with them"),
    ("block", "are blocked, and the group stays without taking requests"),
    ("move", "move to another group, and this one is removed"),
)

_TEXTS = ("note", "cost_centre")
_SELF = "self_service"


@blp.get("/groups")
def groups() -> Response:
    """List groups: searched, sorted, page by page."""
    wanted = {name: request.args.get(name) for name in ("q", "sort")}
    number = request.args.get("page") or "1"
    include = "spent,trend,key_count,user_count"
    found = api().get("/admin/groups", **wanted, page=number, limit=SIZE, include=include)
    return page("groups.html", groups=found["items"], total=found["total"], number=int(number), size=SIZE)


@blp.get("/groups/new")
def groups_new() -> Response:
    """Show the form that makes a group."""
    need("PUT", "/admin/groups/<name>")
    return _new(Form())


@blp.post("/groups/new")
def groups_create() -> BaseResponse:
    """Make a group, unless there is one of this name."""
    if was_sent():
        return to(".groups")
    form = Form.sent()
    name = form["name"]
    try:
        _refuse_taken(name)
        api().put(_path(name), _changes(form, {}))
    except ApiError as error:
        return _new(form.refused(error))
    notice("The group is made. Hand out its keys now.")
    return to(".groups_one", name=name)


def _refuse_taken(name: str) -> None:
    """Refuse the name of a group that there is: PUT would replace what is set for it."""
    if not name:
        raise ApiError(422, "", fields={"name": ["Missing: by this name reports and keys call the group."]})
    try:
        api().get(_path(name))
    except ApiError as error:
        if error.status == 404:
            return
        raise
    raise ApiError(409, "", fields={"name": ["There is a group of this name already."]})


# The name is in the query, like that of a person: it may be that of another page.
@blp.get("/groups/group")
def groups_one() -> Response:
    """Show everything about one group."""
    return _one(_name())


@blp.post("/groups/group")
def groups_change() -> BaseResponse:
    """Change what somebody has typed anew, and nothing else."""
    name, form = _name(), Form.sent()
    before = _values(api().get(_path(name)))
    try:
        api().patch(_path(name), _changes(form, before), etag=form.etag)
    except ApiError as error:
        return _one(name, form.refused(error))
    notice("Changed. It holds from the next request on.")
    return to(".groups_one", name=name)


@blp.post("/groups/group/revoke")
def groups_revoke() -> BaseResponse:
    """Block every key of a group."""
    name = _name()
    revoked = api().post(f"{_path(name)}/revoke").body["revoked"]
    notice(f"{revoked:,} keys are blocked." if revoked != 1 else "One key is blocked.")
    return to(".groups_one", name=name)


@blp.post("/groups/group/remove")
def groups_remove() -> BaseResponse:
    """Remove a group without keys."""
    name, form = _name(), Form.sent()
    try:
        api().delete(_path(name), etag=form.etag)
    except ApiError as error:
        return _one(name, form.refused(error), typed=False)
    notice("Removed. What the group has used stays in the reports.")
    return to(".groups")


@blp.get("/groups/group/close")
def groups_close() -> Response:
    """Show the form that ends a group."""
    need("POST", "/admin/groups/<name>/close")
    return _close_page(_name(), Form({"keys": "remove"}))


@blp.post("/groups/group/close")
def groups_close_do() -> BaseResponse:
    """Show what would happen to every key; after that was confirmed, end the group."""
    name, form = _name(), Form.sent()
    fate: Any = {"move_to": form["move_to"]} if form["keys"] == "move" else form["keys"]
    confirmed = form.checked("confirmed")
    try:
        closed = api().post(f"{_path(name)}/close", {"keys": fate, "dry_run": not confirmed}).body
    except ApiError as error:
        return _close_page(name, form.refused(error))
    if not confirmed:
        return _close_page(name, form, preview=closed)
    return page("groups_closed.html", closed=closed)


@blp.get("/groups/group/raise")
def groups_raise() -> Response:
    """Show the form that raises a group's limits for a while."""
    return raises.raise_page(_raised(_name()))


@blp.post("/groups/group/raise")
def groups_raise_set() -> BaseResponse:
    """Raise a group's limits for a while."""
    name = _name()
    return raises.raise_limits(_raised(name), lambda: to(".groups_one", name=name))


@blp.post("/groups/group/raise/end")
def groups_raise_end() -> BaseResponse:
    """End that early."""
    name = _name()
    return raises.end_raise(_raised(name), lambda: to(".groups_one", name=name))


def _name() -> str:
    name = request.args.get("name", "")
    if not name:
        raise ApiError(404, "Name a group. The list of groups has all of them.")
    return name


def _path(name: str) -> str:
    return f"/admin/groups/{quote(name, safe='')}"


def _values(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group as values of a form."""
    own = group[_SELF] or {}
    values = values_of(group, _TEXTS) | limit_values(group["member_limits"], "member_limits")
    return (
        values
        | {f"{_SELF}.{part}": own.get(part) for part in ("keys", "days")}
        | {f"{_SELF}.models": ", ".join(own.get("models") or ())}
        | limit_values(own.get("limits"), f"{_SELF}.limits")
    )


def _changes(form: Form, before: Mapping[str, Any]) -> dict[str, Any]:
    body = changes(form, before, _TEXTS) | limit_changes(form, before, "member_limits")
    if any(differs(form, before, name) for name in form.values if name.startswith(f"{_SELF}.")):
        body[_SELF] = _self_service(form)
    return body


def _self_service(form: Form) -> dict[str, Any] | None:
    """Return what members may make themselves, which is replaced as a whole; None if no number of keys is typed."""
    if form.number(f"{_SELF}.keys") in (None, 0):
        return None
    return {
        "keys": form.number(f"{_SELF}.keys"),
        "days": form.number(f"{_SELF}.days"),
        "models": form.list(f"{_SELF}.models"),
        "limits": form.limits(f"{_SELF}.limits"),
    }


def _new(form: Form) -> Response:
    return page("groups_new.html", status=form.status, form=form, models=model_names())


def _one(name: str, form: Form | None = None, *, typed: bool = True) -> Response:
    answer = api().ask("GET", _path(name), query={"include": "spent,key_count,user_count"})
    group = answer.body
    shown = form if form is not None and typed else Form(_values(group), etag=answer.etag)
    return page(
        "groups_one.html",
        status=shown.status if form is None else form.status,
        group=group,
        etag=answer.etag,
        form=shown,
        refused=form if not typed else None,
        states=STATES,
        keys=api().get("/admin/keys", group=name, limit=SIZE, sort="user", include="state,last_used,spent")["items"],
        chart=usage_chart(group=name),
        models=model_names(),
    )


def _close_page(name: str, form: Form, *, preview: Mapping[str, Any] | None = None) -> Response:
    others = [(value, text) for value, text in group_names() if value != name]
    return page(
        "groups_close.html", status=form.status, group_name=name, form=form, preview=preview, fates=FATES, groups=others
    )


def _raised(name: str) -> Raised:
    return Raised(
        path=_path(name),
        rule="/admin/groups/<name>/raise",
        title=f"Raise the limits of {name}",
        crumb=(".groups", "Groups"),
        back=link(".groups_one", name=name),
        action=link(".groups_raise_set", name=name),
        end=link(".groups_raise_end", name=name),
        hint="It raises what all keys of the group may use together, not the limits of each member.",
    )
