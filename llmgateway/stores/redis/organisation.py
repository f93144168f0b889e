"""The settings of the organisation: a durable store, with the generation and a copy in Redis."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from typing import Any

from llmgateway.errors import StoreUnavailable
from llmgateway.interfaces import OrganisationStore
from llmgateway.records import Group, Limits, ModelSettings, Organisation, Prompt

from .cache import RedisCache


class RedisOrganisation:
    """An :class:`~llmgateway.interfaces.OrganisationStore` that uses *durable*, with the generation in Redis.

    Every change begins a new generation. It does so even after an error, for the same reason as
    :class:`~.keys.RedisKeys`.
    """

    def __init__(self, cache: RedisCache, durable: OrganisationStore) -> None:
        self._cache = cache
        self._durable = durable

    def load(self) -> Organisation:
        # The generation is read first. If a change happens between the two reads, the new content has the old
        # generation, and the next look-up makes the caller load again. The other order would hide the change.
        try:
            generation = self._cache.generation()
        except StoreUnavailable:
            organisation = self._cache.durable.call(self._durable.load)
            return replace(organisation, version=durable_generation(organisation.version))
        return replace(self._load(), version=generation)

    def _load(self) -> Organisation:
        """Load from the durable store; while that is unavailable, return the copy in Redis."""
        try:
            organisation = self._cache.durable.call(self._durable.load)
        except StoreUnavailable:
            copy = self._cache.organisation()
            if copy is None:
                raise
            return copy
        self._cache.keep_organisation(organisation)
        return organisation

    def set_prompt(self, text: str, set_at: datetime, *, check: Callable[[Prompt], None] | None = None) -> Prompt:
        with self._changing():
            return self._durable.set_prompt(text, set_at, check=check)

    def add_prompt(self, text: str, set_at: datetime, *, scope: str) -> Prompt:
        return self._durable.add_prompt(text, set_at, scope=scope)  # not in force yet

    def erase_prompts(self, scopes: Collection[str], text: str) -> int:
        return self._durable.erase_prompts(scopes, text)  # not in force any more

    def prompt_versions(self, *, scope: str | None = None) -> list[Prompt]:
        return self._durable.prompt_versions(scope=scope)

    def set_limits(self, limits: Limits, *, check: Callable[[Limits], None] | None = None) -> None:
        with self._changing():
            self._durable.set_limits(limits, check=check)

    def update_limits(self, parts: Mapping[str, object], *, check: Callable[[Limits], None] | None = None) -> Limits:
        with self._changing():
            return self._durable.update_limits(parts, check=check)

    def set_group(self, group: Group, *, check: Callable[[Group | None], None] | None = None) -> Group:
        with self._changing():
            return self._durable.set_group(group, check=check)

    def update_group(
        self,
        name: str,
        changes: Mapping[str, object],
        *,
        limits: Mapping[str, object] | None = None,
        member_limits: Mapping[str, object] | None = None,
        check: Callable[[Group], None] | None = None,
    ) -> Group | None:
        with self._changing():
            return self._durable.update_group(name, changes, limits=limits, member_limits=member_limits, check=check)

    def remove_group(self, name: str, *, check: Callable[[Group], None] | None = None) -> Group | None:
        with self._changing():
            return self._durable.remove_group(name, check=check)

    def set_credential(self, credential: bytes) -> None:
        with self._changing():
            self._durable.set_credential(credential)

    def set_model(
        self,
        model: str,
        parts: Mapping[str, object] | None,
        *,
        check: Callable[[Mapping[str, ModelSettings]], None] | None = None,
    ) -> ModelSettings:
        with self._changing():
            return self._durable.set_model(model, parts, check=check)

    def document(self, name: str) -> Mapping[str, Any]:
        return self._durable.document(name)

    def update_document(self, name: str, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Mapping[str, Any]:
        with self._changing():
            return self._durable.update_document(name, change)

    def _changing(self) -> AbstractContextManager[None]:
        return self._cache.new_generation()


def durable_generation(generation: str) -> str:
    """Mark a generation of the durable store, so that it differs from all generations in Redis."""
    return f"durable:{generation}"
