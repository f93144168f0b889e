"""One client's calls through the gateway, and whether the books agree with what the simulator bills."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from llmgateway.simulator import DEFAULT_DEPLOYMENTS, OTHER_DEPLOYMENTS, Simulator
from tests.gateway_process import GatewayProcess
from tests.servers import wait_until

from .catalogue import Client
from .environments import Environment

AZURE_KEY = "azure-key-of-the-clients"


class Call(NamedTuple):
    """What the program says of one call, or of a few that belong together."""

    name: str
    error: str | None


class Sums(NamedTuple):
    requests: int
    tokens: int


@dataclass(frozen=True)
class Trial:
    """What became of one client."""

    client: Client
    version: str
    calls: list[Call]
    billed: Sums
    """What the simulator bills."""
    booked: Sums
    """What the gateway has booked."""
    errors: str
    """What the program has written to standard error."""

    @property
    def passed(self) -> bool:
        return (
            bool(self.calls) and all(call.error is None for call in self.calls) and self.billed == self.booked > (0, 0)
        )


class Site:
    """A gateway with the simulator behind it, for one client after the other."""

    def __init__(self, gateway: GatewayProcess, azure: Simulator) -> None:
        self._gateway = gateway
        self._azure = azure

    def try_out(self, client: Client, environment: Environment) -> Trial:
        """Run the program of *client*, which has a key of its own, and compare the books."""
        self._azure.reset()
        key = self._gateway.new_key(user=client.name)
        filled = {"url": self._gateway.url, "key": key["key"]}
        environ = {name: value.format(**filled) for name, value in client.environ.items()}
        done = environment.run(client, {"GATEWAY_URL": filled["url"], "GATEWAY_KEY": filled["key"], **environ})
        calls = [Call(said["call"], said["error"]) for said in map(_said, done.stdout.splitlines()) if said]
        if done.returncode:
            calls.append(Call("the program", f"exit status {done.returncode}: {done.stderr[-400:]}"))
        usages = [served.billed for served in self._azure.served if served.billed]
        billed = Sums(len(usages), sum(usage.total_tokens for usage in usages))
        return Trial(client, environment.version(client), calls, billed, self._booked(client, billed), done.stderr)

    def _booked(self, client: Client, expected: Sums) -> Sums:
        """Return what is booked, as soon as it is as much as expected or no more comes."""

        def booked() -> Sums:
            rows = self._gateway.admin("GET", "/admin/usage?by=user").json()["rows"]
            mine = [row for row in rows if row["user"] == client.name]
            return Sums(sum(row["requests"] for row in mine), sum(row["total_tokens"] for row in mine))

        with suppress(AssertionError):  # the trial says so
            wait_until(lambda: expected == booked(), seconds=5, what="all records")
        return booked()


def _said(line: str) -> dict[str, str] | None:
    """Return what a line says of a call; programs may print other lines, too."""
    if not line.startswith('{"call"'):
        return None
    said: dict[str, str] = json.loads(line)
    return said


@contextmanager
def running(folder: Path) -> Iterator[Site]:
    """Start both."""
    with Simulator(key=AZURE_KEY, deployments=[*DEFAULT_DEPLOYMENTS, *OTHER_DEPLOYMENTS]) as azure:
        environ = {"LLM_BASE_URL": f"{azure.url}/openai/v1", "LLM_API_KEY": AZURE_KEY}
        with GatewayProcess(environ, folder=folder) as gateway:
            yield Site(gateway, azure)
            gateway.stop()
