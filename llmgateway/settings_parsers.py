"""Parses the values of settings that have a form of their own: addresses, origins, keys."""

from __future__ import annotations

import os
import re
from ipaddress import IPv6Address, ip_address
from urllib.parse import parse_qsl

from .local_time import problem_of_zone
from .stores.redis.url import RedisURL

_HOST_AND_PORT = re.compile(r"(?:[^:\[\]]+|\[[^\[\]]+\])(?::(\d{1,5}))?\Z", re.ASCII)
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?", re.ASCII)
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def url(text: str, *schemes: str) -> str:
    # Without urlsplit(), because its error messages can contain a password.
    if not text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        raise ValueError("must begin with " + " or ".join(f"{scheme}://" for scheme in schemes))
    return text


def host(text: str) -> str:
    if "/" in text or "@" in text or any(c.isspace() for c in text):
        raise ValueError("must be a host name or host:port; put a full URL into MONGO_URL or REDIS_URL")
    return text


def host_alone(text: str) -> str:
    if ":" in host(text):
        raise ValueError("must be a host name without a port: put the port into REDISPORT, a full URL into REDIS_URL")
    return text


def host_and_port(text: str) -> str:
    match = _HOST_AND_PORT.match(host(text))
    if not match or not 1 <= int(match[1] or 1) <= 65535:
        raise ValueError("must be host or host:port, with a port from 1 to 65535; put a full URL into MONGO_URL")
    return text


def timezone(text: str) -> str:
    if problem := problem_of_zone(text):
        raise ValueError(problem[0].lower() + problem[1:].rstrip("."))
    return text


def redis_url(text: str) -> str:
    RedisURL.parse(text)
    _check_files(text, "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
    return text


def mongo_url(text: str) -> str:
    # Finds most errors without the driver, so that they are reported together with the errors of other settings.
    url(text, "mongodb", "mongodb+srv")
    authority = re.split("[/?]", text.partition("://")[2], maxsplit=1)[0]
    login, _, hosts = authority.rpartition("@")
    if "@" in login or login.count(":") > 1:
        raise ValueError("has a login that cannot be read: in a password write %2F for /, %3A for :, %40 for @")
    try:
        for one in hosts.split(","):
            host_and_port(one)
    except ValueError:
        raise ValueError(
            "has a host or a port that is not valid: write USER:PASSWORD@HOST:PORT, in a password write %2F for /, "
            "%3A for :, %40 for @"
        ) from None
    _check_files(text, "tlscafile", "tlscertificatekeyfile", "tlscrlfile")
    return text


def _check_files(text: str, *options: str) -> None:
    """Check that the files of these options can be read; without the check, drivers fail in ways of their own."""
    for name, path in parse_qsl(text.partition("?")[2]):
        if name.lower() in options:
            try:
                open(path, "rb").close()
            except OSError as error:
                raise ValueError(
                    f"names with {name} a file that cannot be read: {os.path.abspath(path)}: {error.strerror}"
                ) from None


def proxy_address(text: str) -> str:
    """Return the address as the server writes the addresses of its peers, because the two are compared as text."""
    if text == "*":
        return text
    try:
        address = ip_address(text.strip("[]"))
    except ValueError:
        raise ValueError(
            "must be an IP address, or * for any: it is compared with the address that requests come from"
        ) from None
    return str((address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address)


def origins(text: str) -> tuple[str, ...]:
    return tuple(_origin(name.strip()) for name in text.split(",") if name.strip())


def _origin(text: str) -> str:
    """Return the origin as browsers send it: in lower case, without a default port (RFC 6454 section 6.2)."""
    text = text.lower()
    if text in ("*", "null"):
        return text
    if "://" not in text or re.search(r"[/?#@]", text.partition("://")[2]):
        raise ValueError(
            "must be like https://app.example.org, without a path or a slash at the end; or null, or * for every origin"
        )
    if not text.isascii():
        text = _in_ascii(text)
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise ValueError(
            "names whole origins like https://app.example.org, no patterns: name each origin, separated by commas, "
            "or write * alone for every one"
        )
    scheme, name, port = match.groups()
    if port is None or port == _DEFAULT_PORTS.get(scheme):
        return f"{scheme}://{name}"
    if not 1 <= int(port) <= 65535:
        raise ValueError("must have a port from 1 to 65535, like https://app.example.org:8443")
    return f"{scheme}://{name}:{int(port)}"


def _in_ascii(origin: str) -> str:
    scheme, _, rest = origin.partition("://")
    name, colon, port = rest.partition(":")
    try:
        return f"{scheme}://{name.encode('idna').decode()}{colon}{port}"
    except UnicodeError:
        raise ValueError("names a host that is not valid: write it as browsers do, like https://xn--…") from None


def issuer(text: str) -> str:
    """Return the issuer as it is: it is compared with what the provider says, also a slash at its end."""
    _address(text)
    if re.search(r"//login\.microsoftonline\.[a-z]+/(common|organizations|consumers)(/|$)", text):
        raise ValueError("must name your tenant in place of common: everybody in the world could sign in otherwise")
    return text


def public_url(text: str) -> str:
    """Return the address without a slash at its end, as paths are put behind it."""
    return _address(text).rstrip("/")


def _address(text: str) -> str:
    url(text, "https", "http")
    if any(character in text for character in "?#@\\") or any(c.isspace() or not c.isprintable() for c in text):
        raise ValueError("must be an address like https://id.example.org/path, without a query, #, @ or blanks")
    if not re.match(r"https?://[^/]", text):
        raise ValueError("names no host")
    return text


def word(text: str) -> str:
    if any(character.isspace() for character in text):
        raise ValueError("must be one name, without blanks")
    return text


def scopes(text: str) -> tuple[str, ...]:
    # RFC 6749 section 3.3
    names = tuple(text.split())
    if "openid" not in names or not all(re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+", name) for name in names):
        raise ValueError("must be names separated by blanks, with openid among them")
    return names


def without_blanks_around(text: str) -> str:
    if text != text.strip():
        raise ValueError("begins or ends with a blank or a line break: remove it")
    return text


def admin_key(text: str) -> str:
    # A header value cannot begin or end with blanks, and cannot contain control characters (RFC 9110 section 5.5).
    # Browsers and Python's clients send no characters beyond Latin-1 in it.
    if re.search(r"[\x00-\x1f\x7f]", without_blanks_around(text)):
        raise ValueError("must not contain line breaks or control characters: it is sent in a header")
    if not all(character.isprintable() and ord(character) < 0x100 for character in text.replace("\xa0", " ")):
        raise ValueError(
            "has characters that a header cannot carry: use letters, digits and signs of ASCII, for example from: "
            "openssl rand -hex 24. If SECRET_KEY was never set, set it to the old ADMIN_KEY, so that the stored key of "
            "Azure stays readable"
        )
    return text


def header_value(text: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ValueError("must be visible ASCII characters without spaces: copy the key again")
    return text


def scope(text: str) -> str:
    # Entra ID's client credentials flow: "the resource identifier … affixed with the .default suffix".
    if not re.fullmatch(r"[a-z]+://[\x21-\x7e]+/\.default", text):
        raise ValueError("must end with /.default, like https://cognitiveservices.azure.com/.default")
    return text
