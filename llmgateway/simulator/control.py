"""The simulator's own endpoints, for tests and demonstrations in another process; see the package."""

from __future__ import annotations

from typing import Any, Protocol, get_args

import orjson

from .bills import METRICS, Schema, Unit, bill, metrics
from .identity import Directory
from .messages import Reply, Request
from .meter import Meter
from .scripts import Script
from .served import Served

PREFIX = "/simulator/"


class Controlled(Protocol):
    """The part of a simulator that the endpoints use."""

    directory: Directory
    name: str
    region: str
    meter: Meter

    @property
    def served(self) -> list[Served]: ...

    def script(self, script: Script, *, times: int | None = 1) -> None: ...

    def release(self) -> None: ...

    def reset(self) -> None: ...


def answer(request: Request, simulator: Controlled) -> Reply:
    """Handle a request to a path below ``/simulator/``."""
    match request.method, request.path.removeprefix(PREFIX):
        case "POST", "script":
            return _script(request.body, simulator)
        case "GET", "served":
            if request.query.get("for") == "identity":
                return _reply(200, {"served": [_without_secrets(one) for one in simulator.directory.served]})
            return _reply(200, {"served": [served.as_json() for served in simulator.served]})
        case "POST", "identity":
            return _identity(request.body, simulator.directory)
        case "GET", "bill":
            return _bill(request, simulator)
        case "GET", "metrics":
            return _metrics(request, simulator)
        case "DELETE", "served":
            simulator.reset()
        case "POST", "release":
            simulator.release()
        case _:
            return _reply(404, {"problem": "no such endpoint of the simulator"})
    return _reply(200, {})


def _script(body: bytes, simulator: Controlled) -> Reply:
    try:
        document = orjson.loads(body)
        known = isinstance(document, dict)
        times, purpose = (document.pop("times", 1), document.pop("for", "resource")) if known else (1, "resource")
        if purpose not in ("resource", "identity"):
            raise ValueError(f"for {purpose!r} is none of resource, identity")
        script = Script.from_json(document)
        (simulator.directory if purpose == "identity" else simulator).script(script, times=times)
    except (ValueError, TypeError) as error:
        return _reply(400, {"problem": str(error)})
    return _reply(200, {})


def _without_secrets(served: Served) -> dict[str, Any]:
    """Leave away the bodies, which contain a client's secret and its token."""
    return {name: value for name, value in served.as_json().items() if name not in ("body", "body_sent")}


def _identity(body: bytes, directory: Directory) -> Reply:
    """Change how long tokens are valid, and whether they are allowed."""
    try:
        document = orjson.loads(body)
        if not isinstance(document, dict) or document.keys() - {"lifetime", "allowed"}:
            raise ValueError("an object with lifetime and allowed")
        lifetime, allowed = document.get("lifetime", directory.lifetime), document.get("allowed", directory.allowed)
        if isinstance(lifetime, bool) or not isinstance(lifetime, (int, float)) or not isinstance(allowed, bool):
            raise ValueError("lifetime is a number of seconds, allowed is true or false")
    except ValueError as error:
        return _reply(400, {"problem": str(error)})
    directory.lifetime, directory.allowed = lifetime, allowed
    return _reply(200, {"lifetime": lifetime, "allowed": allowed})


def _bill(request: Request, simulator: Controlled) -> Reply:
    schema, unit = request.query.get("schema", "focus"), request.query.get("unit", "1K")
    if schema not in get_args(Schema) or unit not in get_args(Unit):
        possible = ", ".join(get_args(Schema))
        return _reply(400, {"problem": f"schema is one of {possible}; unit is 1K or 1M"})
    table = bill([simulator], schema=schema, unit=unit)  # type: ignore[arg-type]  # both were just compared
    return Reply(status=200, headers={"Content-Type": "text/csv; charset=utf-8"}, parts=[table.encode()])


def _metrics(request: Request, simulator: Controlled) -> Reply:
    name = request.query.get("name", "ProcessedPromptTokens")
    if name not in METRICS:
        return _reply(400, {"problem": f"name is one of {', '.join(METRICS)}"})
    headers = {"Content-Type": "application/json"}
    return Reply(status=200, headers=headers, parts=[metrics(simulator, name).encode()])


def _reply(status: int, document: dict[str, Any]) -> Reply:
    return Reply(status=status, headers={"Content-Type": "application/json"}, parts=[orjson.dumps(document)])
