"""Names that people read: of users, keys, groups and models."""

from __future__ import annotations

import re
import unicodedata

# Characters that nobody sees, so that two names look the same, or that change the direction of what follows:
# Default_Ignorable_Code_Point of Unicode 16, the line and paragraph separators, Braille's blank, and the annotation
# characters. The two joiners are among them; see _joins().
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u2800\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
LONGEST_USER = 200

_JOINERS = "\u200c\u200d"


def problem_of_name(name: str) -> str | None:
    """Return what is wrong with a new name, or None.

    Allowed are the characters of all scripts that can be seen, and spaces. The joiners U+200C and U+200D, which Persian
    and the scripts of India need, are allowed between two letters.
    """
    if not name.strip():
        return "Must have a character that can be seen."
    if name != name.strip():
        return "Must not begin or end with a blank: nobody sees it."
    for match in _HIDDEN.finditer(name):
        at = match.start()
        if not _joins(name, at):
            return (
                "Must be one line, without control characters, and without others that cannot be seen or that change "
                f"the direction of text: character {at + 1} is U+{ord(match[0]):04X}."
            )
    return None


def problem_of_user(name: str) -> str | None:
    """Return what is wrong with the name of a new person, or None. It is a part of paths, so it has no slash."""
    if "/" in name:
        return "Must not contain a slash (/)."
    if len(name) > LONGEST_USER:
        return f"Must have at most {LONGEST_USER} characters."
    return problem_in_path(name)


def problem_in_path(name: str) -> str | None:
    """Return what is wrong with a new name that is the end of a path, or None."""
    if name in (".", ".."):
        return "Must not be . or .., which clients take out of addresses."
    return problem_of_name(name)


def _joins(name: str, at: int) -> bool:
    """Whether the character *at* is a joiner between two letters. A letter may have marks, such as a virama."""
    return (
        name[at] in _JOINERS
        and 0 < at < len(name) - 1
        and unicodedata.category(name[at - 1])[0] in "LM"
        and unicodedata.category(name[at + 1])[0] == "L"
    )
