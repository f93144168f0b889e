"""Replaces what names an erased person, in records and entries that arrive after the erasure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .records import AuditEntry, Erasure, Refusal, UsageRecord

PERSONAL = ("user", "email", "note", "name", "prompt")
"""Fields of a key that say who has it, in entries of the audit log. So may the text of a prompt."""


def without_erased(records: Sequence[UsageRecord], erasures: Sequence[Erasure]) -> Sequence[UsageRecord]:
    """Return *records*, with pseudonyms in place of the persons of *erasures*."""
    if not erasures:
        return records
    return [_without(record, erasures) for record in records]


def _without(record: UsageRecord, erasures: Sequence[Erasure]) -> UsageRecord:
    for erasure in erasures:
        if erasure.covers(record.key_id, record.user):
            address = None if record.client_address is None else erasure.pseudonym
            return replace(record, user=erasure.pseudonym, client_address=address)
    return record


def refusals_without_erased(refusals: Sequence[Refusal], erasures: Sequence[Erasure]) -> Sequence[Refusal]:
    """Return *refusals*, with pseudonyms in place of the persons of *erasures*."""
    if not erasures:
        return refusals
    return [_without_person(refusal, erasures) for refusal in refusals]


def _without_person(refusal: Refusal, erasures: Sequence[Erasure]) -> Refusal:
    for erasure in erasures:
        if refusal.key_id is not None and erasure.covers(refusal.key_id, refusal.user or ""):
            address = None if refusal.address is None else erasure.pseudonym
            return replace(refusal, user=erasure.pseudonym, address=address)
    return refusal


def entry_without_erased(entry: AuditEntry, erasures: Sequence[Erasure]) -> AuditEntry:
    """Return an *entry* about one key, with pseudonyms in place of the persons of *erasures*.

    Of a shared key only what names the person can be told from what belongs to somebody else.
    """
    for erasure in erasures:
        if entry.target in erasure.key_ids:
            entry = replace(
                entry, before=_document(entry.before, entry, erasure), after=_document(entry.after, entry, erasure)
            )
    return entry


def _document(document: Mapping[str, Any] | None, entry: AuditEntry, erasure: Erasure) -> Mapping[str, Any] | None:
    if document is None:
        return None
    user = document.get("user")
    if entry.target in erasure.shared and not (isinstance(user, str) and erasure.covers(entry.target, user)):
        return document
    return without_person(document, erasure.pseudonym)


def without_person(document: Mapping[str, Any], pseudonym: str) -> dict[str, Any]:
    """Return the fields of a key, with *pseudonym* in place of each that says who has it."""
    return {
        name: pseudonym if name in PERSONAL and isinstance(value, str) and value else value
        for name, value in document.items()
    }


def is_about(entry: AuditEntry, user: str) -> bool:
    """Return whether *entry* is about *user* by name: by its target, or in a field ``user``."""
    return entry.target == user or user in named(entry)


def named(entry: AuditEntry) -> set[str]:
    """Return the names in the fields ``user`` of *entry*."""
    return {*_users(entry.before), *_users(entry.after)}


def _users(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(user := value.get("user"), str):
            yield user
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _users(part)


def with_pseudonym(value: Any, user: str, pseudonym: str) -> Any:
    """Return JSON without the person in every object whose field ``user`` is *user*."""
    if isinstance(value, list):
        return [with_pseudonym(part, user, pseudonym) for part in value]
    if not isinstance(value, Mapping):
        return value
    if value.get("user") == user:
        value = without_person(value, pseudonym)
    return {name: with_pseudonym(part, user, pseudonym) for name, part in value.items()}
