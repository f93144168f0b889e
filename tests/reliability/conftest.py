"""One Redis and one MongoDB for all proofs, and a simulated Azure for each."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
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


@pytest.fixture(scope="session")
def _site(_redis: RedisServer, _mongo: MongoServer) -> Iterator[Site]:
    with Simulator(key=AZURE_KEY, remember=100_000) as azure, closing(Site(azure, _redis, _mongo)) as made:
        yield made


@pytest.fixture
def site(_site: Site) -> Site:
    """Stores to be stopped, frozen and killed, and an Azure without a past."""
    _site.azure.reset()
    return _site


@pytest.fixture
def start_gateway(site: Site, tmp_path: Path) -> Iterator[Callable[..., GatewayProcess]]:
    """Start a gateway on empty stores; all of one test share the instance folder, as processes of one host do."""
    site.empty()
    with ExitStack() as stack:
        yield _starter(site, tmp_path, stack)


@pytest.fixture(scope="module")
def start_shared_gateway(
    _site: Site, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., GatewayProcess]]:
    """Start a gateway for all tests of a module."""
    _site.empty()
    with ExitStack() as stack:
        start = _starter(_site, tmp_path_factory.mktemp("shared"), stack)

        def start_shared(**settings: str) -> GatewayProcess:
            gateway = start(**settings)
            _site.shared.append(gateway)
            stack.callback(_site.shared.remove, gateway)
            return gateway

        yield start_shared


def _starter(site: Site, folder: Path, stack: ExitStack) -> Callable[..., GatewayProcess]:
    def start(**settings: str) -> GatewayProcess:
        environ = {**site.environ, "LLMGATEWAY_INSTANCE": str(folder / "instance"), **settings}
        return stack.enter_context(GatewayProcess(environ, folder=folder / f"gateway-{secrets.token_hex(4)}"))

    return start
