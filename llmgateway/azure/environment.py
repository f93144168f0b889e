"""Reads proxies and certificates from the environment, as requests does, and checks that they can be used."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.utils import select_proxy
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from ..errors import ConfigurationError
from .adapter import StreamingAdapter
from .endpoint import Endpoint

_SOCKS = ("socks4", "socks4a", "socks5", "socks5h")
_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True, slots=True)
class NetworkEnvironment:
    """What the environment says about the way to one URL."""

    verify: bool | str
    """True for the usual certificates, or the name of a file or a folder with others."""
    proxies: dict[str, str]
    """Proxies by scheme of the URL, as requests takes them."""

    @classmethod
    def read(cls, session: requests.Session, url: str) -> NetworkEnvironment:
        settings = session.merge_environment_settings(url, {}, True, None, None)
        # requests adds a missing scheme to a proxy's URL, but not if the URL contains a user and a password.
        proxies = {name: proxy if "://" in proxy else f"http://{proxy}" for name, proxy in settings["proxies"].items()}
        return cls(True if settings["verify"] is None else settings["verify"], proxies)

    def proxy(self, url: str) -> str | None:
        """Return the URL of the proxy on the way to *url*; None if there is none. It may contain a password."""
        return select_proxy(url, self.proxies)

    def check(self, adapter: StreamingAdapter, url: str) -> None:
        """Check that *adapter* can use the proxy and the certificates, and load the certificates.

        Raises:
            ConfigurationError: it cannot. No problem quotes the URL of the proxy, which can contain a password.
        """
        proxy = self.proxy(url)
        found = [_problem_of_proxy(proxy), self._problem_of_certificates(adapter)]
        names = (_proxy_variable(url, os.environ), _first_of(_CERTIFICATES, os.environ))
        problems = [f"{name} {problem}." for name, problem in zip(names, found, strict=True) if problem]
        if problems:
            raise ConfigurationError(problems)

    def _problem_of_certificates(self, adapter: StreamingAdapter) -> str | None:
        try:
            adapter.trust(self.verify)
        except OSError as error:  # ssl.SSLError is one
            return _unusable_certificates(Path(str(self.verify)), error)
        if isinstance(self.verify, str) and os.path.isdir(self.verify) and not _is_prepared(self.verify):
            folder = os.path.abspath(self.verify)
            return f"names the folder {folder}, which openssl has not prepared: run 'openssl rehash {folder}'"
        return None


def check_environment(endpoint: Endpoint) -> None:
    """Check that the environment leads to *endpoint*: that its proxy and its certificates can be used.

    Raises:
        ConfigurationError: it does not.
    """
    url = endpoint.url("model")
    with requests.Session() as session:
        adapter = StreamingAdapter(between_bytes_timeout=1, connections=1)
        NetworkEnvironment.read(session, url).check(adapter, url)


def _problem_of_proxy(proxy: str | None) -> str | None:
    if proxy is None:
        return None
    scheme = proxy.partition("://")[0].lower()
    if scheme in _SOCKS and find_spec("socks") is None:
        return "names a SOCKS proxy, which needs one more package: pip install 'requests[socks]'. Or name an HTTP proxy"
    if scheme not in ("http", "https", *_SOCKS):
        return "must begin with http://, https:// or socks5h://"
    try:
        parsed = parse_url(proxy)
    except LocationParseError:
        parsed = None
    if parsed is None or not parsed.host or parsed.port == 0:
        return "must be like http://proxy.example.org:3128; in a password write %2F for /, %3A for :, %40 for @"
    return None


def _is_prepared(folder: str) -> bool:
    """Whether OpenSSL finds anything in *folder*, where it looks for files that are named by a hash."""
    return any(re.fullmatch(r"[0-9a-f]{8}\.\d+", name) for name in os.listdir(folder))


def _unusable_certificates(path: Path, error: OSError) -> str:
    where = path.absolute()
    if not path.exists():
        return f"names {where}, which does not exist: name a file with certificates in the form PEM, or remove it"
    reason = "it has no certificates in the form PEM" if isinstance(error, ssl.SSLError) else error.strerror
    return f"names {where}, which cannot be used: {reason}"


def _proxy_variable(url: str, environ: Mapping[str, str]) -> str:
    scheme = urlsplit(url).scheme
    # In the order in which urllib and requests choose.
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    return _first_of(names, environ)


def _first_of(names: tuple[str, ...], environ: Mapping[str, str]) -> str:
    return next((name for name in names if environ.get(name)), names[-1])
