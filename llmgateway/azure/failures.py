"""Explains to admins why Azure cannot be reached, and what to change."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import NamedTuple


class Failure(NamedTuple):
    """Why a call got no answer."""

    cause: str
    """``dns``, ``tls``, ``proxy``, ``refused``, ``timeout`` or ``broken``."""
    problem: str
    remedy: str


_PROXY = "HTTPS_PROXY and NO_PROXY"


def explain(error: BaseException, *, host: str, proxied: bool) -> Failure:
    """Return why *error* has come instead of an answer of *host*.

    Args:
        proxied: Whether a proxy is on the way.
    """
    chain = [*_chain(error)]
    texts = " ".join(map(str, chain))
    if "Tunnel connection failed" in texts:
        status = texts.partition("Tunnel connection failed: ")[2][:3]
        return Failure(
            "proxy",
            f"The proxy does not lead to {host} (status {status})",
            "407 means that it wants a user and a password in HTTPS_PROXY, 403 that it does not admit this address. "
            f"Correct {_PROXY}, or let the proxy admit {host}.",
        )
    if _has(chain, socket.gaierror) or "Failed to resolve" in texts or "NameResolutionError" in texts:
        return _unknown_host(host, proxied)
    if _has(chain, ssl.SSLError):
        return _untrusted(host, texts)
    if _has(chain, ConnectionRefusedError) or "refused" in texts:
        where = "The proxy, or a host behind it," if proxied else host
        return Failure(
            "refused",
            f"{where} refuses connections",
            f"Check {_PROXY}." if proxied else "Check host and port of the address, and the firewall on the way.",
        )
    if _has(chain, TimeoutError) or "timed out" in texts:
        return Failure(
            "timeout",
            f"{host} does not answer in time",
            "Check that a firewall lets this host out to port 443, and that the resource has no private endpoint "
            f"elsewhere. Check {_PROXY}.",
        )
    return Failure(
        "broken",
        f"The connection to {host} breaks",
        f"Try again. If it stays so, something on the way closes it: check {_PROXY}, and http against https in the "
        "address.",
    )


def _unknown_host(host: str, proxied: bool) -> Failure:
    if proxied:
        return Failure("dns", f"The name of the proxy, or {host}, is not known", f"Check {_PROXY}.")
    remedy = "Check the name of the resource in the address, and this host's DNS."
    if host.endswith(".azure.com"):
        remedy += " A resource in another cloud ends with .openai.azure.us or .openai.azure.cn."
    elif host.endswith((".azure.us", ".azure.cn")):
        remedy += " A resource in the public cloud ends with .openai.azure.com."
    return Failure("dns", f"There is no host {host}", remedy)


def _untrusted(host: str, texts: str) -> Failure:
    if "WRONG_VERSION_NUMBER" in texts or "RECORD_LAYER" in texts:
        return Failure("tls", f"{host} does not speak TLS there", "Check the port, or write http:// for a test server.")
    if "CERTIFICATE_VERIFY_FAILED" not in texts:
        return Failure("tls", f"No secure connection to {host}", f"Check {_PROXY}, and the firewall on the way.")
    if "Hostname mismatch" in texts or "not valid for" in texts:
        return Failure("tls", f"The certificate is not one of {host}", "Check the host in the address, and its DNS.")
    return Failure(
        "tls",
        f"The certificate of {host} is not trusted",
        "A proxy that opens TLS has a certificate of your own authority: name its file in REQUESTS_CA_BUNDLE.",
    )


def _has(chain: list[BaseException], kind: type[BaseException]) -> bool:
    return any(isinstance(each, kind) for each in chain)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield *error*, and all errors that have caused it."""
    seen: set[int] = set()
    unvisited: list[object] = [error]
    while unvisited:
        one = unvisited.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        unvisited += [one.__cause__, one.__context__, *one.args, getattr(one, "reason", None)]
