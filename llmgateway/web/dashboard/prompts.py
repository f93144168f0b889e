"""Prompts of the organisation, of groups and of keys: setting them, what they were, and what is sent for a person."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from flask import Response, request
from werkzeug.wrappers import Response as BaseResponse

from .api import ApiError
from .blueprint import api, blp, notice, page
from .forms import Form
from .links import to

MOST_SHOWN = 200
"""The most prompts, and the most groups of a select: a page has at most 150 KB."""
MOST_VERSIONS = 20
"""The most versions that a page compares."""
MOST_KEYS = 10
"""The most keys of a person whose prompts are previewed."""
_MESSAGE = "Hello"
_MODEL = "gpt-4o"
"""If the form names none, and the key is not for certain models only."""
_NOT_HERE = "There is no such version of this prompt."


@blp.get("/prompts")
def prompts() -> Response:
    """List the prompts in force."""
    found = api().get("/admin/prompts")["items"]
    return page("prompts.html", prompts=found[:MOST_SHOWN], left_out=len(found[MOST_SHOWN:]), groups=_groups())


@blp.get("/prompts/one")
def prompts_one() -> Response:
    """Show one prompt with its versions: of a group, a key, or the organisation."""
    return _one(_whose())


@blp.post("/prompts/one")
def prompts_set() -> BaseResponse:
    """Set a prompt."""
    form, whose = Form.sent(), _whose()
    # Without the blanks at its ends only; a browser sends the ends of lines of its own.
    text = request.form.get("prompt", "").replace("\r\n", "\n").strip()
    return _changed(whose, "PUT", {"prompt": text}, form, "is in force from the next request on.")


@blp.post("/prompts/restore")
def prompts_restore() -> BaseResponse:
    """Set the text of a former version once more."""
    form, whose = Form.sent(), _whose()
    former = {str(one["version"]): one["prompt"] for one in _versions(whose)}
    if form["version"] not in former:
        raise ApiError(404, _NOT_HERE)
    text = former[form["version"]]
    return _changed(whose, "PUT", {"prompt": text}, form, f"has the text of version {form['version']} again.")


@blp.post("/prompts/remove")
def prompts_remove() -> BaseResponse:
    """Take a prompt away, so that the next more general one applies."""
    return _changed(_whose(), "DELETE", None, Form.sent(), "was taken away. The next more general one applies.")


@blp.route("/prompts/preview", methods=["GET", "POST"])
def prompts_preview() -> Response:
    """Show what Azure would get if a person, a group or anybody sent a message. Nothing is sent."""
    form = Form.sent() if request.method == "POST" else Form({"message": _MESSAGE, **request.args.to_dict()})
    previews: list[dict[str, Any]] = []
    if request.method == "POST":
        try:
            previews = [_preview(whose, form) for whose in _senders(form)]
        except ApiError as error:
            form = form.refused(error)
    return page("prompts_preview.html", status=form.status, form=form, previews=previews, groups=_groups())


def _groups() -> list[str] | None:
    """Return the names of the groups; None if there are too many for a select."""
    names = [group["name"] for group in api().get("/admin/groups", remaining="false")["items"]]
    return None if len(names) > MOST_SHOWN else names


def _whose() -> dict[str, str]:
    """Return whose prompt the page is about, as the API names it."""
    return {name: request.args[name] for name in ("group", "key") if request.args.get(name)}


def _changed(whose: Mapping[str, str], method: str, body: Any, form: Form, what: str) -> BaseResponse:
    try:
        api().ask(method, "/admin/prompt", query=whose, json=body, etag=form.etag)
    except ApiError as error:
        return _one(whose, form.refused(error))
    notice(f"The prompt {what}")
    return to(".prompts_one", **whose)


def _versions(whose: Mapping[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api().get("/admin/prompt/versions", **whose)["items"]
    return found


def _one(whose: Mapping[str, str], form: Form | None = None) -> Response:
    answer = api().ask("GET", "/admin/prompt", query=whose)
    scope = f"key:{whose['key']}" if "key" in whose else f"group:{whose['group']}" if "group" in whose else ""
    own = answer.body if answer.body["scope"] == scope else None
    shown = Form({"prompt": own["prompt"] if own else ""}, etag=answer.etag)
    if form is not None and "prompt" in form.values:
        form.values["prompt"] = request.form["prompt"]
        shown = form
    return page(
        "prompts_one.html",
        status=shown.status if form is None else form.status,
        whose=whose,
        key=api().get(f"/admin/keys/{quote(whose['key'], safe='')}") if "key" in whose else None,
        own=own,
        in_force=answer.body,
        etag=answer.etag,
        form=shown,
        refused=form if form is not shown else None,
        versions=[*_compared(_versions(whose))],
    )


def _compared(versions: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the newest *versions*, each with its differences to the one before."""
    for place, one in enumerate(versions[:MOST_VERSIONS]):
        before = versions[place + 1]["prompt"] if place + 1 < len(versions) else ""
        yield one | {"lines": differences(before, one["prompt"]), "left_out": max(0, len(versions) - MOST_VERSIONS)}


def differences(before: str, after: str) -> list[tuple[str, str]]:
    """Return the lines of two texts as pairs of a sign, ``-``, ``+`` or a blank, and the line; with some around."""
    found = [*difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=3)]
    lines = [("…", "") if line.startswith("@@") else (line[:1], line[1:]) for line in found[2:]]
    return [line for place, line in enumerate(lines) if line[0] != "…" or place]


def _senders(form: Form) -> list[dict[str, str]]:
    """Return whom to preview: the keys of a person, a group, or anybody. Raises ApiError."""
    user = form.text("user")
    if user is None:
        return [{name: value for name in ("group", "key") if (value := form.text(name))}]
    keys = api().get("/admin/keys", user=user, limit=MOST_KEYS)["items"]
    if not keys:
        raise ApiError(422, "", fields={"user": ["This person has no key."]})
    return [
        {"key": key["id"], "name": key["name"], "of": key["group"] or "", "model": (key["models"] or [_MODEL])[0]}
        for key in keys
    ]


def _preview(whose: Mapping[str, str], form: Form) -> dict[str, Any]:
    """Return one preview, or why its sender would be refused."""
    body: dict[str, Any] = {name: whose[name] for name in ("group", "key") if name in whose}
    body |= {"messages": [{"role": "user", "content": form.text("message") or _MESSAGE}]}
    body["model"] = form.text("model") or whose.get("model", _MODEL)
    try:
        found = api().post("/admin/prompt/preview", body).body
    except ApiError as error:
        if "key" not in whose or error.status not in (403, 404):
            raise
        return {"whose": whose, "refused": error.message}
    sent = json.dumps(found["sent"], ensure_ascii=False, indent=2)
    return {"whose": whose, "version": found["version"], "scope": found["scope"], "sent": sent}
