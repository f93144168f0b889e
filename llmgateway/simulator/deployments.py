"""The deployments of the simulated resource."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from .meter import Scope

Ability = Literal["chat", "embeddings", "images", "transcription", "translation", "speech"]
Maker = Literal["openai", "grok", "deepseek", "mistral", "phi", "router"]

_VERSIONS = {
    "gpt-4o": "gpt-4o-2024-11-20",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-4.1-nano": "gpt-4.1-nano-2025-04-14",
    "gpt-5-mini": "gpt-5-mini-2025-08-07",
    "gpt-5-nano": "gpt-5-nano-2025-08-07",
    "o4-mini": "o4-mini-2025-04-16",
}
"""The version of each model that Azure's answers contain."""

MODELS = (*_VERSIONS.values(), "text-embedding-3-small", "text-embedding-3-large", "gpt-image-1", "whisper", "tts")
"""What the region offers, deployed or not."""

DEFAULT_DEPLOYMENTS = ("gpt-4o-mini", "gpt-4o", "gpt-4.1-mini", "gpt-5-mini", "o4-mini")
OTHER_DEPLOYMENTS = (
    "text-embedding-3-small",
    "text-embedding-3-large",
    "gpt-image-1",
    "whisper",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-tts",
    "tts",
)
"""Models that do something else than chat; with the others they are what a resource has if nothing else is said."""

_ABILITIES: Mapping[str, tuple[Ability, ...]] = {
    r"embedding": ("embeddings",),
    r"image|dall-e": ("images",),
    r"whisper": ("transcription", "translation"),
    r"transcribe": ("transcription",),
    r"tts": ("speech",),
}

_REASONING = re.compile(r"o\d|gpt-5(?!.*chat)")


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model, under a name that the organisation has chosen."""

    name: str
    model: str = ""
    """Name of the model in answers; if empty, it is derived from the name of the deployment."""
    old: bool = False
    """An old model, which does not know ``stream_options`` and rejects them."""
    max_output_tokens: int | None = None
    """The most tokens of one answer, including reasoning; longer ones end with the reason ``length``."""
    maker: Maker = "openai"
    """Whose habits its answers have (:mod:`~llmgateway.simulator.partners`)."""
    tokens_per_minute: int | None = None
    """Its own limit; ``None`` for that of the resource."""
    requests_per_minute: int | None = None
    provisioned: bool = False
    """Throughput that is paid by the hour: its tokens are on no bill."""
    spillover: str | None = None
    """The deployment that serves what this one cannot (``spilloverDeploymentName``)."""
    tiers: tuple[str, ...] = ("default", "priority")
    """The service tiers that it has. What asks for another one is served, and billed, as ``default``."""
    default_tier: str = "default"
    """The tier of requests that ask for none."""
    scope: Scope = "global"

    def __post_init__(self) -> None:
        for name, value, possible in (("maker", self.maker, get_args(Maker)), ("scope", self.scope, get_args(Scope))):
            if value not in possible:
                raise ValueError(f"{name} {value!r} is none of {', '.join(possible)}")

    @property
    def model_version(self) -> str:
        return self.model or _VERSIONS.get(self.name, self.name)

    @property
    def family(self) -> str:
        """The model without its version."""
        return re.sub(r"-20\d\d-\d\d-\d\d$", "", self.model_version)

    @property
    def abilities(self) -> tuple[Ability, ...]:
        """What the model can do."""
        return next((able for name, able in _ABILITIES.items() if re.search(name, self.model_version)), ("chat",))

    @property
    def reasons(self) -> bool:
        """Whether this is an o-series or gpt-5 model, which uses reasoning tokens and rejects ``max_tokens``."""
        return _REASONING.match(self.model_version) is not None

    @property
    def fingerprint(self) -> str | None:
        return None if self.reasons else "fp_b6f445fc1c"


def by_name(deployments: Iterable[Deployment | str]) -> Mapping[str, Deployment]:
    """The deployments by name; a name alone stands for an ordinary one."""
    made = [Deployment(entry) if isinstance(entry, str) else entry for entry in deployments]
    return {deployment.name: deployment for deployment in made}
