"""Says what an answer of Azure to a trial call means for an admin, and what to change."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urlsplit

from ..azure.credentials import StaticKey
from ..azure.deployments import Target
from ..usage.azure_errors import AzureError
from ..usage.error_codes import REMEDIES

_API_VERSION = re.compile(r"api[-_ ]version", re.IGNORECASE)
_NO_DEPLOYMENT = {"deploymentnotfound", "modelnotfound"}
_WRONG_OPERATION = "operationnotsupported"
_UNDERSTOOD = (400, 413, 415, 422)
"""Statuses of answers to bodies that are wrong on purpose: address, key and deployment are right."""


class Advice(NamedTuple):
    """What is wrong, and what to change."""

    problem: str
    remedy: str


def advise(error: AzureError, code: str, *, target: Target, operation: str, url: str) -> Advice | None:
    """Return what is wrong with *target*; None if nothing is.

    Args:
        code: That of *error*; of a 429 the kind of limit.
    """
    status = error.status
    host = urlsplit(url).hostname or ""
    if 300 <= status < 400:
        return Advice(
            f"Azure points to another address ({status})",
            "Set the address to the one that the portal shows under 'Keys and Endpoint'. No redirect is followed, "
            "because the key must not go to another host.",
        )
    if error.body.lstrip()[:1] == b"<" and status not in (502, 503, 504):
        return Advice(
            f"A page answers at {host}, and not an API ({status})",
            "A portal, a sign-in page or a proxy answers. Write https://NAME.openai.azure.com/openai/v1 with the name "
            "of the resource, and check HTTPS_PROXY and NO_PROXY.",
        )
    if status in (401, 403) and error.code == "PermissionDenied":
        return _lacks_right(status)
    if status == 401:
        return _refused_key(error, target, host)
    if status == 403:
        return _forbidden(error, target, host)
    if status == 404:
        return _not_found(code, target, host, url)
    if status == 429:
        return Advice(f"The deployment is at a limit ({code})", REMEDIES.get(code, "Try again in a minute."))
    if status == 408 or status >= 500:
        return Advice(f"Azure is not well ({status})", "Try again. https://azure.status.microsoft says what is known.")
    if status < 300 or status == 405:
        return None
    return _refused_body(error, code, target, operation)


def is_wrong_operation(code: str) -> bool:
    """Return whether a deployment says that its model does something else than it was asked for."""
    return _plain(code) == _WRONG_OPERATION


def is_missing_deployment(status: int, code: str) -> bool:
    """Return whether Azure has no deployment of this name."""
    return status in (400, 404) and _plain(code) in _NO_DEPLOYMENT


def _refused_key(error: AzureError, target: Target, host: str) -> Advice:
    text = error.message.lower()
    if not isinstance(target.credential, StaticKey):
        return Advice(
            "Azure refuses the token of the identity (401)",
            "Give the identity the role 'Cognitive Services OpenAI User' on this resource, and check that the token is "
            "for this cloud.",
        )
    if "missing subscription key" in text:
        return Advice(
            "Azure sees no key (401)",
            f"The key is sent as {target.credential.header()[0]}. API Management wants Ocp-Apim-Subscription-Key, or "
            "what is set there: change key_header of the deployment, or LLM_KEY_HEADER.",
        )
    return Advice(
        f"{host} refuses the key (401)",
        "Use a key of this very resource, from 'Keys and Endpoint' in the portal: keys of other resources, regions and "
        "clouds are refused, and so is one that was renewed. API Management wants a key of its own, in the header "
        "Ocp-Apim-Subscription-Key.",
    )


def _forbidden(error: AzureError, target: Target, host: str) -> Advice:
    text = error.message.lower()
    if "blocked" in text:
        return Advice(f"Azure has blocked the resource {host} (403)", "Ask Microsoft's support.")
    if not isinstance(target.credential, StaticKey) or "principal" in text:
        return _lacks_right(error.status)
    return Advice(
        f"The network rules of {host} do not admit this gateway (403)",
        "In the portal, under 'Networking', admit the address of this host, or go through a private endpoint.",
    )


def _lacks_right(status: int) -> Advice:
    return Advice(
        f"The identity lacks the right for this call ({status})",
        "Give it the role 'Cognitive Services OpenAI User' on this resource; that takes some minutes.",
    )


def _not_found(code: str, target: Target, host: str, url: str) -> Advice:
    if is_missing_deployment(404, code):
        return Advice(
            f"There is no deployment {target.deployment!r} at {host} (404)",
            "Write the name of the deployment, which need not be that of its model: the portal lists both under "
            "'Deployments'. A new deployment takes some minutes.",
        )
    query, path = urlsplit(url).query, urlsplit(url).path
    if "/deployments/" in path and "api-version=" not in query:
        return Advice(
            f"{host} has nothing at this address (404)",
            "The api-version is missing: set api_version of the deployment, or LLM_API_VERSION, such as 2024-10-21.",
        )
    if "api-version=" in query:
        return Advice(
            f"{host} has nothing at this address (404)",
            "It may not know this api-version, or not serve this endpoint with it: use 2024-10-21 or a newer one, or "
            "the address https://NAME.openai.azure.com/openai/v1, which needs none.",
        )
    return Advice(
        f"{host} has nothing at this address (404)",
        "Write https://NAME.openai.azure.com/openai/v1 with the name of the resource; for API Management the whole "
        "path of the API.",
    )


def _refused_body(error: AzureError, code: str, target: Target, operation: str) -> Advice | None:
    if is_wrong_operation(code):
        return Advice(
            f"The deployment {target.deployment!r} does not serve /v1/{operation} ({error.status})",
            "Set the endpoints of the model to what it can do, with PUT /admin/models/{name}.",
        )
    if is_missing_deployment(error.status, code):
        return _not_found(code, target, urlsplit(target.endpoint.base).hostname or "", "")
    if _API_VERSION.search(error.message):
        return Advice(
            f"Azure does not accept the api-version ({error.status})",
            "Set api_version of the deployment, or LLM_API_VERSION, to 2024-10-21 or a newer one.",
        )
    if error.status in _UNDERSTOOD:
        return None
    return Advice(f"Azure refuses the call ({error.status} {code})", "Compare the address with the one in the portal.")


def _plain(code: str) -> str:
    return code.lower().replace("_", "").replace("-", "").replace(" ", "")
