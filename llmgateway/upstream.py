"""Azure: one prepared way to it, its failures translated, its headers sorted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from .endpoint import Endpoint
from .errors import ClientGone, GatewayError, UpstreamBroken, UpstreamTimeout, UpstreamUnreachable
from .transmission import Transmission

log = logging.getLogger(__name__)

READ_BYTES = 64 * 1024

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


_carried = threading.local()


class _Noting:
    """A connection that notes what it sends in the transmission of its thread."""

    sock: Any
    _connecting = False
    _carrying: Transmission | None = None

    def connect(self) -> None:
        self._connecting = True
        try:
            super().connect()  # type: ignore[misc]
        finally:
            self._connecting = False

    def send(self, data: Any) -> None:
        if self._connecting:
            # What asks a proxy for a tunnel is none of the request, and Azure does not see it.
            super().send(data)  # type: ignore[misc]
            return
        transmission: Transmission = _carried.transmission
        if self._carrying is not transmission:
            self._take_over_from(self._carrying)
            self._carrying = transmission
        if self.sock is None:
            self.connect()
        transmission.carry_over(self.sock, complete=not _is_head_alone(data))
        # urllib3 leaves the time-out for connecting in force, which limits the whole of a sendall():
        # a picture on a slow line takes longer.
        self.sock.settimeout(_carried.timeout)
        super().send(data)  # type: ignore[misc]

    def _take_over_from(self, before: Transmission | None) -> None:
        # urllib3 puts a connection back while the last bytes of its answer are being read: the client of
        # that answer may be found gone now, which must not cut the request of another.
        if self.sock is not None and before is not None and not before.arrive():
            self.sock.close()
            self.sock = None


def _is_head_alone(data: bytes) -> bool:
    # Nobody works on a head without its body, nor bills it. JSON does not begin like this, and in
    # doubt something was sent.
    return data.startswith(b"POST ") and data.find(b"\r\n\r\n") == len(data) - 4


class _NotingHTTPConnection(_Noting, HTTPConnection):
    pass


class _NotingHTTPSConnection(_Noting, HTTPSConnection):
    pass


class _NotingHTTPPool(HTTPConnectionPool):
    ConnectionCls = _NotingHTTPConnection


class _NotingHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _NotingHTTPSConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._use_noting_connections(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        self._use_noting_connections(manager)
        return manager

    def _use_noting_connections(self, manager: Any) -> None:
        manager.pool_classes_by_scheme = {"http": _NotingHTTPPool, "https": _NotingHTTPSPool}


class AzureAnswer:
    """An :class:`~llmgateway.interfaces.Answer` over a connection of the pool."""

    def __init__(self, raw: urllib3.BaseHTTPResponse, transmission: Transmission) -> None:
        self._raw = raw
        self._transmission = transmission
        self.status = raw.status
        self.headers = [*_headers_for_client(raw.headers)]
        self.region = raw.headers.get("x-ms-region")
        self.upstream_request_id = raw.headers.get("apim-request-id") or raw.headers.get("x-request-id")
        self.is_event_stream = raw.headers.get("content-type", "").lower().startswith("text/event-stream")

    def read(self) -> bytes:
        try:
            # Bytes as they are on the wire: what is compressed goes on compressed.
            chunk = self._raw.read1(READ_BYTES, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            # ValueError: a chunk's size that is no number, from http.client.
            raise _translated(error, self._transmission) from error
        if self._transmission.was_cut:
            raise _client_gone()  # where the end of the connection is the end of the body, this looks complete
        return chunk

    def close(self) -> None:
        self._transmission.arrive()
        self._raw.close()


class AzureUpstream:
    """The organisation's subscription, over one pool of connections. Thread-safe.

    Proxies and certificates are taken from the environment once, as requests would take them
    for every request (0.2 ms each time).

    Args:
        connections: How many may be kept open; as many as there are threads, or some are thrown
            away after each use and TLS begins anew.
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
    ) -> None:
        self.endpoint = endpoint
        self._key_header = key_header
        self._key_format = "Bearer {}" if key_header == "Authorization" else "{}"
        self._timeout = urllib3.Timeout(connect=connect_timeout, read=first_byte_timeout)
        self._between_bytes_timeout = between_bytes_timeout
        self._adapter = _Adapter(pool_maxsize=connections)
        with requests.Session() as session:
            self._environment = session.merge_environment_settings(endpoint.url("model"), {}, True, None, None)
        self._prepared: dict[str, requests.PreparedRequest] = {}

    def send(
        self, body: bytes, *, deployment: str, credential: str, request_id: str, transmission: Transmission
    ) -> AzureAnswer:
        request = self._template(deployment).copy()
        request.body = body
        request.headers["Content-Length"] = str(len(body))
        request.headers[self._key_header] = self._key_format.format(credential)
        request.headers["x-ms-client-request-id"] = request_id
        _carried.transmission, _carried.timeout = transmission, self._timeout.read_timeout
        try:
            response = self._adapter.send(request, timeout=self._timeout, **self._environment)  # type: ignore[arg-type]
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise _translated(error, transmission) from error
        finally:
            del _carried.transmission, _carried.timeout
        transmission.set_timeout(self._between_bytes_timeout)
        return AzureAnswer(response.raw, transmission)

    def close(self) -> None:
        """Close the connections that are idle."""
        self._adapter.close()

    def _template(self, deployment: str) -> requests.PreparedRequest:
        url = self.endpoint.url(deployment)
        if url not in self._prepared:
            self._prepared[url] = requests.Request(
                "POST",
                url,
                headers={
                    "Accept": "application/json, text/event-stream",
                    # What passes through must be readable for the meter.
                    "Accept-Encoding": "identity",
                    "Content-Type": "application/json",
                    "User-Agent": "llmgateway",
                },
            ).prepare()
        return self._prepared[url]


def _headers_for_client(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    passed = []
    for name, value in headers.items():
        name = name.lower()
        if name in _PASSED_BACK:
            passed.append((name, value))
        elif name.startswith("x-ratelimit-"):
            # They describe the organisation's deployment, not the user's key.
            passed.append((f"x-upstream-ratelimit-{name.removeprefix('x-ratelimit-')}", value))
    return passed


def _client_gone() -> ClientGone:
    return ClientGone("The client has gone.")


def _translated(error: Exception, transmission: Transmission) -> GatewayError:
    """Say what *error* means for the client; the operator finds its own words in the log."""
    if transmission.was_cut:
        return _client_gone()
    if not transmission.sent:
        log.warning("Azure cannot be reached: %s", error)
        return UpstreamUnreachable("The model's provider cannot be reached. Try again in a moment.", retry_after=5)
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
        log.warning("Azure was silent for too long: %s", error)
        return UpstreamTimeout("The model's provider took the request and was silent for too long.")
    log.warning("The connection to Azure broke: %s", error)
    return UpstreamBroken("The connection to the model's provider broke. Try again.")
