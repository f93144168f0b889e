"""One deployment for each combination of stores, with a simulated Azure behind it."""

from __future__ import annotations

import secrets
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pymongo
import pytest
import redis

from llmgateway.simulator import Deployment, Simulator
from tests.gateway_process import GatewayProcess
from tests.programs import needed
from tests.servers import PASSWORD, USER, MongoServer, RedisServer, wait_until

AZURE_KEY = "azure-key-of-the-functional-tests"
DATABASE = "gateway"
COMBINATIONS = ("sqlite", "redis+sqlite", "mongo", "redis+mongo")


@dataclass
class StoreEnvironment:
    """The stores of one deployment, and the settings that name them."""

    instance: Path
    """The instance folder that the gateways of the deployment share, as processes of one host do."""
    redis: RedisServer | None = None
    mongo: MongoServer | None = None
    environ: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.environ = {"LLMGATEWAY_INSTANCE": str(self.instance)}
        if self.redis is not None:
            self.environ |= redis_environ(self.redis)
        if self.mongo is not None:
            self.environ |= mongo_environ(self.mongo)

    def empty(self) -> None:
        """Forget what an earlier deployment left; not for a gateway that runs."""
        if self.redis is not None:
            with redis.Redis.from_url(self.redis.url) as client:
                client.flushall()
        if self.mongo is not None:
            with pymongo.MongoClient(self.mongo.url) as client:
                client.drop_database(DATABASE)


def redis_environ(server: RedisServer) -> dict[str, str]:
    return {"REDISHOST": "127.0.0.1", "REDISPORT": str(server.port), "REDISPASSWORD": PASSWORD}


def mongo_environ(server: MongoServer) -> dict[str, str]:
    return {"MONGOHOST": f"127.0.0.1:{server.port}", "MONGOUSER": USER, "MONGOPASSWORD": PASSWORD}


@pytest.fixture(scope="session")
def simulator() -> Iterator[Simulator]:
    # Old models, but with prices, and known not to think unseen.
    old = [Deployment(name, model="gpt-4-0613", old=True) for name in ("ancient", "older")]
    deployments = ("gpt-4o-mini", "gpt-4o", "o4-mini", "text-embedding-3-small", *old)
    with Simulator(key=AZURE_KEY, deployments=deployments) as azure:
        yield azure


@pytest.fixture
def azure(simulator: Simulator) -> Iterator[Simulator]:
    """Azure, without a past."""
    simulator.reset()
    yield simulator
    simulator.reset()


@pytest.fixture(scope="session")
def node_modules(made_once: Callable[..., Path]) -> Path:
    """OpenAI's client for JavaScript: a program finds it that has a link of this name beside it."""

    def install(folder: Path) -> None:
        npm = [needed("npm", package="npm"), "install", "--no-audit", "--no-fund", "--silent", "openai@6"]
        subprocess.run(npm, cwd=folder, check=True, timeout=120)

    return made_once("node-client", install) / "node_modules"


@pytest.fixture(scope="session")
def functional_redis() -> Iterator[RedisServer]:
    yield from _running(RedisServer())


@pytest.fixture(scope="session")
def functional_mongo() -> Iterator[MongoServer]:
    yield from _running(MongoServer())


def _running(server: Any) -> Iterator[Any]:
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session", params=COMBINATIONS)
def stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StoreEnvironment:
    """Each combination of stores in turn, empty."""
    made = StoreEnvironment(
        instance=tmp_path_factory.mktemp("deployment") / "instance",
        redis=request.getfixturevalue("functional_redis") if "redis" in request.param else None,
        mongo=request.getfixturevalue("functional_mongo") if "mongo" in request.param else None,
    )
    made.empty()
    return made


@contextmanager
def fresh_stores(combination: str, instance: Path) -> Iterator[StoreEnvironment]:
    """Stores in which nobody else has ever been: sums and warnings are those of one test."""
    with ExitStack() as stack:
        servers: list[Any] = [
            kind() if name in combination else None for name, kind in (("redis", RedisServer), ("mongo", MongoServer))
        ]
        for server in filter(None, servers):
            stack.callback(server.remove)
            server.start()
        yield StoreEnvironment(instance, *servers)


@pytest.fixture(scope="session")
def azure_environ(simulator: Simulator) -> dict[str, str]:
    return {"LLM_BASE_URL": f"{simulator.url}/openai/v1", "LLM_API_KEY": AZURE_KEY}


@pytest.fixture(scope="session")
def _gateway(
    stores: StoreEnvironment, azure_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    environ = {**stores.environ, **azure_environ, "LLMGATEWAY_MAX_BODY_BYTES": "150000"}
    with GatewayProcess(environ, folder=tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway
        gateway.stop()


@pytest.fixture
def gateway(_gateway: GatewayProcess, azure: Simulator) -> GatewayProcess:
    """One process that serves, shared by the tests of one combination of stores."""
    return _gateway


@pytest.fixture(scope="session")
def _pair(
    stores: StoreEnvironment, azure_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    environ = {**stores.environ, **azure_environ, "LLMGATEWAY_PROCESSES": "2", "LLMGATEWAY_THREADS": "16"}
    with GatewayProcess(environ, folder=tmp_path_factory.mktemp("pair")) as gateway:
        yield gateway
        gateway.stop()


@pytest.fixture
def pair(_pair: GatewayProcess, azure: Simulator) -> GatewayProcess:
    """Two processes that serve on one socket."""
    return _pair


Start = Callable[..., GatewayProcess]


@pytest.fixture
def start_gateway(
    stores: StoreEnvironment, azure: Simulator, azure_environ: dict[str, str], tmp_path: Path
) -> Iterator[Start]:
    """Start one more gateway of the deployment, with settings of its own; None takes one away.

    It is forked from a process that has imported the program unless *warm* is false.
    """
    with ExitStack() as stack:
        yield _starter(stack, {**stores.environ, **azure_environ}, tmp_path)


@pytest.fixture
def start_alone(azure: Simulator, azure_environ: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Start a gateway on an embedded store of its own: for what has nothing to do with the stores, tested once."""
    with ExitStack() as stack:
        yield _starter(stack, azure_environ, tmp_path)


def _starter(stack: ExitStack, environ: dict[str, str], folder: Path) -> Start:
    def start(*, warm: bool = True, **settings: str | None) -> GatewayProcess:
        given = {name: value for name, value in (environ | settings).items() if value is not None}
        return stack.enter_context(GatewayProcess(given, folder=folder / f"gateway-{secrets.token_hex(4)}", warm=warm))

    return start


@pytest.fixture
def key(gateway: GatewayProcess) -> str:
    """A key that may do everything."""
    return gateway.key(user=f"user-{secrets.token_hex(4)}")


@pytest.fixture
def client(gateway: GatewayProcess, key: str) -> Iterator[openai.OpenAI]:
    """The official client, as a user sets it up, but one that reports the first failure."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as made:
        yield made


@pytest.fixture
def prompt(gateway: GatewayProcess) -> Iterator[Callable[[str], Any]]:
    """Set the organisation's prompt; there is none again after the test."""

    def set_prompt(text: str) -> Any:
        answer = gateway.admin("PUT", "/admin/prompt", json={"prompt": text})
        assert 200 == answer.status
        return answer.json()

    yield set_prompt
    set_prompt("")


@pytest.fixture
def records(stores: StoreEnvironment) -> Callable[..., list[dict[str, Any]]]:
    """Read the usage records of a key where they are kept, when as many have come as Azure has served."""

    def read(gateway: GatewayProcess, key: str, *, count: int = 1) -> list[dict[str, Any]]:
        key_id = gateway.request("GET", "/v1/me", key=key).json()["id"]
        wait_until(lambda: len(_records(stores, gateway, key_id)) >= count, what=f"{count} usage records")
        return _records(stores, gateway, key_id)

    return read


def _records(stores: StoreEnvironment, gateway: GatewayProcess, key_id: str) -> list[dict[str, Any]]:
    if stores.mongo is None:
        with closing(sqlite3.connect(gateway.instance / "gateway.sqlite")) as database:
            database.row_factory = sqlite3.Row
            found = database.execute("SELECT * FROM logs WHERE key_id = ? ORDER BY id", [key_id])
            return [dict(row) for row in found]
    with pymongo.MongoClient(stores.mongo.url, tz_aware=True) as client:
        # The batch that brought a record is the store's own business.
        documents = client[DATABASE].logs.find({"key_id": key_id}, {"batch": 0}, sort=[("_id", 1)])
        return [{"id": document.pop("_id"), **document} for document in documents]


@pytest.fixture(scope="session")
def _hasty(
    stores: StoreEnvironment, azure_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    patience = {"LLMGATEWAY_FIRST_BYTE_TIMEOUT": "0.6", "LLMGATEWAY_BETWEEN_BYTES_TIMEOUT": "0.5"}
    patience |= {"LLMGATEWAY_THREADS": "8", "LLMGATEWAY_KEY_SHARE": "1"}
    environ = {**stores.environ, **azure_environ, **patience}
    with GatewayProcess(environ, folder=tmp_path_factory.mktemp("hasty")) as gateway:
        yield gateway
        gateway.stop()


@pytest.fixture
def hasty(_hasty: GatewayProcess, azure: Simulator) -> GatewayProcess:
    """A gateway with four slots that soon loses its patience with Azure."""
    return _hasty
