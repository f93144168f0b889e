"""Counts, prices and errors that are not as documented, from Azure's wire to the record."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from llmgateway.simulator import FAULTS, REFUSALS_OF_STREAM_OPTIONS, Deployment, Script, Simulator
from tests.gateway_process import GatewayProcess
from tests.servers import wait_until

from .conftest import AZURE_KEY

REFUSAL = "deployment-of-the-refusals"


@pytest.fixture(scope="module")
def resource() -> Iterator[Simulator]:
    deployments = (
        "gpt-4o-mini",
        "gpt-4o",
        "gpt-4o-audio-preview",
        "o4-mini",
        *(Deployment(f"{REFUSAL}-{name}", model="Mistral-Large") for name in REFUSALS_OF_STREAM_OPTIONS),
    )
    with Simulator(key=AZURE_KEY, deployments=deployments) as simulator:
        yield simulator


@pytest.fixture
def azure(resource: Simulator) -> Simulator:
    resource.reset()
    return resource


@pytest.fixture(scope="module")
def gateway(resource: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    environ = {"LLM_BASE_URL": f"{resource.url}/openai/v1", "LLM_API_KEY": AZURE_KEY}
    with GatewayProcess(environ, folder=tmp_path_factory.mktemp("bills")) as process:
        yield process
        process.stop()


@pytest.fixture(scope="module")
def key(gateway: GatewayProcess) -> str:
    return gateway.key()


@pytest.fixture
def booked(gateway: GatewayProcess, azure: Simulator) -> Callable[[], dict[str, Any]]:
    """Return the record of the last request that Azure has seen, as soon as it is in the books."""

    def read() -> dict[str, Any]:
        with closing(sqlite3.connect(gateway.instance / "gateway.sqlite")) as database:
            database.row_factory = sqlite3.Row
            last = azure.served[-1].client_request_id
            return dict(database.execute("SELECT * FROM logs WHERE id = ?", [last]).fetchone() or {})

    def wait() -> dict[str, Any]:
        wait_until(read, what="the record")
        return read()

    return wait


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("usage", "prompt", "completion", "reasoning"),
    [
        ({"prompt_tokens": 1000.0, "completion_tokens": 500.0, "total_tokens": 1500.0}, 1000, 500, 0),
        # Grok in Foundry, recorded 2025-10: the reasoning is not in the completion.
        (
            {
                "completion_tokens": 16,
                "completion_tokens_details": {"reasoning_tokens": 431},
                "prompt_tokens": 20,
                "total_tokens": 467,
            },
            20,
            447,
            431,
        ),
        # DeepSeek in Foundry.
        (
            {"completion_tokens": 7, "prompt_tokens": 9, "prompt_tokens_details": None, "total_tokens": 16},
            9,
            7,
            0,
        ),
    ],
    ids=["floats", "Grok", "DeepSeek"],
)
def test_a_recorded_count_is_read(gateway, key, azure, booked, usage, prompt, completion, reasoning, stream):
    """In whatever form the maker of the model sends it."""
    azure.script(Script(usage=usage))
    gateway.chat(key, stream=stream)

    record = booked()
    found = (record["prompt_tokens"], record["completion_tokens"], record["total_tokens"], record["reasoning_tokens"])
    assert (prompt, completion, prompt + completion, reasoning) == found
    assert "upstream" == record["usage_source"]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("model", "script", "cost"),
    [
        ("gpt-4o", Script(prompt_tokens=1000, tokens=500), 0.0075),
        ("gpt-4o", Script(prompt_tokens=1000, tokens=500, service_tier="default"), 0.0075),
        ("gpt-4o", Script(prompt_tokens=1000, tokens=500, service_tier="priority"), 0.01275),
        (
            "gpt-4o-audio-preview",
            Script(prompt_tokens=1000, tokens=500, audio_prompt_tokens=900, audio_completion_tokens=400),
            0.06925,
        ),
    ],
    ids=["text", "default tier", "priority", "audio"],
)
def test_sound_and_tiers_have_their_own_prices(gateway, key, azure, booked, model, script, cost, stream):
    """By the tier that has served, not the one that was asked for."""
    azure.script(script)
    gateway.chat(key, model=model, stream=stream, service_tier="auto")

    assert pytest.approx(cost) == booked()["cost_usd"]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("fault", "status"), [("content_filter", 400), ("content_filter_newer", 400), ("timeout", 408)]
)
def test_an_error_that_azure_bills_is_booked(gateway, key, azure, booked, fault, status, stream):
    """Its prompt, marked as an estimate; the client gets Azure's own answer."""
    azure.script(Script(fault=fault))
    answer = gateway.chat(key, "What do I have to say " * 20, stream=stream)

    record = booked()
    [served] = azure.served
    assert (status, served.body_sent) == (answer.status, answer.body)
    assert ("upstream_error", status, "estimated") == (record["outcome"], record["status"], record["usage_source"])
    assert served.billed.prompt_tokens <= record["prompt_tokens"]
    assert served.billed.completion_tokens == record["completion_tokens"] == 0
    assert record["cost_usd"] > 0


FREE = sorted(
    name
    for name in FAULTS.keys() - REFUSALS_OF_STREAM_OPTIONS.keys()
    if not name.startswith(("content_filter", "timeout", "moved"))
)


@pytest.mark.parametrize("fault", FREE)
def test_every_other_error_costs_nothing(gateway, key, azure, booked, fault):
    """Azure does not bill it."""
    azure.script(Script(fault=fault))
    gateway.chat(key)

    record = booked()
    assert azure.served[0].billed is None
    assert ("upstream_error", "none", 0, 0) == (
        record["outcome"],
        record["usage_source"],
        record["total_tokens"],
        record["cost_usd"],
    )


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("fault", ["moved", "moved_nowhere"])
def test_an_azure_that_has_moved_is_not_followed(gateway, key, azure, booked, fault, stream):
    """The address of Azure is wrong, which the user cannot mend; nothing is booked."""
    azure.script(Script(fault=fault))
    answer = gateway.chat(key, stream=stream)

    assert (502, "upstream_moved") == (answer.status, answer.error["code"])
    assert 1 == len(azure.served)
    record = booked()
    assert ("upstream_error", "none", 0) == (record["outcome"], record["usage_source"], record["total_tokens"])


@pytest.mark.parametrize("fault", REFUSALS_OF_STREAM_OPTIONS)
def test_every_refusal_of_stream_options_is_overcome(gateway, key, azure, booked, fault):
    """The request is sent again without them, once; the next ones are sent without at once."""
    azure.script(Script(fault=fault, fault_if=("stream_options",)), times=None)
    answers = [gateway.chat(key, model=f"{REFUSAL}-{fault}", stream=True) for _ in range(3)]

    assert [200] * 3 == [answer.status for answer in answers]
    assert [True, False, False, False] == [b"stream_options" in served.body for served in azure.served]
    assert azure.served[-1].billed.completion_tokens <= booked()["completion_tokens"]


def test_a_kind_of_request_that_is_refused_says_nothing_of_others(gateway, key, azure, booked):
    """On Your Data takes no stream_options; who does not use it is counted exactly, before and after."""
    azure.script(Script(fault="validation_error", fault_if=("stream_options", "data_sources")), times=None)
    sources = [{"type": "azure_search", "parameters": {}}]
    for fields in ({}, {"data_sources": sources}, {}):
        assert 200 == gateway.chat(key, stream=True, **fields).status

    last = json.loads(azure.served[-1].body)
    assert {"include_usage": True} == last["stream_options"]
    assert "upstream" == booked()["usage_source"]
