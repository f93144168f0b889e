"""What is installed is what we ask for, within bounds, at exact versions where it matters, and written down."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import ROOT

US = "llmgateway"


@cache
def brought_by(extra: str = "") -> dict[str, set[str]]:
    """Everything that the install with *extra* brings, here and now, and which distributions ask for each."""
    asking: dict[str, set[str]] = defaultdict(set)
    known = {(US, ""), (US, extra)}
    waiting = [*known]
    while waiting:
        distribution, of_extra = waiting.pop()
        for requirement in requirements(distribution, of_extra):
            name = canonicalize_name(requirement.name)
            asking[name].add(distribution)
            new = {(name, each) for each in ("", *requirement.extras)} - known
            known |= new
            waiting += new
    return asking


def requirements(distribution: str, extra: str) -> Iterator[Requirement]:
    for text in metadata.requires(distribution) or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def constraints() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def our_requirements() -> list[Requirement]:
    return [Requirement(text) for text in metadata.requires(US) or ()]


def table(title: str) -> list[list[str]]:
    """The rows of the table below the heading *title*."""
    text = (ROOT / "docs" / "dependencies.md").read_text()
    below = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in below.splitlines() if line.startswith("| ")]
    return rows[1:]


@pytest.mark.parametrize("requirement", our_requirements(), ids=lambda requirement: requirement.name)
def test_each_has_both_bounds(requirement):
    """A release that breaks us must not reach those who install this version of ours next year."""
    assert [{"<", ">="}] == [{part.operator for part in requirement.specifier}]


def test_constraints_cover_all_that_is_installed():
    """CI and the image install one exact version of everything; run .ci/lock if this fails."""
    exact = {name: {part.operator for part in one.specifier} for name, one in constraints().items()}

    # Not setuptools: constraints in the environment hold while a wheel is built as well, which asks for a newer one.
    assert {name: {"=="} for name in brought_by("test") if name != "setuptools"} == exact


def test_constraints_are_within_bounds():
    """What is tested and shipped is what setup.cfg allows."""
    pinned = {name: next(iter(one.specifier)).version for name, one in constraints().items()}

    assert [] == [
        str(requirement)
        for requirement in our_requirements()
        if not requirement.specifier.contains(pinned[canonicalize_name(requirement.name)], prereleases=True)
    ]


def test_ci_and_the_image_install_by_them():
    """A file that nobody uses would only look well."""
    image = (ROOT / "docker" / "Dockerfile").read_text()

    assert 'export PIP_CONSTRAINT="$PWD/constraints.txt"' in (ROOT / ".ci" / "run").read_text()
    assert re.search(r"pip install --constraint constraints.txt .*/wheels/\*\.whl", image)
    assert "!constraints.txt" in (ROOT / "docker" / "Dockerfile.dockerignore").read_text().splitlines()


def test_the_base_install_is_written_down():
    """docs/dependencies.md names each distribution, who brings it, and a reason."""
    base = brought_by()
    asked_for, along = table("Asked for"), table("Brought along")

    assert sorted(name for name, asking in base.items() if US in asking) == [row[0] for row in asked_for]
    assert sorted([name, ", ".join(sorted(asking))] for name, asking in base.items() if US not in asking) == [
        row[:2] for row in along
    ]
    assert all(row[-1].strip() for row in [*asked_for, *along])
    assert f"brings these {len(base)} distributions" in (ROOT / "docs" / "dependencies.md").read_text()
