"""People: what is set for each of them, what they use, their keys, and what is kept of them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson
from flask import Response, request
from werkzeug.wrappers import Response as BaseResponse

from . import raises
from .api import ApiError
from .blueprint import api, blp, need, notice, page
from .edits import limit_changes
from .forms import Form, limit_values
from .keys import SIZE, STATES
from .links import link, to
from .raises import Raised
from .usage_charts import usage_chart

_NOT_CONFIRMED = "Type the name exactly as it is above."


@blp.get("/people")
def people() -> Response:
    """List people: searched, sorted, page by page."""
    wanted = {name: request.args.get(name) for name in ("q", "sort")}
    number = request.args.get("page") or "1"
    found = api().get("/admin/users", **wanted, page=number, limit=SIZE, include="spent,remaining,trend,groups")
    return page("people.html", people=found["items"], total=found["total"], number=int(number), size=SIZE)


# The name is in the query: in a path, a name with a slash would be two parts.
@blp.get("/people/person")
def people_one() -> Response:
    """Show everything about one person."""
    return _one(_user())


@blp.post("/people/person")
def people_change() -> BaseResponse:
    """Change the limits of a person."""
    user, form = _user(), Form.sent()
    before = limit_values(api().get(_path(user))["limits"])
    try:
        api().patch(_path(user), limit_changes(form, before, "limits"), etag=form.etag)
    except ApiError as error:
        return _one(user, form.refused(error))
    notice("The limits hold from the next request on, for all keys of this person together.")
    return to(".people_one", user=user)


@blp.get("/people/person/raise")
def people_raise() -> Response:
    """Show the form that raises a person's limits for a while."""
    return raises.raise_page(_raised(_user()))


@blp.post("/people/person/raise")
def people_raise_set() -> BaseResponse:
    """Raise a person's limits for a while."""
    user = _user()
    return raises.raise_limits(_raised(user), lambda: to(".people_one", user=user))


@blp.post("/people/person/raise/end")
def people_raise_end() -> BaseResponse:
    """End that early."""
    user = _user()
    return raises.end_raise(_raised(user), lambda: to(".people_one", user=user))


@blp.get("/people/person/export")
def people_export() -> Response:
    """Return everything that is kept of a person, as a file."""
    answer = api().ask("GET", f"{_path(_user())}/export")
    response = Response(orjson.dumps(answer.body, option=orjson.OPT_INDENT_2), mimetype="application/json")
    response.headers["Content-Disposition"] = "attachment; filename=person.json"
    return response


@blp.get("/people/person/erase")
def people_erase() -> Response:
    """Show what would be erased."""
    need("POST", "/admin/users/<path:user>/erase")
    return _erase_page(_user(), Form())


@blp.post("/people/person/erase")
def people_erase_do() -> BaseResponse:
    """Erase a person whose name was typed once more."""
    user, form = _user(), Form.sent()
    # Compared without what surrounds it: a form cannot tell blanks at the ends of a name from slips.
    if form["confirmed"] != user.strip():
        form.status, form.errors = 422, {"confirmed": [_NOT_CONFIRMED]}
        return _erase_page(user, form)
    erased = api().post(f"{_path(user)}/erase", {"dry_run": False}).body
    return page("people_erased.html", erased=erased)


def _user() -> str:
    user = request.args.get("user", "")
    if not user:
        raise ApiError(404, "Name a person. The list of people has all of them.")
    return user


def _path(user: str) -> str:
    return f"/admin/users/{quote(user, safe='')}"


def _one(user: str, form: Form | None = None) -> Response:
    answer = api().ask("GET", _path(user))
    person = answer.body
    form = form or Form(limit_values(person["limits"]), etag=answer.etag)
    keys = api().get("/admin/keys", user=user, limit=100, include="state,last_used,remaining,spent")
    return page(
        "people_one.html",
        status=form.status,
        person=person,
        keys=keys["items"],
        key_total=keys["total"],
        states=STATES,
        form=form,
        chart=usage_chart(user=user),
    )


def _erase_page(user: str, form: Form) -> Response:
    preview: dict[str, Any] = api().post(f"{_path(user)}/erase", {"dry_run": True}).body
    return page("people_erase.html", status=form.status, user=user, preview=preview, form=form)


def _raised(user: str) -> Raised:
    return Raised(
        path=_path(user),
        rule="/admin/users/<path:user>/raise",
        title=f"Raise the limits of {user}",
        crumb=(".people", "People"),
        back=link(".people_one", user=user),
        action=link(".people_raise_set", user=user),
        end=link(".people_raise_end", user=user),
        hint="It takes the place of the person's own limits, and of what groups set for each of their members.",
    )
