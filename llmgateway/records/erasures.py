"""People whose data was erased."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class NameDigest:
    """Recognises a name that is not kept itself."""

    salt: str
    digest: str
    """scrypt, so that nobody tries many names (RFC 7914; n=2**14, r=8, p=1: about 20 tries a second)."""

    @classmethod
    def of(cls, name: str) -> NameDigest:
        salt = secrets.token_hex(16)
        return cls(salt=salt, digest=_scrypt(name, salt))

    def is_of(self, name: str) -> bool:
        return _scrypt(name, self.salt) == self.digest


@lru_cache(maxsize=1000)
def _scrypt(name: str, salt: str) -> str:
    return hashlib.scrypt(name.encode(), salt=bytes.fromhex(salt), n=2**14, r=8, p=1, dklen=16).hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """A person's data was erased, or is being erased. This is kept, and holds for what is stored later, too.

    It goes by the keys of the person and never by the name, so that a person who gets the same name later has nothing
    to do with it.
    """

    pseudonym: str
    """Stands for the name, the e-mail address and all else: ``erased-<random>``."""
    erased_at: datetime
    key_ids: tuple[str, ...]
    """The keys of the person, most of which exist no longer."""
    shared: tuple[str, ...] = ()
    """Those of :attr:`key_ids` that somebody else has had, too, before or after. Of these, only what has the name of
    the person is replaced."""
    name: NameDigest | None = None
    """Recognises the name until the erasure is finished, and longer if there are shared keys."""

    def covers(self, key_id: str, user: str) -> bool:
        """Return whether what was stored for this key under the name *user* belongs to the person."""
        if key_id not in self.key_ids or user == self.pseudonym:
            return False
        return key_id not in self.shared or (self.name is not None and self.name.is_of(user))


class Kept(NamedTuple):
    """What a store has of a person."""

    names: Mapping[str, frozenset[str]]
    """The keys of the person, each with all names that the store has for it."""
    records: int
    """Number of records or entries."""


NOTHING_KEPT = Kept({}, 0)
