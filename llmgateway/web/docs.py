"""``/docs`` and ``/openapi.json``: the documentation of all endpoints."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flask_smorest
import flask_swagger_ui
from apispec import APISpec
from flask import (
    Blueprint,
    Flask,
    Response,
    current_app,
    g,
    redirect,
    render_template,
    request,
    send_from_directory,
    url_for,
)
from marshmallow.fields import Field
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.wrappers import Response as BaseResponse

from .. import __version__
from .addresses import HOME
from .context import services
from .error_docs import REFUSALS
from .errors import ErrorSchema, http_error

API = "llmgateway.api"

_ASSETS = Path(flask_swagger_ui.__file__).parent / "dist"

_DESCRIPTION = """\
One Azure OpenAI subscription for many people.

**Users**: any OpenAI client works with `base_url` set to this page's address, `/v1` in place of `/docs`, and your key
as `api_key`. To try it here, press **Authorize** and enter the key as `userKey`.

**Admins**: press **Authorize** and enter the admin key as `adminKey`. Then open a line below, press **Try it out** and
**Execute**. A new gateway needs two things: Azure's key (*Store Azure's key*) and a key for somebody (*Create a key*).

Every error is OpenAI's error object, and its `message` says what to do. If you have to ask the admin of this gateway,
send them the `x-request-id` of the answer.
"""

_CONFIG: dict[str, Any] = {
    "API_TITLE": "LLMGateway",
    "API_VERSION": __version__,
    "OPENAPI_VERSION": "3.0.3",
    "API_SPEC_OPTIONS": {
        "info": {"description": _DESCRIPTION},
        "components": {
            "securitySchemes": {
                "userKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "For users: the key you were given, without `Bearer`.",
                },
                "adminKey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "AdminKey",
                    "description": "For admins: the `ADMIN_KEY` that this gateway was started with.",
                },
            }
        },
    },
}

# Users type keys into the page. So it loads only files of the gateway, runs only its own script, and cannot be put into
# a frame. Swagger UI sets style attributes, and has its icons in data: URLs.
_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; style-src-attr 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

blp = Blueprint("docs", __name__, template_folder="templates")


@blp.get(HOME)
def home() -> BaseResponse:
    """Lead browsers to the dashboard. Programs have a wrong ``base_url`` if they come here."""
    if "text/html" in request.headers.get("Accept", ""):
        return redirect(url_for("dashboard.overview"))
    raise NotFound


@blp.get("/docs")
def page() -> str:
    g.nonce = secrets.token_urlsafe(16)
    # All links are relative: only the proxy in front knows the whole path.
    return render_template("docs.html", nonce=g.nonce, root="../" * (request.path.count("/") - 1))


@blp.get("/docs/assets/<path:name>")
def asset(name: str) -> Response:
    """Serve the files of Swagger UI, so that the page works without internet access."""
    return send_from_directory(_ASSETS, name, max_age=86_400)


@blp.get("/openapi.json")
def specification() -> Response:
    models = services().settings.models
    document = current_app.extensions[API].document(models[0] if models else None)
    return Response(document, mimetype="application/json")


@blp.after_request
def _protect(response: Response) -> Response:
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["Referrer-Policy"] = "no-referrer"
    if "nonce" in g:
        response.headers["Content-Security-Policy"] = _POLICY.format(nonce=g.nonce)
    return response


class Api(flask_smorest.Api):  # type: ignore[misc]
    """flask-smorest's API with the gateway's errors."""

    ERROR_SCHEMA = ErrorSchema
    DEFAULT_ERROR_RESPONSE_NAME = None

    def handle_http_exception(self, error: HTTPException) -> BaseResponse:
        return http_error(error)


class Documentation:
    """The description of all endpoints. Thread-safe.

    It is written when somebody asks for it, once: that takes longer than all else that a start does, and most processes
    are never asked.
    """

    def __init__(self, blueprints: Sequence[flask_smorest.Blueprint]) -> None:
        self._blueprints = blueprints
        self._lock = threading.Lock()
        self._written: tuple[str | None, str] | None = None

    def document(self, model: str | None) -> str:
        """Return the description, whose examples name *model* if there is one."""
        with self._lock:
            if self._written is None or self._written[0] != model:
                document = self._specification().to_dict()
                # Relative to the address of this document, because only the proxy in front knows the whole path
                # (OpenAPI 3.0.3, "Server Object").
                document["servers"] = [{"url": ".", "description": "This gateway"}]
                if model is not None:
                    _show_model(document, model)
                self._written = model, current_app.json.dumps(document)
            return self._written[1]

    def _specification(self) -> APISpec:
        # flask-smorest describes what is registered, at once. So the blueprints are registered on another application,
        # which serves nobody.
        app = Flask("llmgateway", static_folder=None)
        app.config.update(_CONFIG)
        api = Api(app)
        specification: APISpec = api.spec
        specification.components.schemas.pop("PaginationMetadata", None)  # a default schema of flask-smorest; not used
        api.ma_plugin.converter.add_parameter_attribute_function(_choices)
        for name, refusal in REFUSALS.items():
            specification.components.response(name, refusal.as_component())
        for blueprint in self._blueprints:
            api.register_blueprint(blueprint)
        return specification


def register(app: Flask, blueprints: Sequence[flask_smorest.Blueprint]) -> None:
    """Serve *blueprints*, and their documentation."""
    app.config.update(_CONFIG)
    Api(app)
    app.register_blueprint(blp)
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    app.extensions[API] = Documentation(blueprints)


def _choices(_converter: object, field: Field[Any], **_: Any) -> dict[str, Any]:
    """Return the examples of a query field. Swagger UI fills in the first one, so that one should have no effect."""
    choices: dict[str, Any] = field.metadata.get("choices", {})
    return {"examples": {name: {"value": value} for name, value in choices.items()}} if choices else {}


def _show_model(document: dict[str, Any], model: str) -> None:
    """Name a model that this gateway offers in the examples, so that the first try succeeds."""
    chat = document["paths"]["/v1/chat/completions"]["post"]
    for example in chat["requestBody"]["content"]["application/json"]["examples"].values():
        example["value"] = {**example["value"], "model": model}
