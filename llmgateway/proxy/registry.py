"""The models that admins have registered: their names, and their deployments ready to be called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from ..azure.credentials import Credential, StaticKey
from ..azure.endpoint import Endpoint
from ..records import Deployment, ModelSettings

_KEPT_NAMES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredDeployment:
    """A deployment with its address parsed and its key decrypted."""

    name: str
    endpoint: Endpoint
    deployment: str
    credential: Credential | None = field(repr=False)
    """``None`` for the key of ``LLM_BASE_URL``, or if there is none."""
    no_credential: str | None
    """Why there is none; ``None`` if there is one."""
    priority: int
    weight: float

    @property
    def problem(self) -> str | None:
        """Why it cannot be called; ``None`` if it can. It may change: tokens of an identity can end."""
        if self.no_credential is not None or self.credential is None:
            return self.no_credential
        return self.credential.problem()


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredModel:
    """A model with deployments, or with other names for one of ``LLM_BASE_URL``."""

    name: str
    endpoints: tuple[str, ...] | None
    """Names of the operations that it serves; ``None`` for all."""
    is_registered: bool
    """Whether it has deployments, active or not. If not, it is a deployment of ``LLM_BASE_URL``."""
    deployments: tuple[RegisteredDeployment, ...]
    """Those that are active, the smallest priority first."""


def is_named(settings: ModelSettings) -> bool:
    """Return whether *settings* give a model's name a meaning, and are more than its price and its facts."""
    return bool(settings.deployments or settings.aliases or settings.endpoints is not None)


class Registry:
    """The registered models under one version of the organisation's settings. Thread-safe.

    Args:
        settings: The settings of all models, by name.
        key_header: The name of the header for keys, where a deployment has none of its own.
        decrypt: Decrypts a key; returns None if it was encrypted with another secret.
        identity: What authenticates the gateway where no key does; None if there is nothing.
        may_share_key: Returns whether the key of ``LLM_BASE_URL``, or a token of *identity*, may be sent to an address,
            too.
    """

    def __init__(
        self,
        settings: Mapping[str, ModelSettings],
        *,
        key_header: str,
        decrypt: Callable[[bytes], str | None],
        identity: Credential | None,
        may_share_key: Callable[[Endpoint], bool],
    ) -> None:
        self.settings = settings
        self._key_header = key_header
        self._decrypt = decrypt
        self._identity = identity
        self._may_share_key = may_share_key
        self.models = {name: self._model(name, each) for name, each in sorted(settings.items()) if is_named(each)}
        """Those that are more than a price, by name."""
        self.names = tuple(name for name, model in self.models.items() if model.deployments)
        """The models with deployments that are active."""
        self._folded = {name.lower(): model for name, model in self.models.items()}
        aliases = [(alias.lower(), self.models[name]) for name in self.models for alias in settings[name].aliases or ()]
        # A name without * means itself alone, and of two patterns the longer one says more.
        self._aliases = sorted(aliases, key=lambda pair: ("*" in pair[0], -len(pair[0]), pair[0]))
        self._found: dict[str, RegisteredModel | None] = {}

    def find(self, name: str) -> RegisteredModel | None:
        """Return the model that *name* means; None if no admin has registered it.

        A name precedes a pattern, and upper and lower case make no difference, as in the names of deployments.
        """
        if not self._folded:
            return None
        try:
            return self._found[name]
        except KeyError:
            found = self._search(name.lower())
        if len(self._found) >= _KEPT_NAMES:
            self._found.clear()
        self._found[name] = found
        return found

    def _search(self, folded: str) -> RegisteredModel | None:
        if folded in self._folded:
            return self._folded[folded]
        return next((model for alias, model in self._aliases if fnmatchcase(folded, alias)), None)

    def _model(self, name: str, settings: ModelSettings) -> RegisteredModel:
        active = [each for each in settings.deployments or () if each.active]
        return RegisteredModel(
            name=name,
            endpoints=settings.endpoints,
            is_registered=bool(settings.deployments),
            deployments=tuple(self._deployment(each) for each in sorted(active, key=lambda each: each.priority)),
        )

    def _deployment(self, stored: Deployment) -> RegisteredDeployment:
        endpoint = Endpoint.parse(stored.base_url, stored.api_version)
        credential, problem = self._credential(stored, endpoint)
        return RegisteredDeployment(
            name=stored.name,
            endpoint=endpoint,
            deployment=stored.deployment,
            credential=credential,
            no_credential=problem,
            priority=stored.priority,
            weight=stored.weight,
        )

    def _credential(self, stored: Deployment, endpoint: Endpoint) -> tuple[Credential | None, str | None]:
        if stored.identity:
            if self._identity is None:
                return None, "it has no identity: set LLM_IDENTITY"
            if not self._may_share_key(endpoint):
                return None, "tokens are not sent to this host: set a key"
            return self._identity, None
        if stored.key is None:
            return None, None if self._may_share_key(endpoint) else "it has no key: set one"
        key = self._decrypt(stored.key.encode())
        if key is None:
            return None, "its key cannot be read, because SECRET_KEY or ADMIN_KEY has changed: set the key again"
        return StaticKey(stored.key_header or self._key_header, key), None
