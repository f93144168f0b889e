"""The books against a model that works unseen: whatever is missing or odd, what Azure bills is never booked too low."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, example, given, settings
from hypothesis import strategies as st

from llmgateway.simulator import Deployment, Script, Served, Simulator
from tests.gateway_process import GatewayProcess
from tests.reliability.calls import Call
from tests.servers import wait_until

from .conftest import AZURE_KEY

RATE = 2000.0
"""Tokens per second and choice: what the model does, and what an admin has said of it. The half second that the gateway
adds for what is on its way is short beside the longest answers."""
READ_ON_SECONDS = 0.4
"""Some answers end in this time after their clients have left, others do not."""
AT_ONCE = 8


@dataclass(frozen=True)
class Model:
    """A deployment of the simulator, and what the gateway has been told about it."""

    name: str
    model: str
    reasoning: bool
    most: int
    """The maximum of its answers, in tokens."""


THINKER = Model("thinker", "o4-mini-2025-04-16", reasoning=True, most=3000)
WRITER = Model("writer", "gpt-4o-mini-2024-07-18", reasoning=False, most=2000)
STRANGER = Model("stranger", "Something-7B", reasoning=True, most=4000)
MODELS = (THINKER, WRITER, STRANGER)


@dataclass(frozen=True)
class Plan:
    """One exchange: what is asked, what Azure does, and when the client leaves."""

    model: Model
    script: Script
    stream: bool = True
    answers: int = 1
    bound: int | None = None
    """``max_completion_tokens``."""
    leaves_after: float | None = None
    """Seconds after Azure has seen the request."""
    leaves_at: int | None = None
    """Bytes of the answer."""

    @property
    def stays(self) -> bool:
        return self.leaves_after is self.leaves_at is None

    @property
    def most(self) -> int:
        """What the request can cost at most, in tokens of the completion."""
        return self.answers * min(self.model.most, self.bound or self.model.most)


@pytest.fixture(scope="module")
def azure() -> Iterator[Simulator]:
    deployments = [Deployment(one.name, model=one.model, max_output_tokens=one.most) for one in MODELS]
    with Simulator(key=AZURE_KEY, deployments=deployments) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def gateway(azure: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    environ = {
        "LLM_BASE_URL": f"{azure.url}/openai/v1",
        "LLM_API_KEY": AZURE_KEY,
        "LLMGATEWAY_THREADS": "24",
        "LLMGATEWAY_READ_ON_SECONDS": str(READ_ON_SECONDS),
    }
    with GatewayProcess(environ, folder=tmp_path_factory.mktemp("hidden")) as process:
        for one in MODELS:
            facts = {"tokens_per_second": RATE, "max_output_tokens": one.most, "reasoning": one.reasoning}
            answer = process.admin("PUT", f"/admin/models/{one.name}", json=facts)
            assert 200 == answer.status, answer.body
        yield process
        process.stop()


def script(**fields: Any) -> Script:
    """A script of a model that works at its rate."""
    return Script(tokens_per_second=RATE, **fields)


forms: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "json": st.sampled_from(["spaced", "shuffled", "pretty"]),
        "line_end": st.sampled_from(["crlf", "cr", "mixed"]),
        "blank_after_colon": st.just(False),
        "lines_before": st.sampled_from([(": ping",), (": ping", ""), ("event: message", "id: 7")]),
        "bom": st.just(True),
        "unfinished": st.sampled_from([1, 2]),
        "compress": st.sampled_from(["gzip", "deflate", "raw_deflate"]),
        "split": st.integers(50, 20_000),
        "headers": st.sampled_from([{"Content-Type": None}, {"Content-Type": "text/plain"}]),
    },
)
says: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"tokens": st.integers(0, 300)},
    optional={
        "answer_in": st.sampled_from(["refusal", "function_call", "custom"]),
        "tool_call": st.just("weather"),
        "tokens_per_event": st.sampled_from([2, 5, 100]),
        "filter": st.sampled_from(["asynchronous", "late_block", "completion", "outage", "absent"]),
        "prompt_annotations": st.just(True),
        "model": st.sampled_from(["router-pick", "gpt-4o-2024-11-20"]),
    },
)
counts: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "usage": st.sampled_from(
            ["bare", "floats", "grok", "deepseek", "unfilled", "zeros", "empty", "null", "missing"]
        ),
        "usage_in": st.sampled_from(["finish", "every", "placeholder"]),
    },
)
breaks: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.builds(lambda at, reset: {"cut_after_events": at, "reset": reset}, st.integers(0, 300), st.booleans()),
    st.builds(lambda at, reset: {"cut_after_bytes": at, "reset": reset}, st.integers(0, 100_000), st.booleans()),
    st.builds(lambda at: {"error_event_after": at}, st.integers(0, 300)),
)
leaves: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.builds(lambda after: {"leaves_after": after}, st.floats(0, 1.5)),
    st.builds(lambda at: {"leaves_at": at}, st.integers(1, 100_000)),
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    model = draw(st.sampled_from(MODELS))
    thought = draw(st.integers(0, 2500)) if model.reasoning else 0
    seen = {"visible_reasoning": True, "tokens_per_event": 50} if draw(st.booleans()) and thought else {}
    fields = draw(says) | seen | draw(forms) | draw(counts) | draw(breaks)
    return Plan(
        model,
        script(reasoning_tokens=thought, **fields),
        stream=draw(st.sampled_from([True, True, False])),
        answers=draw(st.sampled_from([1, 1, 1, 3])),
        bound=draw(st.none() | st.integers(1, 3000)),
        **draw(leaves),
    )


TOLD = {None, "azure", "bare", "floats", "grok", "deepseek"}


FROM_THE_BOOKS = [
    # A model thinks for long, writes, and the client takes ten words.
    Plan(THINKER, script(reasoning_tokens=2000, tokens=300), leaves_at=7000),
    # A plain answer is left shortly before its end.
    Plan(THINKER, script(reasoning_tokens=2400, tokens=300), stream=False, leaves_after=1.2),
    Plan(WRITER, script(tokens=2000), stream=False, leaves_after=0.9),
    # Words in other fields than content, and JSON with blanks, left or broken.
    Plan(STRANGER, script(reasoning_tokens=40, visible_reasoning=True, cut_after_events=42)),
    Plan(WRITER, script(tokens=40, answer_in="refusal", cut_after_events=42)),
    Plan(WRITER, script(tokens=300, json="spaced"), leaves_at=30_000),
    # A plain answer without a count, and with what is none.
    Plan(WRITER, script(tokens=400, usage="missing"), stream=False),
    Plan(THINKER, script(reasoning_tokens=1500, tokens=30, usage="empty"), stream=False),
    Plan(WRITER, script(tokens=50, usage="floats"), stream=False),
    # Placeholders, broken or never replaced.
    Plan(WRITER, script(tokens=60, usage_in="placeholder", cut_after_events=42)),
    Plan(THINKER, script(reasoning_tokens=1800, tokens=30, usage="zeros", usage_in="every")),
    # A count in every event is not the last one where it breaks off.
    Plan(THINKER, script(reasoning_tokens=900, tokens=100, usage_in="every", cut_after_events=42)),
    # Reasoning beside the completion.
    Plan(STRANGER, script(reasoning_tokens=600, tokens=10, usage="grok")),
    # A filter takes the text away that Azure bills, and nobody has counted it.
    Plan(WRITER, script(tokens=400, usage="missing", filter="completion"), stream=False),
    # Several answers, none of which is counted.
    Plan(THINKER, script(reasoning_tokens=1500, tokens=10, usage="missing"), answers=3, bound=1200),
]
"""What was booked too low, or too high, before this test."""


def test_no_tokens_are_free(gateway, key, azure):
    """Booked is at least what Azure bills, and exactly what Azure has told; never more than the request can cost."""

    @settings(
        max_examples=12,
        deadline=None,
        database=None,
        print_blob=True,
        # Looking for a smaller example takes a second for each, and minutes in all.
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.lists(plans(), min_size=AT_ONCE, max_size=AT_ONCE))
    @example(FROM_THE_BOOKS[:AT_ONCE])
    @example(FROM_THE_BOOKS[AT_ONCE:])
    def nothing_is_free(batch: list[Plan]) -> None:
        for plan, served, record in zip(batch, *exchanges(gateway, key, azure, batch), strict=True):
            judge(plan, served, record)

    nothing_is_free()


def judge(plan: Plan, served: Served, record: dict[str, Any]) -> None:
    """Hold a record against what really happened."""
    story = f"{plan}\nserved {served}\nbilled {served.billed}\nbooked {record}"
    booked = record["completion_tokens"]
    event(f"{record['outcome']}, {record['usage_source']}")
    assert served.billed is not None
    assert served.billed.completion_tokens <= booked <= plan.most, story
    assert record["total_tokens"] == record["prompt_tokens"] + booked
    if record["usage_source"] == "upstream":
        assert plan.script.usage in TOLD, story
        assert served.usage is not None
        assert (served.usage.prompt_tokens, served.usage.completion_tokens) == (record["prompt_tokens"], booked), story
    if plan.stays and served.finished and plan.script.error_event_after is None:
        assert "ok" == record["outcome"], story
        assert (plan.script.usage in TOLD) == (record["usage_source"] == "upstream"), story


@pytest.fixture(scope="module")
def key(gateway: GatewayProcess) -> str:
    return gateway.key()


def exchanges(
    gateway: GatewayProcess, key: str, azure: Simulator, batch: list[Plan]
) -> tuple[list[Served], list[dict[str, Any]]]:
    """Do what the plans say, side by side, and return the simulator's and the gateway's books of them."""
    azure.reset()
    calls = []
    for rank, plan in enumerate(batch):
        # One after the other, so that each meets its own script.
        azure.script(plan.script)
        fields = {"model": plan.model.name, "n": plan.answers, "max_completion_tokens": plan.bound}
        given = {name: value for name, value in fields.items() if value is not None}
        calls.append(Call(gateway, key, stream=plan.stream, **given))
        azure.wait_for(lambda served, rank=rank: len(served) > rank)
    with ThreadPoolExecutor(len(batch)) as pool:
        list(pool.map(go_through, batch, calls))
    wait_until(lambda: not azure.in_progress, what="an Azure at rest")
    served = azure.served
    wait_until(lambda: all(find(gateway, one) for one in served), what="the records")
    return served, [find(gateway, one) for one in served]


def go_through(plan: Plan, call: Call) -> None:
    if plan.leaves_after is not None:
        call.wait(plan.leaves_after)
    if plan.leaves_at is not None:
        call.read_bytes(plan.leaves_at)
    if plan.stays:
        call.reading()
    else:
        call.leave()


def find(gateway: GatewayProcess, served: Served) -> dict[str, Any]:
    with closing(sqlite3.connect(gateway.instance / "gateway.sqlite")) as database:
        database.row_factory = sqlite3.Row
        row = database.execute("SELECT * FROM logs WHERE id = ?", [served.client_request_id]).fetchone()
        return dict(row or {})
