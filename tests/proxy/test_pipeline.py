"""The pipeline with a real store and a simulated Azure, without the web layer."""

from __future__ import annotations

import gzip
import json
import threading
import zlib
from contextlib import closing, suppress
from dataclasses import replace

import pytest

from llmgateway.accounts.credential import CredentialCipher
from llmgateway.accounts.keys import Keys, digest
from llmgateway.accounts.policy import OrganisationPolicy
from llmgateway.accounts.principal import Principal
from llmgateway.azure.client import AzureClient
from llmgateway.azure.endpoint import Endpoint
from llmgateway.errors import (
    BodyTooLarge,
    BudgetSpent,
    ClientGone,
    GatewayError,
    InvalidKey,
    InvalidRequest,
    ModelNotAllowed,
    Overloaded,
    RateLimited,
    StoreUnavailable,
    UpstreamBroken,
    UpstreamCredentials,
    UpstreamMoved,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from llmgateway.proxy.concurrency import ConcurrencyLimit
from llmgateway.proxy.dialect import Dialect
from llmgateway.proxy.disconnects import DisconnectWatcher
from llmgateway.proxy.failover import Failover
from llmgateway.proxy.nesting import MOST_CONTAINERS
from llmgateway.proxy.operations.chat import CHAT_COMPLETIONS
from llmgateway.proxy.pipeline import Gateway
from llmgateway.proxy.preparing import PreparationLimit
from llmgateway.proxy.read_on import ReadOn
from llmgateway.proxy.relay import Reply
from llmgateway.proxy.request import CompletionRequest
from llmgateway.proxy.revocations import RevocationWatcher
from llmgateway.proxy.routing import Routing
from llmgateway.proxy.stream import EventStream
from llmgateway.proxy.usage_options import FORGET_SECONDS
from llmgateway.ratelimit.limiter import Limiter
from llmgateway.ratelimit.memory import MemoryCounters
from llmgateway.ratelimit.running import RunningReservations
from llmgateway.ratelimit.scopes import Scope
from llmgateway.records import Budget, Group, Limits, Outcome, Period, Prices, Unit, UsageSource, moment
from llmgateway.simulator import Raw, Script, Simulator
from llmgateway.stores.circuit import Circuit
from llmgateway.stores.cooldowns import MemoryCooldowns
from llmgateway.stores.spending import LoggedSpending
from llmgateway.stores.sqlite import (
    SQLiteDatabase,
    SQLiteKeys,
    SQLiteOrganisation,
    SQLiteUsageLog,
)
from llmgateway.usage.answered_models import AnsweredModels
from tests.parts import FIRST, Entries, Owners, Stopwatch, chunk, stream, usage_event
from tests.proxy.requests import address
from tests.proxy.test_usage_options import REFUSALS
from tests.servers import wait_until

AZURE_KEY = "azure-key"
CIPHER = CredentialCipher("secret")
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def azure():
    with Simulator(key=AZURE_KEY) as azure:
        yield azure


@pytest.fixture
def database(tmp_path):
    with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
        yield database


class House:
    """A gateway with everything that it needs."""

    def __init__(self, database: SQLiteDatabase, azure: Simulator, clock: object) -> None:
        self.azure = azure
        self.clock = clock
        self.organisation = SQLiteOrganisation(database)
        self.policy = OrganisationPolicy(self.organisation, CIPHER, fallback=AZURE_KEY, clock=clock)
        self.keys = Keys(SQLiteKeys(database), self.policy, clock=clock)
        self.counters = MemoryCounters(clock=clock)
        self.limiter = Limiter(
            self.counters,
            LoggedSpending(SQLiteUsageLog(database), circuit=Circuit("log", retry_after=1, clock=clock)),
            running=RunningReservations(self.counters),
            ship=lambda: None,
            clock=clock,
        )
        self.entries = Entries()
        self.owners = Owners()
        self.concurrency = ConcurrencyLimit(2)
        self.disconnects = DisconnectWatcher()
        self.preparing = PreparationLimit(most_bytes=10**9, most_bytes_per_key=10**9)
        self.revocations = RevocationWatcher(lambda key: self.keys.is_revoked(key.digest, key.id), version=None)
        self.timer = Stopwatch()
        self.answered = AnsweredModels(lambda _: [], clock=clock)
        self._upstreams: list[AzureClient] = []
        self.key_id, self.key = self._hand_out()

    def left(self) -> dict[str, float | None]:
        """What is left of the limits of the key."""
        key = self.keys.authenticate(self.key).key
        (allowances,) = self.limiter.allowances.of([Scope.of_key(key, moment(self.clock()))])
        return {part: allowance.left for part, allowance in allowances.items()}

    def _hand_out(self) -> tuple[str, str]:
        self.organisation.set_group(Group(name="physics", created_at=moment(self.clock())))
        record, key = self.keys.create(user="ada", name="laptop", group="physics")
        return record.id, key

    def gateway(
        self,
        path: str = "/openai/v1",
        *,
        url: str | None = None,
        offered: tuple[str, ...] = (),
        first_byte_timeout: float = 10,
    ) -> Gateway:
        endpoint = Endpoint.parse((url or self.azure.url) + path)
        upstream = AzureClient(
            connect_timeout=5,
            first_byte_timeout=first_byte_timeout,
            between_bytes_timeout=5,
            connections=4,
        )
        self._upstreams.append(upstream)
        return Gateway(
            keys=self.keys,
            limiter=self.limiter,
            policy=self.policy,
            upstream=upstream,
            routing=Routing(address(endpoint), policy=self.policy, offered=offered, answered=self.answered),
            failover=Failover(MemoryCooldowns(clock=self.clock), seconds=60, clock=self.clock, timer=self.timer),
            recorder=self.entries,
            concurrency=self.concurrency,
            read_on=ReadOn(seconds=0, at_once=0),
            preparing=self.preparing,
            revocations=self.revocations,
            most_containers=MOST_CONTAINERS,
            disconnects=self.disconnects,
            answered=self.answered,
            stored=self.owners,
            clock=self.clock,
            timer=self.timer,
        )

    def set_prompt(self, text: str) -> None:
        self.organisation.set_prompt(text, moment(self.clock()))

    def request(
        self, *, body: bytes | None = None, key: str | None = "", gone=None, name: str = "req-1", **fields: object
    ):
        document = {"model": "gpt-4o-mini", "messages": HELLO} | fields
        return CompletionRequest(
            id=name,
            key=self.key if key == "" else key,
            operation=CHAT_COMPLETIONS,
            body=lambda: json.dumps(document).encode() if body is None else body,
            endpoint="/v1/chat/completions",
            client_address="10.0.0.1",
            client_gone=gone,
        )

    def close(self) -> None:
        for upstream in self._upstreams:
            upstream.close()


@pytest.fixture
def house(database, azure, clock):
    with closing(House(database, azure, clock)) as house:
        yield house


def read(reply: Reply) -> bytes:
    if isinstance(reply.body, bytes):
        return reply.body
    with closing(reply.body):
        return b"".join(reply.body)


def test_a_plain_answer(house, azure):
    """The client gets Azure's bytes, the slot is freed, and the record has Azure's count."""
    reply = house.gateway().complete(house.request())

    (served,) = azure.served
    assert (200, served.body_sent) == (reply.status, reply.body)
    record = house.entries.only
    assert ("req-1", house.key_id, "ada", "physics", "10.0.0.1") == (
        record.id,
        record.key_id,
        record.user,
        record.group,
        record.client_address,
    )
    assert (served.usage.total_tokens, UsageSource.UPSTREAM, Outcome.OK, False) == (
        record.total_tokens,
        record.usage_source,
        record.outcome,
        record.stream,
    )
    assert "req-1" == served.client_request_id
    assert 0 == house.concurrency.taken


def test_a_stream(house, azure):
    """A stream keeps its slot until it is closed; the usage event is counted and withheld."""
    reply = house.gateway().complete(house.request(stream=True))
    assert 1 == house.concurrency.taken
    data = read(reply)

    (served,) = azure.served
    assert b'"prompt_tokens"' in served.body_sent
    assert b'"prompt_tokens"' not in data
    assert data.endswith(b"data: [DONE]\n\n")
    assert served.usage.total_tokens == house.entries.only.total_tokens
    assert 0 == house.concurrency.taken


STREAM = b"".join(stream("Hi", "there"))
COUNTED = json.dumps(
    {
        "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }
).encode()


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/octet-stream", "application/json", "text/event-stream"]
)
@pytest.mark.parametrize("split", [None, 1])
def test_a_stream_is_a_stream_whatever_its_type(house, azure, kind, split):
    """The events arrive as they are made, are counted, and get the type that clients rely on."""
    azure.script(Script(raw=Raw(200, {"Content-Type": kind} if kind else {}, STREAM), split=split))

    reply = house.gateway().complete(house.request(stream=True))

    assert isinstance(reply.body, EventStream)
    assert STREAM.replace(FIRST, b"").replace(usage_event(), b"") == read(reply)
    (sent,) = [value for name, value in reply.headers if name == "content-type"]
    assert sent.startswith("text/event-stream")
    record = house.entries.only
    assert (Outcome.OK, UsageSource.UPSTREAM, 10) == (record.outcome, record.usage_source, record.total_tokens)


@pytest.mark.parametrize("kind", [None, "text/event-stream", "application/json"])
@pytest.mark.parametrize("asked", [False, True])
def test_a_document_is_a_document_whatever_its_type(house, azure, kind, asked):
    """A whole completion instead of a stream is passed on as it is, and counted."""
    azure.script(Script(raw=Raw(200, {"Content-Type": kind} if kind else {}, COUNTED)))

    reply = house.gateway().complete(house.request(stream=asked))

    assert (COUNTED, kind) == (read(reply), dict(reply.headers).get("content-type"))
    record = house.entries.only
    assert (Outcome.OK, UsageSource.UPSTREAM, 10) == (record.outcome, record.usage_source, record.total_tokens)


def test_an_error_may_be_typed_as_a_stream(house, azure):
    """It is Azure's error, and not a broken stream."""
    error = b'{"error":{"message":"boom"}}'
    azure.script(Script(raw=Raw(500, {"Content-Type": "text/event-stream"}, error)))

    reply = house.gateway().complete(house.request(stream=True))

    assert (500, error) == (reply.status, reply.body)
    assert Outcome.UPSTREAM_ERROR is house.entries.only.outcome


@pytest.mark.parametrize("asked", [False, True])
def test_an_error_may_be_sent_as_a_stream(house, azure, asked):
    """It is read to its end, passed on as it came, and booked like any other error: the filter's is billed."""
    error = b"data: %b\n\ndata: [DONE]\n\n" % NEWER_FILTER
    azure.script(Script(raw=Raw(400, {"Content-Type": "text/event-stream"}, error)))

    reply = house.gateway().complete(house.request(stream=asked))

    assert (400, error) == (reply.status, reply.body)
    record = house.entries.only
    assert (Outcome.UPSTREAM_ERROR, UsageSource.ESTIMATED, ("jailbreak",)) == (
        record.outcome,
        record.usage_source,
        record.content_filter,
    )
    assert record.total_tokens == record.prompt_tokens > 0


@pytest.mark.parametrize(("choices", "source"), [(1, UsageSource.UPSTREAM), (2, UsageSource.ESTIMATED)])
def test_a_count_is_final_when_all_choices_have_ended(house, azure, choices, source):
    """The client says how many there are: one that was silent so far goes on."""
    cut = chunk("Hi") + chunk(finish="stop") + usage_event()
    azure.script(Script(raw=Raw(200, {"Content-Type": "text/event-stream"}, cut)))

    read(house.gateway().complete(house.request(stream=True, n=choices)))

    assert source is house.entries.only.usage_source


@pytest.mark.parametrize(("body", "asked"), [(STREAM, True), (COUNTED, False)])
@pytest.mark.parametrize(("coding", "code"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_compressed_answer_is_counted(house, azure, body, asked, coding, code):
    """The client gets it decompressed, without Content-Encoding."""
    kind = "text/event-stream" if asked else "application/json"
    azure.script(Script(raw=Raw(200, {"Content-Encoding": coding, "Content-Type": kind}, code(body))))

    reply = house.gateway().complete(house.request(stream=asked))

    assert body.replace(FIRST, b"").replace(usage_event(), b"") == read(reply)
    assert not [name for name, _ in reply.headers if name in ("content-encoding", "content-length")]
    record = house.entries.only
    assert (Outcome.OK, UsageSource.UPSTREAM, 10) == (record.outcome, record.usage_source, record.total_tokens)


@pytest.mark.parametrize("asked", [False, True])
def test_an_answer_that_cannot_be_decoded_is_refused(house, azure, asked):
    """What cannot be counted is not passed on; it is booked as broken."""
    azure.script(Script(raw=Raw(200, {"Content-Encoding": "br"}, b"\x0b\x02")))

    with pytest.raises(UpstreamBroken):
        house.gateway().complete(house.request(stream=asked))

    record = house.entries.only
    assert Outcome.BROKEN is record.outcome
    assert record.total_tokens > record.prompt_tokens > 0  # what it can have contained
    assert 0 == house.concurrency.taken


def test_azures_dialect_keeps_every_event(house, azure):
    """Only the usage event is withheld, because the client did not ask for it."""
    azure.script(Script(raw=Raw(200, {"Content-Type": "text/event-stream"}, STREAM)))

    reply = house.gateway().complete(replace(house.request(stream=True), dialect=Dialect.AZURE))

    assert STREAM.replace(usage_event(), b"") == read(reply)


def test_the_prompt_in_front(house, azure):
    """The next request has the prompt that an admin has set, and its record has the prompt's version."""
    house.set_prompt("Be brief.")

    house.gateway().complete(house.request())

    sent = json.loads(azure.served[0].body)["messages"]
    assert [{"role": "system", "content": "Be brief."}, *HELLO] == sent
    assert 1 == house.entries.only.prompt_version


def test_the_organisations_price(house):
    """The next request has the price that an admin has set."""
    house.policy.set_model("gpt-4o-mini", {"prices": Prices(prompt=1e6, cached=0, completion=0)})

    house.gateway().complete(house.request())

    assert house.entries.only.prompt_tokens == house.entries.only.cost_usd


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"key": None}, InvalidKey),
        ({"key": "unknown"}, InvalidKey),
        ({"body": b"{"}, InvalidRequest),
    ],
)
def test_what_is_refused_leaves_nothing(house, azure, change, error):
    """A request that is refused takes no slot, leaves no record and is not sent to Azure."""
    with pytest.raises(error):
        house.gateway().complete(house.request(**change))

    assert ([], [], 0) == (house.entries.begun, azure.served, house.concurrency.taken)


def test_a_model_that_is_not_allowed(house, azure):
    """A request for a model that the key may not use is not sent to Azure."""
    house.keys.update(house.key_id, {"models": ("o3",)})

    with pytest.raises(ModelNotAllowed):
        house.gateway().complete(house.request())

    assert ([], [], 0) == (house.entries.begun, azure.served, house.concurrency.taken)


def test_a_limit_refuses_before_azure_is_asked(house, azure):
    """A request over a limit costs nothing, leaves no record, and is answered with the headers of its limits."""
    house.keys.update(house.key_id, {"limits": Limits(requests_per_minute=1)})
    gateway = house.gateway()
    headers = dict(gateway.complete(house.request()).headers)
    assert ("1", "0") == (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"])

    with pytest.raises(RateLimited) as refused:
        gateway.complete(house.request(name="req-2"))

    assert "0" == refused.value.headers["x-ratelimit-remaining-requests"]
    assert (1, 1, 0) == (len(house.entries.begun), len(azure.served), house.concurrency.taken)


@pytest.mark.parametrize("stream", [False, True])
def test_the_reported_usage_replaces_the_estimate(house, azure, stream):
    """While a request runs, its prompt and longest answer are reserved; at its end, Azure's count replaces them."""
    house.keys.update(house.key_id, {"limits": Limits(tokens_per_minute=1000)})
    reply = house.gateway().complete(house.request(stream=stream, max_tokens=300, n=2))
    assert str(1000 - 607) == dict(reply.headers)["x-ratelimit-remaining-tokens"]
    read(reply)

    (served,) = azure.served
    assert {"tokens_per_minute": 1000 - served.usage.total_tokens} == house.left()


def test_a_request_without_a_limit_is_reserved_by_the_answers_before(house, azure):
    """Of limits per minute as much as the key's answers usually have; at first 256 tokens."""
    house.keys.update(house.key_id, {"limits": Limits(tokens_per_minute=100_000)})
    gateway = house.gateway()
    left = []
    for number in range(3):
        azure.script(Script(reasoning_tokens=4000))
        reply = gateway.complete(house.request(name=f"req-{number}"))
        left.append(int(dict(reply.headers)["x-ratelimit-remaining-tokens"]))
        house.limiter.close()  # commits what it has collected
    used = [one.usage.total_tokens for one in azure.served]

    reserved = [100_000 - one - sum(used[:number]) for number, one in enumerate(left)]

    assert 256 < reserved[0] < 300
    assert all(0 <= one - 4000 < 100 for one in reserved[1:])


def test_all_that_is_left_of_a_budget_is_held_while_nothing_limits_the_answer(house):
    """The next request waits for a second, or sets a limit and waits, too; afterwards the rest is free again."""
    house.keys.update(house.key_id, {"limits": Limits(budget=Budget(amount=5000, unit=Unit.TOKENS, period=Period.DAY))})
    gateway = house.gateway()
    running = gateway.complete(house.request(stream=True))
    for fields in ({}, {"max_tokens": 1}):
        with pytest.raises(RateLimited, match="running requests hold what is left of it") as refused:
            gateway.complete(house.request(name="req-2", **fields))
        assert 1 == refused.value.retry_after

    read(running)

    gateway.complete(house.request(name="req-3"))


def test_money_is_reserved_at_the_organisations_price(house):
    """The reserved cost uses the price that an admin has set."""
    house.policy.set_model("gpt-4o-mini", {"prices": Prices(prompt=0, cached=0, completion=10_000)})
    house.keys.update(house.key_id, {"limits": Limits(budget=Budget(amount=1, unit=Unit.USD, period=Period.DAY))})

    house.gateway().complete(house.request(max_tokens=50))
    assert house.entries.only.cost_usd > 0
    with pytest.raises(BudgetSpent, match=r"may need 1\.000000 USD"):
        house.gateway().complete(house.request(max_tokens=100, name="req-2"))


def test_money_is_reserved_at_the_price_of_the_model_behind_a_deployment(house, azure):
    """Azure's answer names the model of a deployment; the next estimate uses its price."""
    house.policy.set_model("gpt-4o-mini-2024-07-18", {"prices": Prices(prompt=0, cached=0, completion=10_000)})
    house.keys.update(house.key_id, {"limits": Limits(budget=Budget(amount=1, unit=Unit.USD, period=Period.DAY))})
    gateway = house.gateway()
    reserved = []
    admit = house.limiter.admit

    def admit_and_note(name, who, estimate, **proof):
        reserved.append(estimate.most.cost_usd)
        return admit(name, who, estimate, **proof)

    house.limiter.admit = admit_and_note
    reply = gateway.complete(house.request(model="gpt-4o-mini", max_tokens=10))

    gateway.complete(house.request(name="req-2", max_tokens=10))

    assert json.loads(reply.body)["model"].startswith("gpt-4o-mini-")
    assert reserved[0] < 0.01
    assert 0.1 == pytest.approx(reserved[1])
    assert house.left()["budget"] < 1


def test_definitions_of_tools_are_a_part_of_the_prompt(house):
    """Tools and other definitions are reserved as a part of the prompt."""
    tools = [{"type": "function", "function": {"name": "f", "description": "x" * 4000, "parameters": {}}}]
    house.keys.update(house.key_id, {"limits": Limits(tokens_per_minute=100_000)})

    headers = dict(house.gateway().complete(house.request(tools=tools, max_tokens=10)).headers)

    assert 1000 < 100_000 - int(headers["x-ratelimit-remaining-tokens"]) < 1100


def test_an_error_after_admission_has_the_headers_too(house):
    """An error from Azure is answered with the headers of the limits."""
    house.keys.update(house.key_id, {"limits": Limits(requests_per_minute=5)})

    with pytest.raises(UpstreamUnreachable) as refused:
        house.gateway(url="http://127.0.0.1:9").complete(house.request())

    assert "4" == refused.value.headers["x-ratelimit-remaining-requests"]
    assert {"requests_per_minute": 5} == house.left()


@pytest.mark.parametrize("change", [{"body": b"{"}, {"model": "o3"}])
def test_an_error_before_admission_has_the_headers_too(house, azure, change):
    """A request that is refused for its body or its model counts as one, and is answered with the same headers."""
    house.keys.update(house.key_id, {"limits": Limits(requests_per_minute=5), "models": ("gpt-4o-mini",)})
    gateway = house.gateway()
    read(gateway.complete(house.request()))

    with pytest.raises(GatewayError) as refused:
        gateway.complete(house.request(name="req-2", **change))

    assert ("5", "3", "61s") == tuple(
        refused.value.headers[f"x-ratelimit-{what}-requests"] for what in ("limit", "remaining", "reset")
    )
    assert 1 == len(azure.served)


def unread() -> bytes:
    raise AssertionError("the body was read")


def test_a_key_that_was_refused_is_looked_at_again_before_its_body_is_read(house, azure, clock):
    """A body of a key over its requests per minute costs nothing, until the minute is over."""
    house.keys.update(house.key_id, {"limits": Limits(requests_per_minute=1)})
    gateway = house.gateway()
    gateway.complete(house.request())
    with pytest.raises(RateLimited):
        gateway.complete(house.request(name="req-2"))

    with pytest.raises(RateLimited) as refused:
        gateway.complete(replace(house.request(name="req-3"), body=unread))

    assert ("1", "0") == tuple(refused.value.headers[f"x-ratelimit-{what}-requests"] for what in ("limit", "remaining"))
    assert "key.requests_per_minute" == refused.value.headers["x-llmgateway-limit"]
    clock.advance(61)
    assert 200 == gateway.complete(house.request(name="req-4")).status
    assert 0 == house.concurrency.taken


def test_a_key_whose_limits_were_lifted_is_served_at_once(house):
    """That it was refused a moment ago does not matter then."""
    house.keys.update(house.key_id, {"limits": Limits(requests_per_minute=1)})
    gateway = house.gateway()
    gateway.complete(house.request())
    with pytest.raises(RateLimited):
        gateway.complete(house.request(name="req-2"))

    house.keys.update(house.key_id, {"limits": Limits(requests_per_minute=2)})
    assert 200 == gateway.complete(house.request(name="req-3")).status
    house.keys.update(house.key_id, {"limits": Limits()})
    assert 200 == gateway.complete(house.request(name="req-4")).status


@pytest.mark.parametrize(
    ("status", "change"),
    [
        (400, {"body": b"{"}),
        (400, {"body": b"[" * 1000}),
        (403, {"model": "o3"}),
        (404, {"model": "x" * 300}),
    ],
)
def test_refused_requests_count_as_requests_but_not_in_budgets(house, azure, status, change):
    """After as many of them as the key may make in a minute, the next body is not read any more."""
    budget = Budget(amount=100, unit=Unit.REQUESTS, period=Period.DAY)
    limits = Limits(requests_per_minute=3, tokens_per_minute=1000, budget=budget)
    house.keys.update(house.key_id, {"limits": limits, "models": ("gpt-4o-mini",)})
    gateway = house.gateway()
    statuses = []
    for number in range(4):
        with pytest.raises(GatewayError) as refused:
            gateway.complete(house.request(name=f"req-{number}", **change))
        statuses.append(refused.value.status)
    assert [status] * 4 == statuses

    with pytest.raises(RateLimited):
        gateway.complete(replace(house.request(name="req-9"), body=unread))

    assert {"requests_per_minute": 0, "tokens_per_minute": 1000, "budget": 100} == house.left()
    assert [] == azure.served


def test_a_body_that_is_too_large_counts_too(house):
    """A refusal with 413 counts as a request; one with 502 does not."""
    house.keys.update(house.key_id, {"limits": Limits(requests_per_minute=2)})

    def too_large() -> bytes:
        raise BodyTooLarge("too large")

    with pytest.raises(BodyTooLarge) as refused:
        house.gateway().complete(replace(house.request(), body=too_large))

    assert "1" == refused.value.headers["x-ratelimit-remaining-requests"]


def test_a_key_without_such_a_limit_is_not_counted(house):
    """A limit of tokens alone says nothing about requests."""
    house.keys.update(house.key_id, {"limits": Limits(tokens_per_minute=500)})

    with pytest.raises(InvalidRequest) as refused:
        house.gateway().complete(house.request(body=b"{"))

    assert "500" == refused.value.headers["x-ratelimit-remaining-tokens"]


def test_a_large_body_waits_for_none_and_is_not_read_if_there_are_too_many(house):
    """The bytes of a body count before it is read, and are given back whatever becomes of it."""
    house.preparing = PreparationLimit(most_bytes=10**6, most_bytes_per_key=10**6)
    gateway = house.gateway()
    request = replace(house.request(), body_bytes=600_000)
    with house.preparing.hold("other", 600_000), pytest.raises(Overloaded):
        gateway.complete(replace(request, body=unread))

    assert 200 == gateway.complete(request).status
    with pytest.raises(InvalidRequest):
        gateway.complete(replace(request, body=lambda: b"{"))
    assert (0, 0) == (house.preparing.held, house.concurrency.taken)


def test_a_key_that_holds_its_share_is_refused_before_its_body_is_read(house):
    """The slot that was taken before authentication is given back. Nothing is counted, and the headers are there."""
    house.keys.update(house.key_id, {"limits": Limits(requests_per_minute=5)})
    house.concurrency = ConcurrencyLimit(4, key_share=0.75)
    for _ in range(3):
        house.concurrency.take()
        house.concurrency.assign(house.key_id)

    with pytest.raises(Overloaded, match="your key holds 3 of 4 places") as refused:
        house.gateway().complete(replace(house.request(), body=unread))

    assert 3 == house.concurrency.taken
    assert "5" == refused.value.headers["x-ratelimit-remaining-requests"]


@pytest.mark.parametrize(
    "revoke",
    [
        lambda keys, key_id: keys.remove(key_id),
        lambda keys, key_id: keys.update(key_id, {"active": False}),
        lambda keys, key_id: keys.rotate(key_id),
        lambda keys, _: keys.revoke_group("physics"),
    ],
    ids=["removed", "blocked", "replaced", "group"],
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_revoked_key_ends_its_running_requests(house, azure, revoke, stream):
    """The client is told; the record has the outcome and the tokens of an abandoned answer."""
    azure.script(Script(stall_after_events=4 if stream else 0))
    got: list[object] = []

    def run() -> None:
        try:
            got.append(read(house.gateway().complete(house.request(stream=stream))))
        except GatewayError as error:
            got.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    azure.wait_for(lambda served: served and (served[0].events_sent >= 4 or not stream))
    revoke(house.keys, house.key_id)
    thread.join(10)

    (answer,) = got
    if stream:
        assert b'"code":"invalid_api_key"' in answer
        assert not answer.endswith(b"data: [DONE]\n\n")
    else:
        assert (401, "invalid_api_key") == (answer.status, answer.code)
    record = house.entries.only
    assert Outcome.REVOKED == record.outcome
    assert record.usage_source is (UsageSource.ESTIMATED if stream else UsageSource.BOUND)
    assert record.completion_tokens > 0
    azure.wait_for(lambda served: served[0].peer_left)
    assert 0 == house.concurrency.taken


def test_dates_and_overlaps_end_no_running_request(house, azure, clock):
    """An expiry date, and a rotation with an overlap, are no revocation: also when they have come."""
    sent = digest(house.key)
    house.keys.rotate(house.key_id, overlap_seconds=60)
    house.keys.update(house.key_id, {"expires_at": moment(clock() + 30)})
    clock.advance(120)

    assert not house.keys.is_revoked(sent, house.key_id)
    with pytest.raises(InvalidKey):
        house.keys.authenticate(house.key)
    house.keys.rotate(house.key_id, overlap_seconds=60)
    assert house.keys.is_revoked(sent, house.key_id)


def test_the_groups_prompt_and_models_hold(house, azure):
    """A group's prompt replaces the organisation's, and its keys may use only its models."""
    house.set_prompt("Be brief.")
    prompt = house.organisation.add_prompt("Be kind.", moment(house.clock()), scope="group:physics")
    house.organisation.update_group("physics", {"models": ("gpt-4o-mini",), "prompt": prompt})

    house.gateway().complete(house.request())
    with pytest.raises(ModelNotAllowed):
        house.gateway().complete(house.request(model="o3"))

    assert "Be kind." == json.loads(azure.served[0].body)["messages"][0]["content"]
    assert 2 == house.entries.only.prompt_version


def test_a_preview_is_what_would_be_sent(house, azure):
    """A preview makes the same checks as a request, and is not sent to Azure."""
    house.set_prompt("Be brief.")
    principal = house.keys.authenticate(house.key)
    body = house.request(stream=True).body()

    preview = house.gateway().preview(principal, body)
    read(house.gateway().complete(house.request(stream=True)))

    assert preview == azure.served[0].body
    with pytest.raises(InvalidRequest):
        house.gateway().preview(principal, b"{")


def test_one_request_too_many(house, azure):
    """If all slots are taken, the request is refused before anything is looked up."""
    gateway = house.gateway()
    replies = [gateway.complete(house.request(stream=True)) for _ in range(2)]

    with pytest.raises(Overloaded):
        gateway.complete(house.request(key=None))

    for reply in replies:
        reply.body.close()
    assert 200 == gateway.complete(house.request()).status


def test_a_failing_recorder_takes_no_slot(house, monkeypatch):
    """A request whose record cannot be written is not sent."""

    def fail(record: object, bound: object) -> None:
        raise StoreUnavailable("no")

    monkeypatch.setattr(house.entries, "begin", fail)

    with pytest.raises(StoreUnavailable):
        house.gateway().complete(house.request())

    assert (0, []) == (house.concurrency.taken, house.azure.served)


def test_a_failing_recorder_leaves_no_reservation(house, monkeypatch):
    """The reservation of a request that is not sent is refunded."""
    house.keys.update(house.key_id, {"limits": Limits(requests_per_minute=1, parallel_requests=1)})
    monkeypatch.setattr(house.entries, "begin", lambda record, bound: 1 / 0)

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            house.gateway().complete(house.request())


def test_a_client_that_cannot_be_watched_takes_nothing(house, monkeypatch):
    """If no thread can be started, the request fails, and its slot and its reservation are released."""

    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    house.keys.update(house.key_id, {"limits": Limits(requests_per_minute=1, parallel_requests=1)})
    with monkeypatch.context() as patched:
        patched.setattr(house.disconnects, "add", fail)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="thread"):
                house.gateway().complete(house.request(gone=lambda: False))

    assert (0, [], ["req-1"] * 3) == (house.concurrency.taken, house.azure.served, house.entries.cancelled)
    assert 200 == house.gateway().complete(house.request(name="req-2")).status


@pytest.mark.parametrize(
    ("script", "error", "outcome"),
    [
        (Script(refuse=True), UpstreamBroken, Outcome.BROKEN),
        (Script(cut_after_bytes=30), UpstreamBroken, Outcome.BROKEN),
        (Script(delay=30), UpstreamTimeout, Outcome.TIMEOUT),
    ],
)
def test_an_error_after_sending_is_recorded(house, azure, script, error, outcome):
    """A request that Azure may bill leaves a record with the most that it can have cost, and its slot is freed."""
    azure.script(script)

    with pytest.raises(error):
        house.gateway(first_byte_timeout=0.2).complete(house.request())

    record = house.entries.only
    assert (outcome, UsageSource.BOUND) == (record.outcome, record.usage_source)
    assert (7, 150, 157) == (record.prompt_tokens, record.completion_tokens, record.total_tokens)
    assert 0 == house.concurrency.taken


def test_an_unreachable_azure_is_not_recorded(house):
    """A request that was not sent leaves no record."""
    with pytest.raises(UpstreamUnreachable):
        house.gateway(url="http://azure.invalid").complete(house.request())

    assert (["req-1"], []) == (house.entries.cancelled, house.entries.ended)
    assert 0 == house.concurrency.taken


def test_what_fails_before_it_is_sent_is_not_recorded(house, azure):
    """After a bug of the gateway, a request that was not sent costs nothing."""
    house.policy.set_credential("no header can carry \u2026")

    with pytest.raises(UnicodeEncodeError):
        house.gateway().complete(house.request())

    assert ([], ["req-1"], []) == (azure.served, house.entries.cancelled, house.entries.ended)
    assert 0 == house.concurrency.taken


@pytest.mark.parametrize("fault", ["token_rate_limit", "server_error", "deployment_not_found"])
def test_azures_errors_are_the_clients(house, azure, fault):
    """Azure's error is passed on unchanged, costs nothing and is recorded as an error."""
    azure.script(Script(fault=fault))

    reply = house.gateway().complete(house.request(stream=True))

    assert (azure.served[0].status, azure.served[0].body_sent) == (reply.status, reply.body)
    record = house.entries.only
    assert (Outcome.UPSTREAM_ERROR, UsageSource.NONE, 0, reply.status) == (
        record.outcome,
        record.usage_source,
        record.total_tokens,
        record.status,
    )
    assert () == record.content_filter


NEWER_FILTER = (
    b'{"error":{"message":"The response was filtered due to the prompt triggering Azure OpenAI\xe2\x80\x99s content '
    b'management policy.","type":"invalid_request_error","param":"prompt","code":"content_filter","content_filters":['
    b'{"blocked":true,"source_type":"prompt","content_filter_raw":[],"content_filter_results":{"jailbreak":{"detected":'
    b'true,"filtered":true},"hate":{"filtered":false,"severity":"safe"}},"content_filter_offsets":{"start_offset":0}}],'
    b'"innererror":{"code":"ContentFiltered"}}}'
)
TIMED_OUT = b'{"error":{"code":"408","message":"Request timed out."}}'


def test_an_image_counts_by_the_model_of_the_last_answer(house, azure):
    """Whatever the deployment is called. Before the first answer, its name decides."""
    content = [{"type": "image_url", "image_url": {"url": "https://x.invalid/y.png"}}]
    messages = [{"role": "user", "content": content}]
    azure.script(Script(model="gpt-4o-mini-2024-07-18"))
    gateway = house.gateway()

    for _ in range(2):
        gateway.complete(house.request(model="gpt-4o", messages=messages))

    assert [1_445 + 6, 48_169 + 6] == [record.prompt_tokens for record in house.entries.begun]


@pytest.mark.parametrize(
    ("script", "fired"),
    [
        (Script(fault="content_filter"), ("sexual",)),
        (Script(raw=Raw(400, {"Content-Type": "application/json"}, NEWER_FILTER)), ("jailbreak",)),
        (Script(raw=Raw(408, {"Content-Type": "application/json"}, TIMED_OUT)), ()),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_that_azure_bills_are_booked(house, azure, script, fired, stream):
    """A prompt that the filter stopped, or that took too long, was read: its estimate is booked, with its price."""
    azure.script(script)

    reply = house.gateway().complete(house.request(stream=stream))

    assert (azure.served[0].status, azure.served[0].body_sent) == (reply.status, reply.body)
    record = house.entries.only
    assert (Outcome.UPSTREAM_ERROR, UsageSource.ESTIMATED) == (record.outcome, record.usage_source)
    assert 0 < record.prompt_tokens == record.total_tokens
    assert record.cost_usd > 0
    assert fired == record.content_filter


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 399])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("location", [{}, {"Location": "https://elsewhere.example/openai?sig=secret"}])
def test_a_redirect_says_that_azure_has_moved(house, azure, status, stream, location, caplog):
    """It is never followed and books nothing; the log says what to do, and only the log says where Azure points to."""
    azure.script(Script(raw=Raw(status, location, b"")))

    with pytest.raises(UpstreamMoved) as moved:
        house.gateway().complete(house.request(stream=stream))

    assert (502, "upstream_moved", 1) == (moved.value.status, moved.value.code, len(azure.served))
    assert "elsewhere" not in str(moved.value.as_json())
    record = house.entries.only
    assert (Outcome.UPSTREAM_ERROR, UsageSource.NONE, 0, 0.0, status) == (
        record.outcome,
        record.usage_source,
        record.total_tokens,
        record.cost_usd,
        record.status,
    )
    assert "LLM_BASE_URL" in caplog.text
    assert bool(location) == ("https://elsewhere.example/openai" in caplog.text)
    assert "secret" not in caplog.text
    assert 0 == house.concurrency.taken


class TestUnknownModels:
    def names(self, house) -> set[str]:
        return {record.counted_model for record in house.entries.ended}

    def test_are_one_name_if_azure_does_not_know_them(self, house, azure):
        """The record has what was asked, cut to 100 characters; the sums have one name."""
        gateway = house.gateway()
        for number in range(3):
            gateway.complete(house.request(model=f"made-up-{number}-{'x' * 200}"))

        assert {"unknown"} == self.names(house)
        assert [f"made-up-{number}-".ljust(100, "x") for number in range(3)] == [
            record.model for record in house.entries.ended
        ]

    @pytest.mark.parametrize(
        "script",
        [
            Script(fault="token_rate_limit"),
            Script(fault="content_filter"),
            Script(fault="unauthorized"),
            Script(refuse=True),
            Script(raw=Raw(400, {}, b'{"error":{"code":"unknown_model","message":"Unknown model: x"}}')),
            Script(raw=Raw(307, {}, b"")),
        ],
    )
    def test_are_unknown_until_azure_answers_them(self, house, azure, script):
        """However the request ended."""
        azure.script(script)

        with suppress(GatewayError):
            house.gateway().complete(house.request(model="made-up"))

        assert {"unknown"} == self.names(house)
        assert {"unknown"} == {record.counted_model for record in house.entries.begun}

    @pytest.mark.parametrize("script", [Script(fault="deployment_not_found"), Script(raw=Raw(404, {}, b""))])
    def test_are_those_that_azure_says_are_unknown(self, house, azure, script):
        """Also if the price list, or an admin, has the name."""
        azure.script(script)

        house.gateway(offered=("gpt-4o-mini",)).complete(house.request())

        assert {"unknown"} == self.names(house)
        assert {True} == {record.model_known for record in house.entries.begun}

    def test_that_azure_has_answered_are_known(self, house, azure):
        """From the first answer on, also if a later one is an error."""
        gateway = house.gateway("/openai/deployments/gpt-4o?api-version=2024-10-21")
        gateway.complete(house.request(model="our-own"))
        azure.script(Script(fault="token_rate_limit"))
        gateway.complete(house.request(model="our-own", name="req-2"))

        assert {"our-own"} == self.names(house)

    def test_that_an_admin_has_named_are_known(self, house, azure):
        """By the models on offer, of the key, or with prices of their own; so are the models in the price list."""
        house.policy.set_model("with-prices", {"prices": Prices(prompt=1, cached=0, completion=0)})
        house.keys.update(house.key_id, {"models": ["of-the-key", "offered", "with-prices", "gpt-4o-mini"]})
        azure.script(Script(fault="token_rate_limit"), times=None)

        for model, offered in (("of-the-key", ()), ("offered", ("offered",)), ("with-prices", ()), ("gpt-4o-mini", ())):
            house.gateway(offered=offered).complete(house.request(model=model, name=f"req-{model}"))

        assert {"of-the-key", "offered", "with-prices", "gpt-4o-mini"} == self.names(house)


@pytest.mark.parametrize("fault", ["unauthorized", "permission_denied", "network_denied", "blocked"])
def test_a_refused_credential_is_not_the_users_fault(house, azure, fault, caplog):
    """After Azure's 401 or 403 the client learns that its key is valid, and the admin learns what to do."""
    gateway = house.gateway()
    azure.script(Script(fault=fault))
    with pytest.raises(UpstreamCredentials, match="Your key is fine"):
        gateway.complete(house.request())

    assert "refused by Azure" in gateway.credentials.problem()
    assert "setllmkey" in caplog.text
    assert (Outcome.UPSTREAM_ERROR, 0) == (house.entries.only.outcome, house.concurrency.taken)

    gateway.complete(house.request())
    assert gateway.credentials.problem() is None


def test_no_credential_at_all(house, azure):
    """Without a usable key for Azure nothing is sent."""
    OrganisationPolicy(house.organisation, CredentialCipher("other"), fallback=None, clock=house.clock).set_credential(
        "unreadable here"
    )

    with pytest.raises(UpstreamCredentials):
        house.gateway().complete(house.request())

    assert ([], [], 0) == (house.entries.begun, azure.served, house.concurrency.taken)


class TestADeploymentWithoutStreamOptions:
    @pytest.mark.parametrize("fault", ["unknown_parameter", "unrecognized_argument"])
    def test_is_asked_again_and_remembered(self, house, azure, fault):
        """The request is sent again without stream_options; later ones are sent without them at once."""
        gateway = house.gateway()
        azure.script(Script(fault=fault))

        for _ in range(2):
            assert read(gateway.complete(house.request(stream=True))).endswith(b"data: [DONE]\n\n")

        assert [400, 200, 200] == [served.status for served in azure.served]
        assert [True, False, False] == [b"stream_options" in served.body for served in azure.served]
        assert [UsageSource.ESTIMATED] * 2 == [record.usage_source for record in house.entries.ended]
        assert [Outcome.OK] * 2 == [record.outcome for record in house.entries.ended]
        assert 0 == house.concurrency.taken

    @pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
    @pytest.mark.parametrize("shape", REFUSALS)
    def test_is_asked_again_whatever_the_shape_of_its_refusal(self, house, azure, shape, kind):
        """Partner models refuse stream_options in their own ways, some with 422, or in an event."""
        status, document = REFUSALS[shape]
        body = json.dumps(document).encode()
        if kind == "text/event-stream":
            body = b"data: %b\n\n" % body
        azure.script(Script(raw=Raw(status, {"Content-Type": kind}, body)))
        gateway = house.gateway()

        for _ in range(2):
            assert read(gateway.complete(house.request(stream=True))).endswith(b"data: [DONE]\n\n")

        assert [True, False, False] == [b"stream_options" in served.body for served in azure.served]

    def test_is_tried_again_after_some_minutes(self, house, azure):
        """Then its usage is reported again, if it has learnt to."""
        gateway = house.gateway()
        azure.script(Script(fault="unknown_parameter"))
        read(gateway.complete(house.request(stream=True)))
        house.timer.advance(FORGET_SECONDS)
        read(gateway.complete(house.request(name="req-2", stream=True)))

        assert [True, False, True] == [b"stream_options" in served.body for served in azure.served]
        assert [UsageSource.ESTIMATED, UsageSource.UPSTREAM] == [each.usage_source for each in house.entries.ended]

    def test_is_that_kind_of_request_only(self, house, azure):
        """One odd request that is refused changes nothing for the others."""
        gateway = house.gateway()
        azure.script(Script(fault="unknown_parameter"))
        read(gateway.complete(house.request(stream=True, response_format={"type": "text"})))

        read(gateway.complete(house.request(name="req-2", stream=True)))

        assert UsageSource.UPSTREAM == house.entries.ended[-1].usage_source

    def test_is_only_that_one(self, house, azure):
        """Other deployments still report their usage."""
        gateway = house.gateway()
        azure.script(Script(fault="unknown_parameter"))
        read(gateway.complete(house.request(stream=True)))

        read(gateway.complete(house.request(stream=True, model="gpt-4o")))

        assert UsageSource.UPSTREAM == house.entries.ended[-1].usage_source

    def test_differs_from_a_client_that_asked(self, house, azure):
        """A client that sent stream_options gets Azure's error."""
        azure.script(Script(fault="unknown_parameter"))

        reply = house.gateway().complete(house.request(stream=True, stream_options={"include_obfuscation": False}))

        assert (400, 1) == (reply.status, len(azure.served))

    def test_that_fails_again_is_not_asked_a_third_time(self, house, azure):
        """A request is sent at most twice."""
        azure.script(Script(fault="unknown_parameter"), times=2)

        gateway = house.gateway()
        assert 400 == gateway.complete(house.request(stream=True)).status
        assert (2, 1) == (len(azure.served), len(house.entries.ended))

        # Azure refused something else of this client, so other clients' usage is still asked for.
        read(gateway.complete(house.request(name="req-2", stream=True)))
        assert UsageSource.UPSTREAM == house.entries.ended[-1].usage_source

    def test_that_fails_at_the_second_attempt_is_recorded(self, house, azure):
        """The first attempt has reached Azure, so there is one record, even if the second attempt fails."""
        azure.script(Script(fault="unknown_parameter"))
        azure.script(Script(refuse=True))

        with pytest.raises(GatewayError):
            house.gateway().complete(house.request(stream=True))

        assert 1 == len(house.entries.ended)
        assert [] == house.entries.cancelled


class TestAClientThatLeaves:
    def test_before_azure_answers(self, house, azure):
        """The request to Azure is cancelled, and its usage is estimated."""
        azure.script(Script(delay=30))
        gone = threading.Event()
        threading.Thread(target=lambda: (azure.wait_for(lambda served: served), gone.set())).start()

        with pytest.raises(ClientGone):
            house.gateway().complete(house.request(gone=gone.is_set))

        azure.wait_for(lambda served: served[0].peer_left)
        assert (Outcome.CLIENT_CLOSED, 0) == (house.entries.only.outcome, house.concurrency.taken)

    def test_in_the_middle_of_a_stream(self, house, azure):
        """A stream that is closed early is cancelled at Azure, and its usage so far is recorded."""
        azure.script(Script(stall_after_events=4))
        reply = house.gateway().complete(house.request(stream=True))
        next(reply.body)

        reply.body.close()

        azure.wait_for(lambda served: served[0].peer_left)
        assert (Outcome.CLIENT_CLOSED, 0) == (house.entries.only.outcome, house.concurrency.taken)

    def test_a_predicted_output_is_unseen_work(self, house, azure):
        """What of it the model rejects is billed, and nobody sees it."""
        azure.script(Script(stall_after_events=4))
        prediction = {"type": "content", "content": "one two three"}
        reply = house.gateway().complete(house.request(stream=True, prediction=prediction))
        next(reply.body)

        reply.body.close()

        assert UsageSource.BOUND is house.entries.only.usage_source

    def test_is_not_watched_any_longer(self, house, azure):
        """A request that has ended is not checked again."""
        asked = threading.Event()
        gateway = house.gateway()

        gateway.complete(house.request(gone=lambda: asked.set() or False))

        assert 0 == house.disconnects.watched


@pytest.mark.parametrize(
    ("path", "offered", "models", "listed"),
    [
        ("/openai/v1", (), None, []),
        ("/openai/v1", ("a", "b"), None, ["a", "b"]),
        ("/openai/v1", ("a", "b"), ("b", "c"), ["b"]),
        ("/openai/v1", (), ("b", "c"), ["b", "c"]),
        ("/openai/deployments/gpt", (), None, ["gpt"]),
        ("/openai/deployments/gpt", ("a",), None, ["a"]),
    ],
)
def test_lists_models(house, path, offered, models, listed):
    """A key sees the models that are offered and allowed."""
    record = house.keys.update(house.key_id, {"models": models})
    principal = Principal(record, house.organisation.load())

    assert listed == house.gateway(path, offered=offered).routing.models(principal)


def test_an_unusable_credential_is_logged_once_a_minute(house, azure, caplog):
    """With the reason. Every request of every user fails, and the log must stay readable."""
    gateway = house.gateway()
    azure.script(Script(fault="unauthorized"), times=3)
    for _ in range(3):
        with pytest.raises(UpstreamCredentials):
            gateway.complete(house.request())

    [line] = [record.getMessage() for record in caplog.records if "upstream_credentials" in record.getMessage()]
    assert "Azure refused it with status 401" in line


def test_a_missing_credential_is_logged(house, caplog, monkeypatch):
    """Nothing was sent, so Azure's answer cannot say it."""

    def missing(_):
        raise UpstreamCredentials("none")

    gateway = house.gateway()
    monkeypatch.setattr(gateway.policy, "credential", missing)
    with pytest.raises(UpstreamCredentials):
        gateway.complete(house.request())

    assert "there is none" in caplog.text


def test_reprs_contain_no_secret(house):
    """The repr of a request contains neither the key nor the conversation."""
    shown = repr(house.request())

    assert house.key not in shown
    assert "Hello" not in shown


def test_threads_leave_nothing_behind(house, azure):
    """After many concurrent requests, good and bad, all slots are free, and each request has one record."""
    house.concurrency.capacity = 32
    gateway = house.gateway()
    azure.script(Script(cut_after_events=2), times=4)

    def one() -> None:
        with suppress(GatewayError):
            read(gateway.complete(house.request(stream=True)))

    threads = [threading.Thread(target=one) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert (16, 16) == (len(house.entries.ended), len(azure.served))
    wait_until(lambda: 0 == house.concurrency.taken)
    assert 4 == sum(record.outcome is Outcome.BROKEN for record in house.entries.ended)
