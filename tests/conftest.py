"""What tests of every kind share: servers that run for the whole session, and a clock that is told the time."""

from __future__ import annotations

import fcntl
import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings

# What the shared contracts compare is then shown when it differs.
pytest.register_assert_rewrite(
    "tests.stores.contract",
    "tests.stores.counter_contract",
    "tests.reliability.calls",
    "tests.reliability.site",
    "tests.reliability.soak",
)

from tests.servers import MongoServer, RedisServer, Server  # noqa: E402 - after that
from tests.shortcuts import leave_out_what_takes_long  # noqa: E402 - after that

S = TypeVar("S", bound=Server)

# Property tests take as long as the machine needs: a busy one must not fail them.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

REDIS_URL = "LLMGATEWAY_TEST_REDIS_URL"
MONGO_URL = "LLMGATEWAY_TEST_MONGO_URL"


_OPEN_FILES = Path("/proc/self/fd")
_MOST_OPEN_FILES = 500

_SERVERS = {"redis_server", "mongo_server", "own_redis", "stoppable_mongo"}


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Close what applications of earlier tests have left open: select() knows no descriptors from 1024 on.

    They refer to themselves, and the collection of garbage finds them late among so many objects.
    """
    if _OPEN_FILES.exists() and len(os.listdir(_OPEN_FILES)) > _MOST_OPEN_FILES:
        gc.collect()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what starts the whole program, or needs Redis or MongoDB.

    Most of it holds for one process on SQLite, too, and is tested there between two edits.
    """
    for item in items:
        if "functional" in item.path.parts or _SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


leave_out_what_takes_long()


@dataclass
class Clock:
    """Seconds since the epoch, that pass when a test says so."""

    now: float = 1_767_225_600.0  # 2026-01-01T00:00:00Z

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class OtherServer:
    """A server that somebody else runs and the environment names."""

    url: str


MadeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Make a folder, by its name, once for all workers of pytest-xdist. Nobody may change it afterwards."""
    mine = tmp_path_factory.getbasetemp()
    common = mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine

    def make_once(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = common / "made-once" / name, common / "made-once" / f"{name}.done"
        folder.mkdir(parents=True, exist_ok=True)
        with done.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                make(folder)
                done.touch()
        return folder

    return make_once


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer | OtherServer]:
    """A Redis to share: use names of your own, and do not stop or empty it."""
    yield from _shared(REDIS_URL, RedisServer)


@pytest.fixture(scope="session")
def mongo_server() -> Iterator[MongoServer | OtherServer]:
    """A MongoDB-wire server to share: use a database of your own, and do not stop it."""
    yield from _shared(MONGO_URL, MongoServer)


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis for one test, to be stopped, killed and emptied."""
    yield from _own(REDIS_URL, RedisServer)


@pytest.fixture(scope="session")
def stoppable_mongo() -> Iterator[MongoServer]:
    yield from _own(MONGO_URL, MongoServer)


@pytest.fixture
def own_mongo(stoppable_mongo: MongoServer) -> MongoServer:
    """A MongoDB-wire server to be stopped and killed; it runs when the test begins."""
    stoppable_mongo.restart()
    return stoppable_mongo


def _shared(variable: str, make: type[S]) -> Iterator[S | OtherServer]:
    if url := os.environ.get(variable):
        yield OtherServer(url)
    else:
        yield from _running(make)


def _own(variable: str, make: type[S]) -> Iterator[S]:
    if os.environ.get(variable):
        pytest.skip(f"stops its server, and {variable} names one that is not the test's to stop")
    yield from _running(make)


def _running(make: type[S]) -> Iterator[S]:
    server = make()
    try:
        server.start()
        yield server
    finally:
        server.remove()
