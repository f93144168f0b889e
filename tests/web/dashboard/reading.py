"""What tests read from pages, and names that are meant to break them."""

from __future__ import annotations

import re

HOSTILE = '<script>alert(1)</script>"\u202e🦆' + "x" * 120


def made_key(page: str) -> str:
    """Return the key that a page shows this once."""
    found = re.search(r'<code id="secret">([^<]+)</code>', page)
    assert found, page
    return found[1]


def etag_of(page: str) -> str:
    """Return the entity tag in the first form that has one."""
    found = re.search(r'name="etag" value="([0-9a-f]+)"', page)
    assert found, page
    return found[1]
