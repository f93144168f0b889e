"""The URL of a Redis: one server, a service that Sentinels watch, or a cluster. Knows no driver."""

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
    """What answers at the hosts of a URL."""

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
"""By scheme: what answers there, and whether over TLS."""

_LOGIN = ("username", "password")
_SENTINEL_LOGIN = ("sentinel_username", "sentinel_password")
_TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisURL:
    """Where Redis is, and how to log in. No password is in its ``repr``."""

    kind: Kind
    tls: bool = False
    hosts: tuple[tuple[str, int], ...] = ()
    """Of the Sentinels, of some nodes of the cluster, or the only one."""
    path: str = ""
    """Of the socket."""
    service: str = ""
    """What the Sentinels call the Redis."""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    tls_options: Mapping[str, str | bool] = field(default_factory=dict)
    """``ssl_…`` as redis-py has them."""

    @classmethod
    def parse(cls, text: str) -> RedisURL:
        """Read a URL.

        Raises:
            ValueError: everything that is wrong with it, to be put behind the name of a setting. Quotes no
                password, also if one was not escaped.
        """
        scheme, separator, rest = text.partition("://")
        if not separator or scheme not in SCHEMES:
            raise ValueError("must begin with " + " or ".join(f"{name}://" for name in SCHEMES))
        kind, tls = SCHEMES[scheme]
        rest, _, query = rest.partition("?")
        authority, slash, path = rest.partition("/")
        # What follows a login that was not escaped cannot be told from it, so nothing else is looked at.
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
    """Reads the parts of one URL and collects what is wrong with them."""

    def __init__(self, kind: Kind, tls: bool) -> None:
        self._kind = kind
        self._tls = tls
        self.problems: list[str] = []

    def login(self, text: str) -> dict[str, Any]:
        # redis://password@host has always been a user name to redis-py; so it stays.
        username, _, password = text.partition(":")
        return {
            name: self._decoded(value)
            for name, value in (("username", username), ("password", password))
            if value  # an empty one may be among the parameters
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
            self._problem(f"has a port that is none, or a host: {_ESCAPES}, and [::1] for an IPv6 address")
            return None
        return match["address"] or match["host"], port

    def path(self, text: str) -> dict[str, Any]:
        """What is behind the hosts: a number of a database, in front of it the name of a service."""
        values: dict[str, Any] = {}
        if self._kind is Kind.SENTINEL:
            service, _, text = text.partition("/")
            values["service"] = self._decoded(service)
            if not service:
                self._problem("lacks a service: it goes HOST:PORT,HOST:PORT/SERVICE, as the Sentinels call it")
        if text:
            values |= self._database(text)
        return values

    def socket(self, host: str, path: str) -> str:
        if host or not path.strip("/"):
            self._problem("lacks the path of a socket: it goes unix:///PATH, with three slashes")
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
            self._problem("has a percent sign in front of what is no UTF-8: write %25 for %")
            return ""

    def _problem(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def _is_host(host: str, address: str | None) -> bool:
    """Whether *host* can be looked up, and *address*, if it stood in brackets, may (RFC 3986 section 3.2.2)."""
    try:
        return bool(host.encode("idna") if address is None else IPv6Address(address))
    except ValueError:
        return False
