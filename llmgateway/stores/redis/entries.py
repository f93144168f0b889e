"""Signed entries for keys and the organisation in Redis. The gateway uses only entries that a gateway has signed.

An entry consists of a version, an HMAC-SHA256, the time at which it was made, and the content. The HMAC covers the
version, the name of the entry in Redis, the time and the content. So an attacker who can write to Redis can only
restore an earlier entry under the same name.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from llmgateway.records import Group, KeyRecord, Limits, ModelSettings, Organisation, Person, Prompt, Raise, SelfService

log = logging.getLogger(__name__)

_VERSION = b"2"
_HEAD = struct.Struct("<1s32sd")
"""Version, HMAC, seconds since the epoch."""
# scrypt, as for Azure's key (accounts/credential.py): an attacker who can read Redis can try secrets, and ADMIN_KEY may
# be a simple word.
_SALT = b"llmgateway redis entries v2"
KEPT_KEYS = 10_000
"""Maximum number of decoded entries in memory; the oldest are removed. Each takes about 2 KB."""
_WARN_SECONDS = 60
_FIELDS = frozenset(field.name for field in fields(KeyRecord))
_ORGANISATION_FIELDS = frozenset(field.name for field in fields(Organisation))


class EntrySigner:
    """Signs entries and verifies them. Thread-safe.

    Args:
        key: Key of the HMAC, the same on all hosts.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def from_secret(cls, secret: str) -> EntrySigner:
        """Derive the key from the operator's secret. This takes 50 ms, once at start."""
        return cls(hashlib.scrypt(secret.encode(), salt=_SALT, n=2**14, r=8, p=1, dklen=32))

    def sign(self, name: str, content: bytes, *, at: float) -> bytes:
        return _HEAD.pack(_VERSION, self._mac(name, at, content), at) + content

    def verify(self, name: str, entry: bytes) -> SignedContent | None:
        """Return the signed content; None if the signature is missing, or made with another key or name."""
        if len(entry) < _HEAD.size:
            return None
        version, mac, at = _HEAD.unpack_from(entry)
        content = entry[_HEAD.size :]
        if version != _VERSION or not hmac.compare_digest(mac, self._mac(name, at, content)):
            return None
        return SignedContent(content, at)

    def _mac(self, name: str, at: float, content: bytes) -> bytes:
        # Names contain no zero byte, so the parts cannot be split in another way.
        signed = b"%b%b\0%b%b" % (_VERSION, name.encode(), struct.pack("<d", at), content)
        return hmac.digest(self._key, signed, "sha256")


class SignedContent(NamedTuple):
    """The content of an entry, and the time at which it was made."""

    content: bytes
    at: float


class KeyEntry(NamedTuple):
    """A key as the durable store returned it at the time *at*."""

    record: KeyRecord
    at: float


class Entries:
    """Encodes and decodes entries. Thread-safe.

    An entry with a wrong signature counts as missing. A warning is logged, at most once a minute.

    Args:
        clock: Seconds since the epoch.
    """

    def __init__(self, signer: EntrySigner, *, clock: Callable[[], float], limit: int = KEPT_KEYS) -> None:
        self._signer = signer
        self._clock = clock
        self._limit = limit
        self._decoded: OrderedDict[str, tuple[bytes, KeyEntry]] = OrderedDict()
        self._warned_at = float("-inf")

    def of_key(self, name: str, record: KeyRecord) -> bytes:
        return self._signer.sign(name, orjson.dumps(record), at=self._clock())

    def key(self, name: str, entry: bytes | None) -> KeyEntry | None:
        """Decode a key; None if the entry is missing, or another version of this program wrote it.

        Equal entries return the same object, and the record stays the same object until the key changes.
        """
        if entry is None:
            return None
        before = self._decoded.get(name)
        if before is not None and before[0] == entry:
            return before[1]
        signed = self._verify(name, entry)
        record = None if signed is None else _key(orjson.loads(signed.content))
        if signed is None or record is None:
            return None
        if before is not None and before[1].record == record:
            record = before[1].record
        decoded = KeyEntry(record, signed.at)
        # Without a lock: each step is atomic under the GIL, and the steps do not depend on each other.
        self._decoded.pop(name, None)
        self._decoded[name] = entry, decoded
        if len(self._decoded) > self._limit:
            self._forget_oldest()
        return decoded

    def of_organisation(self, name: str, organisation: Organisation) -> bytes:
        shape = {field: getattr(organisation, field) for field in _ORGANISATION_FIELDS}
        models = {model: settings.as_json() for model, settings in organisation.models.items()}
        document = orjson.dumps(shape | {"credential": None, "models": models})
        return self._signer.sign(name, document + b"\n" + (organisation.credential or b""), at=self._clock())

    def organisation(self, name: str, entry: bytes | None) -> Organisation | None:
        """Decode the organisation; None if the entry is missing, or another version of this program wrote it."""
        signed = None if entry is None else self._verify(name, entry)
        return None if signed is None else _organisation(signed.content)

    def _verify(self, name: str, entry: bytes) -> SignedContent | None:
        signed = self._signer.verify(name, entry)
        if signed is None and not 0 <= self._clock() - self._warned_at < _WARN_SECONDS:
            self._warned_at = self._clock()
            log.warning(
                "entries in redis do not verify and are not used: another host has another SECRET_KEY (or ADMIN_KEY, "
                "where there is none), or somebody else writes to this redis"
            )
        return signed

    def _forget_oldest(self) -> None:
        try:
            self._decoded.popitem(last=False)
        except KeyError:  # another thread was faster
            return


def _key(shape: dict[str, Any]) -> KeyRecord | None:
    # If the fields differ, the durable store is asked instead: an entry without the field "limits", for example, must
    # not look like a key without limits.
    if shape.keys() != _FIELDS:
        return None
    for name in ("created_at", "starts_at", "expires_at", "retires_at"):
        shape[name] = _time(shape[name])
    return KeyRecord(**_common(shape))


def _group(shape: dict[str, Any]) -> Group:
    for name in ("created_at", "starts_at", "expires_at"):
        shape[name] = _time(shape[name])
    shape["member_limits"] = Limits.from_json(shape["member_limits"])
    shape["self_service"] = SelfService.from_json(shape.get("self_service"))
    return Group(**_common(shape))


def _person(shape: Mapping[str, Any]) -> Person:
    return Person(user=shape["user"], limits=Limits.from_json(shape["limits"]), raised=Raise.from_json(shape["raised"]))


def _common(shape: dict[str, Any]) -> dict[str, Any]:
    shape["models"] = _models(shape["models"])
    shape["limits"] = Limits.from_json(shape["limits"])
    shape["raised"] = Raise.from_json(shape["raised"])
    if shape["prompt"] is not None:
        shape["prompt"] = _prompt(shape["prompt"])
    return shape


def _organisation(content: bytes) -> Organisation | None:
    document, _, credential = content.partition(b"\n")
    shape = orjson.loads(document)
    if "prices" in shape:  # an older version of this program wrote the entry
        prices = shape.pop("prices")
        shape["models"] = {model: {"prices": prices[model]} for model in prices}
    if shape.keys() != _ORGANISATION_FIELDS:
        return None
    return Organisation(
        prompt=_prompt(shape["prompt"]),
        credential=credential or None,
        models={model: ModelSettings.from_json(settings) for model, settings in shape["models"].items()},
        limits=Limits.from_json(shape["limits"]),
        groups={name: _group(group) for name, group in shape["groups"].items()},
        persons={name: _person(person) for name, person in shape["persons"].items()},
        documents=shape["documents"],
    )


def _prompt(shape: Mapping[str, Any]) -> Prompt:
    return Prompt(version=shape["version"], text=shape["text"], set_at=_time(shape["set_at"]), scope=shape["scope"])


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _models(names: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)
