"""``/docs`` and ``/openapi.json``: what there is to call, to read and to try out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flask_smorest
import flask_swagger_ui
from flask import Blueprint, Flask, Response, send_from_directory
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from .. import __version__
from .errors import ErrorSchema, http_error

_ASSETS = Path(flask_swagger_ui.__file__).parent / "dist"

_CONFIG: dict[str, Any] = {
    "API_TITLE": "LLMGateway",
    "API_VERSION": __version__,
    "OPENAPI_VERSION": "3.0.3",
    "OPENAPI_URL_PREFIX": "/",
    "OPENAPI_JSON_PATH": "openapi.json",
    "OPENAPI_SWAGGER_UI_PATH": "docs",
    "OPENAPI_SWAGGER_UI_URL": "/docs/assets/",
    "OPENAPI_SWAGGER_UI_CONFIG": {"displayRequestDuration": True, "tryItOutEnabled": True},
    "API_SPEC_OPTIONS": {
        "info": {
            "description": (
                "One Azure OpenAI subscription for many people. Press **Authorize**: users enter the key they were "
                "given as `userKey`, admins enter the admin key as `adminKey`. Every error is OpenAI's error object."
            )
        },
        "components": {
            "securitySchemes": {
                "userKey": {"type": "http", "scheme": "bearer", "description": "The key you were given."},
                "adminKey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "AdminKey",
                    "description": "The gateway's ADMIN_KEY.",
                },
            }
        },
    },
}

blp = Blueprint("docs", __name__)


@blp.get("/docs/assets/<path:name>")
def asset(name: str) -> Response:
    """Swagger UI's own files, so that the page works without internet."""
    return send_from_directory(_ASSETS, name, max_age=86_400)


class Api(flask_smorest.Api):  # type: ignore[misc]
    """flask-smorest's documentation with our errors."""

    ERROR_SCHEMA = ErrorSchema

    def handle_http_exception(self, error: HTTPException) -> BaseResponse:
        return http_error(error)


def create_api(app: Flask) -> Api:
    """Document what is registered on the returned object, and serve the documentation."""
    app.config.update(_CONFIG)
    app.register_blueprint(blp)
    return Api(app)
