"""Names the documents of the daily sums, so that the name of a person cannot be found from them."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property

from ..sums import Cell

# Somebody who can read the database could else try names, and later secrets: ADMIN_KEY may be a simple word.
_SALT = b"llmgateway names of sums v1"
_BYTES = 20
_LENGTH_OF_OLDER = 32


class SumNames:
    """Gives each sum the ``_id`` of its document: a hash, because it is short even if the names in it are long.

    The name of the user is part of it, also after the person was erased: so a batch that is repeated finds the sums
    that include it. Therefore the hash has a key, which is not in the database.

    Args:
        secret: The operator's. With another one, new documents are created beside the present ones.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret

    @cached_property
    def _key(self) -> bytes:
        # Takes 50 ms, so not before it is needed.
        return hashlib.scrypt(self._secret.encode(), salt=_SALT, n=2**14, r=8, p=1, dklen=32)

    def of(self, cell: Cell) -> str:
        # Most sums have the same day in both, and are named by one.
        shifted = [] if cell.local_day == cell.day else [cell.local_day.isoformat()]
        return self._hash(json.dumps([cell.day.isoformat(), *cell.series, *shifted]))

    def instead_of(self, older: str) -> str:
        """Return a new name for a document whose name has no key."""
        return self._hash(older)

    @staticmethod
    def is_older(name: str) -> bool:
        """Return whether an older version of this program gave the *name*, without a key."""
        return len(name) == _LENGTH_OF_OLDER

    def _hash(self, text: str) -> str:
        return hashlib.blake2b(text.encode(), digest_size=_BYTES, key=self._key).hexdigest()
