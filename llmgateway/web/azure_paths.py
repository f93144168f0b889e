"""The endpoints for users under the addresses of Azure OpenAI, for clients that are written for Azure.

Such clients name the deployment in the path, send an ``api-version``, and send the key as ``api-key``. The deployment
is the name of a model here. Any ``api-version`` is accepted; Azure gets the one in the settings. Streams have every
event as Azure sends it.
"""

from __future__ import annotations

from typing import Any

from ..proxy.dialect import Dialect
from . import examples, stored
from .blueprint import Blueprint
from .openai import MODEL_IN_PATH, complete_headers, model_list, model_of_key
from .relay import register
from .schemas.users import DeploymentListSchema, ModelListSchema, ModelSchema

blp = Blueprint(
    "azure",
    __name__,
    url_prefix="/openai",
    description=(
        "The same for clients that are written for Azure, such as `AzureOpenAI`: their `azure_endpoint` is this page's "
        "address without `/docs`, the key goes into `api-key`, and any `api-version` will do."
    ),
    key="userKey",
    refusals=("InvalidKey", "StoreUnavailable"),
)
blp.after_request(complete_headers)

_DEPLOYMENT_IN_PATH = {
    "in": "path",
    "name": "model",
    "description": "One of `GET /openai/deployments`.",
    "example": examples.MODEL,
}

register(
    blp,
    prefix="/deployments/<model>",
    suffix="_of_deployment",
    parameters=[_DEPLOYMENT_IN_PATH],
    dialect=Dialect.AZURE,
)
register(blp, prefix="/v1", suffix="_of_azure", dialect=Dialect.AZURE)
# Azure's clients leave the deployment out of the path where it is in the body (Microsoft, "Responses API", 2025).
register(
    blp,
    suffix="_of_azure_version",
    dialect=Dialect.AZURE,
    only=lambda operation: not operation.in_path,
)
stored.register(blp, suffix="_of_azure_version")
stored.register(blp, prefix="/v1", suffix="_of_azure")

_LIST = "List the models your key may use"
_LOOK_UP = "Look a model up"


@blp.route("/models", methods=["GET"])
@blp.operation(_LIST, description="As `GET /v1/models`.")
@blp.response(200, ModelListSchema, description="The models.", example=examples.MODELS)
def list_models_of_azure_version() -> dict[str, Any]:
    return model_list()


@blp.route("/v1/models", methods=["GET"])
@blp.operation(_LIST, description="As `GET /v1/models`.")
@blp.response(200, ModelListSchema, description="The models.", example=examples.MODELS)
def list_models_of_azure() -> dict[str, Any]:
    return model_list()


@blp.route("/models/<path:model>", methods=["GET"], parameters=[MODEL_IN_PATH])
@blp.operation(_LOOK_UP, "UnknownModel", description="To find out whether your key may use it.")
@blp.response(200, ModelSchema, description="Your key may use it.", example=examples.MODELS["data"][0])
def get_model_of_azure_version(model: str) -> dict[str, Any]:
    return model_of_key(model)


@blp.route("/v1/models/<path:model>", methods=["GET"], parameters=[MODEL_IN_PATH])
@blp.operation(_LOOK_UP, "UnknownModel", description="To find out whether your key may use it.")
@blp.response(200, ModelSchema, description="Your key may use it.", example=examples.MODELS["data"][0])
def get_model_of_azure(model: str) -> dict[str, Any]:
    return model_of_key(model)


@blp.route("/deployments", methods=["GET"])
@blp.operation(
    "List the models your key may use, as deployments",
    description="As Azure listed them until 2023. Some programs still ask.",
)
@blp.response(200, DeploymentListSchema, description="The models.", example=examples.DEPLOYMENTS)
def list_deployments() -> dict[str, Any]:
    names = [model["id"] for model in model_list()["data"]]
    return {"object": "list", "data": [{"id": name, "model": name, **_DEPLOYMENT} for name in names]}


_DEPLOYMENT = {
    "object": "deployment",
    "status": "succeeded",
    "owner": "organisation",
    "created_at": 0,
    "updated_at": 0,
    "scale_settings": {"scale_type": "standard"},
}
"""What Azure's list said about each deployment (openai-python#447, 2023)."""
