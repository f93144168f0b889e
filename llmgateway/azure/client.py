"""Sends requests to Azure, translates its failures, and selects the headers that clients may see."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast
from urllib.parse import urlencode, urlsplit

import requests

from ..clock import Timer
from ..errors import ClientGone, UpstreamBroken, UpstreamTimeout, UpstreamUnreachable
from ..interfaces import Upload
from ..records import UNKNOWN_QUOTA, Quota
from .adapter import MOST_ROUTES, CancellableRequest, StreamingAdapter
from .cancellation import CancellationToken
from .coding import CODINGS, CodingError, Decoder
from .deployments import Target
from .endpoint import Endpoint, is_deployment_name
from .environment import NetworkEnvironment
from .failures import Failure, explain
from .response import ReceivedResponse

log = logging.getLogger(__name__)

# The headers of Azure's answer that go to the client. All others describe the connection between Azure
# and the gateway, or the organisation's resource.
_PASSED_BACK = frozenset(
    (
        "apim-request-id",
        "azureml-model-session",
        "content-disposition",
        "content-language",
        "content-type",
        "retry-after",
        "retry-after-ms",
        "x-ms-region",
    )
)

_SAME_FOR_ALL = {
    "Accept": "application/json, text/event-stream",
    "Accept-Encoding": "identity",  # the gateway reads the body
    "Content-Type": "application/json",
    "User-Agent": "llmgateway",
}


class AzureAnswer:
    """An :class:`~llmgateway.interfaces.Answer` that wraps a :class:`requests.Response`."""

    def __init__(self, response: requests.Response, cancellation: CancellationToken) -> None:
        self._raw = cast(ReceivedResponse, response.raw)
        self._cancellation = cancellation
        headers = response.headers
        self.status = response.status_code
        self.headers = _headers_for_client(headers.lower_items())
        self._decoder: Decoder | None = None
        coding = headers.get("content-encoding", "").strip().lower()
        if coding not in ("", "identity"):
            self._decode(coding)
        self.location = headers.get("location", "").partition("?")[0] or None
        self.region = headers.get("x-ms-region") or None
        self.upstream_request_id = headers.get("apim-request-id") or headers.get("x-request-id") or None
        self.is_event_stream = headers.get("content-type", "").lower().startswith("text/event-stream")
        raw = self._raw.headers
        self.quota = _quota(raw)
        self.spilled_to = _spilled_to(raw)

    def arrived(self) -> bytes:
        return b"" if self._decoder is not None else self._raw.arrived()

    def read(self) -> bytes:
        if self._decoder is None:
            return self._receive()
        try:
            return self._decoder.read(self._receive)
        except CodingError as error:
            log.warning("Azure's answer cannot be decoded: %s", error)
            raise UpstreamBroken("The model's provider sent an answer that cannot be decoded. Try again.") from error

    def close(self) -> None:
        self._raw.close()

    def _receive(self) -> bytes:
        try:
            chunk = self._raw.read1()
        except requests.RequestException as error:
            raise _translated(error, self._cancellation) from error
        if self._cancellation.was_cut:
            # Without this, the body could look complete: its end may be the end of the connection.
            raise _cut(self._cancellation)
        return chunk

    def _decode(self, coding: str) -> None:
        """Decode the body, although the gateway has asked for no coding: what is passed on must be counted."""
        if coding in CODINGS or self.status < 400:
            self._decoder = Decoder(coding)
        else:
            # An error needs no counting. Its status and headers help the client even if it cannot read the body.
            self.headers.append(("content-encoding", coding))


_LIMIT_REQUESTS, _LIMIT_TOKENS = "x-ratelimit-limit-requests", "x-ratelimit-limit-tokens"
_REMAINING_REQUESTS, _REMAINING_TOKENS = "x-ratelimit-remaining-requests", "x-ratelimit-remaining-tokens"


def _quota(headers: Mapping[str, str]) -> Quota:
    if _REMAINING_TOKENS not in headers and _REMAINING_REQUESTS not in headers and _LIMIT_TOKENS not in headers:
        return UNKNOWN_QUOTA
    return Quota(
        _number(headers.get(_LIMIT_REQUESTS)),
        _number(headers.get(_REMAINING_REQUESTS)),
        _number(headers.get(_LIMIT_TOKENS)),
        _number(headers.get(_REMAINING_TOKENS)),
    )


def _number(text: str | None) -> int | None:
    # Azure sends -1 where it does not know.
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 16 else None


def _spilled_to(headers: Mapping[str, str]) -> str | None:
    """Return the deployment that a request spilled over to (Microsoft, "Manage traffic with spillover", 2026)."""
    if headers.get("x-ms-is-spilled-over", "").lower() != "true" and "x-ms-spillover-from-deployment" not in headers:
        return None
    name = headers.get("x-ms-deployment-name", "")
    return name if is_deployment_name(name) else "unknown"


class _Session(requests.Session):
    """Follows no redirects: Azure sends none, and its key must not go to another host."""

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002 - requests names it
        return None


class _Prepared(NamedTuple):
    """What all requests to one URL have in common."""

    request: CancellableRequest
    options: dict[str, Any]
    """For :meth:`requests.Session.send`."""


class AzureClient:
    """An :class:`~llmgateway.interfaces.Upstream` for any number of Azure's resources. Thread-safe.

    Proxies and certificates are read from the environment once for each resource. requests would read them for every
    request, which takes 0.2 ms.

    Args:
        connections: The most idle connections that are kept; should be the number of threads.
    """

    def __init__(
        self,
        *,
        connect_timeout: float,
        first_byte_timeout: float,
        between_bytes_timeout: float,
        connections: int,
        timer: Timer = time.monotonic,
    ) -> None:
        self._prepared: dict[tuple[Endpoint, str, str], _Prepared] = {}
        self._environments: dict[str, NetworkEnvironment] = {}  # by the base of an endpoint
        self._adapter = adapter = StreamingAdapter(
            between_bytes_timeout=between_bytes_timeout, connections=connections, timer=timer
        )
        self._session = _Session()
        for prefix in ("https://", "http://"):
            self._session.mount(prefix, adapter)
        self._timeout = connect_timeout, first_byte_timeout

    def check(self, endpoint: Endpoint) -> None:
        """Check that the environment leads to *endpoint*.

        Raises:
            ConfigurationError: the proxy or the certificates that the environment names cannot be used.
        """
        self._environment(endpoint).check(self._adapter, endpoint.url("model"))

    def set_timeouts(self, *, connect: float, first_byte: float, between_bytes: float) -> None:
        """Change the time-outs, in seconds, of the calls that begin from now on."""
        self._timeout = connect, first_byte
        self._adapter.between_bytes_timeout = between_bytes

    def send(
        self,
        body: bytes | Upload,
        *,
        target: Target,
        operation: str,
        in_path: bool = True,
        accept: str | None = None,
        request_id: str,
        cancellation: CancellationToken,
        seconds: float = math.inf,
    ) -> AzureAnswer:
        name, value = target.credential.header()
        headers = {name: value, "x-ms-client-request-id": request_id}
        if accept is not None:
            headers["Accept"] = accept
        if not isinstance(body, bytes):
            headers["Content-Type"] = body.content_type
        key = target.endpoint, target.deployment, operation
        prepared = self._prepared.get(key) or self._prepare(key, in_path=in_path)
        return self._sent(prepared.request.carrying(body, headers, cancellation), prepared, cancellation, seconds)

    def fetch(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        target: Target,
        request_id: str,
        cancellation: CancellationToken,
    ) -> AzureAnswer:
        name, value = target.credential.header()
        url = target.endpoint.url(target.deployment, path, in_path=False)
        if query:
            url += ("&" if "?" in url else "?") + urlencode(query)
        # Not cached: each identifier has its own URL.
        prepared = self._new(url, target.endpoint, method=method)
        carrying = prepared.request.carrying(b"", {name: value, "x-ms-client-request-id": request_id}, cancellation)
        return self._sent(carrying, prepared, cancellation)

    def explain(self, error: BaseException, endpoint: Endpoint) -> Failure:
        proxy = self._environment(endpoint).proxy(endpoint.url("model"))
        return explain(error, host=urlsplit(endpoint.base).hostname or "", proxied=proxy is not None)

    def _sent(
        self,
        carrying: CancellableRequest,
        prepared: _Prepared,
        cancellation: CancellationToken,
        seconds: float = math.inf,
    ) -> AzureAnswer:
        connect, first_byte = self._timeout
        timeout = min(connect, seconds), min(first_byte, seconds)
        try:
            response = self._session.send(carrying, stream=True, timeout=timeout, **prepared.options)
        except requests.RequestException as error:
            raise _translated(error, cancellation) from error
        return AzureAnswer(response, cancellation)

    def close(self) -> None:
        """Close all idle connections."""
        self._session.close()

    def _environment(self, endpoint: Endpoint) -> NetworkEnvironment:
        environment = self._environments.get(endpoint.base)
        if environment is None:
            environment = NetworkEnvironment.read(self._session, endpoint.url("model"))
            self._environments[endpoint.base] = environment
        return environment

    def _prepare(self, key: tuple[Endpoint, str, str], *, in_path: bool) -> _Prepared:
        """Prepare and cache the part of a request that is always the same."""
        endpoint, deployment, operation = key
        prepared = self._new(endpoint.url(deployment, operation, in_path=in_path), endpoint)
        if len(self._prepared) >= MOST_ROUTES:
            self._prepared.clear()
        self._prepared[key] = prepared
        return prepared

    def _new(self, url: str, endpoint: Endpoint, *, method: str = "POST") -> _Prepared:
        environment = self._environment(endpoint)
        request = CancellableRequest()
        request.prepare(method=method, url=url, headers=_SAME_FOR_ALL)
        # The proxies are set even if there are none: with None requests would read the environment for each call.
        options = {"verify": environment.verify, "proxies": environment.proxies, "allow_redirects": False}
        return _Prepared(request, options)


def _headers_for_client(fields: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    passed = []
    for name, value in fields:
        if name in _PASSED_BACK:
            passed.append((name, value))
        elif name.startswith("x-ratelimit-"):
            # Azure's limits are those of the organisation's deployment, not those of the user's key.
            passed.append((f"x-upstream-ratelimit-{name.removeprefix('x-ratelimit-')}", value))
        elif name == "x-request-id":
            passed.append(("x-upstream-request-id", value))
    return passed


def _cut(cancellation: CancellationToken) -> Exception:
    """Say why the request was cut."""
    return cancellation.reason or ClientGone("The client has gone.")


def _translated(error: requests.RequestException, cancellation: CancellationToken) -> Exception:
    """Return the error for the client, and log the message of *error* for the operator."""
    if cancellation.was_cut:
        return _cut(cancellation)
    if not cancellation.sent:
        log.warning("Cannot connect to Azure: %s", error)
        return UpstreamUnreachable("The model's provider cannot be reached. Try again in a moment.", retry_after=5)
    if isinstance(error, requests.Timeout):
        log.warning("Azure was silent for too long: %s", error)
        return UpstreamTimeout("The model's provider took the request and was silent for too long.")
    log.warning("The connection to Azure broke: %s", error)
    return UpstreamBroken("The connection to the model's provider broke. Try again.")
