"""Tries the deployments, and imports those that Azure lists."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from ...azure.credentials import Credential, StaticKey
from ...azure.deployments import Target
from ...azure.endpoint import Endpoint, is_deployment_name
from ...errors import DoctorBusy, UpstreamCredentials
from ...proxy.doctor import Examined
from ...proxy.listing import ListedDeployment, list_deployments
from ...proxy.operations.table import OPERATIONS
from ...records import UNKNOWN_QUOTA, Deployment, ModelSettings
from .. import examples
from ..context import request_id, services
from ..errors import invalid_fields
from ..schemas.doctor import DiagnosisSchema, DoctorSchema, ImportedSchema, ImportSchema
from .audit_helpers import write_down
from .blueprint import blp

_running = threading.Lock()

_SERVES = {
    "text-embedding": ("embeddings",),
    "whisper": ("audio/transcriptions", "audio/translations"),
    "gpt-image": ("images/generations", "images/edits"),
    "dall-e": ("images/generations",),
    "tts": ("audio/speech",),
}
"""What models can do that cannot chat, by the beginnings of their names."""


@blp.route("/doctor", methods=["POST"])
@blp.operation(
    "Try every deployment",
    "DoctorBusy",
    description="Each deployment and each endpoint that it serves, with calls that cost nothing or one token, at most "
    "10 seconds each. Says for each what to change. With `base_url`, an address and a key are tried as they are typed, "
    "and nothing is stored. Azure is asked by the process that answers.",
)
@blp.arguments(DoctorSchema, example={})
@blp.response(200, DiagnosisSchema, description="What came of it.", example=examples.DIAGNOSIS)
def examine_deployments(wanted: dict[str, Any]) -> dict[str, Any]:
    if not _running.acquire(blocking=False):
        raise DoctorBusy("The deployments are being tried at the moment. Ask again in a minute.")
    try:
        found = _examine(wanted)
    finally:
        _running.release()
    return diagnosis(found)


def _examine(wanted: Mapping[str, Any]) -> list[Examined]:
    model = wanted.get("model")
    if "base_url" not in wanted:
        return services().doctor.examine(model=model, request_id=request_id())
    endpoint = Endpoint.parse(wanted["base_url"], wanted.get("api_version"))
    name = model or endpoint.deployment
    if name is not None and not is_deployment_name(name):
        raise invalid_fields({"model": ["Must be the name of a deployment: letters, digits, '.', '-' and '_'."]})
    credential = _credential(wanted, endpoint)
    return services().doctor.examine_address(endpoint, credential, deployment=name, request_id=request_id())


def _credential(wanted: Mapping[str, Any], endpoint: Endpoint) -> Credential:
    """Return what to authenticate with at an address as it is typed. Raises InvalidFields if there is nothing."""
    routing, policy = services().gateway.routing, services().policy
    organisation = policy.stored()
    header = wanted.get("key_header") or routing.default(organisation).key_header
    if "key" in wanted:
        return StaticKey(header, wanted["key"])
    if not routing.may_share_key(endpoint, organisation):
        # No admin can read that key, and so none may send it to a server of theirs.
        raise invalid_fields({"key": ["Give the key of this resource: the one in force is not sent to other hosts."]})
    if routing.identity is not None:
        return routing.identity
    try:
        return StaticKey(header, policy.credential(organisation))
    except UpstreamCredentials:
        raise invalid_fields({"key": ["Give the key of this resource: no usable one is stored."]}) from None


def diagnosis(found: list[Examined]) -> dict[str, Any]:
    """Return what was found as JSON. ``ok`` is false if anything fails, and if there is nothing to be tried."""
    return {"ok": bool(found) and all(each.ok for each in found), "items": [_shown(each) for each in found]}


def _shown(examined: Examined) -> dict[str, Any]:
    quota = None if examined.quota == UNKNOWN_QUOTA else examined.quota._asdict()
    return asdict(examined) | {"quota": quota}


@blp.route("/models/import", methods=["POST"])
@blp.operation(
    "Register the deployments that Azure lists",
    "DeploymentsNotListed",
    description="Asks a resource for its deployments, and registers each as a model of its name. A model that has "
    "deployments already is left alone, unless `add` is true: then it gets this one beside them, if it has none of "
    "this name and none at this place.",
)
@blp.arguments(ImportSchema, template=examples.IMPORT_REQUEST)
@blp.response(200, ImportedSchema, description="What was done, or with `dry_run` would be.", example=examples.IMPORTED)
def import_models(wanted: dict[str, Any]) -> dict[str, Any]:
    endpoint = Endpoint.parse(wanted["base_url"], wanted.get("api_version"))
    listed = list_deployments(services().upstream, _resource(wanted, endpoint), request_id=request_id())
    models = services().policy.stored().models
    name = wanted.get("name") or _name_of(endpoint)
    items = []
    for each in sorted(listed):
        before = models.get(each.name, ModelSettings())
        action = _action(each, before, name, endpoint, add=wanted["add"])
        if action in ("register", "add") and not wanted["dry_run"]:
            _register(each, before, name, wanted)
        items.append({"model": each.name, "name": name, "azure_model": each.model or None, "action": action})
    return {"dry_run": wanted["dry_run"], "items": items}


def _action(each: ListedDeployment, before: ModelSettings, name: str, endpoint: Endpoint, *, add: bool) -> str:
    present = before.deployments or ()
    if not each.ready:
        return "not_ready"
    if not present:
        return "register"
    here = any(
        one.name.lower() == name.lower()
        or (one.deployment == each.name and Endpoint.parse(one.base_url, one.api_version).base == endpoint.base)
        for one in present
    )
    return "exists" if here or not add else "add"


def _register(each: ListedDeployment, before: ModelSettings, name: str, wanted: Mapping[str, Any]) -> None:
    policy = services().policy
    key = wanted.get("key")
    fields = {
        field: wanted[field] for field in ("base_url", "api_version", "identity", "key_header") if field in wanted
    }
    made = Deployment(
        name=name,
        deployment=each.name,
        priority=1 + max((one.priority for one in before.deployments or ()), default=0),
        key=None if key is None else policy.encrypt(key),
        **fields,
    )
    parts: dict[str, Any] = {"deployments": (*(before.deployments or ()), made)}
    serves = next((names for start, names in _SERVES.items() if each.model.lower().startswith(start)), None)
    if serves is not None and before.endpoints is None:
        parts["endpoints"] = tuple(operation for operation in serves if operation in OPERATIONS)
    after = policy.set_model(each.name, parts)
    write_down("model.set", each.name, before=_named(before), after=_named(after))


def _named(settings: ModelSettings) -> dict[str, Any] | None:
    """Return *settings* for the audit, without keys."""
    shown = settings.as_json()
    for deployment in shown.get("deployments", ()):
        deployment["has_key"] = deployment.pop("key", None) is not None
    return shown or None


def _resource(wanted: Mapping[str, Any], endpoint: Endpoint) -> Target:
    """Return the resource to ask. Raises InvalidFields if there is nothing to authenticate with."""
    if wanted["identity"]:
        raise invalid_fields({"identity": ["The list of deployments needs a key: Azure refuses tokens there."]})
    policy, routing = services().policy, services().gateway.routing
    organisation = policy.stored()
    default = routing.default(organisation).endpoint
    same = default is not None and urlsplit(default.base).netloc == urlsplit(endpoint.base).netloc
    if "key" not in wanted and not (same and routing.may_share_key(endpoint, organisation)):
        # No admin can read that key, and so none may send it to a server of theirs.
        raise invalid_fields({"key": ["Give the key of this resource: that of LLM_BASE_URL goes to its host only."]})
    key = wanted.get("key") or policy.credential(organisation)
    credential = StaticKey(wanted.get("key_header") or routing.default(organisation).key_header, key)
    return Target(name="import", endpoint=endpoint, deployment="", credential=credential)


def _name_of(endpoint: Endpoint) -> str:
    """Return the name of the resource, which its host begins with."""
    host = urlsplit(endpoint.base).hostname or ""
    return host if host.replace(".", "").isdigit() else host.partition(".")[0] or "azure"
