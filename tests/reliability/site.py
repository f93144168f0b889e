"""An organisation's whole installation, and the comparison of its books with Azure's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import pymongo
import redis

from llmgateway.simulator import Served, Simulator
from llmgateway.usage.booking import ON_ITS_WAY_SECONDS
from llmgateway.usage.observed import FASTEST
from tests.folders import contents_below
from tests.functional.conftest import AZURE_KEY, DATABASE, mongo_environ, redis_environ
from tests.gateway_process import GatewayProcess
from tests.servers import MongoServer, RedisServer, wait_until

TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")
LONGEST_ANSWER = 16_384
"""The most tokens of one answer of gpt-4o-mini."""
ESTABLISHED, CLOSE_WAIT = "01", "08"  # Linux, include/net/tcp_states.h


class Site:
    """Azure, Redis and MongoDB, as a gateway of the organisation finds them."""

    def __init__(self, azure: Simulator, redis: RedisServer, mongo: MongoServer) -> None:
        self.azure = azure
        self.redis = redis
        self.mongo = mongo
        self.environ = {
            "LLM_BASE_URL": f"{azure.url}/openai/v1",
            "LLM_API_KEY": AZURE_KEY,
            # The least that MongoDB's driver can do with.
            "LLMGATEWAY_STORE_TIMEOUT": "1",
            "LLMGATEWAY_THREADS": "32",
            "LLMGATEWAY_KEY_SHARE": "1",  # many tests need one key for everything
            **redis_environ(redis),
            **mongo_environ(mongo),
        }
        self.shared: list[GatewayProcess] = []
        """The gateways that several tests use. They run while another gateway is tested."""
        # Time enough to log in while the machine is busy; the tests' own patience is wait_until()'s.
        self._client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(mongo.url, tz_aware=True)

    def close(self) -> None:
        self._client.close()

    def empty(self) -> None:
        """Bring both stores back, without a past."""
        for server in (self.redis, self.mongo):
            server.resume()
            if not server.running:
                server.start()
        # What clients have left behind in an earlier test must not be recorded in a later one.
        wait_until(lambda: not any(map(_bytes_in_journals, self.shared)), seconds=30, what="shared gateways at rest")
        with redis.Redis.from_url(self.redis.url) as client:
            client.flushall()
        self._client.drop_database(DATABASE)

    def records(self) -> dict[str, dict[str, Any]]:
        """Every usage record in MongoDB, by its identifier."""
        return {record["_id"]: record for record in self._client[DATABASE].logs.find()}

    def records_of(self, served: Collection[Served], *, seconds: float = 10) -> dict[str, dict[str, Any]]:
        """The records of these requests, as soon as all have come."""
        ids = [one.client_request_id for one in served]

        def find() -> list[dict[str, Any]]:
            return [*self._client[DATABASE].logs.find({"_id": {"$in": ids}})]

        wait_until(lambda: len(find()) >= len(ids), seconds=seconds, what=f"{len(ids)} records")
        return {record["_id"]: record for record in find()}

    def assert_books_balance(self, gateway: GatewayProcess, *, seconds: float = 15) -> dict[str, dict[str, Any]]:
        """Compare when all records have come: one for each request that Azure saw, and Azure's own tokens.

        A record that Azure knows nothing of is allowed only where a process died: it was killed
        between its note and the sending. Returns the records.
        """
        # Of those that clients have left some may still be on their way to Azure.
        with suppress(AssertionError):  # what is missing is said below
            wait_until(lambda: self._committed(gateway), seconds=seconds)
        served = {one.client_request_id: one for one in self.azure.served}
        assert len(served) == len(self.azure.served), "Azure was asked twice for one request"
        records = self.records()
        assert set() == served.keys() - records.keys(), "requests without a record"
        assert 0 == _bytes_in_journals(gateway), "there is something left to ship"
        for extra in records.keys() - served.keys():
            assert "interrupted" == records[extra]["outcome"], "a record of a request that Azure has not seen"
        for request_id, one in served.items():
            assert_right_tokens(one, records[request_id])
        self._assert_reports_agree(gateway, records)
        return records

    def _committed(self, gateway: GatewayProcess) -> bool:
        if self.azure.in_progress or _bytes_in_journals(gateway):
            return False
        served = {one.client_request_id for one in self.azure.served}
        records = self.records()
        extra = records.keys() - served
        return served <= records.keys() and all(records[one]["outcome"] == "interrupted" for one in extra)

    def _assert_reports_agree(self, gateway: GatewayProcess, records: dict[str, dict[str, Any]]) -> None:
        total = gateway.admin("GET", "/admin/usage").json()["total"]
        assert len(records) == total["requests"]
        for name in TOKENS:
            assert sum(record[name] for record in records.values()) == total[name]


def assert_right_tokens(served: Served, record: dict[str, Any]) -> None:
    """Compare what a record says with what Azure billed for its request."""
    source = record["usage_source"]
    if record["outcome"] == "upstream_error" and served.billed is None:
        assert "none" == source, "an error that Azure does not bill costs nothing"
    if record["outcome"] == "ok" and served.finished and served.usage is not None:
        assert "upstream" == source
    if source == "upstream":
        assert served.usage is not None
        assert {name: getattr(served.usage, name) for name in TOKENS} == {name: record[name] for name in TOKENS}
    elif source == "none":
        assert "upstream_error" == record["outcome"]
        assert 0 == record["total_tokens"] == record["cost_usd"]
    else:
        assert source in ("estimated", "bound")
        assert record["prompt_tokens"] > 0
        assert words_in(served.body_sent, record) <= record["completion_tokens"]
        assert record["completion_tokens"] <= served.events_sent + unseen_at_most(record)
        assert record["prompt_tokens"] + record["completion_tokens"] == record["total_tokens"]
        assert record["cost_usd"] > 0


def words_in(stream: bytes, record: dict[str, Any]) -> int:
    """Return how many whole events with text a stream has, of which the gateway must have read all."""
    if record["outcome"] == "client_closed":
        return 0  # it was left with words on their way
    whole, _, _ = stream.rpartition(b"\n\n")
    return len(re.findall(rb'"content":"[^"]', whole))


def unseen_at_most(record: dict[str, Any]) -> float:
    """Return the most tokens that a record may have for what nobody has seen."""
    if record["outcome"] == "interrupted" and record["duration_ms"] == 0:
        return LONGEST_ANSWER  # its process was killed
    return FASTEST * (record["duration_ms"] / 1000 + ON_ITS_WAY_SECONDS) + 1


def connections_to(port: int) -> Counter[str]:
    """How many TCP connections somebody on this machine has to *port*, by state."""
    states: Counter[str] = Counter()
    with open("/proc/net/tcp") as table:
        next(table)
        for line in table:
            _, _, remote, state, *_ = line.split()
            if int(remote.rpartition(":")[2], 16) == port:
                states[state] += 1
    return states


def _bytes_in_journals(gateway: GatewayProcess) -> int:
    return sum(len(content) for path, content in contents_below(gateway.instance / "journal") if path.name != "lock")
