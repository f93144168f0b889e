"""Which identity of Microsoft Entra ID the gateway has, and how it gets a token with it (extra ``entra``)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import ConfigurationError
from .credentials import Token, TokenUnavailable

if TYPE_CHECKING:
    from azure.core.pipeline import PipelineResponse
    from azure.identity import ClientSecretCredential, ManagedIdentityCredential, WorkloadIdentityCredential

MANAGED, WORKLOAD, SECRET, AUTO = KINDS = ("managed", "workload", "secret", "auto")

# The variables that each kind needs, as azure-identity names them, and the field for each.
_NEEDS = {
    MANAGED: {},
    WORKLOAD: {
        "AZURE_TENANT_ID": "tenant_id",
        "AZURE_CLIENT_ID": "client_id",
        "AZURE_FEDERATED_TOKEN_FILE": "token_file",
    },
    SECRET: {"AZURE_TENANT_ID": "tenant_id", "AZURE_CLIENT_ID": "client_id", "AZURE_CLIENT_SECRET": "client_secret"},
}

# The ends of Azure's hosts in each cloud: its authority and its audience for Azure OpenAI. That audience works for the
# classic and for the v1 addresses; https://ai.azure.com/.default, of which Microsoft's pages for v1 speak in 2026-09,
# is known to work for v1 only.
_CLOUDS = {
    ".azure.us": ("login.microsoftonline.us", "https://cognitiveservices.azure.us/.default"),
    ".azure.cn": ("login.chinacloudapi.cn", "https://cognitiveservices.azure.cn/.default"),
}
_PUBLIC = ("login.microsoftonline.com", "https://cognitiveservices.azure.com/.default")

# A refusal waits for the next attempt of our own thread, which knows how long the old token is good for. The library's
# retries would keep that thread for minutes (10 retries; 70 s for status 410).
_OPTIONS: dict[str, Any] = {
    "retry_total": 0,
    "connection_timeout": 5,
    "read_timeout": 10,
}

_CODE = re.compile(r"AADSTS\d+")
_MOST_CHARACTERS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """An identity of Microsoft Entra ID. ``repr()`` shows no secret."""

    kind: str
    """``managed``, ``workload`` or ``secret``."""
    scope: str
    authority: str
    """The host, or the URL with https, that issues tokens. Not used for managed identities."""
    tenant_id: str | None = None
    client_id: str | None = None
    """None for the managed identity that the system has assigned."""
    client_secret: str | None = field(default=None, repr=False)
    token_file: str | None = None
    """The file with the token of the platform. Read anew for each token, because the platform replaces it."""

    @classmethod
    def choose(cls, kind: str, base_url: str, *, authority: str | None, scope: str | None, **values: Any) -> Identity:
        """Return the identity of *kind*. ``auto`` takes the first kind that has all its *values*, as
        DefaultAzureCredential does on a server: ``secret``, ``workload``, ``managed``.

        Args:
            base_url: The address of Azure, whose cloud decides about *authority* and *scope* if these are None.
            values: Fields of the identity that the environment has; others are None.

        Raises:
            ConfigurationError: something that *kind* needs is missing or not usable.
        """
        if kind == AUTO:
            kind = next(each for each in (SECRET, WORKLOAD, MANAGED) if not _missing(each, values))
        problems = [f"LLM_IDENTITY={kind} needs {variable}: set it." for variable in _missing(kind, values)]
        if authority and urlsplit(authority if "://" in authority else f"https://{authority}").scheme != "https":
            problems.append("AZURE_AUTHORITY_HOST must begin with https://: tokens are issued over TLS only.")
        if problems:
            raise ConfigurationError(problems)
        host = urlsplit(base_url).hostname or ""
        its_authority, its_scope = next((cloud for end, cloud in _CLOUDS.items() if host.endswith(end)), _PUBLIC)
        return cls(kind=kind, scope=scope or its_scope, authority=authority or its_authority, **values)

    def check_installed(self) -> None:
        """Raises ConfigurationError if the packages that fetch tokens are not installed."""
        try:
            found = find_spec("azure.identity")
        except ModuleNotFoundError:  # there is no package azure at all
            found = None
        if found is None:
            raise ConfigurationError(["LLM_IDENTITY needs one more package: pip install 'llmgateway[entra]'."])

    def fetch(self) -> Token:
        """Ask for a new token. Takes some seconds, or half a minute if nobody answers.

        Raises:
            TokenUnavailable: it was refused, or there was no usable answer.
        """
        from azure.core.exceptions import AzureError

        answers: list[PipelineResponse[Any, Any]] = []
        try:
            # A new object each time: the library would return the token that it has until 5 minutes before its end,
            # and after a fork it would share its connections.
            with self._credential(answers.append) as credential:
                issued = credential.get_token_info(self.scope)
        except (AzureError, ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            # The library does not check the shape of answers: a page of a proxy that is no JSON gives a TypeError.
            raise self._unavailable(error, answers) from error
        # The library has computed the end with the same clock.
        return Token(value=issued.token, seconds=issued.expires_on - time.time())

    def _credential(
        self, on_answer: Callable[[PipelineResponse[Any, Any]], None]
    ) -> ClientSecretCredential | ManagedIdentityCredential | WorkloadIdentityCredential:
        from azure.identity import ClientSecretCredential, ManagedIdentityCredential, WorkloadIdentityCredential

        options = {**_OPTIONS, "raw_response_hook": on_answer}
        if self.kind == MANAGED:
            return ManagedIdentityCredential(client_id=self.client_id, **options)
        # Else the library asks login.microsoftonline.com about the authority. Other clouds and closed networks do not
        # reach it.
        options["disable_instance_discovery"] = True
        if self.kind == WORKLOAD:
            return WorkloadIdentityCredential(
                tenant_id=self.tenant_id,
                client_id=self.client_id,
                token_file_path=self.token_file,
                authority=self.authority,
                **options,
            )
        return ClientSecretCredential(
            self.tenant_id or "",
            self.client_id or "",
            self.client_secret or "",
            authority=self.authority,
            **options,
        )

    def _unavailable(self, error: Exception, answers: Sequence[PipelineResponse[Any, Any]]) -> TokenUnavailable:
        text, code = str(error), "no answer"
        last = answers[-1].http_response if answers else None
        if last is not None and last.status_code < 400:
            code = "no usable answer"  # it is not quoted, because it may contain a token
        elif last is not None:
            # The library's errors often have neither: for managed identities never.
            code = f"status {last.status_code}"
            text += f" The last answer was {last.status_code}: {_text(last)}"
        elif self.kind == WORKLOAD and isinstance(error, OSError):
            code = "no token of the platform"
        if self.client_secret:
            text = text.replace(self.client_secret, "[hidden]")
        text = " ".join(text.split())[:_MOST_CHARACTERS]
        return TokenUnavailable(found[0] if (found := _CODE.search(text)) else code, text)


def _text(response: Any) -> str:
    # Not the bytes: responses of azure-core have no attribute for them in all versions.
    try:
        return str(response.text())
    except (ValueError, LookupError):  # another charset than it says, or one that does not exist
        return "a body that cannot be decoded"


def _missing(kind: str, values: Mapping[str, Any]) -> list[str]:
    return [variable for variable, name in _NEEDS[kind].items() if not values.get(name)]
