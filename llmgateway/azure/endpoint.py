"""An address of Azure: parses the URL that an operator has set, and builds the URL of each request."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

NO_BASE_URL = "none"
"""The value of ``LLM_BASE_URL`` for a gateway whose models all have deployments of their own."""

# Azure allows letters, digits, '-', '_' and '.' in the name of a deployment. Other characters could
# change the path of the URL.
_DEPLOYMENT = re.compile(r"(?!\.+$)[A-Za-z0-9._-]{1,128}\Z")

_AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
_OTHER_CLOUDS = tuple(host.replace("azure.com", cloud) for host in _AZURE_HOSTS for cloud in ("azure.us", "azure.cn"))
"""The same in Microsoft's clouds for the government of the US and in China."""
_PORTALS = ("ai.azure.com", "oai.azure.com", "ml.azure.com", "portal.azure.com", "learn.microsoft.com")
"""Pages about resources. The host of a resource, too, may end like the first one: NAME.services.ai.azure.com."""
_PRIVATE_NAMES = (".localhost", ".local", ".internal", ".lan", ".svc", ".home.arpa", ".test", ".invalid", ".example")
"""Ends of names that no public DNS has (RFC 6761, RFC 8375, and what clusters use)."""
_SERVERLESS_HOSTS = (".inference.ai.azure.com", ".models.ai.azure.com", ".inference.ml.azure.com")
_HOST = re.compile(r"(?!https?$)[\w.-]+|[0-9a-f:.]+(%.+)?")
"""Not what stands in place of a name in examples, nor the beginning of a second URL."""
_MODELS = re.compile(r"(?<!/deployments)/models$")
"""The portal shows the URL of the list of models, too: whoever copies it means the resource."""
_V1 = "/openai/v1"
_CLASSIC = re.compile(r"/deployments/(?P<name>[^/]+)$")
_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f\s]")
_OPERATION = re.compile(
    r"(?<!/deployments)/(chat/completions|completions|responses|embeddings|images/(generations|edits)"
    r"|audio/(transcriptions|translations|speech))$"
)
"""Ends of URLs that people paste as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The address of a resource at Azure, below which the operations are.

    In the *classic* form the path names the deployment and Azure ignores the body's ``model``; in
    the *v1* form the body's ``model`` is the deployment and the path is the same for all.
    """

    base: str
    """The URL without the operation and the query. It contains ``{model}`` if the name of the deployment is a part of
    it."""
    query: str = ""
    """The query with its question mark; empty if there is none."""
    deployment: str | None
    """The deployment that the path names; None if it names none, or contains ``{model}``."""

    @classmethod
    def parse(cls, text: str, api_version: str | None = None) -> Endpoint:
        """Parse *text*: the URL of a resource, a base URL, or a full URL of either form. API Management works, too.

        An ``api-version`` in the query of *text* takes precedence over *api_version*.

        Raises:
            ValueError: *text* is not a usable URL. The message says how to correct it.
        """
        split_url = _split(text.strip())
        if "@" in split_url.netloc:
            raise ValueError("must not contain a user or a password; set the key with LLM_API_KEY")
        _refuse_pages(split_url)
        base = _base_path(split_url)
        query = dict(parse_qsl(split_url.query))
        if _is_azure(split_url) and base == _V1 and query.get("api-version", "")[:1].isdigit():
            del query["api-version"]  # of the address that it was in
        classic = _CLASSIC.search(base)
        # The v1 form accepts "preview" and similar words. It answers 404 to a version that is a date.
        if api_version and (classic or not api_version[0].isdigit()):
            query.setdefault("api-version", api_version)
        if classic and "api-version" not in query and _is_azure(split_url):
            raise ValueError("names a deployment in its path: set LLM_API_VERSION too, for example 2024-10-21")
        name = classic["name"] if classic else None
        fixed = name if name and "{model}" not in name else None
        if fixed and not is_deployment_name(fixed):
            raise ValueError(f"has no usable deployment name in its path: {fixed!r}")
        return cls(
            base=f"{split_url.scheme}://{split_url.netloc}{base}",
            query=f"?{urlencode(query)}" if query else "",
            deployment=fixed,
        )

    @property
    def host(self) -> str:
        return (urlsplit(self.base).hostname or "").rstrip(".")

    @property
    def origin(self) -> str:
        """Scheme, host and port: a key that was given for one address is also for others with the same origin."""
        split_url = urlsplit(self.base)
        port = split_url.port or {"https": 443, "http": 80}[split_url.scheme]
        return f"{split_url.scheme}://{self.host}:{port}"

    @property
    def is_encrypted(self) -> bool:
        return self.base.startswith("https:")

    @property
    def is_azure(self) -> bool:
        """Whether it is a host of Azure, where nobody but Azure receives a key."""
        return self.host.endswith((*_AZURE_HOSTS, *_OTHER_CLOUDS)) and self.is_encrypted

    @property
    def names_model_in_path(self) -> bool:
        """Whether every request's URL depends on its model."""
        return "{model}" in self.base

    def url(self, deployment: str, operation: str = "chat/completions", *, in_path: bool = True) -> str:
        """Return the URL of an operation.

        Args:
            deployment: A name for which :func:`is_deployment_name` is true.
            operation: The end of the path, such as ``chat/completions``.
            in_path: Whether the classic form of the URL names the deployment. Responses are not below
                ``/deployments/NAME`` (Microsoft, "Azure OpenAI API versions", 2025).
        """
        base = self.base if in_path else _CLASSIC.sub("", self.base)
        return f"{base.replace('{model}', deployment)}/{operation}{self.query}"


def sends_key_in_the_clear(url: str) -> bool:
    """Return whether *url* would carry a key over the internet unencrypted: ``http`` to a host with a public name."""
    split_url = urlsplit(url)
    host = (split_url.hostname or "").rstrip(".")
    if split_url.scheme != "http":
        return False
    address = _address(host)
    if address is None:
        return "." in host and not host.endswith(_PRIVATE_NAMES)
    return address.is_global


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that *host* is, in any form that resolvers accept; None if it is a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))  # such as 335610371 and 0x14.1.515
        except (OSError, UnicodeError):
            return None
    return getattr(address, "ipv4_mapped", None) or address


def is_deployment_name(name: str) -> bool:
    """Return whether *name* is a valid name of a deployment, and so is safe in the path of a URL."""
    return bool(_DEPLOYMENT.match(name))


def _split(text: str) -> SplitResult:
    example = "must be a URL such as https://NAME.openai.azure.com/openai/v1"
    if _NOT_IN_URLS.search(text):  # urlsplit() leaves some of them out, and so hides what was pasted
        raise ValueError(f"{example}, in one line and without blanks")
    try:
        split_url = urlsplit(text)
        port = split_url.port
    except ValueError:  # an unfinished IPv6 address, or a port that is not a number
        raise ValueError(example) from None
    if split_url.scheme not in ("http", "https") or not _HOST.fullmatch(split_url.hostname or "") or port == 0:
        raise ValueError(example)
    return split_url


def _refuse_pages(split_url: SplitResult) -> None:
    """Refuse addresses that the portals show, and that are not those of a resource's API."""
    host = split_url.hostname or ""
    is_resource = _is_azure(split_url) or host.endswith(_SERVERLESS_HOSTS)
    if not is_resource and any(host == portal or host.endswith(f".{portal}") for portal in _PORTALS):
        raise ValueError(
            "is the address of a page, not of a resource: write https://NAME.openai.azure.com/openai/v1 with the name "
            "of the resource, which the portal shows under 'Keys and Endpoint'"
        )
    if _is_azure(split_url) and re.match(r"/models/?$", split_url.path) and "api-version=" not in split_url.query:
        raise ValueError(
            "is the address of the older API for models, which needs an api-version: write "
            f"{split_url.scheme}://{split_url.netloc}{_V1}, which serves the same models"
        )
    if _is_azure(split_url) and re.match(r"/api/projects(/|$)", split_url.path, re.IGNORECASE):
        raise ValueError(
            f"is the address of a Foundry project: write {split_url.scheme}://{split_url.netloc}/openai/v1, which is "
            "the address of its resource"
        )


def _base_path(split_url: SplitResult) -> str:
    path = split_url.path.rstrip("/")
    if not _is_azure(split_url):
        return _OPERATION.sub("", path).rstrip("/")
    if path.startswith("/openai/"):
        path = _MODELS.sub("", path)
    path = _OPERATION.sub("", path).rstrip("/")
    # The portal shows this URL as "Endpoint". Since August 2025 every resource serves v1 under it.
    return _V1 if path in ("", "/openai") else path


def _is_azure(split_url: SplitResult) -> bool:
    return (split_url.hostname or "").endswith(_AZURE_HOSTS)
