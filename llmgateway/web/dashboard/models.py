"""Models: what they cost, where they are, how their deployments are, and whether Azure answers there."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from flask import Response, request
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response as BaseResponse

from ...proxy.operations.table import OPERATIONS
from ...records import PRICE_KINDS
from ..schemas.organisation import KEY_HEADERS
from .api import Answer, ApiError
from .blueprint import api, blp, need, notice, page
from .forms import Form
from .links import to
from .model_forms import PARTS, deployment_values, model_values

PRICE_LABELS = {
    "prompt": "Prompt tokens",
    "cached": "Cached prompt tokens",
    "completion": "Completion tokens",
    "cache_write": "Tokens put into the cache",
    "audio_prompt": "Audio in the prompt",
    "audio_completion": "Audio in the answer",
    "image": "Images in the prompt",
    "minute": "A minute of audio",
    "characters": "A million characters",
    "per_image": "An image",
}


@blp.get("/models")
def models() -> Response:
    """List models and deployments."""
    status = api().get("/admin/status")
    own = {each["name"]: each for each in api().get("/admin/models")["items"]}
    prices = {each["model"]: each for each in api().get("/admin/prices")["items"]}
    rows = [
        {"name": name, "settings": own.get(name, {}), "price": prices.get(name)} for name in sorted({*own, *prices})
    ]
    return page("models.html", rows=rows, gateway=status, price_words=price_words, health=health)


@blp.get("/models/one")
def models_one() -> Response:
    """Show one model."""
    return _one(_name())


@blp.post("/models/one")
def models_set() -> BaseResponse:
    """Change the deployments, the prices or other settings of a model."""
    name, form = _name(), Form.sent()
    part = PARTS.get(str(form["part"]))
    if part is None:
        raise ApiError(400, "This form has no such part.")
    try:
        body = part.body(form)
        if form.errors:
            form.status = 422
            return _one(name, form)
        api().put(_path(name), body, etag=form.etag)
    except ApiError as error:
        return _one(name, part.refused(form, error))
    notice(f"{name}: in force from the next request on.")
    return to(".models_one", name=name)


@blp.post("/models/remove")
def models_remove() -> BaseResponse:
    """Forget what is set for a model."""
    name, form = _name(), Form.sent()
    try:
        api().delete(_path(name), etag=form.etag)
    except ApiError as error:
        return _one(name, form.refused(error))
    notice(f"{name}: what was set is forgotten.")
    return to(".models")


@blp.post("/models/doctor")
def models_doctor() -> Response:
    """Try the deployments, and show what came of it."""
    model = Form.sent().text("model")
    found = api().post("/admin/doctor", {} if model is None else {"model": model}).body
    return page("models_doctor.html", found=found, model=model)


@blp.route("/models/import", methods=["GET", "POST"])
def models_import() -> Response:
    """Register the deployments that a resource lists; at first only show them."""
    need("POST", "/admin/models/import")
    form = Form.sent() if request.method == "POST" else Form()
    found: dict[str, Any] | None = None
    if request.method == "POST":
        names = ("base_url", "api_version", "key", "key_header", "name")
        body: dict[str, Any] = {name: text for name in names if (text := form.text(name))}
        body |= {"add": form.checked("add"), "dry_run": form["do"] != "import"}
        try:
            found = api().post("/admin/models/import", body).body
        except ApiError as error:
            form = form.refused(error) if error.status != 502 else _told(form, error)
            form.hide_secrets("base_url")
    return page("models_import.html", status=form.status, form=form, found=found, headers=_headers())


def _told(form: Form, error: ApiError) -> Form:
    """Note what Azure has answered, beside what was typed."""
    form.status, form.problem = error.status, error.message
    return form


def _name() -> str:
    name = request.args.get("name", "").strip()
    if not name:
        raise ApiError(404, "Name a model.")
    return name


def _path(name: str) -> str:
    return f"/admin/models/{quote(name)}"


def _headers() -> list[tuple[str, str]]:
    return [("", "as LLM_KEY_HEADER says"), *((name, name) for name in KEY_HEADERS)]


def _stored(name: str) -> Answer:
    """Return what is set for a model, which may be nothing."""
    try:
        return api().ask("GET", _path(name))
    except ApiError as error:
        if error.status != 404:
            raise
        return Answer(404, {"name": name}, None, Headers())


def _one(name: str, form: Form | None = None) -> Response:
    answer = _stored(name)
    settings = answer.body
    states = {each["name"]: each for each in api().get("/admin/status")["deployments"] if each["model"] == name}
    (price,) = api().get("/admin/prices", model=name)["items"]
    shown = {part: Form(model_values(settings), etag=answer.etag) for part in PARTS}
    number = len(settings.get("deployments", ())) + 1
    if form is not None and form["part"] in shown:
        shown[str(form["part"])] = form
        number = max(number, 1 + sum(field.endswith(".name") for field in form.values))
    for each in shown.values():
        for place in range(number):
            each.values = deployment_values({}, place) | each.values
    return page(
        "models_one.html",
        status=200 if form is None else form.status,
        model=name,
        settings=settings,
        is_known=answer.status == 200,
        etag=answer.etag,
        forms=shown,
        refused=form if form is not None and form["part"] not in shown else None,
        number=number,
        states=states,
        price=price,
        dollars=dollars,
        price_kinds=[(kind, PRICE_LABELS[kind]) for kind in PRICE_KINDS],
        operations=[(operation, operation) for operation in sorted(OPERATIONS)],
        headers=_headers(),
        health=health,
    )


def health(state: dict[str, Any] | None) -> tuple[str, str]:
    """Return in a word how a deployment is, and whether that is good, to be looked at, or bad."""
    if state is None:
        return "off", ""
    if state["problem"]:
        return "cannot be called", "bad"
    if state["rests_because"] == "limited":
        return "at its limit", "warn"
    if state["rests_because"] == "failed" or state["failures"] >= 3:
        return "fails", "bad"
    if state["quota_at"] is None and state["region"] is None:
        return "not asked yet", ""
    return "works", "good"


def price_words(prices: dict[str, Any] | None) -> str:
    """Return the most important prices: ``$0.15 in, $0.60 out``."""
    if not prices:
        return ""
    if "prompt" in prices:
        out = f", {dollars(prices['completion'])} out" if "completion" in prices else ""
        return f"{dollars(prices['prompt'])} in{out}"
    return ", ".join(
        f"{dollars(prices[kind])} · {PRICE_LABELS[kind].lower()}" for kind in PRICE_KINDS if kind in prices
    )


def dollars(price: float) -> str:
    """Return a price in cents where they are whole: ``$2.50``, ``$0.075``."""
    cents = round(price * 100, 6)
    return f"${price:,.2f}" if cents == int(cents) else f"${price:,.4g}"
