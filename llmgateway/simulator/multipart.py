"""Reads ``multipart/form-data`` (RFC 7578), in which images and recordings come."""

from __future__ import annotations

import re
from typing import NamedTuple

_PARAMETER = re.compile(r';\s*([\w-]+\*?)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))')


class File(NamedTuple):
    """A part that has a file name."""

    name: str
    content: bytes


class Form(NamedTuple):
    """The parts of a body by the names of their fields; what came several times is a list."""

    fields: dict[str, list[str]]
    files: dict[str, list[File]]

    def first(self, name: str) -> str | None:
        """Return the text of a field; ``None`` if it is missing."""
        values = self.fields.get(name)
        return values[0] if values else None


def parse_form(content_type: str, body: bytes) -> Form | None:
    """Read a body; ``None`` if it is no form, or does not end.

    ``image[]`` is the same field as ``image``: OpenAI's client sends it so where there are several.
    """
    kind, parameters = _parameters(content_type)
    boundary = parameters.get("boundary", "")
    if kind != "multipart/form-data" or not boundary:
        return None
    mark = b"--" + boundary.encode("latin-1")
    _, *parts = (b"\r\n" + body).split(b"\r\n" + mark)
    if not parts or not parts[-1].startswith(b"--"):
        return None
    form = Form({}, {})
    for part in parts[:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        _take(form, head.decode("utf-8", "replace"), content)
    return form


def _take(form: Form, head: str, content: bytes) -> None:
    for line in head.split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "content-disposition":
            _, parameters = _parameters(value)
            field = parameters.get("name", "").removesuffix("[]")
            if "filename" in parameters:
                form.files.setdefault(field, []).append(File(parameters["filename"], content))
            else:
                form.fields.setdefault(field, []).append(content.decode("utf-8", "replace"))


def _parameters(value: str) -> tuple[str, dict[str, str]]:
    kind, _, _ = value.partition(";")
    found = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(value)}
    return kind.strip().lower(), found
