"""The pipeline with a real store and a simulated Azure, without the web layer."""

from __future__ import annotations

import json
import threading
from contextlib import closing, suppress

import pytest

from llmgateway.accounts.credential import CredentialCipher
from llmgateway.accounts.keys import Keys
from llmgateway.accounts.policy import OrganisationPolicy
from llmgateway.azure.client import AzureClient
from llmgateway.azure.endpoint import Endpoint
from llmgateway.errors import (
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
    UpstreamTimeout,
    UpstreamUnreachable,
)
from llmgateway.proxy.concurrency import ConcurrencyLimit
from llmgateway.proxy.disconnects import DisconnectWatcher
from llmgateway.proxy.pipeline import CompletionRequest, Gateway, Reply
from llmgateway.proxy.stream import ReadToEnd
from llmgateway.ratelimit.limiter import Limiter
from llmgateway.ratelimit.memory import MemoryCounters
from llmgateway.ratelimit.running import RunningReservations
from llmgateway.records import Budget, Group, Limits, Outcome, Period, Prices, Unit, UsageSource, moment
from llmgateway.simulator import Script, Simulator
from llmgateway.stores.circuit import Circuit
from llmgateway.stores.spending import LoggedSpending
from llmgateway.stores.sqlite import (
    SQLiteDatabase,
    SQLiteKeys,
    SQLiteOrganisation,
    SQLiteUsageLog,
)
from tests.parts import Entries, Stopwatch
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
        self.concurrency = ConcurrencyLimit(2)
        self.disconnects = DisconnectWatcher()
        self._upstreams: list[AzureClient] = []
        self.key_id, self.key = self._hand_out()

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
            endpoint,
            key_header="api-key",
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
            endpoint=endpoint,
            recorder=self.entries,
            concurrency=self.concurrency,
            read_to_end=ReadToEnd(seconds=0, at_once=0, timer=Stopwatch()),
            disconnects=self.disconnects,
            offered=offered,
            clock=self.clock,
            timer=Stopwatch(),
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
            body=json.dumps(document).encode() if body is None else body,
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


def test_the_prompt_in_front(house, azure):
    """The next request has the prompt that an admin has set, and its record has the prompt's version."""
    house.set_prompt("Be brief.")

    house.gateway().complete(house.request())

    sent = json.loads(azure.served[0].body)["messages"]
    assert [{"role": "system", "content": "Be brief."}, *HELLO] == sent
    assert 1 == house.entries.only.prompt_version


def test_the_organisations_price(house):
    """The next request has the price that an admin has set."""
    house.policy.set_prices("gpt-4o-mini", Prices(prompt=1e6, cached=0, completion=0))

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
    assert str(1000 - 602) == dict(reply.headers)["x-ratelimit-remaining-tokens"]
    read(reply)

    (served,) = azure.served
    (allowance,) = house.limiter.allowances(house.keys.authenticate(house.key)).values()
    assert {"tokens_per_minute": 1000 - served.usage.total_tokens} == allowance.remaining


def test_money_is_reserved_at_the_organisations_price(house):
    """The reserved cost uses the price that an admin has set."""
    house.policy.set_prices("gpt-4o-mini", Prices(prompt=0, cached=0, completion=10_000))
    house.keys.update(house.key_id, {"limits": Limits(budget=Budget(amount=1, unit=Unit.USD, period=Period.DAY))})

    house.gateway().complete(house.request(max_tokens=50))
    assert house.entries.only.cost_usd > 0
    with pytest.raises(BudgetSpent, match=r"may need 1\.000000 USD"):
        house.gateway().complete(house.request(max_tokens=100, name="req-2"))


def test_money_is_reserved_at_the_price_of_the_model_behind_a_deployment(house, azure):
    """Azure's answer names the model of a deployment; the next estimate uses its price."""
    house.policy.set_prices("gpt-4o-mini-2024-07-18", Prices(prompt=0, cached=0, completion=10_000))
    house.keys.update(house.key_id, {"limits": Limits(budget=Budget(amount=1, unit=Unit.USD, period=Period.DAY))})
    principal = house.keys.authenticate(house.key)
    gateway = house.gateway()
    reserved = []
    admit = house.limiter.admit

    def admit_and_note(name, who, estimate, **proof):
        reserved.append(estimate.cost_usd)
        return admit(name, who, estimate, **proof)

    house.limiter.admit = admit_and_note
    reply = gateway.complete(house.request(model="gpt-4o-mini", max_tokens=10))

    gateway.complete(house.request(name="req-2", max_tokens=10))

    assert json.loads(reply.body)["model"].startswith("gpt-4o-mini-")
    assert reserved[0] < 0.01
    assert 0.1 == pytest.approx(reserved[1])
    assert house.limiter.allowances(principal)["key"].remaining["budget"] < 1


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
    (allowance,) = house.limiter.allowances(house.keys.authenticate(house.key)).values()
    assert {"requests_per_minute": 5} == allowance.remaining


@pytest.mark.parametrize("change", [{"body": b"{"}, {"model": "o3"}])
def test_an_error_before_admission_has_the_headers_too(house, azure, change):
    """A request that is refused for its body or its model reserves nothing, and is answered with the same headers."""
    house.keys.update(house.key_id, {"limits": Limits(requests_per_minute=5), "models": ("gpt-4o-mini",)})
    gateway = house.gateway()
    read(gateway.complete(house.request()))

    with pytest.raises(GatewayError) as refused:
        gateway.complete(house.request(name="req-2", **change))

    assert ("5", "4", "61s") == tuple(
        refused.value.headers[f"x-ratelimit-{what}-requests"] for what in ("limit", "remaining", "reset")
    )
    assert 1 == len(azure.served)


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
    body = house.request(stream=True).body

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

    def fail(record: object) -> None:
        raise StoreUnavailable("no")

    monkeypatch.setattr(house.entries, "begin", fail)

    with pytest.raises(StoreUnavailable):
        house.gateway().complete(house.request())

    assert (0, []) == (house.concurrency.taken, house.azure.served)


def test_a_failing_recorder_leaves_no_reservation(house, monkeypatch):
    """The reservation of a request that is not sent is refunded."""
    house.keys.update(house.key_id, {"limits": Limits(requests_per_minute=1, parallel_requests=1)})
    monkeypatch.setattr(house.entries, "begin", lambda record: 1 / 0)

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
    """A request that Azure may bill leaves an estimated record, and its slot is freed."""
    azure.script(script)

    with pytest.raises(error):
        house.gateway(first_byte_timeout=0.2).complete(house.request())

    record = house.entries.only
    assert (outcome, UsageSource.ESTIMATED) == (record.outcome, record.usage_source)
    assert (record.prompt_tokens, record.prompt_tokens) == (2, record.total_tokens)
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


@pytest.mark.parametrize("fault", ["token_rate_limit", "content_filter", "server_error", "deployment_not_found"])
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
    assert (("sexual",) if fault == "content_filter" else ()) == record.content_filter


@pytest.mark.parametrize("fault", ["unauthorized", "permission_denied", "network_denied", "blocked"])
def test_a_refused_credential_is_not_the_users_fault(house, azure, fault, caplog):
    """After Azure's 401 or 403 the client learns that its key is valid, and the admin learns what to do."""
    gateway = house.gateway()
    azure.script(Script(fault=fault))
    with pytest.raises(UpstreamCredentials, match="Your key is fine"):
        gateway.complete(house.request())

    assert gateway.credential_refused
    assert "setllmkey" in caplog.text
    assert (Outcome.UPSTREAM_ERROR, 0) == (house.entries.only.outcome, house.concurrency.taken)

    gateway.complete(house.request())
    assert not gateway.credential_refused


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

    assert listed == house.gateway(path, offered=offered).models(record)


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
