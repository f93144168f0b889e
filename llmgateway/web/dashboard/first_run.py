"""The first steps with a new gateway: where Azure is, a first key, and the first request that arrives."""

from __future__ import annotations

from typing import Any

from flask import Response, request, session
from werkzeug.wrappers import Response as BaseResponse

from ...azure.endpoint import is_deployment_name
from ..schemas.organisation import KEY_HEADERS
from .api import ApiError
from .blueprint import allowed, api, blp, notice, page
from .forms import Form, was_sent
from .links import to

_SOME_MODEL = "gpt-4o-mini"
_ADDRESS = ("base_url", "api_version", "key_header")
_SKIPPED = "first_run_skipped"
_NOT_ANSWERED = "Nothing was stored, because it does not work yet."


@blp.before_request
def _lead_to_it() -> BaseResponse | None:
    """Show the first steps in place of an overview of nothing, until a key is there or somebody has skipped them."""
    if request.endpoint != "dashboard.overview" or session.get(_SKIPPED) or not _may():
        return None
    return None if api().get("/admin/keys", limit=1)["items"] else to(".first_run")


def _may() -> bool:
    return allowed("PUT", "/admin/settings") and allowed("POST", "/admin/keys")


@blp.get("/first-run")
def first_run() -> Response:
    """Show what is done and what comes next."""
    return _page()


@blp.post("/first-run/azure")
def first_run_azure() -> BaseResponse:
    """Try an address and a key as they were typed, and store them if Azure answers."""
    form = Form.sent()
    # Not shown again: one that was mistyped is nearly a key.
    key = form.values.pop("key", "") or None
    wanted = {name: value for name in _ADDRESS if (value := form.text(name)) is not None}
    try:
        tried = not form.checked("anyway")
        if tried and (refused := _tried(form, wanted, key)) is not None:
            return refused
        model = form.text("model") or _listed(wanted, key)
        _store(form, wanted, key)
    except ApiError as error:
        return _page(azure=_without_secrets(form.refused(error)))
    notice("Azure answers at this address and accepts the key." if tried else "It is stored, and was not tried.")
    return to(".first_run", model=model)


def _tried(form: Form, wanted: dict[str, str], key: str | None) -> Response | None:
    """Return the page with the doctor's words; None if Azure has answered."""
    found = _diagnosis(form, wanted, key)
    if found["ok"]:
        return None
    form.status = 422
    form.problem = _NOT_ANSWERED
    return _page(azure=_without_secrets(form), found=found["items"])


def _diagnosis(form: Form, wanted: dict[str, str], key: str | None) -> Any:
    typed = {"key": key, "model": form.text("model")}
    body = wanted | {name: value for name, value in typed.items() if value is not None}
    if "base_url" not in wanted:  # it is set in the environment, and only the key is missing
        settings = api().get("/admin/settings")
        body |= {name: settings[name] for name in _ADDRESS if settings[name] is not None}
    return api().post("/admin/doctor", body).body


def _listed(wanted: dict[str, str], key: str | None) -> str | None:
    """Return a deployment that Azure lists; None if it lists none, which is usual."""
    if "base_url" not in wanted or key is None:
        return None
    try:
        items = api().post("/admin/models/import", wanted | {"key": key, "dry_run": True}).body["items"]
    except ApiError:
        return None
    return next((item["model"] for item in items if item["action"] != "not_ready"), None)


def _store(form: Form, wanted: dict[str, str], key: str | None) -> None:
    """Store the address before the key, which is sent only to the address that is in force when it is set."""
    if wanted:
        api().put("/admin/settings", wanted, etag=form.etag)
    if key is not None:
        api().post("/admin/setllmkey", {"key": key})


def _without_secrets(form: Form) -> Form:
    form.hide_secrets("base_url")
    return form


@blp.post("/first-run/key")
def first_run_key() -> BaseResponse:
    """Hand out the first key. Only this answer shows it."""
    form = Form.sent()
    if was_sent():
        notice("This key was handed out already. It cannot be shown again.")
        return to(".first_run", model=form.text("model"))
    try:
        made = api().post("/admin/keys", {"user": form["user"], "name": form.text("name") or "first"}).body
    except ApiError as error:
        return _page(key=form.refused(error))
    return _page(made=made)


@blp.post("/first-run/skip")
def first_run_skip() -> BaseResponse:
    """Go to the overview from now on. The steps can be taken later."""
    session[_SKIPPED] = True
    return to(".overview")


def _page(
    *,
    azure: Form | None = None,
    key: Form | None = None,
    found: list[dict[str, Any]] | None = None,
    made: dict[str, Any] | None = None,
) -> Response:
    settings = api().ask("GET", "/admin/settings")
    # Nothing else may come into a line that people paste into a terminal.
    name = request.values.get("model", "")
    model = name if is_deployment_name(name) else ""
    status = next((form.status for form in (azure, key) if form is not None), 200)
    return page(
        "first_run.html",
        status=status,
        settings=settings.body,
        azure=azure or Form(settings.body["stored"], etag=settings.etag),
        key=key or Form({"name": "first"}),
        found=found,
        made=made,
        steps=_steps(settings.body),
        model=model or _SOME_MODEL,
        chosen=model,
        headers=[("", "api-key"), *((name, name) for name in KEY_HEADERS[1:])],
        may=_may(),
    )


def _steps(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what is done: whether Azure can be asked, whether there is a key, and the first requests."""
    has_address = settings["base_url"] is not None and settings["azure_key"] == "ok"
    models = has_address or api().get("/admin/models")["items"]
    return {
        "azure": has_address or any(model.get("deployments") for model in models),
        "key": bool(api().get("/admin/keys", limit=1)["items"]),
        "request": next(iter(api().get("/admin/logs", limit=1)["items"]), None),
    }
