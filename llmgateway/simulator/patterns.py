"""Makes a text that a regular expression matches, for schemas with a ``pattern``.

Knows literals, classes, groups, alternatives and repetitions: what schemas of real programs contain.
"""

from __future__ import annotations

import re
import string

_CANDIDATES = ("text", "Text", "TEXT", "1", "12345", "ABC", "A1", "2026-01-31", "user@example.com", "+4912345678")
_CLASSES = {"d": string.digits, "w": "abc", "s": " ", "D": "a", "W": "-", "S": "a"}
_REPEATED = re.compile(r"\{(\d*)(?:,(\d*))?\}")
_LONGEST = 10_000
_PRINTABLE = [*string.ascii_lowercase, *string.digits, *string.ascii_uppercase, *string.punctuation, " "]


def matching(pattern: str, *, least: int = 0) -> str | None:
    """Return a text of at least so many characters that contains a match of *pattern*; ``None`` if none was found."""
    try:
        wanted = re.compile(pattern)
    except re.error:
        return None
    made = [_Writer(pattern, extra).write() for extra in (0, least)]
    fitting = (text for text in (*_CANDIDATES, *made) if len(text) >= least and wanted.search(text))
    return next(fitting, None)


class _Writer:
    """Reads an expression from left to right and writes what it matches; what it does not know is a literal."""

    def __init__(self, pattern: str, extra: int) -> None:
        self._pattern = pattern
        self._at = 0
        self._extra = extra  # repetitions of what may be repeated without end

    def write(self) -> str:
        return self._alternatives()

    def _alternatives(self) -> str:
        """Return the first alternative, and skip the others."""
        first = self._sequence()
        while self._peek() == "|":
            self._at += 1
            self._sequence()
        return first

    def _sequence(self) -> str:
        written = ""
        while (character := self._peek()) and character not in "|)":
            start = self._at
            piece = self._atom()
            written += (piece * min(self._times(), _LONGEST))[:_LONGEST]
            if self._at == start:
                break
        return written

    def _atom(self) -> str:
        character = self._next()
        match character:
            case "^" | "$":
                return ""
            case "(":
                return self._group()
            case "[":
                return self._class()
            case ".":
                return "a"
            case "\\":
                return self._escaped()
        return character

    def _group(self) -> str:
        looks_around = False  # then the text that follows decides
        if self._peek() == "?":
            ahead = re.compile(r"\?(?:P<\w+>|:)").match(self._pattern, self._at)
            looks_around = ahead is None
            self._at += 1 if ahead is None else len(ahead[0])
        text = self._alternatives()
        self._next()
        return "" if looks_around else text

    def _class(self) -> str:
        end = self._at + 2 if self._pattern.startswith("^", self._at) else self._at + 1
        while end < len(self._pattern) and self._pattern[end] != "]":
            end += 2 if self._pattern[end] == "\\" else 1
        text = f"[{self._pattern[self._at : end]}]"
        self._at = end + 1
        one = re.compile(text)
        return next((character for character in _PRINTABLE if one.match(character)), "")

    def _escaped(self) -> str:
        character = self._next()
        if character in "bBAZ":
            return ""
        return _CLASSES.get(character, character)[:1]

    def _times(self) -> int:
        times = 1
        match self._peek():
            case "*" | "?":
                times = self._extra if self._next() == "*" else 0
            case "+":
                self._next()
                times = max(1, self._extra)
            case "{" if found := _REPEATED.match(self._pattern, self._at):
                self._at = found.end()
                least, most = int(found[1] or 0), found[2]
                times = least if most is None or most else max(least, self._extra)
                if most:
                    times = max(least, min(int(most), self._extra))
        if self._peek() in ("?", "+"):  # not greedy, or possessive
            self._next()
        return times

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _next(self) -> str:
        character = self._peek()
        self._at += 1
        return character
