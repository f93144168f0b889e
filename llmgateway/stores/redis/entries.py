"""What is written into Redis of keys and of the organisation, so that only a gateway can have written it.

An entry is a version, an HMAC-SHA256, the time at which it was made, and the content. The HMAC covers the version,
the entry's name in Redis, the time and the content: whoever can write to Redis can put back what was there under the
same name, and nothing else.
"""

from __future__ import annotations

import hmac
import logging
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from llmgateway.records import Group, KeyRecord, Limits, Organisation, Prices, Prompt

logger = logging.getLogger(__name__)

_VERSION = b"2"
_HEAD = struct.Struct("<1s32sd")
"""Version, HMAC, seconds since the epoch."""
# As for Azure's key (accounts/credential.py): whoever reads Redis can try secrets, and ADMIN_KEY may be a word.
_SALT = b"llmgateway redis entries v2"
KEPT_KEYS = 10_000
"""Entries that are kept decoded, the latest; some 2 KB each."""
_WARN_SECONDS = 60
_FIELDS = frozenset(field.name for field in fields(KeyRecord))
_ORGANISATION_FIELDS = frozenset(field.name for field in fields(Organisation))


class EntrySigner:
    """Signs entries and verifies them. Thread-safe.

    Args:
        key: Of the HMAC, the same on all hosts.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def from_secret(cls, secret: str) -> EntrySigner:
        """Derive the key from the operator's secret: 50 ms, once at start."""
        return cls(Scrypt(salt=_SALT, length=32, n=2**14, r=8, p=1).derive(secret.encode()))

    def sign(self, name: str, content: bytes, *, at: float) -> bytes:
        return _HEAD.pack(_VERSION, self._mac(name, at, content), at) + content

    def verify(self, name: str, entry: bytes) -> SignedContent | None:
        """What was signed; None if it was signed with another key, under another name, or not at all."""
        if len(entry) < _HEAD.size:
            return None
        version, mac, at = _HEAD.unpack_from(entry)
        content = entry[_HEAD.size :]
        if version != _VERSION or not hmac.compare_digest(mac, self._mac(name, at, content)):
            return None
        return SignedContent(content, at)

    def _mac(self, name: str, at: float, content: bytes) -> bytes:
        # No name has a zero byte, so nothing can move from one part to another.
        signed = b"%b%b\0%b%b" % (_VERSION, name.encode(), struct.pack("<d", at), content)
        return hmac.digest(self._key, signed, "sha256")


class SignedContent(NamedTuple):
    """What an entry says, and since when."""

    content: bytes
    at: float


class KeyEntry(NamedTuple):
    """A key as the durable store had it *at* some time."""

    record: KeyRecord
    at: float


class Entries:
    """Makes entries and reads them. Thread-safe.

    An entry that does not verify is read as if it was missing; one line a minute says so.

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
        """Read a key; the same object for the same bytes, and the same record for as long as the key is the same.

        None also for what another version of this program has written.
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
        # Each step is atomic under the interpreter's lock, and no two of them depend on each other.
        self._decoded.pop(name, None)
        self._decoded[name] = entry, decoded
        if len(self._decoded) > self._limit:
            self._forget_oldest()
        return decoded

    def of_organisation(self, name: str, organisation: Organisation) -> bytes:
        document = orjson.dumps(replace(organisation, credential=None))
        return self._signer.sign(name, document + b"\n" + (organisation.credential or b""), at=self._clock())

    def organisation(self, name: str, entry: bytes | None) -> Organisation | None:
        """What admins had set; None also for what another version of this program has written."""
        signed = None if entry is None else self._verify(name, entry)
        return None if signed is None else _organisation(signed.content)

    def _verify(self, name: str, entry: bytes) -> SignedContent | None:
        signed = self._signer.verify(name, entry)
        if signed is None and not 0 <= self._clock() - self._warned_at < _WARN_SECONDS:
            self._warned_at = self._clock()
            logger.warning(
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
    # An entry without a field that this version knows would seem to say that a key lacks, say,
    # a limit: better to ask the durable store.
    if shape.keys() != _FIELDS:
        return None
    for name in ("created_at", "starts_at", "expires_at", "retires_at"):
        shape[name] = _time(shape[name])
    return KeyRecord(**_common(shape))


def _group(shape: dict[str, Any]) -> Group:
    for name in ("created_at", "starts_at", "expires_at"):
        shape[name] = _time(shape[name])
    return Group(**_common(shape))


def _common(shape: dict[str, Any]) -> dict[str, Any]:
    shape["models"] = _models(shape["models"])
    shape["limits"] = Limits.from_json(shape["limits"])
    if shape["prompt"] is not None:
        shape["prompt"] = _prompt(shape["prompt"])
    return shape


def _organisation(content: bytes) -> Organisation | None:
    document, _, credential = content.partition(b"\n")
    shape = orjson.loads(document)
    if shape.keys() != _ORGANISATION_FIELDS:
        return None
    return Organisation(
        prompt=_prompt(shape["prompt"]),
        credential=credential or None,
        prices={model: Prices(**prices) for model, prices in shape["prices"].items()},
        limits=Limits.from_json(shape["limits"]),
        groups={name: _group(group) for name, group in shape["groups"].items()},
    )


def _prompt(shape: Mapping[str, Any]) -> Prompt:
    return Prompt(version=shape["version"], text=shape["text"], set_at=_time(shape["set_at"]), scope=shape["scope"])


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _models(names: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)
