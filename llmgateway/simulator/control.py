"""The simulator's own endpoints, for tests and demonstrations in another process; see the package."""

from __future__ import annotations

from typing import Any, Protocol

import orjson

from .azure import Reply, Request
from .scripts import Script
from .served import Served

PREFIX = "/simulator/"


class Controlled(Protocol):
    """The part of a simulator that the endpoints use."""

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
            return _reply(200, {"served": [served.as_json() for served in simulator.served]})
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
        times = document.pop("times", 1) if isinstance(document, dict) else 1
        simulator.script(Script.from_json(document), times=times)
    except (ValueError, TypeError) as error:
        return _reply(400, {"problem": str(error)})
    return _reply(200, {})


def _reply(status: int, document: dict[str, Any]) -> Reply:
    return Reply(status=status, headers={"Content-Type": "application/json"}, parts=[orjson.dumps(document)])
