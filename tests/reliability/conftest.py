"""One Redis and one MongoDB for all proofs, and a simulated Azure for each."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from llmgateway.simulator import Simulator
from tests.functional.conftest import AZURE_KEY
from tests.gateway_process import GatewayProcess
from tests.servers import MongoServer, RedisServer

from .site import Site


@pytest.fixture(scope="session")
def _redis() -> Iterator[RedisServer]:
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def _mongo() -> Iterator[MongoServer]:
    server = MongoServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def site(_redis: RedisServer, _mongo: MongoServer) -> Iterator[Site]:
    """Stores to be stopped, frozen and killed; they run, and are empty, when the test begins."""
    with Simulator(key=AZURE_KEY, remember=100_000) as azure:
        made = Site(azure, _redis, _mongo)
        try:
            made.empty()
            yield made
        finally:
            made.close()


@pytest.fixture
def start_gateway(site: Site, tmp_path: Path) -> Iterator[Callable[..., GatewayProcess]]:
    """Start a gateway of the site; all of one test share the instance folder, as processes of one host do."""
    with ExitStack() as stack:

        def start(**settings: str) -> GatewayProcess:
            environ = {**site.environ, "LLMGATEWAY_INSTANCE": str(tmp_path / "instance"), **settings}
            return stack.enter_context(GatewayProcess(environ, folder=tmp_path / f"gateway-{secrets.token_hex(4)}"))

        yield start
