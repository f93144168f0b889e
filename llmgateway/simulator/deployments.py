"""The deployments of the simulated resource."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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

DEFAULT_DEPLOYMENTS = ("gpt-4o-mini", "gpt-4o", "gpt-4.1-mini", "gpt-5-mini", "o4-mini")

_REASONING = re.compile(r"o\d|gpt-5(?!.*chat)")


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model, under a name that the organisation has chosen."""

    name: str
    model: str = ""
    """Name of the model in answers; if empty, it is derived from the name of the deployment."""
    old: bool = False
    """An old model, which does not know ``stream_options`` and rejects them."""

    @property
    def model_version(self) -> str:
        return self.model or _VERSIONS.get(self.name, self.name)

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
