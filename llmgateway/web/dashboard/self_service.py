"""What people may make themselves: by group, and outside of all groups."""

from __future__ import annotations

from flask import Response
from werkzeug.wrappers import Response as BaseResponse

from .api import ApiError
from .blueprint import api, blp, notice, page
from .forms import Form, limit_values
from .links import to

_PATH = "/admin/self-service"
_PREFIX = "without_group."


@blp.get("/self-service")
def self_service() -> Response:
    """Show who may make keys."""
    return _page(None)


@blp.post("/self-service")
def self_service_set() -> BaseResponse:
    """Set what people may make outside of all groups; an empty number of keys ends it."""
    form = Form.sent()
    keys = form.number("keys")
    offered = {
        "keys": keys,
        "days": form.number("days"),
        "models": form.list("models"),
        "limits": form.limits(),
    }
    try:
        api().put(_PATH, {"without_group": None if keys is None else offered}, etag=form.etag)
    except ApiError as error:
        form = form.refused(error)
        form.errors = {name.removeprefix(_PREFIX): texts for name, texts in form.errors.items()}
        return _page(form)
    notice("That is in force. Keys that were made before stay as they are.")
    return to(".self_service")


def _page(form: Form | None) -> Response:
    answer = api().ask("GET", _PATH)
    offered = answer.body["without_group"] or {}
    if form is None:
        values = {name: offered.get(name) for name in ("keys", "days")}
        values |= {"models": ", ".join(offered.get("models") or ())} | limit_values(offered.get("limits"))
        form = Form(values, etag=answer.etag)
    groups = [group for group in api().get("/admin/groups", remaining="false")["items"] if group["self_service"]]
    return page("self_service.html", status=form.status, form=form, groups=groups, offered=offered)
