"""What does not work as it should, in the words of the admin API's status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Concern(NamedTuple):
    """One thing that an admin should look at."""

    kind: str
    """``bad`` or ``warn``."""
    text: str
    endpoint: str | None = None
    """The page with more about it."""


def attention(status: Mapping[str, Any]) -> list[Concern]:
    """Return what *status* says is wrong, the worst first."""
    return sorted(_concerns(status), key=lambda concern: concern.kind)


def _concerns(status: Mapping[str, Any]) -> Iterator[Concern]:
    if status["azure_key"] != "ok":
        yield Concern("bad", f"Azure's key: {status['azure_key']}", ".settings")
    for name, problem in status["stores"].items():
        if problem != "ok":
            yield Concern("bad", f"{name}: {problem}")
    if status["journal"]["problem"]:
        yield Concern("bad", f"Records wait to be stored: {status['journal']['problem']}")
    for text in status["warnings"]:
        yield Concern("warn", text)
    for deployment in status["deployments"]:
        yield from _of_deployment(deployment)
    for model in status["unpriced_models"]:
        yield Concern("warn", f"{model}: its price is not known, so it is in no sum of costs", ".models")


def _of_deployment(deployment: Mapping[str, Any]) -> Iterator[Concern]:
    name = f"{deployment['model']}, deployment {deployment['name']}"
    if deployment["problem"]:
        yield Concern("bad", f"{name}: {deployment['problem']}", ".models")
    elif deployment["rests_until"]:
        yield Concern("warn", f"{name} is not asked for a while: {deployment['rests_because']}", ".models")
