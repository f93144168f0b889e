"""Keys for a whole class: a list is looked at line by line before anything is stored, and the keys are shown once.

Nothing is kept between the two steps: the page carries the file along, and the browser sends it again.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from flask import Response, current_app, request
from werkzeug.wrappers import Response as BaseResponse

from .api import Answer, ApiError
from .blueprint import api, blp, need, notice, page
from .forms import Form, was_sent
from .links import to

MOST_LINES = 500
"""Number of lines that a preview shows. Those that are not right come first."""

_IMPORT = "/admin/keys/import"
_SHOWN_COLUMNS = ("user", "name", "group", "email", "expires_at", "key")
_OPTIONS = ("existing", "dates", "decimal", "sheet")
_CHOOSE = "Choose a file."
_UNREADABLE = "The file has not come back whole. Choose it again."
_SENT_BEFORE = (
    "This list was sent before, and its keys were shown. They can never be shown again: replace those that are lost."
)


@blp.get("/class-lists")
def class_lists() -> Response:
    """Show the form."""
    need("POST", _IMPORT)
    return _page(Form({"existing": "refuse"}))


@blp.post("/class-lists")
def class_lists_read() -> BaseResponse:
    """Say what would happen to each line, or make the keys."""
    # The file that the page carries along is a field, which may be longer than Flask allows fields to be.
    request.max_form_memory_size = current_app.config["MAX_CONTENT_LENGTH"]
    form = Form.sent()
    form.values.pop("file", None)
    kept = form.values.pop("kept", "")
    try:
        body = _file(kept)
    except ValueError as error:
        form.status, form.errors = 422, {"file": [str(error)]}
        return _page(form)
    if form.text("step") != "import":
        return _preview(form, body)
    if was_sent():
        notice(_SENT_BEFORE)
        return to(".class_lists")
    try:
        made = _ask(form, body, dry_run=False)
    except ApiError as error:
        return _preview(form.refused(error), body)
    return _made(made)


def _preview(form: Form, body: bytes) -> Response:
    try:
        plan = _ask(form, body, dry_run=True).body
    except ApiError as error:
        # What is wrong with a line is in the plan; this is about the file, or what is said about it.
        return _page(form.refused(error), body=body)
    lines = sorted(plan["lines"], key=lambda line: line["action"] != "refuse")
    for line in lines[:MOST_LINES]:
        line["told"] = [*_told(line["problems"])]
    return _page(form, body=body, plan=plan, lines=lines[:MOST_LINES], more=max(0, len(lines) - MOST_LINES))


def _made(answer: Answer) -> Response:
    """Show the keys. The file with them is in the page itself, so that no address leads to it."""
    text = answer.body or ""
    rows = [*csv.DictReader(io.StringIO(text))]
    columns = [name for name in _SHOWN_COLUMNS if name in ("user", "key") or any(row.get(name) for row in rows)]
    with_mark = ("\ufeff" + text).encode()  # a spreadsheet reads it as UTF-8 then
    return page(
        "class_lists_made.html",
        status=201,
        rows=rows,
        columns=columns,
        counts=orjson.loads(answer.headers.get("X-LLMGateway-Import") or "{}"),
        file=f"data:text/csv;charset=utf-8;base64,{base64.b64encode(with_mark).decode()}",
    )


def _ask(form: Form, body: bytes, *, dry_run: bool) -> Answer:
    query = {name: form.text(name) for name in _OPTIONS} | {
        "group": form.text("group"),
        "map": _mapping(form),
        "ignore_other_columns": "true" if form.checked("ignore_other_columns") else None,
        "dry_run": "true" if dry_run else None,
        "format": "json" if dry_run else "csv",
    }
    return api().ask("POST", _IMPORT, query=query, body=body, content_type="text/csv")


def _told(problems: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the columns that are not right, and why; of a budget each of its columns."""
    for column, found in problems.items():
        if isinstance(found, Mapping):
            yield from _told(found)
        else:
            yield column, " ".join(map(str, found if isinstance(found, list) else [found]))


def _mapping(form: Form) -> list[str]:
    lines = (form.text("map") or "").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _file(kept: str) -> bytes:
    """Return the file that was chosen, or else the one that the page has carried along.

    Raises:
        ValueError: there is none; the message is for the reader.
    """
    chosen = request.files.get("file")
    body = chosen.read() if chosen is not None else b""
    if body:
        return body
    if not kept:
        raise ValueError(_CHOOSE)
    most = current_app.config["MAX_CONTENT_LENGTH"]
    unpacking = zlib.decompressobj()
    try:
        body = unpacking.decompress(base64.b64decode(kept, validate=True), most)
    except (binascii.Error, zlib.error):
        raise ValueError(_UNREADABLE) from None
    if not unpacking.eof:
        raise ValueError(_UNREADABLE)
    return body


def _carried(body: bytes) -> str:
    return base64.b64encode(zlib.compress(body, 9)).decode()


def _page(form: Form, *, body: bytes = b"", plan: Mapping[str, Any] | None = None, **context: Any) -> Response:
    names = [group["name"] for group in api().get("/admin/groups", remaining="false")["items"]]
    return page(
        "class_lists.html",
        status=form.status,
        form=form,
        groups=[("", "as the file says"), *((name, name) for name in names)],
        plan=plan,
        kept=_carried(body) if body else "",
        **context,
    )
