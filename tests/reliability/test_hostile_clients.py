"""Clients without a key that want to keep the others out, as an ordinary client and the system see it."""

from __future__ import annotations

import http.client
import json
import os
import resource
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest
import requests

from llmgateway.server.server import IDLE_CONNECTIONS
from llmgateway.simulator import DEFAULT_KEY, Simulator
from tests.docker.test_nginx import NAME, certificate, install, listens
from tests.gateway_process import GatewayProcess
from tests.programs import needed
from tests.servers import free_port, wait_until

__all__ = ["certificate"]  # a fixture

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
LARGE = 31 * MIB
THREADS = 32
SECONDS = 4.0
MOST_MEMORY = 60 * MIB
"""How much a gateway may grow under attack: each connection may hold 64 KiB of a body, and what it last received."""


@dataclass
class Front:
    """Where clients connect: the gateway, or nginx in front of it."""

    gateway: GatewayProcess
    port: int
    trust: ssl.SSLContext | None = None

    def connect(self) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self.port), 10)
        return plain if self.trust is None else self.trust.wrap_socket(plain, server_hostname="localhost")

    def ask(self, key: str) -> tuple[int, float]:
        """Ask as an ordinary client with a new connection; return the status and how long it took."""
        began = time.monotonic()
        if self.trust is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        else:
            connection = http.client.HTTPSConnection("localhost", self.port, timeout=20, context=self.trust)
        body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]})
        try:
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            connection.request("POST", "/v1/chat/completions", body, headers)
            with connection.getresponse() as response:
                response.read()
                return response.status, time.monotonic() - began
        finally:
            connection.close()


@pytest.fixture(scope="module", autouse=True)
def _many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * IDLE_CONNECTIONS + 1000
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    with Simulator() as azure:
        environ = {"LLM_BASE_URL": f"{azure.url}/openai/v1", "LLM_API_KEY": DEFAULT_KEY}
        # Not forked from a process that has begun before the limit on files was raised.
        environ |= {"LLMGATEWAY_THREADS": str(THREADS)}
        with GatewayProcess(environ, folder=tmp_path, warm=False) as gateway:
            yield gateway


@pytest.fixture(params=["embedded", "nginx"])
def front(request: pytest.FixtureRequest, gateway: GatewayProcess, tmp_path: Path) -> Iterator[Front]:
    if request.param == "embedded":
        yield Front(gateway, gateway.port)
        return
    folder = request.getfixturevalue("certificate")
    with _nginx(gateway, tmp_path / "nginx", folder) as port:
        yield Front(gateway, port, ssl.create_default_context(cafile=folder / "fullchain.pem"))


@contextmanager
def _nginx(gateway: GatewayProcess, folder: Path, certificate: Path) -> Iterator[int]:
    folder.mkdir()
    https, http_ = free_port(), free_port()
    command = install(folder, certificate, https=https, http=http_, gateways=[gateway.port], changes={})
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"SERVER_NAME": NAME})
    try:
        wait_until(lambda: listens(https), seconds=10, what="nginx")
        yield https
    finally:
        process.terminate()
        process.wait(10)


def resident(pid: int) -> int:
    """Return the bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def unfinished_bodies(front: Front, opened: ExitStack, stop: threading.Event) -> None:
    """Begin bodies with invented keys, send as much as is taken, and never end one."""
    number = 0
    while not stop.is_set():
        wires = []
        for _ in range(20):
            number += 1
            with suppress(OSError):
                wire = opened.enter_context(front.connect())
                wire.sendall(HEAD + b"Authorization: Bearer %d\r\nContent-Length: %d\r\n\r\n" % (number, LARGE))
                wires.append(wire)
        for wire in wires:
            wire.settimeout(0.05)
            with suppress(OSError):
                wire.sendall(bytes(MIB))
        stop.wait(0.1)  # what is shown is that nothing is held, not how many requests a second a machine refuses


def silent_connections(front: Front, opened: ExitStack, stop: threading.Event) -> None:
    """Open connections and send nothing, as many as the process accepts and more."""
    wires = []
    while not stop.is_set():
        if len(wires) < IDLE_CONNECTIONS + THREADS + 300:
            with suppress(OSError):
                wires.append(opened.enter_context(front.connect()))
        else:
            stop.wait(0.05)


def empty_lines(front: Front, opened: ExitStack, stop: threading.Event) -> None:
    """Keep connections busy with empty lines and with heads that never end."""
    wires = []
    for number in range(200):
        with suppress(OSError):
            wire = opened.enter_context(front.connect())
            wires.append(wire)
            if number % 2:
                wire.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
    while not stop.is_set():
        for number, wire in enumerate(wires):
            with suppress(OSError):
                wire.sendall(b"X: y\r\n" if number % 2 else b"\r\n")
        stop.wait(0.1)


def expectations(front: Front, opened: ExitStack, stop: threading.Event) -> None:
    """Announce large bodies, and wait for permission to send them."""
    while not stop.is_set():
        with suppress(OSError):
            wire = opened.enter_context(front.connect())
            wire.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % LARGE)
        stop.wait(0.01)


@pytest.mark.parametrize("attack", [unfinished_bodies, silent_connections, empty_lines, expectations])
def test_an_ordinary_client_is_served_under_attack(
    front: Front, attack: Callable[[Front, ExitStack, threading.Event], None]
) -> None:
    """No answer fails, none takes longer than a second, and the gateway's memory stays small."""
    key = front.gateway.key()
    front.ask(key)
    before = most = resident(front.gateway.pid)
    stop, answers = threading.Event(), []
    with ExitStack() as opened:
        attacker = threading.Thread(target=attack, args=[front, opened, stop])
        attacker.start()
        try:
            ends = time.monotonic() + SECONDS
            while time.monotonic() < ends:
                answers.append(front.ask(key))
                most = max(most, resident(front.gateway.pid))
                time.sleep(0.05)
        finally:
            stop.set()
            attacker.join()

    assert {200} == {status for status, _ in answers}
    assert len(answers) > SECONDS
    assert max(seconds for _, seconds in answers) < 1
    assert most - before < MOST_MEMORY


class TestALargeBodyWithAWrongKey:
    """The client reads why it was refused, although it has not sent everything."""

    def test_from_openais_python_client(self, gateway: GatewayProcess) -> None:
        """It raises its own error for a wrong key."""
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="wrong", max_retries=0) as client:
            for _ in range(3):
                with pytest.raises(openai.AuthenticationError, match="not known here"):
                    client.chat.completions.create(
                        model="gpt-4o-mini", messages=[{"role": "user", "content": "x" * LARGE}]
                    )

    def test_through_nginx(self, gateway: GatewayProcess, certificate: Path, tmp_path: Path) -> None:
        """nginx passes the answer on, and does not fail because it could not send everything."""
        verify = str(certificate / "fullchain.pem")
        with _nginx(gateway, tmp_path / "nginx", certificate) as port:
            answers = [
                requests.post(
                    f"https://localhost:{port}/v1/chat/completions",
                    json="x" * LARGE,
                    headers={"Authorization": "Bearer wrong"},
                    verify=verify,
                    timeout=20,
                )
                for _ in range(10)
            ]

        assert ["invalid_api_key"] * 10 == [answer.json()["error"]["code"] for answer in answers]

    def test_from_requests(self, gateway: GatewayProcess) -> None:
        """urllib3 reads the answer when it cannot send any more."""
        answer = requests.post(
            f"{gateway.url}/v1/chat/completions",
            json="x" * LARGE,
            headers={"Authorization": "Bearer wrong"},
            timeout=20,
        )

        assert 401 == answer.status_code

    def test_from_node(self, gateway: GatewayProcess) -> None:
        """openai-node sends with Node's fetch, and raises AuthenticationError for this status."""
        script = """
            const answer = await fetch(process.argv[1], {
                method: "POST",
                headers: {Authorization: "Bearer wrong", "Content-Type": "application/json"},
                body: JSON.stringify("x".repeat(31 * 1024 * 1024)),
            });
            console.log(answer.status, (await answer.json()).error.code);
        """
        command = [needed("node", package="nodejs"), "--input-type=module", "-e", script]
        for _ in range(3):
            answer = subprocess.run(
                [*command, f"{gateway.url}/v1/chat/completions"], capture_output=True, text=True, check=False
            )
            assert "401 invalid_api_key\n" == answer.stdout, answer.stderr
