"""Checks the addresses to which alerts go. An admin may name hosts of the internal network, but not those that give
out the secrets of the machine."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

SMTP_PORT = 587
"""Submission with STARTTLS (RFC 6409)."""

SMTPS_PORT = 465
"""Submission with TLS from the beginning (RFC 8314 section 3.3)."""

LONGEST_URL = 2000

_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]")
_ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9.-]{1,253}")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_NAMED = re.compile(r'\s*(?P<name>[^<>"\x00-\x1f\x7f-\x9f\u2028\u2029]*?)\s*<(?P<address>[^<>]*)>\s*')
_TOKEN = re.compile(r"[A-Za-z0-9_.~%=+-]{20,}")

# Link-local addresses, where clouds answer with credentials of the machine to everybody who asks from there; the
# addresses of the same services elsewhere: AWS' and Google's in IPv6, Alibaba's, Oracle's, and Azure's WireServer
# (pages of the vendors, 2026-11); and "this host", which is no server's address.
_FORBIDDEN = tuple(
    ipaddress.ip_network(network)
    for network in (
        "169.254.0.0/16",
        "fe80::/10",
        "fd00:ec2::254/128",
        "fd20:ce::254/128",
        "100.100.100.200/32",
        "192.0.0.192/32",
        "168.63.129.16/32",
        "0.0.0.0/32",
        "::/128",
    )
)
_FORBIDDEN_NAMES = ("metadata.google.internal", "metadata", "instance-data")

FORBIDDEN = (
    "This address gives out the credentials of the machine, and is never called. Name the server of your webhook."
)


class SMTPServer(NamedTuple):
    """A mail server, read from its URL."""

    host: str
    port: int
    user: str | None
    password: str | None
    encrypted: bool
    """Whether it speaks TLS from the beginning; else STARTTLS."""
    starttls: bool
    """False if STARTTLS is not used even if it is offered, which only a server on this machine may be asked for."""


def is_forbidden(address: str) -> bool:
    """Whether nothing may be sent to this IP address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    embedded = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    if embedded is None and ip in ipaddress.ip_network("64:ff9b::/96"):  # NAT64, RFC 6052
        embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return any(one in network for one in (ip, embedded) if one is not None for network in _FORBIDDEN)


def is_loopback(address: str) -> bool:
    """Whether an IP address, or the name ``localhost``, is this machine."""
    if address.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def problem_of_webhook(url: str) -> str | None:
    """Return what is wrong with the URL of a webhook, or None. It is not asked whether anything answers there."""
    problem = _problem_of_text(url)
    if problem is not None:
        return problem
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "Is no URL: write it like https://example.org/hook."
    if parts.scheme.lower() not in ("http", "https"):
        return "Must begin with https:// or http://."
    if not host or port == 0:
        return "Names no server: write it like https://example.org/hook."
    if parts.fragment:
        return "Has a part behind #, which is never sent: leave it out."
    return _problem_of_host(host)


def problem_of_smtp(url: str) -> str | None:
    """Return what is wrong with the URL of a mail server, or None."""
    problem = _problem_of_text(url)
    if problem is not None:
        return problem
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "Is no URL: write it like smtp://USER:PASSWORD@mail.example.org:587, with %40 for an @ in the password."
    if parts.scheme.lower() not in ("smtp", "smtps"):
        return "Must begin with smtp:// (STARTTLS) or smtps:// (TLS from the beginning)."
    if not host or port == 0:
        return "Names no server: write it like smtp://USER:PASSWORD@mail.example.org:587."
    if parts.path not in ("", "/") or parts.fragment:
        return "Ends behind the port: write it like smtp://USER:PASSWORD@mail.example.org:587, with %2F for a /."
    if parts.query not in ("", "starttls=no"):
        return "Has an option that is not known: there is only ?starttls=no, for a server on this machine."
    if parts.query and not is_loopback(host):
        return "STARTTLS is only left out for a server on this machine: remove ?starttls=no."
    for what, part in (("user", parts.username), ("password", parts.password)):
        if part is not None and _CONTROL.search(unquote(part).replace(" ", "")):
            return f"The {what} has a character that cannot be seen."
    if parts.password is not None and not parts.username:
        return "Has a password, but no user."
    return _problem_of_host(host)


def read_smtp(url: str) -> SMTPServer:
    """Read a URL in which :func:`problem_of_smtp` finds no problem."""
    parts = urlsplit(url)
    encrypted = parts.scheme.lower() == "smtps"
    return SMTPServer(
        host=parts.hostname or "",
        port=parts.port or (SMTPS_PORT if encrypted else SMTP_PORT),
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password is not None else None,
        encrypted=encrypted,
        starttls=parts.query != "starttls=no",
    )


def problem_of_mail_address(address: str) -> str | None:
    """Return what is wrong with an e-mail address, or None."""
    if len(address) > 254 or not _ADDRESS.fullmatch(address) or ".." in address:
        return (
            "Is no e-mail address: write it like admin@example.org, without a name, on one line. Write a domain with "
            "other letters in its form that begins with xn--."
        )
    local, _, domain = address.rpartition("@")
    if local.startswith(".") or local.endswith(".") or not all(map(_LABEL.fullmatch, domain.split("."))):
        return "Is no e-mail address: write it like admin@example.org."
    return None


def problem_of_sender(sender: str) -> str | None:
    """Return what is wrong with the sender of e-mails, or None: an address, or ``Name <address>``."""
    name, address = split_sender(sender)
    problem = problem_of_mail_address(address)
    if problem is None and len(name) <= 100:
        return None
    return "Must be an e-mail address, or like LLMGateway <llmgateway@example.org>, on one line."


def split_sender(sender: str) -> tuple[str, str]:
    """Return the name and the address of a sender."""
    match = _NAMED.fullmatch(sender)
    return ("", sender) if match is None else (match["name"], match["address"])


def shown_webhook(url: str, *, hides_path: bool) -> str:
    """Return *url* without what may be secret in it: *** stands for a user and a password, a query, and long tokens.

    Args:
        hides_path: Whether everything behind the first part of its path is secret, too.
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user = "***@" if "@" in parts.netloc else ""
    first, *rest = parts.path.lstrip("/").split("/")
    if hides_path and rest:
        rest = ["***"]
    path = "/".join("***" if _TOKEN.fullmatch(part) else part for part in (first, *rest))
    return (
        f"{parts.scheme}://{user}{host}/{path}{'?***' if parts.query else ''}"
        if parts.path
        else (f"{parts.scheme}://{user}{host}{'?***' if parts.query else ''}")
    )


def shown_smtp(url: str) -> str:
    """Return *url* without its password."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user = f"{parts.username}@" if parts.username else ""
    return f"{parts.scheme}://{user}{host}{'?' if parts.query else ''}{parts.query}"


def _problem_of_text(url: str) -> str | None:
    if len(url) > LONGEST_URL:
        return f"Longer than {LONGEST_URL} characters."
    if _CONTROL.search(url):
        return "Must be one line, without blanks and control characters."
    if not url.isascii():
        return "Has letters that a URL cannot have: write them as %XX, and a domain in its form that begins with xn--."
    if "\\" in url:
        return "Has a \\ where a URL has /."
    return None


def _problem_of_host(host: str) -> str | None:
    if host.rstrip(".").lower() in _FORBIDDEN_NAMES or is_forbidden(host):
        return FORBIDDEN
    try:
        # Numbers in other forms, such as 0xA9FEA9FE and 2852039166, which programs take for addresses.
        if is_forbidden(socket.inet_ntoa(socket.inet_aton(host))):
            return FORBIDDEN
    except OSError:
        pass
    return None
