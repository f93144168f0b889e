"""Checks the names in requests that create or rename something. Names that are stored already may stay."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ...records import Group, KeyQuery, KeyRecord
from ..context import services
from ..errors import invalid_fields
from ..schemas.names import problem_in_path, problem_of_name, problem_of_user
from . import reach
from .validity import Problems

_LIMITED = (
    "This person has limits that all keys of theirs share, and none of these keys is in a group of yours: a new one "
    "would use up what others gave. Ask an admin to make the first key in your group."
)


def check_names(sent: Mapping[str, Any], *, before: KeyRecord | Group | None = None) -> None:
    """Check the names in *sent*, which replace those of *before*.

    Raises:
        InvalidFields: has the problems by field.
    """
    if problems := name_problems(sent, before=before):
        raise invalid_fields(problems)


def name_problems(sent: Mapping[str, Any], *, before: KeyRecord | Group | None = None) -> Problems:
    """Return the problems of the names in *sent*, by field; empty if there are none.

    A group's name is not checked here: keys may join every group that exists.
    """
    problems: Problems = {}
    for field in ("user", "name"):
        name = sent.get(field)
        check = problem_of_user if field == "user" else problem_of_name
        if name is not None and name != getattr(before, field, None) and (problem := check(name)):
            problems[field] = [problem]
    user = sent.get("user")
    if user is not None and user != getattr(before, "user", None):
        is_limited = reach.reach() is not None and user in _limited_people()
        if "user" in problems or is_limited:
            has_key = services().keys.list(KeyQuery(user=user, groups=reach.reach(), limit=1))
            if has_key:
                problems.pop("user", None)  # somebody with such a name may get a second key
            elif is_limited:
                problems["user"] = [_LIMITED]
    kept = getattr(before, "models", None) or ()
    new = [name for name in sent.get("models") or () if name not in kept]
    if found := [problem for name in new if (problem := problem_of_name(name))]:
        problems["models"] = found[:1]
    return problems


def _limited_people() -> Collection[str]:
    """Return the people who have limits of their own; those that the last look-up found, for files of many lines."""
    policy = services().policy
    return (policy.in_memory() or policy.stored()).persons


def check_name(name: str) -> None:
    """Check a name that is new, and that is a part of the path.

    Raises:
        InvalidFields: it has a character that is not allowed.
    """
    if problem := problem_in_path(name):
        raise invalid_fields({"name": [problem]})
