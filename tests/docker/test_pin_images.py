"""docker/pin-images, with a stand-in for the command ``docker``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .compose import DOCKER, FILES

FILES_WITH_IMAGES = ["Dockerfile", *(path.name for path in FILES)]
IMAGES = {"mongo:8.0", "redis:8.2", "nginx:1.30", "python:3.11-slim"}


class Folder:
    """A copy of docker/, and a registry with one digest for each image."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "docker"
        shutil.copytree(DOCKER, self.folder, ignore=shutil.ignore_patterns(".env", "tls"))
        self._programs = folder / "bin"
        self._programs.mkdir()
        self.registry_says('sha256:$(printf %s "$last" | sha256sum | cut -c1-64)')

    def registry_says(self, digest: str) -> None:
        """Print *digest*; ``$last`` is the name of the image."""
        program = self._programs / "docker"
        program.write_text(f'#!/bin/sh\nfor last; do :; done\nprintf \'"%s"\\n\' "{digest}"\n')
        program.chmod(0o755)

    def pin(self) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PATH": f"{self._programs}:{os.environ['PATH']}"}
        command = [self.folder / "pin-images"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def texts(self) -> dict[str, str]:
        return {name: (self.folder / name).read_text() for name in FILES_WITH_IMAGES}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_each_image_gets_its_digest(folder: Folder) -> None:
    """Nothing else changes, and every image of another project is pinned."""
    before = folder.texts()
    result = folder.pin()
    assert 0 == result.returncode, result.stderr

    after = folder.texts()
    pinned = set(re.findall(r"([\w.-]+:[\w.-]+)@sha256:[0-9a-f]{64}$", "".join(after.values()), re.MULTILINE))
    assert pinned == IMAGES
    assert before == {name: re.sub(r"@sha256:[0-9a-f]{64}", "", text) for name, text in after.items()}
    assert len(IMAGES) == len(set(re.findall(r"sha256:\w+", "".join(after.values()))))
    assert {image.partition("@")[0] for image in result.stdout.split()} == IMAGES


def test_a_digest_can_be_renewed(folder: Folder) -> None:
    """A second run replaces it."""
    folder.pin()
    folder.registry_says("sha256:" + "b" * 64)

    assert 0 == folder.pin().returncode

    assert {"b" * 64} == set(re.findall(r"sha256:(\w+)", "".join(folder.texts().values())))


@pytest.mark.parametrize("digest", ["", "null", "sha256:123", "sha256:" + "B" * 64])
def test_without_a_digest_nothing_changes(folder: Folder, digest: str) -> None:
    """The message names the image."""
    before = folder.texts()
    folder.registry_says(digest)

    result = folder.pin()

    assert 1 == result.returncode
    assert "pin-images: the registry gave no digest for " in result.stderr
    assert before == folder.texts()
