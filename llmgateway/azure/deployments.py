"""Deployments of models at Azure, as the gateway calls them."""

from __future__ import annotations

from dataclasses import dataclass, field

from .credentials import Credential
from .endpoint import Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One deployment: where it is, and what authenticates the gateway there."""

    name: str
    """Unique within its model. An admin has chosen it; it is empty for the deployments of ``LLM_BASE_URL``."""
    endpoint: Endpoint
    deployment: str
    """Its name at Azure."""
    credential: Credential = field(repr=False)
    model: str = ""
    """The model for which an admin has registered it; empty for the deployments of ``LLM_BASE_URL``."""
    priority: int = 1
    """Those with the smallest number are asked first."""
    weight: float = 1.0
    """Its part of the requests among those with the same priority."""

    @property
    def label(self) -> str:
        """How logs and errors for admins name it. Contains no secret."""
        if not self.name:
            return f"{self.deployment!r} of LLM_BASE_URL"
        return f"{self.name!r} of the model {self.model!r} ({self.deployment} at {self.endpoint.base})"

    @property
    def place(self) -> str | None:
        """Where responses are stored that it makes: the address of its resource; None for that of ``LLM_BASE_URL``."""
        return self.endpoint.origin if self.name else None

    @property
    def resource(self) -> str:
        """What identifies it at Azure: models that share a deployment share its limits."""
        return f"{self.endpoint.base}#{self.deployment}"

    @property
    def is_registered(self) -> bool:
        """Whether an admin has registered it for a model; then bodies name it in place of the model."""
        return bool(self.name)
