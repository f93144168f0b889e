"""The made-up organisation: its groups, the people in them, and their keys."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-5-mini", "o4-mini", "gpt-4.1-mini")
REGIONS = {"sweden": "Sweden Central", "france": "France Central"}
"""The deployments of the first model, and where they are; all others are in the first of them."""

# fmt: off
_FIRST = (
    "Ada", "Alan", "Barbara", "Carl", "Dorothy", "Edsger", "Emmy", "Frances", "Grace", "Hedy", "Ida", "Jan",
    "Jürgen", "Katherine", "Lynn", "Margaret", "Niels", "Olga", "Pavel", "Radia", "Søren", "Tim", "Ursula", "Vint",
    "Wangari", "Xia", "Yukihiro", "Zoë",
)
_LAST = (
    "Hamilton", "Lovelace", "Nováková", "Okafor", "Lindqvist", "Weber", "García", "Haddad", "Ito", "Kowalski",
    "Müller", "Nguyen", "O'Brien", "Papadopoulos", "Rossi", "Schmidt", "Tanaka", "Übelacker", "Virtanen", "Wójcik",
)
# fmt: on
_BUSY, _BUSY_IN = "Ada Lovelace", ("law-lab", "library", "")


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group, and how its people use their keys."""

    name: str
    people: int
    key_names: tuple[str, ...]
    models: dict[str, float]
    """Which part of the requests goes to each model."""
    weight: float
    """How much its keys are used."""
    prompt_tokens: int
    """Of a usual request."""
    nights: float = 0.02
    """Which part of the requests comes in any hour of the night."""
    settings: dict[str, Any] = field(default_factory=dict)
    """As the admin API takes them."""
    key: dict[str, Any] = field(default_factory=dict)
    """Of each of its keys."""


def _budget(amount: float) -> dict[str, Any]:
    return {"budget": {"amount": amount, "unit": "usd", "period": "month"}}


GROUPS = (
    Group(
        name="ml-2026",
        people=26,
        key_names=("course",),
        models={"gpt-4o-mini": 0.55, "gpt-4o": 0.2, "gpt-5-mini": 0.25},
        weight=0.7,
        prompt_tokens=6_000,
        settings={
            "note": "Machine learning, winter term. Ask Tomás Weber.",
            "cost_centre": "4711-EDU",
            "limits": {"requests_per_minute": 300, **_budget(80)},
            "member_limits": {"requests_per_minute": 20, **_budget(6)},
        },
    ),
    Group(
        name="law-lab",
        people=11,
        key_names=("thesis", "contracts"),
        models={"gpt-4o": 0.6, "o4-mini": 0.4},
        weight=1.4,
        prompt_tokens=40_000,
        settings={"cost_centre": "2200-LAW", "limits": _budget(480), "note": "Contracts and court decisions."},
        key={"limits": _budget(45)},
    ),
    Group(
        name="library",
        people=8,
        key_names=("catalogue", "seminar"),
        models={"gpt-4o-mini": 0.5, "gpt-4.1-mini": 0.5},
        weight=1.6,
        prompt_tokens=16_000,
        settings={"cost_centre": "1010-LIB", "limits": _budget(40)},
        key={"limits": {"requests_per_minute": 60, **_budget(5)}},
    ),
    Group(
        name="physics",
        people=14,
        key_names=("thesis", "cluster"),
        models={"o4-mini": 0.6, "gpt-5-mini": 0.25, "gpt-4o": 0.15},
        weight=1.1,
        prompt_tokens=24_000,
        nights=0.12,
        settings={"cost_centre": "3300-PHY", "limits": {"tokens_per_minute": 400_000, **_budget(300)}},
        key={"limits": {"parallel_requests": 8, **_budget(30)}},
    ),
    Group(
        name="helpdesk",
        people=2,
        key_names=("bot", "bot-test"),
        models={"gpt-4.1-mini": 0.8, "gpt-4o-mini": 0.2},
        weight=5.0,
        prompt_tokens=9_000,
        nights=0.3,
        settings={"cost_centre": "1000-IT", "limits": _budget(20), "models": ["gpt-4.1-mini", "gpt-4o-mini"]},
        key={"limits": {"requests_per_minute": 240}},
    ),
)
ALONE = Group(
    name="",
    people=9,
    key_names=("seminar", "bot"),
    models={"gpt-4o": 0.4, "gpt-4o-mini": 0.4, "gpt-5-mini": 0.2},
    weight=0.8,
    prompt_tokens=12_000,
    key={"limits": _budget(20)},
)
"""People whose keys are in no group."""

ADMINS = (
    {"name": "Grace Lindqvist", "role": "admin"},
    {"name": "Tomás Weber", "role": "group", "groups": ["ml-2026"]},
    {"name": "Priya Nair", "role": "viewer"},
    {"name": "prometheus", "role": "metrics"},
)

_FIRST_PROMPT = "You are the assistant of the university. Answer in the language of the question."
_SECOND_PROMPT = f"{_FIRST_PROMPT}\n\nSay so if you do not know something, and name your sources."
PROMPTS = (
    _FIRST_PROMPT,
    _SECOND_PROMPT,
    f"{_SECOND_PROMPT}\n\nNever give the solution of an exercise: ask back instead.",
)
LAW_PROMPT = "You help in the law lab. Quote paragraphs exactly, and never give legal advice to a person."


def people(random: random.Random) -> Iterator[tuple[Group, str]]:
    """Yield everybody, with their group. One of them is in several."""
    names = [f"{first} {last}" for first in _FIRST for last in _LAST]
    names.remove(_BUSY)
    random.shuffle(names)
    for group in (*GROUPS, ALONE):
        for number in range(group.people):
            yield group, _BUSY if number == 0 and group.name in _BUSY_IN else names.pop()


def address_of(user: str) -> str:
    """Return the e-mail address of a person."""
    # Letters without their marks (Unicode, normalisation form KD).
    plain = unicodedata.normalize("NFKD", user.lower().replace(" ", "."))
    return "".join(letter for letter in plain if letter.isascii() and letter != "'") + "@northfield.example"
