"""Opens files as people download them: with a byte order mark, compressed, in a ZIP archive, in parts."""

from __future__ import annotations

import codecs
import gzip
import io
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

_FIRST_BYTES = 4096
_AS_CSV = "Choose CSV (or CSV with gzip) as the format of the export."


class UnusableFile(Exception):
    """A file cannot be read as an export; the text names the file and says what to do."""


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Convert what goes wrong in the block, which reads the file *name*, to :class:`UnusableFile`."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UnusableFile(f"{name}: it is not UTF-8. Save it as CSV UTF-8.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise UnusableFile(f"{name}: it is damaged or not complete ({error}). Download it again.") from error


def texts(name: str, stream: BinaryIO) -> Generator[tuple[str, io.TextIOBase], None, None]:
    """Yield the name and the text of *stream*; of each CSV or JSON file in it, if it is an archive.

    Each text must be read before the next one is asked for. Nothing is held in memory but the part that is being read.

    Args:
        stream: Seekable.

    Raises:
        UnusableFile: it is empty, or of a format that cannot be read.
    """
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
            yield from _in_archive(name, stream)
        elif head.startswith(b"\x1f\x8b"):
            yield from texts(name.removesuffix(".gz"), cast(BinaryIO, gzip.GzipFile(fileobj=stream)))
        elif head.startswith(b"\xd0\xcf\x11\xe0"):
            raise UnusableFile(f"{name}: it is an Excel workbook. Save it as CSV UTF-8.")
        else:
            text = io.TextIOWrapper(stream, encoding=_encoding(head), newline="")
            try:
                yield name, text
            finally:
                text.detach()  # the stream is closed by whoever has opened it


def _in_archive(name: str, stream: BinaryIO) -> Iterator[tuple[str, io.TextIOBase]]:
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
                yield from texts(f"{name}/{member}", part)


def _opened(archive: zipfile.ZipFile, member: str, name: str) -> BinaryIO:
    try:
        return cast(BinaryIO, archive.open(member))
    except RuntimeError as error:  # it has a password, or is packed in a way that Python does not know
        raise UnusableFile(f"{name}: it cannot be unpacked ({error}). Unpack the archive first.") from error


def _encoding(head: bytes) -> str:
    return "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
