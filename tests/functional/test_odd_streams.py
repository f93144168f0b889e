"""The official clients, and programs without one, read every stream that Azure or Foundry may send."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import openai
import pytest

from llmgateway.simulator import Script, Served, Simulator
from tests.gateway_process import GatewayProcess
from tests.programs import needed
from tests.servers import wait_until

from .conftest import AZURE_KEY
from .odd_streams import ANSWER, ODD_STREAMS, OddStream

PROGRAM = Path(__file__).with_name("read_streams.mjs")
BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], "stream": True}


class Result(NamedTuple):
    """What a client has read of a stream, and what the books say."""

    text: str | None
    error: str | None
    served: Served
    record: dict[str, Any]


@pytest.fixture(scope="module")
def azure() -> Iterator[Simulator]:
    with Simulator(key=AZURE_KEY) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def gateway(azure: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    environ = {"LLM_BASE_URL": f"{azure.url}/openai/v1", "LLM_API_KEY": AZURE_KEY}
    with GatewayProcess(environ, folder=tmp_path_factory.mktemp("odd")) as process:
        yield process
        process.stop()


@pytest.fixture(scope="module")
def key(gateway: GatewayProcess) -> str:
    return gateway.key()


@pytest.fixture(scope="module", params=["python", "node", "fetch"])
def results(
    request: pytest.FixtureRequest,
    gateway: GatewayProcess,
    azure: Simulator,
    key: str,
    node_modules: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Result]:
    """What each client has made of every stream, by the stream's name."""
    azure.reset()
    if request.param == "python":
        told = [read_with_python(gateway, azure, key, stream) for stream in ODD_STREAMS]
    else:
        told = read_with_node(request.param, gateway, azure, key, tmp_path_factory.mktemp("node"), node_modules)
    wait_until(lambda: len(azure.served) == len(ODD_STREAMS) and not azure.in_progress, what="an end of all streams")
    served = azure.served
    wait_until(lambda: all(record_of(gateway, one) for one in served), what="all records")
    return {
        stream.name: Result(one.get("text"), one.get("error"), served, record_of(gateway, served))
        for stream, one, served in zip(ODD_STREAMS, told, served, strict=True)
    }


def read_with_python(gateway: GatewayProcess, azure: Simulator, key: str, stream: OddStream) -> dict[str, str]:
    """OpenAI's own example, without a guard."""
    azure.script(Script.from_json(stream.script))
    text = ""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
        try:
            for chunk in client.chat.completions.create(**BODY):
                text += chunk.choices[0].delta.content or ""
        except Exception as error:  # noqa: BLE001 - of whatever kind, it would end the user's program
            return {"error": repr(error)}
    return {"text": text}


def read_with_node(
    kind: str, gateway: GatewayProcess, azure: Simulator, key: str, folder: Path, node_modules: Path
) -> list[dict[str, str]]:
    node = needed("node", package="nodejs")
    program = shutil.copy(PROGRAM, folder)
    if kind == "node":
        (folder / "node_modules").symlink_to(node_modules)
    cases = [{"script": stream.script, "body": BODY} for stream in ODD_STREAMS]
    task = {"kind": kind, "gateway": gateway.url, "simulator": azure.url, "key": key, "cases": cases}
    done = subprocess.run(
        [node, program], cwd=folder, input=json.dumps(task), capture_output=True, text=True, timeout=120
    )
    assert 0 == done.returncode, done.stderr
    told: list[dict[str, str]] = json.loads(done.stdout)
    return told


def record_of(gateway: GatewayProcess, served: Served) -> dict[str, Any]:
    with closing(sqlite3.connect(gateway.instance / "gateway.sqlite")) as database:
        database.row_factory = sqlite3.Row
        row = database.execute("SELECT * FROM logs WHERE id = ?", [served.client_request_id]).fetchone()
        return dict(row or {})


every_stream = pytest.mark.parametrize("stream", ODD_STREAMS, ids=lambda stream: stream.name)


@every_stream
def test_a_client_reads_what_azure_has_sent(results, stream):
    """All of the text and nothing else, without an exception; the stream is complete."""
    result = results[stream.name]

    assert result.error is None
    assert stream.text == result.text
    assert ("ok", 200) == (result.record["outcome"], result.record["status"])


@every_stream
def test_the_books_have_what_azure_has_told(results, stream):
    """Azure's own count where there is one, wherever and in whatever form; else no less than what Azure bills."""
    _, _, served, record = results[stream.name]

    assert served.usage == served.billed
    if stream.counted:
        assert "upstream" == record["usage_source"]
        assert counts(served.usage) == (record["prompt_tokens"], record["completion_tokens"], record["total_tokens"])
    else:
        assert record["usage_source"] in ("estimated", "bound")
        assert served.billed.completion_tokens <= record["completion_tokens"]


def counts(usage):
    return (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)


@pytest.mark.parametrize("coding", [None, "gzip", "deflate", "raw_deflate"])
@pytest.mark.parametrize("form", [None, "spaced", "shuffled", "pretty"])
def test_a_plain_answer_in_every_form(gateway, azure, key, coding, form):
    """The official client reads it, and its count is in the books."""
    azure.reset()
    azure.script(Script(answer=ANSWER, json=form, compress=coding))
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
        answer = client.chat.completions.create(**{**BODY, "stream": False})

    [served] = azure.served
    wait_until(lambda: record_of(gateway, served), what="the record")
    record = record_of(gateway, served)
    assert ANSWER == answer.choices[0].message.content
    assert "upstream" == record["usage_source"]
    assert counts(served.usage) == (record["prompt_tokens"], record["completion_tokens"], record["total_tokens"])


@pytest.mark.parametrize("usage_in", ["last", "placeholder"])
@pytest.mark.parametrize("mode", [None, "asynchronous"])
def test_a_client_that_asks_for_usage_gets_it(gateway, azure, key, mode, usage_in):
    """In the last chunk, which has no choices, as OpenAI sends it; every other one has a choice."""
    azure.reset()
    azure.script(Script(answer=ANSWER, filter=mode, usage_in=usage_in))
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
        *chunks, last = client.chat.completions.create(**BODY, stream_options={"include_usage": True})

    assert ANSWER == "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert [] == last.choices
    assert counts(azure.served[0].usage) == counts(last.usage)
