"""A disk that takes no more: requests go on, somebody is told, and the records arrive all the same."""

from __future__ import annotations

import resource

import pytest

from tests.servers import wait_until

from .calls import Load

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


def metrics(gateway):
    return gateway.request("GET", "/metrics").body


def status_of_journal(gateway):
    return gateway.admin("GET", "/admin/status").json()["journal"]
