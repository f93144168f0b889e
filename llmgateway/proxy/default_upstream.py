"""Where requests go whose model has no deployments of its own: to the address in the environment, or else to the one
that an admin has stored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..azure.endpoint import NO_BASE_URL, Endpoint
from ..local_time import SETTINGS
from ..records import Organisation

KEY_HEADER = "api-key"
"""Header of Azure's key, if neither the environment nor an admin names one."""

_KEY_PLACES = "key_places"
_KEPT_PLACES = 2
"""The key in force, and the one that is about to replace it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSettings:
    """An address of Azure as it was written, and how to call it; None for what is not set."""

    base_url: str | None = None
    """:data:`~llmgateway.azure.endpoint.NO_BASE_URL` for none, also if an admin has stored one."""
    api_version: str | None = None
    key_header: str | None = None

    def or_else(self, other: UpstreamSettings) -> UpstreamSettings:
        """Return these settings, with those of *other* where they are not set."""
        return UpstreamSettings(
            **{name: getattr(self, name) or getattr(other, name) for name in UPSTREAM_FIELDS},
        )


UPSTREAM_FIELDS = tuple(field.name for field in fields(UpstreamSettings))


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultUpstream:
    """What is in force."""

    settings: UpstreamSettings
    endpoint: Endpoint | None
    """None if there is none: then only models with deployments of their own lead anywhere."""
    problem: str | None = None
    """Why an address that is set cannot be used."""

    @property
    def key_header(self) -> str:
        return self.settings.key_header or KEY_HEADER

    @property
    def deployment(self) -> str | None:
        """The deployment that the address names; None if it names none."""
        return None if self.endpoint is None else self.endpoint.deployment

    @classmethod
    def of(cls, settings: UpstreamSettings) -> DefaultUpstream:
        if settings.base_url in (None, NO_BASE_URL):
            return cls(settings=settings, endpoint=None)
        try:
            endpoint = Endpoint.parse(settings.base_url, settings.api_version)
        except ValueError as error:
            return cls(settings=settings, endpoint=None, problem=f"The address of Azure {error}")
        return cls(settings=settings, endpoint=endpoint)


def stored_upstream(organisation: Organisation) -> UpstreamSettings:
    """Return what an admin has stored."""
    document = organisation.documents.get(SETTINGS, {})
    return UpstreamSettings(**{name: document.get(name) for name in UPSTREAM_FIELDS})


def key_place(organisation: Organisation) -> Endpoint | None:
    """Return the address that was in force when the stored key was set; None if there was none, or no key is stored.

    No admin can read the key, and so none may send it to a server of theirs by storing its address.
    """
    if organisation.credential is None:
        return None
    places = organisation.documents.get(SETTINGS, {}).get(_KEY_PLACES, {})
    base = places.get(_mark(organisation.credential))
    return None if base is None else Endpoint(base=base, deployment=None)


def with_key_place(document: Mapping[str, Any], credential: bytes, endpoint: Endpoint | None) -> dict[str, Any]:
    """Return the document of settings with the address for which *credential*, encrypted, is being set.

    Store it before the credential: that of the old one stays beside it, so that both can be called in the meantime.
    """
    places = dict(document.get(_KEY_PLACES, {}))
    if endpoint is not None:
        places[_mark(credential)] = endpoint.origin
    return {**document, _KEY_PLACES: dict(list(places.items())[-_KEPT_PLACES:])}


def _mark(credential: bytes) -> str:
    # Of the encrypted key, which differs for the same key each time.
    return hashlib.sha256(credential).hexdigest()[:32]
