"""Entity tags: two admins who change the same thing at once notice each other (RFC 9110, sections 8.8.3 and 13.1).

The tag of a resource is a digest of what is set for it, not of what was used in the meantime. A view that shows a
resource calls :func:`show`; a view that changes one passes :func:`check` on, so that it is called with the state that
the change replaces, within the same atomic step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import orjson
from flask import Response, g, request

from ...errors import PreconditionFailed
from ..dates import time_zones

T = TypeVar("T")

CONDITIONAL_POSTS = frozenset(
    {
        "/admin/admins/<admin_id>/rotate",
        "/admin/groups/<name>/raise",
        "/admin/keys/<key_id>/raise",
        "/admin/keys/<key_id>/rotate",
        "/admin/users/<path:user>/raise",
    }
)
"""Endpoints with POST that change one resource, and so compare its tag. All with PUT, PATCH and DELETE do."""


def tag_of(state: Any) -> str:
    """Return the strong tag of a resource with this *state*, as JSON."""
    text = orjson.dumps(state, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return hashlib.sha256(text).hexdigest()[:32]


def show(state: Any) -> None:
    """Send the tag of the resource that the answer of the current request shows."""
    g.etag = tag_of(state)


def check(shown: Callable[[T], Any], before: T) -> None:
    """Check that the client of the current request knows the resource as it is, if it says which state it knows.

    Args:
        shown: Returns the state as JSON; None if the resource does not exist.
        before: What is going to be changed.

    Raises:
        PreconditionFailed: contains the state.
    """
    if "If-Match" not in request.headers:
        return
    state = shown(before)
    known = request.if_match
    # Tags are compared strongly: a weak one matches nothing. "*" matches whatever there is.
    if state is not None and (known.star_tag or known.is_strong(tag_of(state))):
        return
    raise PreconditionFailed(
        "This was changed by somebody else in the meantime: 'present' is how it is now. Look at it, and send your "
        "change again with its ETag in If-Match."
        if state is not None
        else "This does not exist, or not any more. Leave If-Match out to create it.",
        present=state,
        headers=None if state is None else {"ETag": f'"{tag_of(state)}"'},
    )


def prepare() -> None:
    """Refuse ``If-Match`` where nothing compares it: a client that sends it relies on it.

    Raises:
        PreconditionFailed: no tag is that of an address that only does something.
    """
    if "If-Match" not in request.headers:
        return
    time_zones()  # states are shown with them, and within a change no store can be asked
    if request.method == "POST" and (request.url_rule is None or request.url_rule.rule not in CONDITIONAL_POSTS):
        raise PreconditionFailed("This address has no state that could be compared: leave If-Match out.")


def add_tag(response: Response) -> Response:
    """Add the tag to the answer of the current request.

    ``If-None-Match`` is not compared: answers also contain what is used and left, which the tag does not cover.
    """
    tag = g.get("etag")
    if tag is not None and response.status_code < 300:
        response.set_etag(tag)
    return response
