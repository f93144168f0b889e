"""Fetches the one script that is not ours: ``python -m llmgateway.web.dashboard.vendor``.

htmx is a single file without dependencies (Zero-Clause BSD), kept here with its licence, so that pages work without
internet. To take a newer one, change the two constants: the digest is what the npm registry says of the release.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path

from .links import STATIC

PACKAGE = "htmx.org@2.0.11"
INTEGRITY = "sha512-Thx/WtpeOQqSrqBCw/A1cwGJGg4UrVa3+sW0GmrM3p4gJgO89ecH4qtbnyzDDWFvBTqjnIMCgELTNt636dtamA=="
"""Of the package: ``npm view htmx.org@… dist.integrity``."""
SHA256 = "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717"
"""Of the script in it."""

_FILES = {"package/dist/htmx.min.js": "htmx.min.js", "package/LICENSE": "htmx.LICENSE"}


def fetch() -> None:
    """Write the files of the package into ``static/``.

    Raises:
        ValueError: what came is not the release.
    """
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True)  # noqa: S603, S607
        (package,) = Path(folder).iterdir()
        algorithm, _, expected = INTEGRITY.partition("-")
        if hashlib.new(algorithm, package.read_bytes()).digest() != base64.b64decode(expected):
            raise ValueError(f"What npm has fetched for {PACKAGE} is not what INTEGRITY says.")
        with tarfile.open(package) as archive:
            for name, ours in _FILES.items():
                found = archive.extractfile(name)
                if found is None:
                    raise ValueError(f"{PACKAGE} has no file {name}.")
                (STATIC / ours).write_bytes(found.read())


if __name__ == "__main__":
    fetch()
