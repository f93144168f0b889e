"""Raising the limits of a key, a person or a group for a while: one page for all three."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Response
from werkzeug.wrappers import Response as BaseResponse

from .api import ApiError
from .blueprint import api, notice, page
from .forms import LIMITS, Form


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """What is raised."""

    path: str
    """Of the object in the API."""
    rule: str
    """The address of the raise in the API's table of rights."""
    title: str
    crumb: tuple[str, str]
    """Endpoint and label of the list."""
    back: str
    """The address of the object's page."""
    action: str
    end: str
    hint: str = ""


def raise_page(raised: Raised, form: Form | None = None) -> Response:
    """Show the form, with the limits that there are."""
    answer = api().ask("GET", raised.path)
    shown = answer.body
    budget = shown["limits"].get("budget") or {}
    blank = {f"limits.budget.{part}": budget.get(part) for part in ("unit", "period")}
    form = form or Form(blank, etag=answer.etag)
    return page("raise.html", status=form.status, raised=raised, form=form, limits=shown["limits"], now=shown["raise"])


def raise_limits(raised: Raised, done: Callable[[], BaseResponse]) -> BaseResponse:
    """Raise what was typed until it says."""
    form = Form.sent()
    try:
        api().post(f"{raised.path}/raise", _body(form), etag=form.etag)
    except ApiError as error:
        return raise_page(raised, form.refused(error))
    notice("Raised. All limits are as before when it ends, without anybody's doing.")
    return done()


def end_raise(raised: Raised, done: Callable[[], BaseResponse]) -> BaseResponse:
    """End a raise before its time."""
    api().delete(f"{raised.path}/raise")
    notice("The limits are as they were before the raise.")
    return done()


def _body(form: Form) -> Mapping[str, Any]:
    limits = form.limits()
    named = {name: limits[name] for name in (*LIMITS, "budget") if limits[name] is not None}
    return {"limits": named, "until": form.text("until") or ""}
