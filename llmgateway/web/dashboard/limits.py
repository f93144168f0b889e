"""The limits of everybody together."""

from __future__ import annotations

from flask import Response
from werkzeug.wrappers import Response as BaseResponse

from .api import ApiError
from .blueprint import api, blp, notice, page
from .forms import Form, limit_values
from .links import to


@blp.get("/limits")
def limits() -> Response:
    """Show the limits with what is used and left."""
    return _page(None)


@blp.post("/limits")
def limits_set() -> BaseResponse:
    """Replace them."""
    form = Form.sent()
    try:
        api().put("/admin/limits", form.limits(), etag=form.etag)
    except ApiError as error:
        form = form.refused(error)
        form.errors = {f"limits.{name}": texts for name, texts in form.errors.items()}
        return _page(form)
    notice("The limits are in force.")
    return to(".limits")


def _page(form: Form | None) -> Response:
    answer = api().ask("GET", "/admin/limits")
    shown = form or Form(limit_values(answer.body), etag=answer.etag)
    return page("limits.html", status=shown.status, form=shown, remaining=answer.body["remaining"])
