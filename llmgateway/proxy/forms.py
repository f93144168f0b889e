"""Reads bodies of the type ``multipart/form-data`` (RFC 7578), such as the upload of a recording.

A body stays in the file into which the server has received it. The gateway reads the few short fields that it needs,
and the beginning of each uploaded file, and passes the rest on piece by piece.

What the gateway checks must be what Azure reads. So a body is refused if two programs can divide it in two ways: if a
field that the gateway reads appears twice, if the boundary stands anywhere but between two parts, or if a part has an
unusual head.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from ..errors import InvalidRequest
from .parsing import BodyFormat

PIECE = 256 * 1024
"""Bytes of a form that are in memory at once."""

MOST_PARTS = 200
"""The most fields and files of a form. An edit of images takes 16 files."""

LARGEST_HEAD = 4096
"""The most bytes of the head of a part."""

LARGEST_FIELD = 128 * 1024
"""The most bytes of a field that the gateway reads. The prompt of an image has up to 32,000 characters."""

_TYPE = "multipart/form-data"
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046, section 5.1.1
_PARAMETER = re.compile(r'\s*;\s*([A-Za-z0-9!#$&+.^_`|~*-]+)=("(?:[^"\\]|\\.)*"|[^\s;"\\]+)')
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}(?:\[[A-Za-z0-9_.-]{0,100}\])?")
_PLAIN_CODINGS = ("binary", "8bit", "7bit")
_CHARSET = "_charset_"
"""The name of a field that tells how all others are encoded (RFC 7578, section 4.6)."""

_NOT_UTF8 = "Send the fields of the form in UTF-8."
_CUT_OFF = "The form ends before its last boundary, so the upload was cut off. Send it again."
_MISUSED = (
    "The boundary of the form stands where no part begins. Let an HTTP library write the form, and choose another "
    "boundary."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One field or file of a form, and where its content is in the body."""

    name: str
    is_file: bool
    """Whether it has a file name."""
    begins: int
    ends: int

    @property
    def size(self) -> int:
        return self.ends - self.begins


@dataclass(frozen=True, slots=True, kw_only=True)
class FormFormat:
    """What the gateway reads in the forms of one operation."""

    fields: BodyFormat
    """The names of the fields that it reads, and of the files. Each may appear once, besides the files."""
    files: tuple[str, ...]
    """The names that uploaded files have."""
    required: str
    """The file without which there is nothing to do."""
    inspect: Callable[[BinaryIO, Part], Any]
    """Returns what is to know of a file. It may seek in the body. Raises InvalidRequest if it is no such file."""
    flags: tuple[str, ...] = ("stream",)
    """Fields that are ``true`` or ``false``."""
    numbers: tuple[str, ...] = ()
    """Fields that are whole numbers."""


class Form:
    """A form that was checked, as an :class:`~llmgateway.interfaces.Upload`: it can be sent several times.

    Args:
        file: Contains the body from its first byte on.
        boundary: The line between two parts, without the hyphens before it.
    """

    def __init__(self, file: BinaryIO, size: int, boundary: str, parts: list[Part], document: dict[str, Any]) -> None:
        self.content_type = f'{_TYPE}; boundary="{boundary}"'
        self.document = document
        """The fields that the gateway reads; for each name of files, a list of what there is to know of them."""
        self._file = file
        self._size = size
        self._delimiter = f"--{boundary}\r\n".encode()
        self._parts = parts
        self._inserted = b""
        self._insert_at = self._resume_at = 0

    def naming(self, model: str) -> Form:
        """Return the same form, with *model* as its field ``model``."""
        named = Form.__new__(Form)
        named.__dict__.update(self.__dict__)
        value = model.encode()
        part = next((part for part in self._parts if part.name == "model"), None)
        if part is None:
            value = self._delimiter + b'Content-Disposition: form-data; name="model"\r\n\r\n' + value + b"\r\n"
            named._insert_at = named._resume_at = 0
        else:
            named._insert_at, named._resume_at = part.begins, part.ends
        named._inserted = value
        return named

    def __len__(self) -> int:
        return self._size - (self._resume_at - self._insert_at) + len(self._inserted)

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces(0, self._insert_at)
        if self._inserted:
            yield self._inserted
        yield from self._pieces(self._resume_at, self._size)

    def _pieces(self, begins: int, ends: int) -> Iterator[bytes]:
        self._file.seek(begins)
        while begins < ends and (piece := self._file.read(min(PIECE, ends - begins))):
            yield piece
            begins += len(piece)


def read_form(file: BinaryIO, size: int, content_type: str | None, form: FormFormat) -> Form:
    """Check a body, and read what the gateway needs of it.

    Args:
        file: Contains the body from its first byte on. It must stay open while the form is used.
        size: The bytes of the body.
        content_type: The header ``Content-Type`` of the request.

    Raises:
        InvalidRequest: it is not a form, or not one that everybody reads alike. The message quotes no content.
    """
    boundary = _boundary(content_type)
    parts = list(_parts(file, size, boundary.encode()))
    _check_names(parts, form)
    document: dict[str, Any] = {}
    for part in parts:
        if part.name in form.files:
            document.setdefault(part.name, []).append(_inspected(file, part, form))
        elif part.name in form.fields.top.known:
            document[part.name] = _value(file, part, form)
    if not any(name in document for name in form.files if name.removesuffix("[]") == form.required):
        raise InvalidRequest(f"'{form.required}' is missing: send the file as a part of the form.", param=form.required)
    return Form(file, size, boundary, parts, document)


def _boundary(content_type: str | None) -> str:
    kind, _, parameters = (content_type or "").partition(";")
    if kind.strip().lower() != _TYPE:
        raise InvalidRequest(f"Send the file in a form, with the header 'Content-Type: {_TYPE}; boundary=…'.")
    found = [value for name, value in _parameters(";" + parameters) if name == "boundary"]
    if len(found) != 1 or not _BOUNDARY.fullmatch(found[0]):
        raise InvalidRequest(
            f"The header 'Content-Type: {_TYPE}' must name one boundary, as in '{_TYPE}; boundary=abc123'. Let your "
            "HTTP library set this header; do not set it yourself."
        )
    return found[0]


def _parts(file: BinaryIO, size: int, boundary: bytes) -> Iterator[Part]:
    delimiter = b"--" + boundary
    places = _places(file, delimiter)
    if not places:
        raise InvalidRequest(
            "The body does not contain the boundary that the header 'Content-Type' names. Let your HTTP library set "
            "this header; do not set it yourself."
        )
    ends = [_end_of_delimiter(file, place, delimiter, first=place == places[0]) for place in places]
    if any(last for _, last in ends[:-1]):
        raise InvalidRequest(_MISUSED)
    after, last = ends[-1]
    if not last:
        raise InvalidRequest(_CUT_OFF)
    file.seek(after)
    if file.read(3) not in (b"", b"\n", b"\r\n"):
        raise InvalidRequest("Something follows the last boundary of the form. Let an HTTP library write the form.")
    for (begins, _), ends_at in zip(ends, places[1:], strict=False):
        yield _part(file, begins, ends_at - 2)
    if size < after:
        raise InvalidRequest(_CUT_OFF)


def _places(file: BinaryIO, delimiter: bytes) -> list[int]:
    """Return all places of *delimiter*."""
    places: list[int] = []
    kept, position = b"", 0
    file.seek(0)
    while piece := file.read(PIECE):
        data = kept + piece
        found = data.find(delimiter)
        while found >= 0:
            places.append(position - len(kept) + found)
            if len(places) > MOST_PARTS + 1:
                raise InvalidRequest(f"The form has more than {MOST_PARTS} parts. Send fewer.")
            found = data.find(delimiter, found + 1)
        position += len(piece)
        kept = data[1 - len(delimiter) :]
    return places


def _end_of_delimiter(file: BinaryIO, place: int, delimiter: bytes, *, first: bool) -> tuple[int, bool]:
    """Return where the line of a delimiter ends, and whether it is the last one of the form."""
    before = min(place, 2)
    file.seek(place - before)
    around = file.read(before + len(delimiter) + 2)
    line_end, end = around[:before], around[before + len(delimiter) :]
    if line_end != b"\r\n" and not (first and place == 0):
        raise InvalidRequest(_MISUSED)
    if first and place > 2:
        raise InvalidRequest("Something stands before the first boundary of the form. Let an HTTP library write it.")
    if len(end) < 2:
        raise InvalidRequest(_CUT_OFF)
    if end not in (b"\r\n", b"--"):
        raise InvalidRequest(_MISUSED)
    return place + len(delimiter) + 2, end == b"--"


def _part(file: BinaryIO, begins: int, ends: int) -> Part:
    """Return the part whose head begins at *begins*."""
    file.seek(begins)
    head, blank, _ = file.read(max(0, min(LARGEST_HEAD, ends - begins))).partition(b"\r\n\r\n")
    if not blank:
        raise InvalidRequest(f"A part of the form has no head, or one of more than {LARGEST_HEAD} bytes.")
    disposition = _disposition(head)
    kind, _, rest = disposition.partition(";")
    parameters = _parameters(";" + rest)
    names = [(name, value) for name, value in parameters if name in ("name", "name*")]
    if (
        kind.strip().lower() != "form-data"
        or [name for name, _ in names] != ["name"]
        or not _NAME.fullmatch(names[0][1])
    ):
        raise InvalidRequest(
            "Each part of the form needs one 'Content-Disposition: form-data; name=\"…\"', with a name of letters, "
            "digits, '_', '-' and '.'."
        )
    is_file = any(name in ("filename", "filename*") for name, _ in parameters)
    return Part(name=names[0][1], is_file=is_file, begins=begins + len(head) + 4, ends=ends)


def _disposition(head: bytes) -> str:
    """Return the value of ``Content-Disposition``."""
    dispositions = []
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon or not name.strip() or name != name.strip() or not value.isprintable():
            raise InvalidRequest("The head of a part of the form is malformed. Let an HTTP library write the form.")
        name = name.lower()
        if name == "content-disposition":
            dispositions.append(value)
        elif name == "content-transfer-encoding" and value.strip().lower() not in _PLAIN_CODINGS:
            raise InvalidRequest("Send the parts of the form as they are, without 'Content-Transfer-Encoding'.")
        elif name == "content-type" and re.search(r"charset=(?!\"?(utf-8|us-ascii))", value, re.IGNORECASE):
            raise InvalidRequest(_NOT_UTF8)
        elif name == "content-type" and value.strip().lower().startswith("multipart/"):
            raise InvalidRequest("Send each file as a part of its own: a part of the form cannot be a form.")
    if len(dispositions) != 1:
        raise InvalidRequest("Each part of the form needs one 'Content-Disposition'.")
    return dispositions[0]


def _parameters(text: str) -> list[tuple[str, str]]:
    """Return names, in lower case, and values of ``; name=value; name="value"``."""
    found: list[tuple[str, str]] = []
    position = 0
    text = text.rstrip(" \t;")
    while position < len(text):
        parameter = _PARAMETER.match(text, position)
        if parameter is None or any(parameter[1].lower() == name for name, _ in found) or _may_end(parameter[2]):
            raise InvalidRequest("The parameters of a 'Content-Type' or 'Content-Disposition' are malformed.")
        found.append((parameter[1].lower(), parameter[2].removeprefix('"').removesuffix('"')))
        position = parameter.end()
    return found


def _may_end(value: str) -> bool:
    """Return whether *value* ends earlier for a program that takes a backslash in quotation marks as it is.

    Browsers and some libraries do (WHATWG, "Multipart form data"). What follows would be further parameters.
    """
    return '\\"' in value and ";" in value.partition('\\"')[2]


def _check_names(parts: list[Part], form: FormFormat) -> None:
    """Raise InvalidRequest if a field that the gateway reads is sent twice, as a file, or under a similar name."""
    known, seen = form.fields.top, set()
    for part in parts:
        name = part.name
        if name.lower() == _CHARSET:
            raise InvalidRequest(_NOT_UTF8, param=name)
        if name in form.files:
            if not part.is_file:
                raise InvalidRequest(f"'{name}' must be a file: send it with a file name.", param=name)
            if name.endswith("[]") or f"{name}[]" in form.files:
                continue
        elif name not in known.known:
            bare = name.partition("[")[0]
            meant = known.meant_by(bare) or (bare if bare != name and bare in known.known else None)
            if meant is not None:
                raise InvalidRequest(f"'{name}' is too similar to '{meant}'. Write '{meant}'.", param=meant)
            continue
        elif part.is_file:
            raise InvalidRequest(f"'{name}' must be a field, not a file: send it without a file name.", param=name)
        if name in seen:
            raise InvalidRequest(f"'{name}' appears twice in the form. Send it once.", param=name)
        seen.add(name)


def _inspected(file: BinaryIO, part: Part, form: FormFormat) -> Any:
    if not part.size:
        raise InvalidRequest(f"The file '{part.name}' is empty.", param=part.name)
    return form.inspect(file, part)


def _value(file: BinaryIO, part: Part, form: FormFormat) -> str | int | bool:
    name = part.name
    if part.size > LARGEST_FIELD:
        raise InvalidRequest(f"'{name}' is longer than {LARGEST_FIELD:,} bytes.", param=name)
    file.seek(part.begins)
    try:
        text = file.read(part.size).decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"'{name}' is not UTF-8.", param=name) from None
    if name in form.flags:
        if text.lower() not in ("true", "false", "1", "0", ""):
            raise InvalidRequest(f"'{name}' must be true or false.", param=name)
        return text.lower() in ("true", "1")
    if name in form.numbers:
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise InvalidRequest(f"'{name}' must be a whole number.", param=name)
        return int(text)
    return text
