"""Entra ID and the endpoints of managed identities, which issue the tokens that simulated resources accept.

=====================================================================  ============================================
``POST /{tenant}/oauth2/v2.0/token``                                   client secrets, and federated assertions
``GET /{tenant}/v2.0/.well-known/openid-configuration``                asked by MSAL before
``GET /metadata/identity/oauth2/token?api-version=2018-02-01``         virtual machines (IMDS), ``Metadata: true``
``GET /msi/token?api-version=2019-08-01``                              ``IDENTITY_ENDPOINT``, ``X-IDENTITY-HEADER``
``GET /msi/token?api-version=2017-09-01``, ``POST /msi/token``         ``MSI_ENDPOINT``, with ``secret`` and without
=====================================================================  ============================================

What azure-identity 1.27 sends was seen; the answers follow Microsoft's pages on the client credentials flow and on
managed identities (2026). Tokens look like those of Entra but are signed with a secret of the directory.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any
from urllib.parse import parse_qs

import orjson

from . import faults
from .faults import Fault, Occasion
from .messages import Reply, Request
from .operations import Refused
from .scripts import Script, ScriptQueue
from .served import History, Served

TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT_ID = "66666666-7777-8888-9999-000000000000"
CLIENT_SECRET = "simulated-client-secret"  # noqa: S105
IDENTITY_HEADER = "simulated-identity-header"
AUDIENCES = ("https://cognitiveservices.azure.com", "https://ai.azure.com")

_TOKEN = re.compile(r"/([^/]+)/oauth2/v2\.0/token")
_CONFIGURATION = re.compile(r"/([^/]+)/v2\.0/\.well-known/openid-configuration")
_DISCOVERY = "/common/discovery/instance"
_IMDS = "/metadata/identity/oauth2/token"
_MSI = "/msi/token"
_HEADERS = {"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store, no-cache"}


class Standing(Enum):
    """What a directory says of a token."""

    VALID = "valid"
    ENDED = "ended"
    FORBIDDEN = "forbidden"
    """The principal has no role on the resource."""
    UNKNOWN = "unknown"
    """Another directory's, or for something else than Azure OpenAI, or none at all."""


class Directory:
    """A tenant of Entra ID, with one application and one managed identity. Any thread may use it.

    Args:
        lifetime: Seconds that a token is valid, can be set at any time; Entra's own is about an hour, a managed
            identity's about a day.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        *,
        tenant: str = TENANT,
        clients: Mapping[str, str] | None = None,
        identity_header: str = IDENTITY_HEADER,
        lifetime: float = 3599,
        clock: Callable[[], float] = time.time,
        remember: int = 10_000,
    ) -> None:
        self.lifetime = lifetime
        self.allowed = True
        """Whether the principal has the role ``Cognitive Services OpenAI User``."""
        self._tenant = tenant
        self._clients = {CLIENT_ID: CLIENT_SECRET} if clients is None else dict(clients)
        self._header = identity_header
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._history = History(remember=remember)
        self._scripts = ScriptQueue()

    def script(self, script: Script, *, times: int | None = 1) -> None:
        """Use *script* for the next *times* requests for tokens; ``None`` means all until a reset."""
        self._scripts.add(script, times=times)

    @property
    def scripts(self) -> ScriptQueue:
        return self._scripts

    @property
    def history(self) -> History:
        return self._history

    @property
    def served(self) -> list[Served]:
        """The requests for tokens, in the order of their arrival."""
        return self._history.entries()

    def reset(self) -> None:
        """Forget scripts and what was served. Tokens stay valid."""
        self._scripts.clear()
        self._history.clear()

    def is_asked(self, request: Request) -> bool:
        """Whether the request is for this directory and not for a resource."""
        path = request.path
        return path in (_IMDS, _MSI, _DISCOVERY) or bool(_TOKEN.fullmatch(path) or _CONFIGURATION.fullmatch(path))

    def answer(self, request: Request, script: Script) -> Reply:
        """Return Entra's answer to *request*, or the answer that *script* demands."""
        if script.raw is not None:
            return Reply(status=script.raw.status, headers=script.raw.headers, parts=[script.raw.body])
        try:
            if script.fault is not None:
                raise Refused(faults.FAULTS[script.fault](Occasion(retry_after=script.retry_after)))
            document = self._serve(request)
        except Refused as refused:
            fault = refused.fault
            return Reply(status=fault.status, headers={**_HEADERS, **fault.headers}, parts=[fault.body])
        return Reply(status=200, headers=_HEADERS, parts=[orjson.dumps(document)])

    def token(self, resource: str = AUDIENCES[0], *, client_id: str = CLIENT_ID, lifetime: float | None = None) -> str:
        """Return a new token for *resource*."""
        now = self._clock()
        claims = {
            "aud": resource,
            "iss": f"https://sts.windows.net/{self._tenant}/",
            "iat": int(now),
            "nbf": int(now),
            # With its fraction, for tests with short lifetimes.
            "exp": now + (self.lifetime if lifetime is None else lifetime),
            "appid": client_id,
            "oid": client_id,
            "tid": self._tenant,
            "ver": "1.0",
        }
        signed = f"{_packed({'typ': 'JWT', 'alg': 'HS256'})}.{_packed(claims)}"
        return f"{signed}.{self._signature(signed)}"

    def standing(self, token: str) -> Standing:
        """Return whether a resource accepts a token."""
        signed, _, signature = token.rpartition(".")
        if not signed or not hmac.compare_digest(signature.encode(), self._signature(signed).encode()):
            return Standing.UNKNOWN
        claims = orjson.loads(_unpacked(signed.partition(".")[2]))
        if claims["aud"].rstrip("/") not in AUDIENCES:
            return Standing.UNKNOWN
        if claims["exp"] <= self._clock():
            return Standing.ENDED
        return Standing.VALID if self.allowed else Standing.FORBIDDEN

    def _signature(self, signed: str) -> str:
        return _base64url(hmac.digest(self._secret, signed.encode(), hashlib.sha256))

    def _serve(self, request: Request) -> dict[str, Any]:
        if request.path == _IMDS:
            return self._imds(request)
        if request.path == _MSI:
            return self._msi(request)
        if request.path == _DISCOVERY:
            return {
                "tenant_discovery_endpoint": f"{_origin(request)}/{self._tenant}/v2.0/.well-known/openid-configuration"
            }
        if asked := _TOKEN.fullmatch(request.path):
            return self._client_credentials(asked[1], request)
        tenant = request.path.split("/")[1]
        base = f"{_origin(request)}/{tenant}"
        return {
            "issuer": f"{base}/v2.0",
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
        }

    def _client_credentials(self, tenant: str, request: Request) -> dict[str, Any]:
        if request.method != "POST":
            raise Refused(faults.NOT_FOUND)
        form = {name: values[0] for name, values in parse_qs(request.body.decode("utf-8", "replace")).items()}
        if tenant != self._tenant:
            raise Refused(faults.ENTRA_TENANT)
        if form.get("grant_type") != "client_credentials":
            raise Refused(faults.ENTRA_GRANT)
        client_id = form.get("client_id", "")
        if client_id not in self._clients:
            raise Refused(faults.ENTRA_CLIENT)
        # A federated assertion is some other party's token, whose signature is not checked here.
        secret = form.get("client_secret", "")
        if not form.get("client_assertion") and not hmac.compare_digest(
            secret.encode(), self._clients[client_id].encode()
        ):
            raise Refused(faults.ENTRA_SECRET)
        scope = next((one for one in form.get("scope", "").split() if one.endswith("/.default")), None)
        if scope is None:
            raise Refused(faults.ENTRA_SCOPE)
        token = self.token(scope.removesuffix("/.default"), client_id=client_id)
        lifetime = int(self.lifetime)
        return {"token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime, "access_token": token}

    def _imds(self, request: Request) -> dict[str, Any]:
        if request.headers.get("metadata", "").lower() != "true" or "x-forwarded-for" in request.headers:
            raise Refused(faults.IMDS_HEADER)
        return self._managed(request.query)

    def _msi(self, request: Request) -> dict[str, Any]:
        if request.method == "POST":  # Cloud Shell's form
            form = parse_qs(request.body.decode("utf-8", "replace"))
            return self._managed({name: values[0] for name, values in form.items()})
        given = request.headers.get("x-identity-header", request.headers.get("secret", ""))
        if not hmac.compare_digest(given.encode(), self._header.encode()):
            raise Refused(Fault(401, b'{"statusCode":401,"message":"Unauthorized"}'))
        return self._managed(request.query)

    def _managed(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Issue a managed identity's token. All its values are text."""
        resource, client_id = query.get("resource"), query.get("client_id", CLIENT_ID)
        if not resource:
            raise Refused(faults.IMDS_RESOURCE)
        if client_id not in self._clients:
            raise Refused(faults.IMDS_IDENTITY)
        now = self._clock()
        return {
            "access_token": self.token(resource, client_id=client_id),
            "client_id": client_id,
            "expires_in": str(int(self.lifetime)),
            "expires_on": str(int(now + self.lifetime)),
            "ext_expires_in": str(int(self.lifetime)),
            "not_before": str(int(now)),
            "resource": resource,
            "token_type": "Bearer",
        }


def _origin(request: Request) -> str:
    """Return where the client has found this directory; Entra itself is always behind https."""
    return f"https://{request.headers.get('host', 'localhost')}"


def _packed(part: Mapping[str, Any]) -> str:
    return _base64url(orjson.dumps(part))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unpacked(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
