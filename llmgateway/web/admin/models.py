"""The settings of models: their prices for this organisation, and what the gateway assumes about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...azure.endpoint import Endpoint
from ...errors import NotFound
from ...proxy.registry import is_named
from ...proxy.routing import LONGEST_MODEL_NAME
from ...records import Deployment, ModelSettings, Prices
from .. import examples
from ..context import services
from ..errors import invalid_fields
from ..schemas.organisation import ModelSettingsListSchema, ModelSettingsSchema, NamedModelSettingsSchema
from . import etags
from .audit_helpers import Replaced, write_down
from .blueprint import blp
from .names import check_name

_MODEL_IN_PATH = {
    "in": "path",
    "name": "name",
    "description": "A model as clients ask for it or as answers name it, or a deployment.",
    "example": examples.NO_MODEL,
}

_READ_ONLY = "Is only shown, and is not so: send 'key' to store a key, or 'identity': true to remove it."


@blp.route("/models", methods=["GET"])
@blp.operation(
    "List the models with settings of your own", description="Every other model costs its list price, if that is known."
)
@blp.response(
    200, ModelSettingsListSchema, description="By name.", example={"items": [examples.MODEL_SETTINGS], "next": None}
)
def list_model_settings() -> dict[str, Any]:
    models = services().policy.stored().models
    return {"items": [_named(name, models[name]) for name in sorted(models)], "next": None}


@blp.route("/models/<path:name>", methods=["GET"], parameters=[_MODEL_IN_PATH])
@blp.operation(
    "Look a model's own settings up", "ModelWithoutPrices", description="Without prices, its list price holds."
)
@blp.response(200, NamedModelSettingsSchema, description="What was set.", example=examples.MODEL_SETTINGS)
def get_model_settings(name: str) -> dict[str, Any]:
    shown = _named(name, _settings_of(name))
    etags.show(shown)
    return shown


@blp.route("/models/<path:name>", methods=["PUT"], parameters=[_MODEL_IN_PATH])
@blp.operation(
    "Set a model's prices and limits",
    description="For requests from now on; records stay as they are. What the body names is replaced as a whole, "
    "`null` removes it, and the rest stays. The name may be a model's or a deployment's. Upper and lower case make no "
    "difference.",
)
@blp.arguments(ModelSettingsSchema, template=examples.MODEL_REQUEST)
@blp.response(200, NamedModelSettingsSchema, description="In force.", example=examples.MODEL_SETTINGS)
def set_model_settings(parts: dict[str, Any], name: str) -> dict[str, Any]:
    policy = services().policy
    if parts.pop("name", name) != name:
        raise invalid_fields({"name": ["Must be the name in the address: a model cannot be renamed."]})
    if parts.get("prices") is not None:
        parts["prices"] = Prices.from_json(parts["prices"])
    before = policy.stored().models.get(name)
    if before is None:
        check_name(name)
        before = ModelSettings()
    if "deployments" in parts:
        parts["deployments"] = _deployments(parts["deployments"], before)
    if parts.get("endpoints") is not None:
        parts["endpoints"] = tuple(parts["endpoints"])
    if parts.get("aliases") is not None:
        parts["aliases"] = tuple(parts["aliases"])

    def check(models: Mapping[str, ModelSettings]) -> None:
        _check_tag(name, models)
        _check_names(name, parts, models)

    replaced = Replaced(check)
    after = policy.set_model(name, parts, check=replaced)
    before = replaced.state.get(name, ModelSettings())
    action = "prices.set" if "prices" in parts else "model.set"
    write_down(action, name, before=_shown(before) or None, after=_shown(after) or None)
    shown = _named(name, after)
    if after.as_json():
        etags.show(shown)
    return shown


@blp.route("/models/<path:name>", methods=["DELETE"], parameters=[_MODEL_IN_PATH])
@blp.operation(
    "Forget a model's own settings",
    "ModelWithoutPrices",
    description="Its list price holds for requests from now on; records stay as they are.",
)
@blp.response(204, description="It costs its list price from now on.")
def delete_model_settings(name: str) -> None:
    before = _settings_of(name)
    replaced = Replaced[Mapping[str, ModelSettings]](lambda models: _check_tag(name, models))
    services().policy.set_model(name, None, check=replaced)
    before = replaced.state.get(name, before)
    write_down("model.remove" if before.prices is None else "prices.remove", name, before=_shown(before))


def _deployments(sent: list[dict[str, Any]] | None, before: ModelSettings) -> tuple[Deployment, ...] | None:
    """Return the deployments to store: their keys encrypted, and stored keys kept where none is sent."""
    if not sent:
        return None
    stored = {each.name: each for each in before.deployments or ()}
    made = []
    for index, fields in enumerate(sent):
        key, shown_key = fields.pop("key", None), fields.pop("has_key", None)
        old = stored.get(fields["name"])
        has_key = old is not None and old.key is not None
        if shown_key not in (None, has_key, has_key or key is not None):
            raise invalid_fields({"deployments": {str(index): {"has_key": [_READ_ONLY]}}})
        encrypted = None if key is None else services().policy.encrypt(key)
        endpoint = Endpoint.parse(fields["base_url"], fields.get("api_version"))
        if encrypted is None and old is not None and not fields["identity"]:
            # A key must not go to another resource than the one it was given for.
            keeps = Endpoint.parse(old.base_url, old.api_version).origin == endpoint.origin
            encrypted = old.key if keeps else None
        if encrypted is None and not services().gateway.routing.may_share_key(endpoint, services().policy.stored()):
            raise invalid_fields({"deployments": {str(index): _no_key(identity=fields["identity"])}})
        made.append(Deployment(**fields, key=encrypted))
    return tuple(made)


def _no_key(*, identity: bool) -> dict[str, list[str]]:
    """Return the problem of a deployment to whose host neither the gateway's key nor its token may be sent."""
    if identity:
        message = "Give a key: a token opens all that the identity may use, so it is sent to Azure's hosts and to the "
        return {"identity": [message + "host of LLM_BASE_URL only."]}
    return {"key": ["Give its key: the key of LLM_BASE_URL is not sent to other hosts, and a stored one stays there."]}


def _check_new(name: str, models: Mapping[str, ModelSettings]) -> None:
    """Raise InvalidFields if no request could name a new model, or if another spelling of it is there."""
    if len(name) > LONGEST_MODEL_NAME:
        raise invalid_fields(
            {"name": [f"Longer than {LONGEST_MODEL_NAME} characters, so that no request may name it."]}
        )
    if "*" in name:
        raise invalid_fields({"name": ["It contains *, which stands for any text in aliases only: name one model."]})
    if {".", ".."} & {*name.split("/")}:
        message = "It has the part . or .., which clients take out of the path: nobody could look it up."
        raise invalid_fields({"name": [message]})
    same = [other for other in models if other.lower() == name.lower()]
    if same:
        message = f"The model {same[0]!r} is there already, and case makes no difference: use this spelling."
        raise invalid_fields({"name": [message]})


def _check_names(name: str, parts: Mapping[str, Any], models: Mapping[str, ModelSettings]) -> None:
    """Raise InvalidFields if a name would mean two models.

    So an alias always leads to a model, and never to another alias: there are no loops.
    """
    if name not in models:
        _check_new(name, models)
    others = {other: each for other, each in models.items() if other != name and is_named(each)}
    names = {other.lower(): other for other in others}
    aliases = {alias.lower(): other for other, each in others.items() for alias in each.aliases or ()}
    for alias in (each.lower() for each in parts.get("aliases") or ()):
        if alias == name.lower():
            raise invalid_fields({"aliases": [f"{alias!r} is the name of the model itself: leave it out."]})
        if alias in names:
            raise invalid_fields({"aliases": [f"{alias!r} is the name of another model: remove that one first."]})
        if alias in aliases:
            raise invalid_fields({"aliases": [f"{alias!r} is an alias of {aliases[alias]!r}: remove it there first."]})
    if is_named(ModelSettings(**{part: parts.get(part) for part in ("deployments", "endpoints", "aliases")})):
        if name.lower() in names:
            message = f"The model {names[name.lower()]!r} is there already, and case makes no difference."
            raise invalid_fields({"name": [message]})
        if name.lower() in aliases:
            message = f"This name is an alias of {aliases[name.lower()]!r}: remove it there first."
            raise invalid_fields({"name": [message]})


def _check_tag(name: str, models: Mapping[str, ModelSettings]) -> None:
    """Check that the settings to change are as the client knows them."""
    before = models.get(name)
    etags.check(lambda found: None if found is None else _named(name, found), before)


def _settings_of(name: str) -> ModelSettings:
    settings = services().policy.stored().models.get(name)
    if settings is None:
        raise NotFound("This model has no settings of your own. GET /admin/models lists those that have.", param="name")
    return settings


def _named(name: str, settings: ModelSettings) -> dict[str, Any]:
    return {"name": name, **_shown(settings)}


def _shown(settings: ModelSettings) -> dict[str, Any]:
    """Return *settings* without the keys of deployments, encrypted as they are."""
    shown = settings.as_json()
    for deployment in shown.get("deployments", ()):
        deployment["has_key"] = deployment.pop("key", None) is not None
    return shown
