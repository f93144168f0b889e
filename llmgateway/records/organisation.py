"""What admins set for everybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .keys import Group, Person, Prompt
from .limits import UNLIMITED, Limits
from .models import ModelSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Organisation:
    """What admins set for everybody, as one snapshot."""

    prompt: Prompt = field(default_factory=Prompt)
    credential: bytes | None = field(default=None, repr=False)
    """Azure's key, encrypted; ``None`` if no admin has set one."""
    models: Mapping[str, ModelSettings] = field(default_factory=dict)
    """Settings of models, by model or deployment. A model without prices here costs its list price."""
    limits: Limits = UNLIMITED
    """Limits of all keys together."""
    groups: Mapping[str, Group] = field(default_factory=dict)
    """Groups by name."""
    persons: Mapping[str, Person] = field(default_factory=dict)
    """The people for whom something is set, by name."""
    documents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Other settings, by name, as JSON. The module that reads and writes a document knows its fields."""
    version: str = ""
    """As in :class:`Lookup`. The stores save it under the name ``generation``."""
