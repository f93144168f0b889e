"""Sends chat completions to Azure, translates its failures, and selects the headers that clients may see."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any, cast

import requests

from ..clock import Timer
from ..errors import ClientGone, GatewayError, GatewayStopping, UpstreamBroken, UpstreamTimeout, UpstreamUnreachable
from .adapter import MOST_ROUTES, CancellableRequest, StreamingAdapter
from .cancellation import CancellationToken
from .endpoint import Endpoint
from .response import ReceivedResponse

log = logging.getLogger(__name__)

# The headers of Azure's answer that go to the client. All others describe the connection between Azure
# and the gateway, or the organisation's resource.
_PASSED_BACK = frozenset(
    (
        "apim-request-id",
        "azureml-model-session",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-type",
        "retry-after",
        "retry-after-ms",
        "x-ms-region",
        "x-request-id",
    )
)

_SAME_FOR_ALL = {
    "Accept": "application/json, text/event-stream",
    "Accept-Encoding": "identity",  # StreamMeter reads the body
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
        self.region = headers.get("x-ms-region") or None
        self.upstream_request_id = headers.get("apim-request-id") or headers.get("x-request-id") or None
        self.is_event_stream = headers.get("content-type", "").lower().startswith("text/event-stream")

    def read(self) -> bytes:
        try:
            chunk = self._raw.read1()
        except requests.RequestException as error:
            raise _translated(error, self._cancellation) from error
        if self._cancellation.was_cut:
            # Without this, the body could look complete: its end may be the end of the connection.
            raise _cut(self._cancellation)
        return chunk

    def close(self) -> None:
        self._raw.close()


class _Session(requests.Session):
    """Follows no redirects: Azure sends none, and its key must not go to another host."""

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002 - requests names it
        return None


class AzureClient:
    """An :class:`~llmgateway.interfaces.Upstream` for one Azure OpenAI endpoint. Thread-safe.

    Proxies and certificates are read from the environment once, when the client is created. requests would read them
    for every request, which takes 0.2 ms.

    Args:
        key_header: The name of the header that carries Azure's key.
        connections: The most idle connections that are kept; should be the number of threads.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        key_header: str,
        connect_timeout: float,
        first_byte_timeout: float,
        between_bytes_timeout: float,
        connections: int,
        timer: Timer = time.monotonic,
    ) -> None:
        self._endpoint = endpoint
        self._key_header = key_header
        self._key_prefix = "Bearer " if key_header == "Authorization" else ""
        self._prepared: dict[str, CancellableRequest] = {}
        adapter = StreamingAdapter(between_bytes_timeout=between_bytes_timeout, connections=connections, timer=timer)
        self._session = _Session()
        for prefix in ("https://", "http://"):
            self._session.mount(prefix, adapter)
        environment = self._session.merge_environment_settings(endpoint.url("model"), {}, True, None, None)
        verify = True if environment["verify"] is None else environment["verify"]
        adapter.trust(verify)
        # requests adds a missing scheme to a proxy's URL, but not if the URL contains a user and a password.
        proxies = {
            name: proxy if "://" in proxy else f"http://{proxy}" for name, proxy in environment["proxies"].items()
        }
        self._options: dict[str, Any] = {
            "timeout": (connect_timeout, first_byte_timeout),
            "verify": verify,
            "proxies": proxies,  # set even if empty; with None requests would read the environment for each call
            "allow_redirects": False,
        }

    def send(
        self, body: bytes, *, deployment: str, credential: str, request_id: str, cancellation: CancellationToken
    ) -> AzureAnswer:
        if not credential.isprintable():  # settings and the admin API refuse such a key
            raise ValueError("Azure's key contains characters that are not allowed in a header")
        headers = {self._key_header: self._key_prefix + credential, "x-ms-client-request-id": request_id}
        template = self._prepared.get(deployment) or self._prepare(deployment)
        prepared = template.carrying(body, headers, cancellation)
        try:
            response = self._session.send(prepared, stream=True, **self._options)
        except requests.RequestException as error:
            raise _translated(error, cancellation) from error
        return AzureAnswer(response, cancellation)

    def close(self) -> None:
        """Close all idle connections."""
        self._session.close()

    def _prepare(self, deployment: str) -> CancellableRequest:
        """Prepare and cache the part of a request to *deployment* that is always the same."""
        if len(self._prepared) >= MOST_ROUTES:
            self._prepared.clear()
        prepared = CancellableRequest()
        prepared.prepare(method="POST", url=self._endpoint.url(deployment), headers=_SAME_FOR_ALL)
        self._prepared[deployment] = prepared
        return prepared


def _headers_for_client(fields: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    passed = []
    for name, value in fields:
        if name in _PASSED_BACK:
            passed.append((name, value))
        elif name.startswith("x-ratelimit-"):
            # Azure's limits are those of the organisation's deployment, not those of the user's key.
            passed.append((f"x-upstream-ratelimit-{name.removeprefix('x-ratelimit-')}", value))
    return passed


def _cut(cancellation: CancellationToken) -> GatewayError:
    """Say why the request was cut."""
    if cancellation.stopping:
        return GatewayStopping("The gateway is being stopped. Send the request again.", retry_after=1)
    return ClientGone("The client has gone.")


def _translated(error: requests.RequestException, cancellation: CancellationToken) -> GatewayError:
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
