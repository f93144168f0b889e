"""The metrics of several processes: added up, and gone from memory with them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from llmgateway.simulator import Script
from tests.servers import wait_until

REFUSED = 'llmgateway_refused_total{code="invalid_api_key"}'


def numbers(gateway, connection=None):
    answer = gateway.admin("GET", "/metrics", connection=connection)
    assert 200 == answer.status, answer.body
    lines = [line.rpartition(" ") for line in answer.body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def folders(gateway):
    return list(gateway.instance.glob("metrics-*"))


def test_continue_when_a_worker_dies(start_alone):
    """Counters lose and double nothing over crashes, gauges are of the living, and no file is added for the dead."""
    gateway = start_alone(LLMGATEWAY_PROCESSES="2", warm=False)
    for worker in gateway.workers():
        connection = gateway.connect_to(worker)
        for _ in range(5):
            gateway.chat("wrong", connection=connection)
        connection.close()
    before = numbers(gateway)
    assert 10 == before[REFUSED]
    descriptors = len(os.listdir(f"/proc/{gateway.pid}/fd"))

    for _ in range(3):
        victim, other = gateway.workers()
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len({*gateway.workers()} - {other, victim}) == 1, what="another worker")  # noqa: B023
        assert 10 == numbers(gateway)[REFUSED]
        gateway.connect_to(next(iter({*gateway.workers()} - {other}))).close()

    after = numbers(gateway)
    assert (10, before["llmgateway_slots"]) == (after[REFUSED], after["llmgateway_slots"])
    assert descriptors == len(os.listdir(f"/proc/{gateway.pid}/fd"))
    (folder,) = folders(gateway)
    assert 10 == len(list(folder.iterdir()))
    gateway.stop()


def test_quotas_are_those_of_the_last_answer(start_alone, azure):
    """Whichever process has got it: they are not added up, and go with the processes that knew them."""
    gateway = start_alone(LLMGATEWAY_PROCESSES="2")
    key = gateway.key()
    resource = azure.url.removeprefix("http://")
    for worker, left in zip(gateway.workers(), (70, 60), strict=True):
        quota = {"x-ratelimit-limit-tokens": "100", "x-ratelimit-remaining-tokens": str(left)}
        azure.script(Script(headers=quota))
        connection = gateway.connect_to(worker)
        assert 200 == gateway.chat(key, connection=connection).status
        connection.close()

    labels = f'{{deployment="gpt-4o-mini",resource="{resource}",unit="tokens"}}'
    found = numbers(gateway)
    assert (100, 60) == (
        found[f"llmgateway_deployment_limit{labels}"],
        found[f"llmgateway_deployment_remaining{labels}"],
    )
    gateway.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGABRT])
def test_leave_nothing_in_memory(start_alone, number):
    """Whatever ends the processes; their names in the instance folder go with the next start at the latest."""
    gateway = start_alone(LLMGATEWAY_PROCESSES="2")
    gateway.chat("wrong")
    (folder,) = folders(gateway)
    for worker in gateway.workers():
        maps = Path(f"/proc/{worker}/maps")
        # What has no name ends with its processes. The gateway is ready before all of them have begun to count.
        wait_until(lambda: "/memfd:counter (deleted)" in maps.read_text(), what="the counters")  # noqa: B023
        # The instance folder of a test may lie in memory itself.
        mapped = [line for line in maps.read_text().splitlines() if str(gateway.instance) not in line]
        assert [] == [line for line in mapped if "/dev/shm/" in line]
    if number in (signal.SIGKILL, signal.SIGABRT):
        for pid in (*gateway.workers(), gateway.pid):
            os.kill(pid, number)
    else:
        gateway.signal(number)
    gateway.wait()

    gateway.start()
    assert folder not in folders(gateway)
    assert 1 == len(folders(gateway))
    assert REFUSED not in numbers(gateway)
    gateway.stop()
    assert [] == folders(gateway)
