"""Keeps the body of an upload in a temporary file while it arrives, so that recordings do not fill the memory.

Only forms with files are kept like this. Conversations, which are JSON, stay in memory and are never written to disk.
"""

from __future__ import annotations

from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

BYTES_IN_MEMORY = 512 * 1024
"""A larger upload goes into a file."""


def is_upload(content_type: str) -> bool:
    """Return whether a body of this type is kept in a file if it is large."""
    return content_type.lstrip().lower().startswith("multipart/form-data")


class UploadBuffer:
    """A buffer with the methods of waitress' that its receivers use. The main thread appends.

    The file has no name in its folder (``O_TMPFILE``), so nobody can open it, and it is gone when it is closed.

    Args:
        folder: Where the file is.
    """

    def __init__(self, folder: str) -> None:
        self._file = cast(BinaryIO, SpooledTemporaryFile(max_size=BYTES_IN_MEMORY, dir=folder))  # noqa: SIM115
        self._size = 0
        self._error: OSError | None = None

    def __len__(self) -> int:
        return self._size

    def append(self, data: bytes) -> None:
        if self._error is not None:
            return
        try:
            self._file.write(data)
        except OSError as error:  # the disk is full
            self._error = error
        self._size += len(data)

    def getfile(self) -> BinaryIO:
        """Return the file, at its beginning.

        Raises:
            OSError: it could not be written.
        """
        if self._error is not None:
            raise self._error
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        self._file.close()
