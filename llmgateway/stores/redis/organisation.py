"""What admins set for everybody: a durable store, with the generation and a copy in Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from llmgateway.errors import StoreUnavailable
from llmgateway.interfaces import OrganisationStore
from llmgateway.records import Group, Limits, Organisation, Prices, Prompt

from .cache import RedisCache


class RedisOrganisation:
    """An :class:`~llmgateway.interfaces.OrganisationStore`: *durable*, with the generation in Redis.

    Every change begins a new generation, also after an error, like the changes of :class:`~.keys.RedisKeys`.
    """

    def __init__(self, cache: RedisCache, durable: OrganisationStore) -> None:
        self._cache = cache
        self._durable = durable

    def load(self) -> Organisation:
        # The generation first: if a change comes between the two, it is the old one with the new
        # content, and the next look-up makes the caller load again. The other way round would hide it.
        try:
            generation = self._cache.generation()
        except StoreUnavailable:
            organisation = self._cache.durable.call(self._durable.load)
            return replace(organisation, generation=durable_generation(organisation.generation))
        return replace(self._load(), generation=generation)

    def _load(self) -> Organisation:
        """The durable store's, or while that is away what it was when anybody last loaded it."""
        try:
            organisation = self._cache.durable.call(self._durable.load)
        except StoreUnavailable:
            copy = self._cache.organisation()
            if copy is None:
                raise
            return copy
        self._cache.keep_organisation(organisation)
        return organisation

    def set_prompt(self, text: str, set_at: datetime) -> Prompt:
        with self._changing():
            return self._durable.set_prompt(text, set_at)

    def add_prompt(self, text: str, set_at: datetime, *, scope: str) -> Prompt:
        return self._durable.add_prompt(text, set_at, scope=scope)  # not in force yet

    def prompt_versions(self, *, scope: str | None = None) -> list[Prompt]:
        return self._durable.prompt_versions(scope=scope)

    def set_limits(self, limits: Limits) -> None:
        with self._changing():
            self._durable.set_limits(limits)

    def set_group(self, group: Group) -> None:
        with self._changing():
            self._durable.set_group(group)

    def remove_group(self, name: str) -> bool:
        with self._changing():
            return self._durable.remove_group(name)

    def set_credential(self, credential: bytes) -> None:
        with self._changing():
            self._durable.set_credential(credential)

    def set_prices(self, model: str, prices: Prices | None) -> None:
        with self._changing():
            self._durable.set_prices(model, prices)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        is_certain = True
        try:
            yield
        except StoreUnavailable:
            is_certain = False
            raise
        finally:
            self._cache.wipe_generation(is_certain=is_certain)


def durable_generation(generation: str) -> str:
    """The durable store's own, so marked that it equals none of Redis'."""
    return f"durable:{generation}"
