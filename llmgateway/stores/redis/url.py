"""Parses Redis URLs: one server, a service that Sentinels monitor, or a cluster. Does not import the driver."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import unquote

_SENTINEL_PORT, _REDIS_PORT = 26379, 6379
_ESCAPES = "in a password write %2F for /, %3A for :, %40 for @, %3F for ?, %23 for #"
_HOST = re.compile(r"(?P<host>[^\s:,\[\]]+|\[(?P<address>[0-9A-Fa-f:.]+)\])(?::(?P<port>[0-9]{1,5}))?\Z", re.ASCII)
_PARAMETER = re.compile(r"[a-z_]{1,40}\Z", re.ASCII)


class Kind(StrEnum):
    """The kind of servers at the hosts of a URL."""

    SERVER = "redis"
    SOCKET = "unix"
    SENTINEL = "redis+sentinel"
    CLUSTER = "redis+cluster"


SCHEMES = {
    "redis": (Kind.SERVER, False),
    "rediss": (Kind.SERVER, True),
    "unix": (Kind.SOCKET, False),
    "redis+sentinel": (Kind.SENTINEL, False),
    "rediss+sentinel": (Kind.SENTINEL, True),
    "redis+cluster": (Kind.CLUSTER, False),
    "rediss+cluster": (Kind.CLUSTER, True),
}
"""The kind of each scheme, and whether it uses TLS."""

_LOGIN = ("username", "password")
_SENTINEL_LOGIN = ("sentinel_username", "sentinel_password")
_TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisURL:
    """The address of Redis, and its login. ``repr()`` shows no password."""

    kind: Kind
    tls: bool = False
    hosts: tuple[tuple[str, int], ...] = ()
    """The server, the Sentinels, or some nodes of the cluster."""
    path: str = ""
    """Path of the socket."""
    service: str = ""
    """Name of the service at the Sentinels."""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    tls_options: Mapping[str, str | bool] = field(default_factory=dict)
    """Options ``ssl_…`` of redis-py."""

    @classmethod
    def parse(cls, text: str) -> RedisURL:
        """Parse a URL.

        Raises:
            ValueError: has all problems. The message continues a sentence that begins with the name of a setting. It
                contains no part of a password, even if the password was not escaped.
        """
        scheme, separator, rest = text.partition("://")
        if not separator or scheme not in SCHEMES:
            raise ValueError("must begin with " + " or ".join(f"{name}://" for name in SCHEMES))
        kind, tls = SCHEMES[scheme]
        rest, _, query = rest.partition("?")
        authority, slash, path = rest.partition("/")
        # If the login was not escaped, it cannot be separated from the rest, so nothing else is checked.
        if "@" in path or "@" in query or "#" in text:
            raise ValueError(f"has a login that cannot be read: {_ESCAPES}")
        login, _, hosts = authority.rpartition("@")
        reader = _Reader(kind, tls)
        values = reader.parameters(query) | reader.login(login)
        if kind is Kind.SOCKET:
            values["path"] = reader.socket(hosts, slash + path)
        else:
            values["hosts"] = reader.hosts(hosts)
            values |= reader.path(path)
        if reader.problems:
            raise ValueError(", and ".join(reader.problems))
        return cls(kind=kind, tls=tls, **values)


class _Reader:
    """Parses the parts of one URL, and collects the problems."""

    def __init__(self, kind: Kind, tls: bool) -> None:
        self._kind = kind
        self._tls = tls
        self.problems: list[str] = []

    def login(self, text: str) -> dict[str, Any]:
        # In redis://name@host, redis-py takes the name as the user name, not as the password.
        username, _, password = text.partition(":")
        return {
            name: self._decoded(value)
            for name, value in (("username", username), ("password", password))
            if value  # the parameters may contain it
        }

    def hosts(self, text: str) -> tuple[tuple[str, int], ...]:
        several = self._kind in (Kind.SENTINEL, Kind.CLUSTER)
        default = _SENTINEL_PORT if self._kind is Kind.SENTINEL else _REDIS_PORT
        found = [self._host(host, default) for host in (text.split(",") if several else [text])]
        return tuple(host for host in found if host is not None)

    def _host(self, text: str, default: int) -> tuple[str, int] | None:
        if not text:
            self._problem("lacks a host")
            return None
        match = _HOST.match(text)
        port = int(match["port"] or default) if match else 0
        if match is None or not 1 <= port <= 65535 or not _is_host(match["host"], match["address"]):
            self._problem(f"has a host or a port that is not valid: {_ESCAPES}, and [::1] for an IPv6 address")
            return None
        return match["address"] or match["host"], port

    def path(self, text: str) -> dict[str, Any]:
        """Parse the path: the number of a database; for Sentinels the name of the service before it."""
        values: dict[str, Any] = {}
        if self._kind is Kind.SENTINEL:
            service, _, text = text.partition("/")
            values["service"] = self._decoded(service)
            if not service:
                self._problem("lacks a service: write HOST:PORT,HOST:PORT/SERVICE, with the name at the Sentinels")
        if text:
            values |= self._database(text)
        return values

    def socket(self, host: str, path: str) -> str:
        if host or not path.strip("/"):
            self._problem("lacks the path of a socket: write unix:///PATH, with three slashes")
        return self._decoded(path)

    def parameters(self, query: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        tls_options: dict[str, str | bool] = {}
        for parameter in filter(None, query.split("&")):
            name, _, text = parameter.partition("=")
            value = self._decoded(text)
            if name not in self._known():
                shown = f"the parameter {name}" if _PARAMETER.match(name) else "a parameter"
                self._problem(f"has {shown}, which is not one of {', '.join(self._known())}")
            elif name == "db":
                values |= self._database(value)
            elif name in _TLS:
                tls_options[name] = self._tls_option(name, value)
            else:
                values[name] = value
        return values | ({"tls_options": tls_options} if tls_options else {})

    def _known(self) -> tuple[str, ...]:
        sentinel = _SENTINEL_LOGIN if self._kind is Kind.SENTINEL else ()
        return "db", *_LOGIN, *sentinel, *(_TLS if self._tls else ())

    def _database(self, text: str) -> dict[str, Any]:
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            self._problem("has a database that is not a number")
        elif self._kind is Kind.CLUSTER and int(text):
            self._problem("has a database: a cluster has only database 0")
        else:
            return {"db": int(text)}
        return {}

    def _tls_option(self, name: str, value: str) -> str | bool:
        choices = {"ssl_cert_reqs": ("required", "optional", "none"), "ssl_check_hostname": ("true", "false")}
        if name not in choices:
            return value
        if value.lower() not in choices[name]:
            self._problem(f"has an {name} that is not one of {', '.join(choices[name])}")
        return value.lower() if name == "ssl_cert_reqs" else value.lower() == "true"

    def _decoded(self, text: str) -> str:
        try:
            return unquote(text, errors="strict")
        except UnicodeDecodeError:
            self._problem("has a percent sign that does not begin a UTF-8 character: write %25 for %")
            return ""

    def _problem(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def _is_host(host: str, address: str | None) -> bool:
    """Whether *host* is a valid host name; or *address*, if it is in brackets, a valid IPv6 address (RFC 3986)."""
    try:
        return bool(host.encode("idna") if address is None else IPv6Address(address))
    except ValueError:
        return False
