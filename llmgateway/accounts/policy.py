"""What admins set for everybody: the prompt and Azure's key, held in memory, never out of date."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

from ..clock import Clock
from ..errors import StoreUnavailable, UpstreamCredentials
from ..interfaces import OrganisationStore
from ..records import Limits, Organisation, Prices, Usage, UsageRecord
from ..usage.pricing import cost_usd
from .credential import CredentialCipher

RETRY_SECONDS = 1.0
"""How long requests do without a store that did not answer: each would wait for it, one after the other."""


class OrganisationPolicy:
    """What admins have set for everybody, as of the generation that a request has seen.

    Every request learns the present generation with its key's look-up; only when that differs
    from the one in memory is the store asked, so no process is ever a request behind and no
    request pays for looking. Thread-safe.

    Args:
        fallback: Azure's key from the environment, for as long as no admin has stored one.
    """

    def __init__(
        self, store: OrganisationStore, cipher: CredentialCipher, *, fallback: str | None, clock: Clock
    ) -> None:
        self._store = store
        self._cipher = cipher
        self._fallback = fallback
        self._clock = clock
        self._lock = threading.Lock()
        self._failed_at = -math.inf
        self._seen: str | None = None  # the generation that _current was loaded for
        self._current = Organisation()
        self._credential: str | None = None

    def at(self, generation: str) -> Organisation:
        """Return what is set as of *generation* or later.

        While the store is away the copy in memory serves: an admin cannot have changed what
        could not be stored.

        Raises:
            StoreUnavailable: nothing was ever loaded and the store does not answer.
        """
        if generation == self._seen:
            return self._current
        with self._lock:
            if generation != self._seen:
                self._load(generation)
            return self._current

    def is_current(self, generation: str) -> bool:
        """Whether :meth:`at` would ask nobody."""
        return generation == self._seen

    def credential(self, organisation: Organisation) -> str:
        """Return Azure's key in the clear.

        Raises:
            UpstreamCredentials: there is none, or it cannot be read any more.
        """
        credential = self._decrypted(organisation)
        if credential is None:
            raise UpstreamCredentials(
                "The gateway has no usable key for Azure. Your own key is fine: tell the admin, "
                "who can set one with POST /admin/setllmkey."
            )
        return credential

    def has_credential(self) -> bool:
        """Whether Azure's key is there and readable, asked of the store."""
        return self._decrypted(self._store.load()) is not None

    def stored(self) -> Organisation:
        """What is set now, asked of the store."""
        return self._store.load()

    def set_credential(self, credential: str) -> None:
        self._store.set_credential(self._cipher.encrypt(credential))

    def set_prices(self, model: str, prices: Prices | None) -> None:
        self._store.set_prices(model, prices)

    def set_limits(self, limits: Limits) -> None:
        self._store.set_limits(limits)

    def priced(self, record: UsageRecord) -> UsageRecord:
        """Complete *record* with what it costs, at the prices that this process knows."""
        usage = Usage(
            prompt_tokens=record.prompt_tokens,
            completion_tokens=record.completion_tokens,
            cached_tokens=record.cached_tokens,
        )
        cost = cost_usd(usage, record.deployment, record.model, own=self._current.prices)
        return replace(record, cost_usd=cost)

    def _load(self, generation: str) -> None:
        now = self._clock()
        if self._seen is not None and 0 <= now - self._failed_at < RETRY_SECONDS:
            return
        try:
            current = self._store.load()
        except StoreUnavailable:
            self._failed_at = now
            if self._seen is None:
                raise
            return
        self._credential = self._decrypted(current)
        self._current = current
        self._seen = generation

    def _decrypted(self, organisation: Organisation) -> str | None:
        if organisation is self._current and self._seen is not None:
            return self._credential
        if organisation.credential is None:
            return self._fallback
        return self._cipher.decrypt(organisation.credential)
