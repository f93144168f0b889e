"""What holds for the whole organisation: time zone, the address of Azure and its key, the second currency."""

from __future__ import annotations

from typing import Any

from flask import Response
from werkzeug.wrappers import Response as BaseResponse

from ...local_time import known_zones
from ..schemas.organisation import KEY_HEADERS
from .api import ApiError
from .blueprint import api, blp, notice, page
from .forms import Form, fields
from .links import to

_ADDRESS = ("base_url", "api_version", "key_header")
_NO_RATE = "Write a month and a rate on each line, like 2026-10 0.92."


@blp.get("/settings")
def settings() -> Response:
    """Show the settings."""
    return _page()


@blp.post("/settings/time-zone")
def settings_time_zone() -> BaseResponse:
    """Set the time zone."""
    form = Form.sent()
    try:
        after = api().put("/admin/settings", {"timezone": form["timezone"]}, etag=form.etag).body
    except ApiError as error:
        return _page(timezone=form.refused(error))
    pending = after["pending"]
    notice("The time zone is in force." if pending is None else f"{pending['timezone']} holds from the next midnight.")
    return to(".settings")


@blp.post("/settings/azure")
def settings_azure() -> BaseResponse:
    """Set the address of Azure."""
    form = Form.sent()
    try:
        after = api().put("/admin/settings", {name: form.text(name) for name in _ADDRESS}, etag=form.etag).body
    except ApiError as error:
        form = form.refused(error)
        form.hide_secrets("base_url")
        return _page(azure=form)
    notice(" ".join(["The address is stored.", *after["overridden"]]))
    return to(".settings")


@blp.post("/settings/azure-key")
def settings_azure_key() -> BaseResponse:
    """Store Azure's key, and say what Azure thinks of it."""
    form = Form.sent()
    try:
        tried = api().post("/admin/setllmkey", {"key": form["key"]}).body["azure"]
    except ApiError as error:
        return _page(key=form.refused(error))
    notice(f"The key is stored. {tried['message'] if tried else ''}")
    return to(".settings")


@blp.post("/settings/currency")
def settings_currency() -> BaseResponse:
    """Set the second currency with its rates."""
    form = Form.sent()
    code = form.text("code")
    body: dict[str, Any] = {"code": None if code is None else code.upper()}
    if rates := _rates(form):
        body["rates"] = rates
    if form.errors:
        form.status = 422
        return _page(currency=form)
    try:
        api().put("/admin/currency", body, etag=form.etag)
    except ApiError as error:
        form = form.refused(error)
        of_months = [name for name in form.errors if name.startswith("rates.")]
        texts = [f"{name.split('.')[1]}: {' '.join(form.errors.pop(name))}" for name in of_months]
        if texts:
            form.errors["rates"] = [*form.errors.get("rates", ()), *texts]
        return _page(currency=form)
    notice("The currency is in force." if code else "There is no second currency any more.")
    return to(".settings")


def _rates(form: Form) -> dict[str, Any]:
    """Return the rates by month. Notes in the form the lines that are none."""
    found: dict[str, Any] = {}
    for line in (form.text("rates") or "").splitlines():
        month, _, rate = line.replace("=", " ").replace(":", " ").strip().partition(" ")
        if not month:
            continue
        try:
            found[month] = float(rate)
        except ValueError:
            form.errors["rates"] = [f"{line.strip()[:60]!r}: {_NO_RATE}"]
    return found


def _page(**refused: Form) -> Response:
    """Show the settings, and the form that was *refused*, by its name."""
    found, currency = api().ask("GET", "/admin/settings"), api().ask("GET", "/admin/currency")
    pending = found.body["pending"]
    lines = [f"{month} {rate:.15g}" for month, rate in sorted(currency.body["rates"].items(), reverse=True)]
    forms = {
        "timezone": Form({"timezone": (pending or found.body)["timezone"]}, etag=found.etag),
        "azure": Form(fields(found.body["stored"], _ADDRESS), etag=found.etag),
        "key": Form(),
        "currency": Form({"code": currency.body["code"], "rates": "\n".join(lines)}, etag=currency.etag),
    } | refused
    return page(
        "settings.html",
        status=next((form.status for form in refused.values()), 200),
        settings=found.body,
        forms=forms,
        zones=known_zones(),
        headers=[("", "api-key"), *((name, name) for name in KEY_HEADERS[1:])],
    )
