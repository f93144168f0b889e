"""What can be done with stored responses (Microsoft's page on the Responses API, 2026).

``GET``, ``DELETE /responses/{id}``, ``POST …/cancel`` and ``GET …/input_items``; fields: openai 3.57.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from .faults import Occasion, invalid, response_not_found
from .messages import Reply, Request
from .operations import Refused
from .response_store import ResponseStore, Stored
from .responses import SINCE

_PATH = re.compile(r"(?P<base>/openai/v1|(?:/.+)?/openai)/responses/(?P<id>[^/]+)(?:/(?P<what>cancel|input_items))?")
_METHODS = {None: ("GET", "DELETE"), "cancel": ("POST",), "input_items": ("GET",)}
_NUMBER = re.compile(rb'"sequence_number":(\d+)\}\n\n$')
_MOST_ITEMS, _USUAL_ITEMS = 100, 20


class Stateful(NamedTuple):
    """A request for a stored response."""

    id: str
    what: str | None
    """``cancel`` or ``input_items``."""


def stateful(request: Request, *, versions: frozenset[str]) -> Stateful | None:
    """Return what a request wants with a stored response; ``None`` if it is for something else."""
    found = _PATH.fullmatch(request.path)
    if found is None or request.method not in _METHODS[found["what"]]:
        return None
    version = request.query.get("api-version")
    if found["base"] != "/openai/v1" and not (version in versions and version is not None and version >= SINCE):
        return None
    return Stateful(found["id"], found["what"])


def answer(wanted: Stateful, request: Request, store: ResponseStore) -> Reply:
    """Do what a request wants with a stored response.

    Raises:
        Refused: there is no such response, or it cannot be done.
    """
    if request.method == "DELETE":
        if not store.delete(wanted.id):
            raise _not_found(wanted.id)
        return _json({"id": wanted.id, "object": "response", "deleted": True})
    if wanted.what == "cancel":
        return _json(_document(_cancelled(wanted.id, store)))
    stored = store.find(wanted.id) if wanted.what else store.look(wanted.id)
    if stored is None:
        raise _not_found(wanted.id)
    if wanted.what == "input_items":
        return _json(_page(stored.input, request.query))
    if request.query.get("stream") == "true":
        return _replay(stored, request.query)
    return _json(_document(stored))


def _not_found(name: str) -> Refused:
    return Refused(response_not_found(Occasion(response=name)))


def _document(stored: Stored) -> Mapping[str, Any]:
    """Return a response as it is now."""
    if not stored.looks_left:
        return stored.document
    unfinished: dict[str, Any] = {
        "status": "in_progress",
        "output": [],
        "usage": None,
        "completed_at": None,
        "content_filters": None,
    }
    return {**stored.document, **unfinished, "error": None, "incomplete_details": None}


def _cancelled(name: str, store: ResponseStore) -> Stored:
    """Cancel a response, once or again. The error's words are OpenAI's."""
    stored = store.find(name)
    if stored is None:
        raise _not_found(name)
    if not stored.background:
        raise Refused(invalid("Cannot cancel a synchronous response."))
    return store.cancel(name) or stored


def _page(items: Sequence[Mapping[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """Return some of the items, the latest first unless asked otherwise."""
    ordered = list(items) if query.get("order") == "asc" else list(reversed(items))
    limit = query.get("limit", "")
    size = min(int(limit), _MOST_ITEMS) if limit.isdecimal() else _USUAL_ITEMS
    ids = [str(item["id"]) for item in ordered]
    after = query.get("after")
    start = ids.index(after) + 1 if after in ids else 0
    page = ordered[start : start + size]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": start + size < len(ordered),
    }


def _replay(stored: Stored, query: Mapping[str, str]) -> Reply:
    """Stream a response again, behind an event that the client has seen."""
    if not stored.events:
        raise Refused(invalid("This response cannot be streamed because it was not created with stream=true."))
    after = query.get("starting_after", "")
    seen = int(after) if after.isdecimal() else -1
    parts = [event for event in stored.events if _number(event) > seen]
    return Reply(status=200, headers={"Content-Type": "text/event-stream; charset=utf-8"}, parts=parts, stream=True)


def _number(event: bytes) -> int:
    """The number is the last field of each event but of errors, which have none behind them."""
    found = _NUMBER.search(event)
    return int(found[1]) if found else 1 << 30


def _json(document: Mapping[str, Any]) -> Reply:
    return Reply(status=200, headers={"Content-Type": "application/json"}, parts=[orjson.dumps(document)])
