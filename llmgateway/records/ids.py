"""Identifiers and times, as all stores keep them."""

from __future__ import annotations

import os
import random
import secrets
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(seconds: float) -> datetime:
    """Return the UTC time *seconds* after the epoch, in whole milliseconds, as every store saves it."""
    return _EPOCH + timedelta(milliseconds=int(seconds * 1000))


def new_id(prefix: str, seconds: float) -> str:
    """Return a new identifier. Identifiers sort by their time, to the millisecond.

    So inserts go to one end of an index, and the next page of a listing begins after the last identifier of the page
    before. 64 random bits make collisions within a millisecond practically impossible.
    """
    return f"{prefix}_{int(seconds * 1000):012x}{secrets.token_hex(8)}"


# Request identifiers must be unique, not secret. Random bytes of the operating system would take 40 us and release
# the GIL twice.
_random = random.Random()  # noqa: S311
os.register_at_fork(after_in_child=_random.seed)


def new_request_id(seconds: float) -> str:
    """Return a new UUID version 7 (RFC 9562 section 5.7). Azure uses UUIDs, too, and version 7 sorts by time."""
    noise = _random.getrandbits(74)
    bits = (int(seconds * 1000) & (2**48 - 1)) << 80 | 7 << 76 | noise >> 62 << 64 | 2 << 62 | noise & (2**62 - 1)
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
