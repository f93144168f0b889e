"""Opens files as people download them: with a byte order mark, compressed, in a ZIP archive, in parts."""

from __future__ import annotations

import codecs
import gzip
import io
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

_FIRST_BYTES = 4096
_AS_CSV = "Choose CSV (or CSV with gzip) as the format of the export."


_LARGEST_JSON = 32 * 1024 * 1024


class UnusableFile(Exception):
    """A file cannot be read as an export; the text names the file and says what to do."""


class Allowance:
    """How many bytes may be read of all files together, unpacked: a small archive can hold very much.

    Args:
        most: None for any number.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._left = most

    def for_json(self) -> None:
        """Allow no more than what JSON may have, which is held in memory."""
        if self._left is not None:
            self._left = min(self._left, _LARGEST_JSON)

    def counted(self, name: str, stream: BinaryIO) -> BinaryIO:
        """Return *stream*, whose bytes count."""
        return stream if self._most is None else cast(BinaryIO, io.BufferedReader(_Counted(self, name, stream)))

    def take(self, name: str, size: int) -> None:
        """Raise UnusableFile if the file *name* has *size* bytes more than what is left."""
        if self._left is None or self._most is None:
            return
        self._left -= size
        if self._left < 0:
            raise UnusableFile(
                f"{name}: it is too large to be compared here: more than {self._most:,} bytes unpacked, or "
                f"{_LARGEST_JSON:,} of JSON. Use llmgateway reconcile in a terminal, which takes any size; export "
                "fewer days; or let the operator raise LLMGATEWAY_RECONCILE_BYTES."
            )


class _Counted(io.RawIOBase):
    def __init__(self, allowance: Allowance, name: str, stream: BinaryIO) -> None:
        self._allowance = allowance
        self._name = name
        self._stream = stream
        self._at = self._farthest = 0  # the beginning is read twice, and counts once

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._stream.read(len(buffer))
        self._at += len(piece)
        self._allowance.take(self._name, max(0, self._at - self._farthest))
        self._farthest = max(self._farthest, self._at)
        buffer[: len(piece)] = piece
        return len(piece)

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        self._at = self._stream.seek(place, whence)
        return self._at

    def tell(self) -> int:
        return self._at


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Convert what goes wrong in the block, which reads the file *name*, to :class:`UnusableFile`."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UnusableFile(f"{name}: it is not UTF-8. Save it as CSV UTF-8.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise UnusableFile(f"{name}: it is damaged or not complete ({error}). Download it again.") from error


def texts(
    name: str, stream: BinaryIO, allowance: Allowance | None = None
) -> Generator[tuple[str, io.TextIOBase], None, None]:
    """Yield the name and the text of *stream*; of each CSV or JSON file in it, if it is an archive.

    Each text must be read before the next one is asked for. Nothing is held in memory but the part that is being read.

    Args:
        stream: Seekable.
        allowance: Bounds what is read of it; None for no bound.

    Raises:
        UnusableFile: it is empty, larger than *allowance*, or of a format that cannot be read.
    """
    allowance = allowance or Allowance()
    if not stream.seekable():
        raise UnusableFile(f"{name}: it is a pipe, and has to be read twice. Save it as a file.")
    with reading(name):
        head = stream.read(_FIRST_BYTES)
        stream.seek(0)
        if not head.strip():
            raise UnusableFile(f"{name}: it is empty.")
        if head.startswith(b"PAR1"):
            raise UnusableFile(f"{name}: it is a Parquet file. {_AS_CSV}")
        if head.startswith(b"PK\x03\x04"):
            yield from _in_archive(name, stream, allowance)
        elif head.startswith(b"\x1f\x8b"):
            yield from texts(
                name.removesuffix(".gz"), cast(BinaryIO, gzip.GzipFile(fileobj=stream, mode="rb")), allowance
            )
        elif head.startswith(b"\xd0\xcf\x11\xe0"):
            raise UnusableFile(f"{name}: it is an Excel workbook. Save it as CSV UTF-8.")
        else:
            text = io.TextIOWrapper(allowance.counted(name, stream), encoding=_encoding(head), newline="")
            try:
                yield name, text
            finally:
                text.detach()  # the stream is closed by whoever has opened it


def _in_archive(name: str, stream: BinaryIO, allowance: Allowance) -> Iterator[tuple[str, io.TextIOBase]]:
    with zipfile.ZipFile(stream) as archive:
        members = archive.namelist()
        if "[Content_Types].xml" in members:
            raise UnusableFile(f"{name}: it is an Excel workbook. Save it as CSV UTF-8.")
        wanted = [member for member in members if member.lower().endswith((".csv", ".csv.gz", ".json"))]
        # Exports have a list of their parts beside these.
        wanted = [member for member in wanted if not member.lower().endswith("manifest.json")]
        if not wanted:
            raise UnusableFile(f"{name}: there is no CSV file in this archive. {_AS_CSV}")
        for member in sorted(wanted):
            with _opened(archive, member, f"{name}/{member}") as part:
                yield from texts(f"{name}/{member}", part, allowance)


def _opened(archive: zipfile.ZipFile, member: str, name: str) -> BinaryIO:
    try:
        return cast(BinaryIO, archive.open(member))
    except RuntimeError as error:  # it has a password, or is packed in a way that Python does not know
        raise UnusableFile(f"{name}: it cannot be unpacked ({error}). Unpack the archive first.") from error


def _encoding(head: bytes) -> str:
    return "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
