"""What is known about models by their name: what admins have set, and the families that they belong to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from ..records import MODEL_FIELDS, ModelSettings

LONGEST_ANSWER = 131_072
"""The most tokens of an answer of a model that is not in the table."""

_KEPT_NAMES = 1000
_VERSION = re.compile(r"-(?:20\d\d-\d\d-\d\d|\d{4}|latest|high|medium|low|minimal)$")
"""Ends of names that seldom change the model: a date, or the effort that xAI adds to names in answers."""
_NOTHING_SET = ModelSettings()


class ModelFacts(NamedTuple):
    """What the gateway assumes about a model."""

    reasoning: bool
    """Whether it thinks unseen. A model that is not in the table is assumed to."""
    max_output_tokens: int
    """The most tokens of one answer, including reasoning."""
    tokens_per_second: float | None
    """How fast it writes at most, if an admin has said so."""


# Azure OpenAI, "models" (2026), and the model cards of Foundry. The first pattern that matches counts.
_FAMILIES: tuple[tuple[re.Pattern[str], bool, int], ...] = tuple(
    (re.compile(pattern), reasoning, most)
    for pattern, reasoning, most in (
        (r"gpt-5-chat", False, 16_384),
        (r"gpt-5.*chat", True, 16_384),  # from 5.1 on they think, too
        (r"gpt-5", True, 128_000),
        (r"gpt-4\.1", False, 32_768),
        (r"gpt-4o", False, 16_384),
        (r"gpt-4\.5", False, 16_384),
        (r"gpt-4-(turbo|1106|0125|vision)", False, 4_096),
        (r"gpt-4-32k", False, 32_768),
        (r"gpt-4(-|$)", False, 8_192),
        (r"gpt-3\.?5-turbo-16k", False, 16_384),
        (r"gpt-3\.?5", False, 4_096),
        (r"gpt-oss", True, 131_072),
        (r"o1-mini", True, 65_536),
        (r"o1-preview", True, 32_768),
        (r"o\d|codex-mini", True, 100_000),
        (r"deepseek-v3(-|$)", False, LONGEST_ANSWER),  # V3.1 and later think on demand
        (r"grok-3(-|$)(?!mini)", False, LONGEST_ANSWER),
        (r"grok-.*non-reasoning", False, LONGEST_ANSWER),
        (r"(mistral|ministral|codestral|pixtral|open-mistral)", False, LONGEST_ANSWER),
        (r"(meta-)?llama", False, LONGEST_ANSWER),
        (r"phi-(?!.*reasoning)", False, LONGEST_ANSWER),
        (r"(cohere-)?command(?!.*reasoning)", False, LONGEST_ANSWER),
        (r"(ai21-)?jamba(?!.*reasoning)", False, LONGEST_ANSWER),
    )
)


def own_settings(own: Mapping[str, ModelSettings], names: tuple[str | None, ...]) -> ModelSettings:
    """Return what admins have set for a model, each field for the first of its names for which it is set.

    Upper and lower case make no difference, as in Azure's names of deployments. If nothing is set for a version
    (``gpt-4o-2024-11-20``), what is set for its model holds.

    Args:
        own: All settings, by model or deployment. A change must replace this mapping.
        names: The names of the model, the most reliable one first.
    """
    return _latest.under(own).of(names) if own else _NOTHING_SET


def without_version(name: str) -> str:
    """Return *name*, in lower case, without one version or effort at its end; as it is if it has none."""
    return _VERSION.sub("", name)


def model_facts(*names: str | None, own: Mapping[str, ModelSettings], thinks: bool = False) -> ModelFacts:
    """Return what is known about a model.

    Args:
        names: Its names, the most reliable one first.
        own: What admins have set, by model or deployment. It takes precedence over everything else.
        thinks: Whether answers of the model have contained reasoning.
    """
    families = (_family(name) for name in names if name)
    reasoning, most = next((family for family in families if family is not None), (True, LONGEST_ANSWER))
    settings = own_settings(own, names)
    return ModelFacts(
        reasoning or thinks if settings.reasoning is None else settings.reasoning,
        settings.max_output_tokens or most,
        settings.tokens_per_second,
    )


class _OwnSettings:
    """The settings under one version of the organisation. Thread-safe.

    It remembers the settings of the names that were asked for, because most requests ask for one of a few.
    """

    def __init__(self, own: Mapping[str, ModelSettings]) -> None:
        self.own = own
        # A record that a dead process has left names the deployment, and not the model that it was registered for.
        self._folded = {
            each.deployment.lower(): settings for settings in own.values() for each in settings.deployments or ()
        }
        self._folded |= {name.lower(): settings for name, settings in own.items()}
        self._found: dict[tuple[str | None, ...], ModelSettings] = {}

    def of(self, names: tuple[str | None, ...]) -> ModelSettings:
        try:
            return self._found[names]
        except KeyError:
            settings = self._search([name for name in names if name])
        if len(self._found) >= _KEPT_NAMES:
            self._found.clear()
        self._found[names] = settings
        return settings

    def _search(self, names: list[str]) -> ModelSettings:
        spellings = [(name, name.lower()) for name in names] + [(without_version(name.lower()),) * 2 for name in names]
        found = [each for one, folded in spellings for each in (self.own.get(one), self._folded.get(folded)) if each]
        values = {
            name: [value for each in found if (value := getattr(each, name)) is not None] for name in MODEL_FIELDS
        }
        return ModelSettings(**{name: given[0] for name, given in values.items() if given})


class _LatestSettings:
    """Returns the same :class:`_OwnSettings` until admins change something, which replaces the mapping. Thread-safe."""

    def __init__(self) -> None:
        self._latest = _OwnSettings({})

    def under(self, own: Mapping[str, ModelSettings]) -> _OwnSettings:
        latest = self._latest
        if latest.own is not own:
            self._latest = latest = _OwnSettings(own)
        return latest


_latest = _LatestSettings()


@lru_cache(maxsize=1000)
def _family(name: str) -> tuple[bool, int] | None:
    lower = name.lower()
    return next(((reasoning, most) for pattern, reasoning, most in _FAMILIES if pattern.match(lower)), None)
