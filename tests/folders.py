"""Read folders that a program adds to and removes from at the same time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the regular files in *folder* and all folders in it.

    ``Path.glob`` of Python 3.11 raises an error for a folder that is removed while it is searched.
    """
    for parent, _, names in os.walk(folder):  # which skips folders that have gone
        for name in names:
            path = Path(parent, name)
            if path.is_file():
                yield path


def contents_below(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield the files in *folder* and all folders in it with their content."""
    for path in files_below(folder):
        with suppress(FileNotFoundError):  # it was removed meanwhile
            yield path, path.read_bytes()
