"""Asks Azure which deployments a resource has."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from typing import Any, NamedTuple

from ..azure.cancellation import CancellationToken
from ..azure.deployments import Target
from ..azure.endpoint import Endpoint, is_deployment_name
from ..errors import DeploymentsNotListed, GatewayError
from ..interfaces import Upstream
from ..usage.answers import parse_object
from ..usage.azure_errors import AzureError
from .advice import advise

API_VERSION = "2023-03-15-preview"
"""The only version that still lists deployments (langflow#14509, 2026-08). It may vanish."""

SECONDS = 10.0
_MOST_BYTES = 4 * 1024 * 1024
_MOST_DEPLOYMENTS = 1000
_RESOURCE = re.compile(r"/openai(/v1|/deployments/.*)?$")

_INSTEAD = (
    "Register them one by one: llmgateway models deploy NAME --name EAST --base-url URL --deployment NAME. The portal "
    "lists them under 'Deployments', and so does: az cognitiveservices account deployment list."
)


class ListedDeployment(NamedTuple):
    """A deployment in Azure's list."""

    name: str
    model: str
    """The name of its model; "" if Azure does not say."""
    ready: bool
    """Whether Azure has finished to create it."""


def list_deployments(upstream: Upstream, target: Target, *, request_id: str) -> list[ListedDeployment]:
    """Return the deployments of the resource of *target*. Takes :data:`SECONDS` at most, once it is connected.

    Raises:
        DeploymentsNotListed: Azure does not say. The message says what to do instead.
    """
    endpoint = _resource_of(target.endpoint)
    url = endpoint.url("", "deployments")
    token = CancellationToken()
    timer = threading.Timer(SECONDS, token.cut)
    timer.daemon = True
    timer.start()
    try:
        answer = upstream.fetch(
            "GET",
            "deployments",
            target=replace(target, endpoint=endpoint),
            request_id=request_id,
            cancellation=token,
        )
        try:
            body = b""
            while len(body) < _MOST_BYTES and (chunk := answer.read()):
                body += chunk
        finally:
            answer.close()
    except GatewayError as error:
        failure = upstream.explain(error, endpoint)
        raise DeploymentsNotListed(f"{failure.problem}. {failure.remedy}") from error
    finally:
        timer.cancel()
    document = parse_object(body) if answer.status == 200 else None
    items = None if document is None else document.get("data")
    if isinstance(items, list):
        found = (_listed(item) for item in items[:_MOST_DEPLOYMENTS] if isinstance(item, dict))
        return [each for each in found if each is not None]
    refusal = AzureError(answer.status, body)
    if answer.status in (401, 403):
        advice = advise(refusal, refusal.code, target=target, operation="deployments", url=url)
        if advice is not None:
            raise DeploymentsNotListed(f"{advice.problem}. {advice.remedy}")
    raise DeploymentsNotListed(f"This address does not list its deployments (status {answer.status}). {_INSTEAD}")


def list_quietly(upstream: Upstream, target: Target, *, request_id: str) -> list[ListedDeployment]:
    """As :func:`list_deployments`, but empty if Azure does not say."""
    try:
        return list_deployments(upstream, target, request_id=request_id)
    except DeploymentsNotListed:
        return []


def _resource_of(endpoint: Endpoint) -> Endpoint:
    """Return the address below which the list is: that of the resource, or of its API in API Management."""
    base = _RESOURCE.sub("", endpoint.base)
    return Endpoint(base=f"{base}/openai", query=f"?api-version={API_VERSION}", deployment=None)


def _listed(item: dict[str, Any]) -> ListedDeployment | None:
    name, model, status = item.get("id"), item.get("model"), item.get("status")
    if not isinstance(name, str) or not is_deployment_name(name):
        return None
    return ListedDeployment(name, model if isinstance(model, str) else "", status in (None, "succeeded"))
