"""The first process, with its socket and its workers."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llmgateway.errors import ConfigurationError
from llmgateway.server.supervisor import Supervisor, listen
from llmgateway.server.worker import BAD_CONFIGURATION
from tests.servers import wait_until


class Workers:
    """The workers of a supervisor: each writes a file with its process id, and another one when a signal stops it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def live(self) -> int:
        ended: list[int] = []
        signal.signal(signal.SIGTERM, lambda *_: ended.append(0))
        parent = os.getppid()
        (self._folder / f"{os.getpid()}.started").touch()
        while not ended and os.getppid() == parent:
            time.sleep(0.01)
        (self._folder / f"{os.getpid()}.stopped").touch()
        return 0

    def started(self) -> list[int]:
        return self._pids("started")

    def stopped(self) -> list[int]:
        return self._pids("stopped")

    def _pids(self, kind: str) -> list[int]:
        return sorted(int(path.stem) for path in self._folder.glob(f"*.{kind}"))


@pytest.fixture
def workers(tmp_path):
    return Workers(tmp_path)


def supervise(processes: int, work: Callable[[], int], on_stop: Callable[[], None] = lambda: None) -> Callable[[], int]:
    def run() -> int:
        return Supervisor(processes, lambda _: work(), on_end=lambda _: None, on_stop=on_stop).run()

    return run


class TestSupervisor:
    def test_stops_every_worker(self, start, workers, tmp_path):
        """A signal to the first process is passed on to all workers; it ends after them, with status 0."""
        supervisor = start(supervise(3, workers.live, (tmp_path / "stopped").touch))
        wait_until(lambda: 3 == len(workers.started()))

        supervisor.signal(signal.SIGTERM)

        assert 0 == supervisor.status()
        assert workers.started() == workers.stopped()
        assert (tmp_path / "stopped").exists()

    def test_replaces_a_dead_worker(self, start, workers):
        """A worker that was killed is replaced; the others go on."""
        supervisor = start(supervise(2, workers.live))
        wait_until(lambda: 2 == len(workers.started()))
        first, second = workers.started()

        os.kill(first, signal.SIGKILL)

        wait_until(lambda: 3 == len(workers.started()))
        supervisor.signal(signal.SIGTERM)
        assert 0 == supervisor.status()
        assert second in workers.stopped()
        assert first not in workers.stopped()

    def test_replaces_a_worker_that_fails_after_a_pause(self, start, tmp_path, capfd):
        """A worker that fails at its start is not restarted in a busy loop."""

        def fail() -> int:
            (tmp_path / str(os.getpid())).touch()
            raise RuntimeError("bug")

        supervisor = start(supervise(1, fail))
        wait_until(lambda: 2 == len(list(tmp_path.iterdir())))
        supervisor.signal(signal.SIGTERM)

        assert 0 == supervisor.status()
        assert len(list(tmp_path.iterdir())) <= 3

    def test_a_replacement_gets_the_number_of_the_old_one(self, start, workers, tmp_path):
        """The callback gets the number of the worker that ended, before the new worker starts."""

        def work(number: int) -> int:
            (tmp_path / f"{number}.{os.getpid()}").touch()
            return workers.live()

        def supervise() -> int:
            return Supervisor(
                2,
                work,
                on_end=lambda number: (tmp_path / f"ended-{number}").symlink_to(f"by-{os.getpid()}"),
                on_stop=lambda: None,
            ).run()

        supervisor = start(supervise)
        wait_until(lambda: 2 == len(workers.started()))
        (first,) = tmp_path.glob("1.*")

        os.kill(int(first.suffix[1:]), signal.SIGKILL)

        wait_until(lambda: 3 == len(workers.started()))
        assert (1, 2) == (len(list(tmp_path.glob("0.*"))), len(list(tmp_path.glob("1.*"))))
        assert f"by-{supervisor.pid}" == os.readlink(tmp_path / "ended-1")
        (tmp_path / "ended-1").unlink()
        supervisor.signal(signal.SIGTERM)
        assert 0 == supervisor.status()

    def test_gives_up_with_settings_that_cannot_work(self, start, tmp_path):
        """If a worker refuses its settings, all processes end with that status."""

        def refuse() -> int:
            (tmp_path / str(os.getpid())).touch()
            return BAD_CONFIGURATION

        assert BAD_CONFIGURATION == start(supervise(3, refuse)).status()
        assert len(list(tmp_path.iterdir())) <= 3

    def test_goes_on_if_only_a_replacement_refuses_its_settings(self, start, workers, tmp_path):
        """The others serve, and the reason may pass: the replacement is tried again, and the others are not ended."""
        allowed = tmp_path / "allowed"

        def work() -> int:
            if 2 == len(workers.started()) and not allowed.exists():
                (tmp_path / f"{os.getpid()}.refused").touch()
                return BAD_CONFIGURATION
            return workers.live()

        supervisor = start(supervise(2, work))
        wait_until(lambda: 2 == len(workers.started()))
        survivor, victim = workers.started()

        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: list(tmp_path.glob("*.refused")))
        allowed.touch()

        wait_until(lambda: 3 == len(workers.started()))
        supervisor.signal(signal.SIGTERM)
        assert 0 == supervisor.status()
        assert survivor in workers.stopped()

    def test_stops_while_workers_are_starting(self, start, workers):
        """A signal stops a worker that has not set its handlers yet."""

        def start_slowly() -> int:
            time.sleep(0.2)
            return workers.live()

        supervisor = start(supervise(4, start_slowly))
        time.sleep(0.1)
        supervisor.signal(signal.SIGTERM)

        assert supervisor.status() in (0, -signal.SIGTERM)  # the latter if it had no handlers yet
        assert workers.started() == workers.stopped()


class TestListening:
    def test_on_a_free_port(self):
        """With port 0 the system chooses a free port, and connections are accepted at once."""
        with listen("127.0.0.1", 0) as listener:
            socket.create_connection(listener.getsockname(), 5).close()

    def test_on_ipv6(self):
        """An address with colons is an IPv6 address."""
        with listen("::1", 0) as listener:
            assert socket.AF_INET6 == listener.family

    def test_on_a_port_that_is_taken(self):
        """The message names the setting to change."""
        with listen("127.0.0.1", 0) as listener:
            port = listener.getsockname()[1]
            with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}.*LLMGATEWAY_HOST and _PORT"):
                listen("127.0.0.1", port)

    def test_on_an_address_of_another_machine(self):
        """The message is the same if this machine does not have the address."""
        with pytest.raises(ConfigurationError, match=r"Cannot listen on 192\.0\.2\.1:0"):
            listen("192.0.2.1", 0)
