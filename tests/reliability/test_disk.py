"""A disk that takes no more, or stands still: somebody is told, and the records arrive all the same."""

from __future__ import annotations

import resource
import threading
import time

import pytest

from tests.servers import wait_until
from tests.usage.test_stalled_disk import StalledFile

from .calls import Load

pytestmark = pytest.mark.slow

ROOM = 16 * 1024
"""Bytes that a file may have: some ten requests' lines, and the output of a start."""


def limit_files(gateway, size):
    """Let the running process write no file beyond *size* bytes: there a write is cut short, then fails, as if full."""
    _, hard = resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (size, hard))


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux can limit the files of a running process")
def test_requests_go_on_and_their_records_arrive(site, start_gateway):
    """With MongoDB away as well they wait in memory; it is reported, and is over when there is room again."""
    gateway = start_gateway(LLMGATEWAY_METRICS="open")
    key = gateway.key()
    assert 200 == gateway.chat(key).status
    site.assert_books_balance(gateway)
    assert b"llmgateway_journal_problem 0.0" in metrics(gateway)
    limit_files(gateway, ROOM)
    site.mongo.kill()

    with Load(gateway, key) as load:
        wait_until(lambda: len(load.readings) > 60, what="more requests than the disk takes")
        backlog = status_of_journal(gateway)
        assert backlog["records"] > 40
        assert "disk" in backlog["problem"]
        assert "disk" in gateway.request("GET", "/readyz").json()["journal"]["problem"]
        wait_until(lambda: b"llmgateway_journal_problem 1.0" in metrics(gateway), what="a metric that says so")
        site.mongo.start()
        load.lasting(0.5)
        limit_files(gateway, resource.RLIM_INFINITY)
        load.lasting(0.5)

    assert {200} == load.statuses
    site.assert_books_balance(gateway)
    wait_until(lambda: status_of_journal(gateway)["problem"] is None, what="an end of the trouble")
    assert "Usage records wait: journal on disk" in gateway.output
    gateway.stop()
    assert [] == [*(gateway.instance / "journal").iterdir()]


def test_a_disk_that_stands_still_stops_only_those_who_wait_for_it(site, start_gateway):
    """Requests wait, those that find no place are refused; load balancers and operators are answered, and then all."""
    gateway = start_gateway(LLMGATEWAY_THREADS="8")
    key = gateway.key()
    assert 200 == gateway.chat(key).status
    site.assert_books_balance(gateway)
    (segment,) = (gateway.instance / "journal").glob("*/*.open")
    disk = StalledFile(segment.with_stem(f"{int(segment.stem) + 1:08d}")).stall()
    assert 200 == gateway.chat(key).status  # when its record is shipped, the next segment begins
    wait_until(lambda: not segment.exists(), what="the segment on the stalled disk")

    statuses = []
    clients = [threading.Thread(target=lambda: statuses.append(gateway.chat(key).status)) for _ in range(8)]
    for client in clients:
        client.start()
    wait_until(lambda: [503] * 4 == statuses, what="four that find no place")
    wait_until(lambda: "has waited" in str(gateway.request("GET", "/readyz").json()["journal"]["problem"]))
    assert "has waited" in status_of_journal(gateway)["problem"]
    for _ in range(20):
        began = time.monotonic()
        assert 200 == gateway.request("GET", "/livez").status
        assert time.monotonic() - began < 1

    disk.resume()
    for client in clients:
        client.join(20)
    assert [503] * 4 + [200] * 4 == statuses
    wait_until(lambda: status_of_journal(gateway)["problem"] is None, what="an end of the trouble")
    assert "Usage records wait: journal on disk: a line has waited" in gateway.output
    gateway.stop()


def metrics(gateway):
    return gateway.request("GET", "/metrics").body


def status_of_journal(gateway):
    return gateway.admin("GET", "/admin/status").json()["journal"]
