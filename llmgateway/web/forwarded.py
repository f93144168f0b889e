"""Headers in which a proxy names its client, and the address that users see."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from ipaddress import ip_address
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from waitress.proxy_headers import proxy_headers_middleware

log = logging.getLogger(__name__)

_BELIEVED = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_WITH_PORT = re.compile(r"\[([^\]]+)\](?::\d+)?|([\d.]+):\d+", re.ASCII)
_MAPPED = "::ffff:"  # of IPv4 addresses on a socket for both families (RFC 4291 section 2.5.5.2)


class ForwardedHeaders:
    """WSGI middleware that believes ``X-Forwarded-*`` of one proxy, and nobody else's.

    ``X-Forwarded-Prefix`` is the part of the path that the proxy has removed. It becomes ``SCRIPT_NAME``. The path
    itself is not changed: a client may send the header through a proxy that passes it on, and that refuses some paths.

    Args:
        trusted_proxy: The address of the proxy, ``*`` for anybody, None for nobody.
    """

    def __init__(self, app: WSGIApplication, *, trusted_proxy: str | None) -> None:
        self._app = app
        self.trusted_proxy = trusted_proxy
        self._warned = False
        self._believing: WSGIApplication = proxy_headers_middleware(
            app, trusted_proxy="*", trusted_proxy_headers=_BELIEVED, log_untrusted=False
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        peer: str = environ.get("REMOTE_ADDR") or ""
        if peer.startswith(_MAPPED):
            peer = environ["REMOTE_ADDR"] = peer.removeprefix(_MAPPED)
        if self.trusted_proxy is not None and self.trusted_proxy in (peer, "*"):
            _move_prefix(environ)
            _clean_address(environ)
            return self._believing(environ, start_response)
        if "HTTP_X_FORWARDED_FOR" in environ and not self._warned:
            self._warn(peer)
        return self._app(environ, start_response)

    def _warn(self, peer: str) -> None:
        self._warned = True
        log.warning(
            "A request from %s has the header X-Forwarded-For, which is not believed: LLMGATEWAY_TRUSTED_PROXY is %s. "
            "If %s is your proxy, set it to this address. Until then all clients behind it count as one address.",
            peer,
            self.trusted_proxy or "not set",
            peer,
        )


def _clean_address(environ: WSGIEnvironment) -> None:
    """Leave only the address of the client that the proxy names, as the server writes the addresses of its peers.

    Some proxies add the port of the client: Azure's Application Gateway, IIS. What is no address is left as it is.
    """
    if "HTTP_X_FORWARDED_FOR" not in environ:
        return
    last = environ["HTTP_X_FORWARDED_FOR"].rpartition(",")[2].strip().strip('"')
    match = _WITH_PORT.fullmatch(last)
    try:
        address = ip_address(match[1] or match[2] if match else last)
    except ValueError:
        return
    environ["HTTP_X_FORWARDED_FOR"] = str((address.ipv4_mapped if address.version == 6 else None) or address)


def _move_prefix(environ: WSGIEnvironment) -> None:
    prefix = environ.pop("HTTP_X_FORWARDED_PREFIX", "").strip().rstrip("/")
    if not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/")):
        return
    environ["SCRIPT_NAME"] = prefix
