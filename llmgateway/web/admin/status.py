"""The status of the gateway."""

from __future__ import annotations

import os
from typing import Any

from ... import __version__
from .. import examples
from ..context import services
from ..schemas.health import StatusSchema
from .blueprint import blp


@blp.route("/status", methods=["GET"])
@blp.operation("Show the gateway's status", description="Shows the process that answers; others may differ.")
@blp.response(200, StatusSchema, description="Its state now.", example=examples.STATUS)
def get_status() -> dict[str, Any]:
    gateway, settings, stores = services().gateway, services().settings, services().stores
    problems = stores.problems()
    return {
        "version": __version__,
        "rung": stores.level(problems),
        "stores": {name: problem or "ok" for name, problem in problems.items()},
        "azure_key": gateway.credential_problem() or "ok",
        "journal": services().journal.backlog(),
        "slots": {
            "capacity": gateway.concurrency.capacity,
            "taken": gateway.concurrency.taken,
            "streams": gateway.coalescing.streams,
            "refused": gateway.concurrency.refused,
        },
        "process": {"id": os.getpid(), "processes": settings.processes, "threads": settings.threads},
    }
