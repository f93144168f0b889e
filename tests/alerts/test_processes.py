"""Processes that die, and several that see the same."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from llmgateway.alerts.delivery import LEASE
from llmgateway.alerts.settings import Webhook
from tests import ROOT
from tests.alerts.parts import Host
from tests.conftest import Clock
from tests.servers import wait_until

ONE_TURN = """
import sys, time
from pathlib import Path
from tests.alerts.parts import Host
from tests.conftest import Clock
host = Host(Path(sys.argv[1]), Clock(), name=sys.argv[2])
host.quotas["gpt-4o"] = "less"
print("ready", flush=True)
sys.stdin.readline()
for _ in range(5):
    host.turn()
print("done", flush=True)
"""


@pytest.fixture
def host(tmp_path, clock, sink):
    made = Host(tmp_path / "gateway.sqlite", clock)
    made.set(webhooks=(Webhook(id="hook_1", url=sink.url),))
    yield made
    made.close()


@pytest.fixture
def start(host):
    """Start another process on the same store."""
    started = []

    def start(name="host-2"):
        process = subprocess.Popen(
            [sys.executable, "-c", ONE_TURN, str(host.path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        started.append(process)
        assert "ready\n" == process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def go(process):
    process.stdin.write("\n")
    process.stdin.flush()


def test_what_a_killed_process_was_delivering_is_delivered_later(host, start, sink):
    """By another one, when the lease is over; not before, because the first one may only be slow."""
    sink.hangs.set()
    process = start()
    go(process)
    wait_until(lambda: sink.posts, what="the first attempt")
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    sink.hangs.clear()
    (interrupted,) = sink.posts

    host.turn(2)
    assert [interrupted] == sink.posts
    host.clock.advance(LEASE.total_seconds())
    host.turn()

    again = sink.posts[1]
    assert 2 == len(sink.posts)
    assert interrupted.headers["x-llmgateway-alert"] == again.headers["x-llmgateway-alert"]
    assert "delivered" == host.alerts.store.recent(limit=1)[0].deliveries[0].state


def test_what_was_not_begun_when_a_process_was_killed_is_delivered_at_once(host, start, sink):
    """It is stored together with its deliveries, in one step."""
    outside = Host(host.path, Clock(host.clock()), name="host-2")
    outside.quotas["gpt-4o"] = "less"
    outside.alerts._deliveries.stop()  # dies before the first delivery
    outside.turn()
    outside.close()
    assert [] == sink.posts

    host.turn()
    assert 1 == len(sink.posts)


def test_of_several_processes_one_announces(start, sink):
    """All of them see the same at the same moment."""
    processes = [start(f"host-{number}") for number in range(4)]
    for process in processes:
        go(process)
    for process in processes:
        assert "done\n" == process.stdout.readline()

    assert 1 == len(sink.posts)
