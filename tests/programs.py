"""Programs of the system that some tests need, beside what the test extra installs."""

from __future__ import annotations

import os
import shutil

import pytest


def needed(*names: str, package: str) -> str:
    """Return where the first of *names* is that there is. Without one the test is skipped, and fails in CI.

    Args:
        package: Debian's, which brings it.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    for name in names:
        if program := shutil.which(name, path=path):
            return program
    missing = f"needs {' or '.join(names)} (Debian: apt-get install {package})"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)
