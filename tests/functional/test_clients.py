"""Clients that people use, unmodified: those that install in a few seconds, in the versions of the catalogue."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.catalogue import CLIENTS, Client
from tests.clients.environments import Environment
from tests.clients.trial import Site, running

QUICK = [client for client in CLIENTS if client.quick]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("clients")) as made:
        yield made


@pytest.fixture(scope="module")
def environment_of(made_once: Callable[..., Path]) -> Callable[[Client], Environment]:
    """Install a client, and with it those that stand beside it."""

    def install(client: Client) -> Environment:
        companions = companions_of(client)

        def environment(folder: Path) -> Environment:
            return Environment(folder, *companions, python=Path(sys.executable) if client.with_tests else None)

        name = f"clients-with-{companions[0].name}"
        return environment(made_once(name, lambda folder: environment(folder).install()))

    return install


def companions_of(client: Client) -> list[Client]:
    """The clients that are installed together: they have most of their packages in common."""
    if client.alone or client.with_tests:
        return [client]
    together = [other for other in QUICK if not (other.alone or other.with_tests)]
    return [other for other in together if other.registry == client.registry]


@pytest.mark.slow
@pytest.mark.parametrize("client", QUICK, ids=lambda client: client.name)
def test_client(client, site, environment_of):
    """All its calls succeed, and what Azure bills for them is booked."""
    trial = site.try_out(client, environment_of(client))

    assert {} == {call.name: call.error for call in trial.calls if call.error}, trial.errors
    assert trial.calls
    assert trial.billed == trial.booked > (0, 0)
