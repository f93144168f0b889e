"""Load without a pause for as long as wanted, and what the gateway takes of the machine meanwhile.

``python -m tests.reliability.soak --minutes 5`` prints one line for each interval: requests so far and
per second; resident memory, threads and descriptors of the serving processes together; connections to
Azure opened so far, and how many of them are open; records that wait.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import click

from llmgateway.simulator import Script, Simulator
from tests.functional.conftest import AZURE_KEY
from tests.gateway_process import GatewayProcess
from tests.servers import MongoServer, RedisServer

from .calls import Load
from .site import ESTABLISHED, Site, connections_to

COALESCING = Script(tokens=15, delay=0.02, gap=0.01)
CLIENTS = 12


@dataclass(frozen=True)
class Sample:
    """What the gateway takes of the machine at one moment."""

    second: int
    requests: int
    per_second: float
    failed: int
    """Requests with another status than 200."""
    memory_mb: float
    threads: int
    descriptors: int
    opened: int
    """Connections to Azure so far."""
    open: int
    waiting: int
    """Records that have not reached the usage log."""

    @staticmethod
    def heading() -> str:
        return "".join(f"{field.name:>12}" for field in fields(Sample))

    def __str__(self) -> str:
        return "".join(f"{getattr(self, field.name):>12}" for field in fields(self))


def soak(site: Site, gateway: GatewayProcess, *, seconds: float, interval: float) -> Iterator[Sample]:
    """Ask plain and streamed questions, leave every tenth answer, and take a sample at each interval."""
    key = gateway.key()
    site.azure.script(COALESCING, times=None)
    began = time.monotonic()
    before = 0
    with Load(gateway, key, clients=CLIENTS, leaving=0.1) as load:
        while time.monotonic() - began < seconds:
            load.lasting(interval)
            requests = len(load.readings) + load.left
            yield _sample(site, gateway, load, began, requests, (requests - before) / interval)
            before = requests


def _sample(site: Site, gateway: GatewayProcess, load: Load, began: float, requests: int, per_second: float) -> Sample:
    serving = gateway.workers() or [gateway.pid]
    status = [Path(f"/proc/{pid}/status").read_text() for pid in serving]
    return Sample(
        second=round(time.monotonic() - began),
        requests=requests,
        per_second=round(per_second, 1),
        failed=sum(reading.status != 200 for reading in load.readings),
        memory_mb=round(sum(_number(text, "VmRSS") for text in status) / 1024, 1),
        threads=sum(_number(text, "Threads") for text in status),
        descriptors=sum(len([*Path(f"/proc/{pid}/fd").iterdir()]) for pid in serving),
        opened=len({one.connection for one in site.azure.served}),
        open=connections_to(site.azure.port)[ESTABLISHED],
        waiting=gateway.admin("GET", "/admin/status").json()["journal"]["records"],
    )


def _number(status: str, name: str) -> int:
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{name}:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--interval", type=float, default=15, metavar="SECONDS")
    arguments = parser.parse_args()
    redis, mongo = RedisServer(), MongoServer()
    # Its memory of every request, to compare the books with, takes some 20 MB a minute here.
    with Simulator(key=AZURE_KEY, remember=10_000_000) as azure, tempfile.TemporaryDirectory() as folder:
        try:
            redis.start()
            mongo.start()
            site = Site(azure, redis, mongo)
            environ = site.environ | {"LLMGATEWAY_PROCESSES": str(arguments.processes)}
            with GatewayProcess(environ, folder=Path(folder), warm=False) as gateway:
                click.echo(Sample.heading())
                for sample in soak(site, gateway, seconds=arguments.minutes * 60, interval=arguments.interval):
                    click.echo(sample)
                records = site.assert_books_balance(gateway)
                gateway.stop()
            click.echo(f"Azure and the books agree: {len(records)} requests.")
            site.close()
        finally:
            redis.remove()
            mongo.remove()


if __name__ == "__main__":
    main()
