"""The endpoint of Azure: parses the URL that an operator has set, and builds the URL of each request."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

# Azure allows letters, digits, '-', '_' and '.' in the name of a deployment. Other characters could
# change the path of the URL.
_DEPLOYMENT = re.compile(r"(?!\.+$)[A-Za-z0-9._-]{1,128}\Z")

_AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
_OPERATION = "/chat/completions"
_CLASSIC = re.compile(r"/deployments/(?P<name>[^/]+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The address of chat completions at Azure.

    In the *classic* form the path names the deployment and Azure ignores the body's ``model``; in
    the *v1* form the body's ``model`` is the deployment and the path is the same for all.
    """

    template: str
    """The URL. It contains ``{model}`` if the name of the deployment is a part of it."""
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
        if split_url.username or split_url.password:
            raise ValueError("must not contain a user or a password; set the key with LLM_API_KEY")
        base = _base_path(split_url)
        query = dict(parse_qsl(split_url.query))
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
        url = f"{split_url.scheme}://{split_url.netloc}{base}{_OPERATION}"
        if query:
            url += "?" + urlencode(query)
        return cls(template=url, deployment=fixed)

    @property
    def names_model_in_path(self) -> bool:
        """Whether every request's URL depends on its model."""
        return "{model}" in self.template

    def url(self, deployment: str) -> str:
        """Return the URL for *deployment*, for which :func:`is_deployment_name` must be true."""
        return self.template.replace("{model}", deployment)


def is_deployment_name(name: str) -> bool:
    """Return whether *name* is a valid name of a deployment, and so is safe in the path of a URL."""
    return bool(_DEPLOYMENT.match(name))


def _split(text: str) -> SplitResult:
    example = "must be a URL such as https://NAME.openai.azure.com/openai/v1"
    try:
        split_url = urlsplit(text)
        port = split_url.port
    except ValueError:  # an unfinished IPv6 address, or a port that is not a number
        raise ValueError(example) from None
    if split_url.scheme not in ("http", "https") or not split_url.hostname or port == 0:
        raise ValueError(example)
    return split_url


def _base_path(split_url: SplitResult) -> str:
    path = split_url.path.rstrip("/").removesuffix(_OPERATION).rstrip("/")
    if path in ("", "/openai") and _is_azure(split_url):
        # The portal shows this URL as "Endpoint". Since August 2025 every resource serves v1 under it.
        return "/openai/v1"
    return path


def _is_azure(split_url: SplitResult) -> bool:
    return (split_url.hostname or "").endswith(_AZURE_HOSTS)
