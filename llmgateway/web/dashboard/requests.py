"""Single requests: a list that can be followed, and the way of one of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from flask import Response, request
from werkzeug.wrappers import Response as BaseResponse

from ...records import Outcome, UsageSource
from .api import ApiError
from .blueprint import api, blp, page
from .forms import Form
from .links import to

_AT_ONCE = 50
_LONGEST = 1e9
"""Seconds by which requests can be filtered."""

_OF_BOTH = ("user", "group", "key", "model", "endpoint", "status", "code", "since", "until")
_OF_RECORDS = ("outcome", "usage_source", "deployment", "region", "stream")
"""Filters that refusals do not match: they were not sent to Azure."""

OUTCOMES = {
    Outcome.OK: ("ok", "good"),
    Outcome.UPSTREAM_ERROR: ("Azure's error", "bad"),
    Outcome.CLIENT_CLOSED: ("client left", "warn"),
    Outcome.BROKEN: ("broken off", "bad"),
    Outcome.TIMEOUT: ("timed out", "bad"),
    Outcome.REVOKED: ("key revoked", "warn"),
    Outcome.INTERRUPTED: ("interrupted", "bad"),
}
"""How each outcome is called, and its colour."""

SOURCES = {
    UsageSource.UPSTREAM: "counted by Azure",
    UsageSource.ESTIMATED: "estimated from what was seen",
    UsageSource.BOUND: "the most that the model can have written",
    UsageSource.NONE: "nothing to be billed",
}

_SCOPES = {
    "key": "the key",
    "member": "the person within the group",
    "person": "the person",
    "group": "the group",
    "organisation": "the organisation",
}
_PARTS = {
    "requests_per_minute": "requests per minute",
    "tokens_per_minute": "tokens per minute",
    "parallel_requests": "requests at once",
    "budget": "budget",
}


@dataclass(frozen=True, slots=True)
class Step:
    """A point on the way of a request."""

    name: str
    after_ms: float | None
    """After its arrival; None if it is not known, or has not been reached."""
    told: str = ""
    is_bad: bool = False


@blp.get("/requests")
def requests() -> BaseResponse:
    """List requests, newest first; with ``follow``, again and again."""
    wanted = request.args.get("id", "").strip()
    form = Form({name: value.strip() for name, value in request.args.items()})
    found: dict[str, Any] = {"items": [], "next": None, "searched_from": None}
    try:
        if wanted:
            return to(".requests_one", request_id=_known(wanted))
        found = api().get("/admin/logs", **query_of(form))
    except ApiError as error:
        if error.status == 404:
            form.status, form.errors = 404, {"id": [error.message]}
        else:
            form.refused(error)
    seen = _digest(found["items"])
    follows = request.args.get("follow") == "on" and not request.args.get("cursor")
    if follows and request.headers.get("X-Seen") == seen:
        return Response(status=204)  # htmx leaves the list as it is
    return page(
        "requests.html",
        status=form.status,
        form=form,
        found=found,
        follows=follows,
        seen=seen,
        outcomes=OUTCOMES,
        outcome_options=[("", "any"), *((outcome.value, name) for outcome, (name, _) in OUTCOMES.items())],
        source_options=[("", "however counted"), *((source.value, name) for source, name in SOURCES.items())],
        narrowed=any(form[name] for name in (*_OF_BOTH[2:], *_OF_RECORDS[1:], "seconds")),
    )


@blp.get("/requests/<request_id>")
def requests_one(request_id: str) -> Response:
    """Show one request with its way."""
    found = api().get(f"/admin/logs/{quote(request_id, safe='')}")
    is_refusal = found["kind"] == "refusal"
    return page(
        "requests_refusal.html" if is_refusal else "requests_one.html",
        item=found,
        outcomes=OUTCOMES,
        sources=SOURCES,
        way=[] if is_refusal else [*_way(found)],
        phases={} if is_refusal else _phases(found),
        limit=limit_in_words,
    )


def limit_in_words(name: str) -> str:
    """``requests per minute of the key`` for ``key.requests_per_minute``."""
    scope, _, part = name.partition(".")
    return f"{_PARTS.get(part, part)} of {_SCOPES.get(scope, scope)}"


def _known(wanted: str) -> str:
    """Return our identifier of the request that has the identifier *wanted*, from us or from Azure."""
    found = api().get(f"/admin/logs/{quote(wanted, safe='')}")
    return str(found["id"])


def query_of(form: Form) -> dict[str, Any]:
    """Return the filters of the page, as the API takes them."""
    of_records = {name: form.text(name) for name in _OF_RECORDS} | {"min_duration_ms": _milliseconds(form)}
    kind = form.text("kind") or ("record" if any(of_records.values()) else "all")
    query = {name: form.text(name) for name in _OF_BOTH} | of_records
    return query | {"kind": kind, "cursor": request.args.get("cursor"), "limit": _AT_ONCE}


def _milliseconds(form: Form) -> str | None:
    value = form.number("seconds")
    if value is None or isinstance(value, str):
        return value
    # What is longer than all that was ever measured is left to the API to refuse, as it was typed.
    return str(round(value * 1000)) if abs(value) < _LONGEST else form.text("seconds")


def _digest(items: list[dict[str, Any]]) -> str:
    shown = ",".join(f"{item['id']}:{item.get('count', 1)}" for item in items)
    return hashlib.sha256(shown.encode()).hexdigest()[:16]


def _way(record: Mapping[str, Any]) -> Iterator[Step]:
    if record["admitted_ms"] is not None:
        number = len(record["limits"])
        checked = "1 limit" if number == 1 else f"{number or 'no'} limits"
        yield Step("Let in", record["admitted_ms"], f"checked against {checked}")
    else:
        yield Step("Let in", None)
    attempts = record["attempts"]
    for number, attempt in enumerate(attempts, 1):
        last = number == len(attempts)
        after = attempt["sent_ms"] if attempt["sent_ms"] is not None or number > 1 else record["sent_ms"]
        failed = None if last else attempt["error_code"] or attempt["status"] or "no answer"
        told = f"answered with {failed}: another deployment is asked" if failed else ""
        yield Step(f"Sent to {attempt['deployment']}", after, told, is_bad=not last)
    if not attempts:
        yield Step(f"Sent to {record['deployment']}", record["sent_ms"])
    if record["stream"]:
        yield Step("First token", record["ttft_ms"])
    outcome, colour = OUTCOMES[Outcome(record["outcome"])]
    if record["state"] == "running":
        yield Step("End", None, "it is still running")
    else:
        yield Step("End", record["duration_ms"], outcome, is_bad=colour != "good")


def _phases(record: Mapping[str, Any]) -> dict[str, float]:
    """Return how long each part of the way took, in milliseconds; empty if one of its points is not known."""
    points = {
        "checking": record["admitted_ms"],
        "preparing": record["sent_ms"],
        "until the first token": record["ttft_ms"],
        "answer": None if record["state"] == "running" else record["duration_ms"],
    }
    if not record["stream"]:
        points = {"checking": points["checking"], "preparing": points["preparing"], "at Azure": points["answer"]}
    if any(point is None for point in points.values()):
        return {}
    began, phases = 0.0, {}
    for name, point in points.items():
        phases[name] = max(0.0, point - began)
        began = point
    return phases
