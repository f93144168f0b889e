"""Who sends a request, with everything that admins have set about that."""

from __future__ import annotations

from dataclasses import dataclass

from .records import Group, KeyRecord, Organisation, Prompt


@dataclass(frozen=True, slots=True)
class Caller:
    """A key with its group and its organisation, as of one moment."""

    key: KeyRecord
    organisation: Organisation

    @property
    def group(self) -> Group | None:
        return self.organisation.groups.get(self.key.group) if self.key.group else None

    @property
    def prompt(self) -> Prompt:
        """What goes in front of the conversation: the key's, else the group's, else the organisation's."""
        if self.key.prompt is not None:
            return self.key.prompt
        group = self.group
        return group.prompt if group is not None and group.prompt is not None else self.organisation.prompt

    @property
    def models(self) -> tuple[str, ...] | None:
        """What both the key and its group allow; None for everything."""
        group = self.group
        if group is None or group.models is None:
            return self.key.models
        if self.key.models is None:
            return group.models
        return tuple(model for model in self.key.models if model in group.models)
