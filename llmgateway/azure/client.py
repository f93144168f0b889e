"""Azure: one prepared way to it, its failures translated, its headers sorted."""

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

# What the client may see of Azure's answer. Anything else describes the connection between Azure
# and us, or the organisation's affairs.
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
    "Accept-Encoding": "identity",  # what passes through must be readable for the meter
    "Content-Type": "application/json",
    "User-Agent": "llmgateway",
}


class AzureAnswer:
    """An :class:`~llmgateway.interfaces.Answer` that requests has received."""

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
            raise _cut(
                self._cancellation
            )  # where the end of the connection is the end of the body, this looks complete
        return chunk

    def close(self) -> None:
        self._raw.close()


class _Session(requests.Session):
    """Never looks where a redirect would lead: Azure has none, and the key must not go to another address."""

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002 - requests names it
        return None


class AzureClient:
    """The organisation's subscription: an :class:`~llmgateway.interfaces.Upstream`. Thread-safe.

    Proxies and certificates are taken from the environment once, as requests would take them
    for every request (0.2 ms each time).

    Args:
        connections: How many may be kept open; as many as there are threads.
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
        # requests adds the scheme of a proxy itself, but not where there is a login.
        proxies = {
            name: proxy if "://" in proxy else f"http://{proxy}" for name, proxy in environment["proxies"].items()
        }
        self._options: dict[str, Any] = {
            "timeout": (connect_timeout, first_byte_timeout),
            "verify": verify,
            "proxies": proxies,  # an empty one, too, or requests would look into the environment for each call
            "allow_redirects": False,
        }

    def send(
        self, body: bytes, *, deployment: str, credential: str, request_id: str, cancellation: CancellationToken
    ) -> AzureAnswer:
        if not credential.isprintable():  # settings and the admin API take none that is not
            raise ValueError("Azure's key has characters that no header can carry")
        headers = {self._key_header: self._key_prefix + credential, "x-ms-client-request-id": request_id}
        template = self._prepared.get(deployment) or self._prepare(deployment)
        prepared = template.carrying(body, headers, cancellation)
        try:
            response = self._session.send(prepared, stream=True, **self._options)
        except requests.RequestException as error:
            raise _translated(error, cancellation) from error
        return AzureAnswer(response, cancellation)

    def close(self) -> None:
        """Close the connections that are idle."""
        self._session.close()

    def _prepare(self, deployment: str) -> CancellableRequest:
        """Prepare the request to *deployment*, without what is different each time, and remember it."""
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
            # They describe the organisation's deployment, not the user's key.
            passed.append((f"x-upstream-ratelimit-{name.removeprefix('x-ratelimit-')}", value))
    return passed


def _cut(cancellation: CancellationToken) -> GatewayError:
    """Say why the request was cut."""
    if cancellation.stopping:
        return GatewayStopping("The gateway is being stopped. Send the request again.", retry_after=1)
    return ClientGone("The client has gone.")


def _translated(error: requests.RequestException, cancellation: CancellationToken) -> GatewayError:
    """Say what *error* means for the client; the operator finds its own words in the log."""
    if cancellation.was_cut:
        return _cut(cancellation)
    if not cancellation.sent:
        log.warning("Azure cannot be reached: %s", error)
        return UpstreamUnreachable("The model's provider cannot be reached. Try again in a moment.", retry_after=5)
    if isinstance(error, requests.Timeout):
        log.warning("Azure was silent for too long: %s", error)
        return UpstreamTimeout("The model's provider took the request and was silent for too long.")
    log.warning("The connection to Azure broke: %s", error)
    return UpstreamBroken("The connection to the model's provider broke. Try again.")
