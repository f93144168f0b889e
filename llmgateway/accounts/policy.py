"""The settings of the organisation that admins can change. Each request reads them from memory, and they are never
out of date."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from ..clock import Clock
from ..errors import StoreUnavailable, UpstreamCredentials
from ..interfaces import OrganisationStore
from ..local_time import SETTINGS, TimeZones
from ..records import Attempt, Group, Limits, ModelSettings, Organisation, Prompt, Usage, UsageRecord, moment
from ..usage.pricing import added, cost_usd
from .credential import CredentialCipher

T = TypeVar("T")
V = TypeVar("V", Group, ModelSettings, Mapping[str, Any])

RETRY_SECONDS = 1.0
"""After the store did not answer, requests use the copy in memory for this long. Otherwise each of them would wait for
the store, one after the other."""


class OrganisationPolicy:
    """The settings of the organisation, with a copy in memory. Thread-safe.

    When a request looks up its key, it also gets the present version of the settings. They are loaded from the store
    only if this version differs from the one in memory. So no request uses old settings, and few wait for the store.

    All changes that this process makes also go through this class. So the copy in memory has a change as soon as the
    store has accepted it, even if the store fails a moment later.

    Args:
        fallback: Azure's key from the environment. It is used while no admin has stored one.
        timezone: The time zone as long as no admin has set one.
        wait_until_noticed: Returns when all processes have noticed a change that is stored.
    """

    def __init__(
        self,
        store: OrganisationStore,
        cipher: CredentialCipher,
        *,
        fallback: str | None,
        clock: Clock,
        timezone: str = "UTC",
        wait_until_noticed: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._timezone = timezone
        self._cipher = cipher
        self._fallback = fallback
        self._clock = clock
        self._wait_until_noticed = wait_until_noticed
        self._lock = threading.Lock()
        self._failed_at = -math.inf
        self._version: str | None = None  # the version of _current; None if it has to be loaded again
        self._current: Organisation | None = None
        self._credential: str | None = None  # Azure's key in _current, decrypted

    def at(self, version: str) -> Organisation:
        """Return the settings of *version* or a later one.

        If the store does not answer, the copy in memory is returned: nobody can change the settings then.

        Raises:
            StoreUnavailable: the store does not answer, and there is no copy in memory.
        """
        # Read the version before the settings, because _keep() writes it after them.
        if version == self._version and self._current is not None:
            return self._current
        with self._lock:
            if version == self._version and self._current is not None:
                return self._current
            return self._load(version)

    def credential(self, organisation: Organisation) -> str:
        """Return Azure's key, decrypted.

        Raises:
            UpstreamCredentials: there is none, or it cannot be decrypted.
        """
        credential = self._decrypted(organisation)
        if credential is None:
            raise UpstreamCredentials(
                "The gateway has no usable key for Azure. Your own key is fine: tell the admin, "
                "who can set one with POST /admin/setllmkey."
            )
        return credential

    def credential_in(self, organisation: Organisation) -> str | None:
        """Return Azure's key, decrypted; None if there is no usable one."""
        return self._decrypted(organisation)

    def stored_credential(self) -> str | None:
        """Load the settings from the store, and return Azure's key, decrypted; None if there is no usable one."""
        return self._decrypted(self.stored())

    def stored(self) -> Organisation:
        """Load the settings from the store, and return them."""
        loaded = self._store.load()
        with self._lock:
            return self._keep(loaded, loaded.version)

    def in_memory(self) -> Organisation | None:
        """Return the settings that the last look-up found, without asking the store; None before the first one."""
        return self._current

    def encrypt(self, secret: str) -> str:
        """Encrypt the key of a deployment, to be stored."""
        return self._cipher.encrypt(secret).decode()

    def decrypt(self, token: bytes) -> str | None:
        """Return what :meth:`encrypt` has encrypted; None if it was with another secret."""
        return self._cipher.decrypt(token)

    def set_credential(
        self,
        credential: str,
        *,
        settings: Callable[[Mapping[str, Any], bytes], Mapping[str, Any]] | None = None,
    ) -> None:
        """Store Azure's key.

        Args:
            settings: Returns the document of settings to be stored before, from the present one and the encrypted key.
        """
        encrypted = self._cipher.encrypt(credential)
        if settings is not None:
            self.update_document(SETTINGS, lambda document: settings(document, encrypted))
        self.change(
            lambda: self._store.set_credential(encrypted), lambda current, _: replace(current, credential=encrypted)
        )

    def set_model(
        self,
        model: str,
        parts: Mapping[str, object] | None,
        *,
        check: Callable[[Mapping[str, ModelSettings]], None] | None = None,
    ) -> ModelSettings:
        """As :meth:`OrganisationStore.set_model`."""
        return self.change(
            lambda: self._store.set_model(model, parts, check=check),
            lambda current, settings: replace(
                current, models=_with(current.models, model, settings if settings.as_json() else None)
            ),
        )

    def set_limits(self, limits: Limits, *, check: Callable[[Limits], None] | None = None) -> None:
        """As :meth:`OrganisationStore.set_limits`."""
        self.change(
            lambda: self._store.set_limits(limits, check=check), lambda current, _: replace(current, limits=limits)
        )

    def update_limits(self, parts: Mapping[str, object], *, check: Callable[[Limits], None] | None = None) -> Limits:
        """As :meth:`OrganisationStore.update_limits`."""
        return self.change(
            lambda: self._store.update_limits(parts, check=check),
            lambda current, limits: replace(current, limits=limits),
        )

    def set_prompt(self, text: str, set_at: datetime, *, check: Callable[[Prompt], None] | None = None) -> Prompt:
        """As :meth:`OrganisationStore.set_prompt`."""
        return self.change(
            lambda: self._store.set_prompt(text, set_at, check=check),
            lambda current, prompt: replace(current, prompt=max(current.prompt, prompt, key=lambda one: one.version)),
        )

    def add_prompt(self, text: str, set_at: datetime, *, scope: str) -> Prompt:
        """As :meth:`OrganisationStore.add_prompt`."""
        return self._store.add_prompt(text, set_at, scope=scope)

    def erase_prompts(self, scopes: Collection[str], text: str) -> int:
        """As :meth:`OrganisationStore.erase_prompts`."""
        return self._store.erase_prompts(scopes, text)

    def prompt_versions(self, *, scope: str | None = None) -> list[Prompt]:
        return self._store.prompt_versions(scope=scope)

    def set_group(self, group: Group, *, check: Callable[[Group | None], None] | None = None) -> Group:
        """As :meth:`OrganisationStore.set_group`."""
        return self.change(
            lambda: self._store.set_group(group, check=check),
            lambda current, group: _with_group(current, group.name, group),
        )

    def update_group(
        self,
        name: str,
        changes: Mapping[str, object],
        *,
        limits: Mapping[str, object] | None = None,
        member_limits: Mapping[str, object] | None = None,
        check: Callable[[Group], None] | None = None,
    ) -> Group | None:
        """As :meth:`OrganisationStore.update_group`."""
        return self.change(
            lambda: self._store.update_group(name, changes, limits=limits, member_limits=member_limits, check=check),
            lambda current, group: _with_group(current, name, group),
        )

    def remove_group(self, name: str, *, check: Callable[[Group], None] | None = None) -> Group | None:
        """As :meth:`OrganisationStore.remove_group`."""
        return self.change(
            lambda: self._store.remove_group(name, check=check), lambda current, _: _with_group(current, name, None)
        )

    def update_document(self, name: str, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Mapping[str, Any]:
        """As :meth:`OrganisationStore.update_document`."""
        return self.change(
            lambda: self._store.update_document(name, change),
            lambda current, document: replace(current, documents=_with(current.documents, name, document or None)),
        )

    def time_zones(self, organisation: Organisation | None = None) -> TimeZones:
        """Return the time zones of *organisation*; None for the copy in memory, or else for the stored one.

        If there is no copy and the store does not answer, they are those of a new store.
        """
        if organisation is None:
            organisation = self._current
        if organisation is None:
            try:
                organisation = self.stored()
            except StoreUnavailable:
                organisation = Organisation()
        return TimeZones.from_document(organisation.documents.get(SETTINGS, {}), default=self._timezone)

    def set_timezone(
        self, name: str, *, check: Callable[[TimeZones], None] | None = None
    ) -> tuple[TimeZones, TimeZones]:
        """Let days begin in the time zone *name*, from its next midnight on.

        Args:
            check: As for :meth:`set_limits`, with the time zones before.

        Returns:
            The time zones before and after the change.
        """

        def zones(document: Mapping[str, Any]) -> TimeZones:
            return TimeZones.from_document(document, default=self._timezone)

        before, after = self.set_settings(
            {}, timezone=name, check=None if check is None else lambda document: check(zones(document))
        )
        return zones(before), zones(after)

    def set_settings(
        self,
        parts: Mapping[str, object],
        *,
        timezone: str | None = None,
        check: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Change some of the organisation's settings, all in one step.

        Args:
            parts: Values by name; None removes one.
            timezone: A time zone for the days from its next midnight on.
            check: As for :meth:`set_limits`, with the document before.

        Returns:
            The document of settings before and after the change.
        """
        before: list[Mapping[str, Any]] = []

        def changed(document: Mapping[str, Any]) -> Mapping[str, Any]:
            before.append(document)
            if check is not None:
                check(document)
            after = {name: value for name, value in {**document, **parts}.items() if value is not None}
            if timezone is None:
                return after
            zones = TimeZones.from_document(document, default=self._timezone)
            return {**after, **zones.changed(timezone, moment(self._clock())).as_document()}

        after = self.update_document(SETTINGS, changed)
        return before[-1], after

    def priced(self, record: UsageRecord) -> UsageRecord:
        """Return *record*, whose last attempt has no cost yet, with its cost at the prices that this process knows."""
        if not record.attempts:
            return replace(record, cost_usd=self._cost(record, record))
        *failed, last = record.attempts
        attempts = (*failed, replace(last, cost_usd=self._cost(record, last)))
        return replace(record, cost_usd=added([each.cost_usd for each in attempts]), attempts=attempts)

    def _cost(self, record: UsageRecord, counted: UsageRecord | Attempt) -> float | None:
        usage = Usage(
            prompt_tokens=counted.prompt_tokens,
            completion_tokens=counted.completion_tokens,
            cached_tokens=record.cached_tokens if counted is record else 0,
        )
        own = {} if self._current is None else self._current.models
        return cost_usd(usage, record.deployment, record.model, own=own)

    def _load(self, version: str) -> Organisation:
        now = self._clock()
        if self._current is not None and 0 <= now - self._failed_at < RETRY_SECONDS:
            return self._current
        try:
            loaded = self._store.load()
        except StoreUnavailable:
            self._failed_at = now
            if self._current is None:
                raise
            return self._current
        return self._keep(loaded, version)

    def _keep(self, organisation: Organisation, version: str | None) -> Organisation:
        # Keep the same object if nothing has changed: caches such as PrincipalCache compare it by identity.
        if organisation != self._current:
            self._credential = self._decrypted(organisation)
            self._current = organisation
        self._version = version
        return self._current

    def change(self, store: Callable[[], T], make: Callable[[Organisation, T], Organisation]) -> T:
        """Make a change in the store and in memory, and return when all processes have noticed it.

        Args:
            store: Makes the change in the store.
            make: Returns the changed organisation, from the one in memory and the result of *store*. The next request
                loads all settings again, because other processes may have changed some as well.
        """
        try:
            answer = store()
            with self._lock:
                if self._current is not None:
                    self._keep(make(self._current, answer), None)
            return answer
        finally:
            # Also after an error: the store may have made the change although its answer was lost.
            self._wait_until_noticed()

    def _decrypted(self, organisation: Organisation) -> str | None:
        current = self._current
        if current is not None and organisation.credential == current.credential:
            return self._credential
        if organisation.credential is None:
            return self._fallback
        return self._cipher.decrypt(organisation.credential)


def _with(entries: Mapping[str, V], name: str, entry: V | None) -> dict[str, V]:
    """Return a copy of *entries* in which *name* has the value *entry*, or is left out if that is None."""
    others = {other: value for other, value in entries.items() if other != name}
    return others if entry is None else {**others, name: entry}


def _with_group(organisation: Organisation, name: str, group: Group | None) -> Organisation:
    return replace(organisation, groups=_with(organisation.groups, name, group))
