"""Tries Azure's key with a call that costs nothing, so that an admin hears at once whether it is right."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass

from ..azure.cancellation import CancellationToken
from ..azure.deployments import Target
from ..errors import GatewayError, UpstreamUnreachable
from ..interfaces import Answer, Upstream
from ..usage.answers import parse_object

SECONDS = 5.0
"""How long an admin waits for the trial."""

REFUSALS = (401, 403)

_UNREACHABLE = (
    "The key could not be tried, because Azure cannot be reached. The log of the gateway says why: check LLM_BASE_URL, "
    "the network and HTTPS_PROXY."
)
_CODE = re.compile(r"[A-Za-z0-9_. -]{1,60}\Z")
_MOST_BYTES = 64 * 1024
_NO_DEPLOYMENT = {"deploymentnotfound", "modelnotfound"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialTrial:
    """What Azure answered."""

    status: int | None
    """Its status; None if there was no answer."""
    message: str
    """What that means for the key. It quotes nothing of the answer but its code: some services repeat the key."""


def try_credential(upstream: Upstream, target: Target, *, request_id: str, seconds: float = SECONDS) -> CredentialTrial:
    """Send a chat completion without messages, and return what the answer says about the credential of
    *target*.

    The call has the same address and header as those of users, so it also works where a list of models is not served,
    as in API Management. Azure checks the key first, and then refuses the body with 400, which it does not bill.

    Args:
        target: The deployment to be asked. It need not exist.
    """
    body = json.dumps({"model": target.deployment, "messages": [], "max_tokens": 1}).encode()
    token = CancellationToken()
    result: list[CredentialTrial] = []

    def send() -> None:
        try:
            answer = upstream.send(
                body, target=target, operation="chat/completions", request_id=request_id, cancellation=token
            )
            try:
                code = _code(answer)
            finally:
                answer.close()
        except UpstreamUnreachable:
            result.append(CredentialTrial(status=None, message=_UNREACHABLE))
        except GatewayError as error:
            result.append(CredentialTrial(status=None, message=f"The key could not be tried. {error.message}"))
        else:
            result.append(CredentialTrial(status=answer.status, message=_meaning(answer.status, code)))

    # A thread of its own, because neither the look-up of a name nor a connection attempt can be cancelled.
    thread = threading.Thread(target=send, name="credential-trial", daemon=True)
    thread.start()
    thread.join(seconds)
    if not result:
        token.cut()
        return CredentialTrial(
            status=None, message=f"The key could not be tried: there was no answer from Azure within {seconds:g} s."
        )
    return result[0]


def _code(answer: Answer) -> str | None:
    body = b""
    while len(body) < _MOST_BYTES and (chunk := answer.read()):
        body += chunk
    error = (parse_object(body) or {}).get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) and _CODE.match(code) else None


def _meaning(status: int, code: str | None) -> str:
    told = f"{status} {code}" if code and code != str(status) else str(status)
    if status == 401:
        return (
            f"Azure refuses the key ({told}): users get 502 upstream_credentials. Check that it is a key of the "
            "resource in LLM_BASE_URL, and that LLM_KEY_HEADER names the header for it."
        )
    if status == 403:
        return (
            f"Azure refuses the call ({told}): users get 502 upstream_credentials. Check the rights of the key, and "
            "whether the network rules of the resource admit this host."
        )
    if status == 404 and (code or "").lower().replace("_", "") not in _NO_DEPLOYMENT:
        return f"Azure has nothing at this address ({told}), so this says nothing about the key. Check LLM_BASE_URL."
    if 300 <= status < 400:
        return f"Azure points to another address ({told}), so this says nothing about the key. Check LLM_BASE_URL."
    if status >= 500 or status == 408:
        return f"Azure failed ({told}), so this says nothing about the key. Try again in a moment."
    return "Azure accepts the key."
