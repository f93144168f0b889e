"""What admins set for models: prices, deployments, names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What a model costs in US dollars: its tokens per million, or what else Azure counts. ``None``: not known."""

    prompt: float | None = None
    cached: float | None = None
    """Price of prompt tokens that Azure had in its cache. If it is not known, they cost as much as the others, which
    is never too little."""
    completion: float | None = None
    cache_write: float | None = None
    """Price of prompt tokens that Azure put into its cache. Azure does not report their number (2026-11), so no cost is
    computed with it yet."""
    audio_prompt: float | None = None
    audio_completion: float | None = None
    image: float | None = None
    """Price of prompt tokens of images, where the answer counts them apart. If it is not known, they cost as much as
    text."""
    minute: float | None = None
    """Price of a minute of audio that is written down. Where it is known, the tokens of such a request cost nothing."""
    characters: float | None = None
    """Price of a million characters that are spoken. The same holds for it."""
    per_image: float | None = None
    """Price of one image that is made. The same holds for it."""
    above: int | None = None
    """Prompts of more tokens than this cost the prices of ``long_context``: the whole request, not the excess."""
    long_context: Prices | None = None
    tiers: Mapping[str, Prices] = field(default_factory=dict)
    """Prices of other service tiers than the default, by the name that answers have in ``service_tier``."""
    tools: Mapping[str, float] = field(default_factory=dict)
    """Prices of Azure's own tools, by name, in US dollars per thousand uses. The others have their list price."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Prices:
        """Convert the output of :meth:`as_json`. Fields of a newer version are ignored."""
        prices: dict[str, Any] = {name: document.get(name) for name in PRICE_KINDS}
        long_context = document.get("long_context")
        if long_context is not None:
            prices |= {"above": long_context["above"], "long_context": cls.from_json(long_context)}
        tiers = {name: cls.from_json(tier) for name, tier in (document.get("tiers") or {}).items()}
        return cls(**prices, tiers=tiers, tools=document.get("tools") or {})

    def as_json(self) -> dict[str, Any]:
        """Return the prices that are known, in the shape of ``PUT /admin/models/{name}``."""
        document: dict[str, Any] = {name: price for name in PRICE_KINDS if (price := getattr(self, name)) is not None}
        if self.long_context is not None:
            document["long_context"] = {"above": self.above, **self.long_context.as_json()}
        if self.tools:
            document["tools"] = dict(self.tools)
        if self.tiers:
            document["tiers"] = {name: prices.as_json() for name, prices in self.tiers.items()}
        return document


TOKEN_KINDS = ("prompt", "cached", "completion", "cache_write", "audio_prompt", "audio_completion", "image")
"""The fields of :class:`Prices` that are prices of tokens."""


UNIT_KINDS = ("minute", "characters", "per_image")
"""The fields of :class:`Prices` that are prices of something else than tokens."""


PRICE_KINDS = (*TOKEN_KINDS, *UNIT_KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One deployment at Azure that an admin has registered for a model."""

    name: str
    """Unique within the model."""
    base_url: str
    """As ``LLM_BASE_URL``."""
    deployment: str
    """Its name at Azure."""
    api_version: str | None = None
    key: str | None = field(default=None, repr=False)
    """The key of its resource, encrypted; ``None`` for that of ``LLM_BASE_URL``."""
    identity: bool = False
    """Whether a token of Entra ID authenticates the gateway, in place of a key."""
    key_header: str | None = None
    """``None`` for ``LLM_KEY_HEADER``."""
    priority: int = 1
    """Those with the smallest number are asked first."""
    weight: float = 1.0
    """Its part of the requests among those with the same priority."""
    active: bool = True

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Deployment:
        """Convert the output of :meth:`as_json`. Fields of a newer version are ignored."""
        return cls(**{one.name: document[one.name] for one in fields(cls) if one.name in document})

    def as_json(self) -> dict[str, Any]:
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """What admins set for one model or deployment. ``None``: the gateway's own tables decide."""

    prices: Prices | None = None
    max_output_tokens: int | None = None
    """The most tokens of one answer, including reasoning."""
    tokens_per_second: float | None = None
    """How fast it writes at most. Decides what is booked for answers whose count never came."""
    reasoning: bool | None = None
    """Whether it thinks unseen before it answers."""
    deployments: tuple[Deployment, ...] | None = None
    """Where it is. ``None`` or empty: it is not registered, and ``LLM_BASE_URL`` answers."""
    endpoints: tuple[str, ...] | None = None
    """Names of the operations that it serves, such as ``chat/completions``; ``None`` for all."""
    aliases: tuple[str, ...] | None = None
    """Patterns of other names for it, with ``*`` for any text."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ModelSettings:
        """Convert the output of :meth:`as_json`. Fields of a newer version are ignored."""
        known: dict[str, Any] = {name: document[name] for name in MODEL_FIELDS if document.get(name) is not None}
        if "prices" in known:
            known["prices"] = Prices.from_json(known["prices"])
        if "deployments" in known:
            known["deployments"] = tuple(map(Deployment.from_json, known["deployments"]))
        for name in ("endpoints", "aliases"):
            if name in known:
                known[name] = tuple(known[name])
        return cls(**known)

    def as_json(self) -> dict[str, Any]:
        """Return the settings that are not ``None``."""
        return {name: _as_json(value) for name in MODEL_FIELDS if (value := getattr(self, name)) is not None}


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_as_json(one) for one in value]
    return value.as_json() if isinstance(value, Prices | Deployment) else value


MODEL_FIELDS = tuple(field.name for field in fields(ModelSettings))
