"""What ``pip install`` makes of a checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile

import pytest

from tests import ROOT


@pytest.mark.slow
def test_installs_nothing_that_the_checkout_has_no_longer(tmp_path):
    """An earlier build in the same folder leaves no module behind."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "llmgateway", checkout / "llmgateway", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    earlier = checkout / "build" / "lib" / "llmgateway"
    earlier.mkdir(parents=True)
    (earlier / "removed.py").touch()

    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, "."]
    subprocess.run(command, cwd=checkout, check=True, timeout=300)

    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "llmgateway/app.py" in names
    assert any(name.endswith(".lua") for name in names)
    assert "llmgateway/removed.py" not in names
