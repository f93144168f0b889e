"""The README and the pages in ``docs/``, as tests read them: by heading, block and link."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests import ROOT

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


class Page:
    """One Markdown file.

    Args:
        name: Its path below the checkout.
    """

    def __init__(self, name: str) -> None:
        self.path = ROOT / name
        self.text = self.path.read_text()
        # Code of the same length without its content: a comment in a shell block is no heading.
        self._prose = _FENCED.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), self.text)

    def section(self, title: str) -> str:
        """The text below the heading *title*, up to the next heading of its level or above."""
        found = [heading for heading in _HEADING.finditer(self._prose) if heading[2] == title]
        assert found, f"{self.path.name} has no section {title!r}"
        (start,) = found
        level = len(start[1])
        following = (heading for heading in _HEADING.finditer(self._prose, start.end()) if len(heading[1]) <= level)
        end = next(following, None)
        return self.text[start.end() : end.start() if end else None]

    def code(self, title: str, language: str = "sh") -> str:
        """The first block of *language* below the heading *title*."""
        block = re.search(rf"```{language}\n(.*?)```", self.section(title), re.DOTALL)
        assert block, f"the section {title!r} has no {language} block"
        return block[1]

    def anchors(self) -> set[str]:
        """What a link can name behind ``#``, made from the headings as GitHub does."""
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for _, title in _HEADING.findall(self._prose)}

    def links(self) -> Iterator[tuple[Path, str]]:
        """File and heading of every link that does not lead to another site; the heading may be empty."""
        for target in _LINK.findall(self._prose):
            if not re.match(r"\w+:", target):
                path, _, anchor = target.partition("#")
                yield (self.path.parent / path).resolve() if path else self.path, anchor


README = Page("README.md")
