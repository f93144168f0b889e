"""OpenTelemetry's own instrumentation of Flask and requests, around the program as it is."""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmgateway.simulator import Simulator
from tests.gateway_process import GatewayProcess
from tests.servers import wait_until

CHAT = "/v1/chat/completions"
CONSOLE = {
    "OTEL_TRACES_EXPORTER": "console",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_BSP_SCHEDULE_DELAY": "50",  # milliseconds
}


@pytest.fixture(scope="module")
def gateway(azure_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    launcher = str(Path(sysconfig.get_path("scripts")) / "opentelemetry-instrument")
    with GatewayProcess(
        {**azure_environ, **CONSOLE}, folder=tmp_path_factory.mktemp("traced"), launcher=[launcher]
    ) as gateway:
        yield gateway
        gateway.stop()


def spans(output: str) -> list[dict[str, Any]]:
    """What the console exporter has written among other lines: an object of JSON for each span."""
    decoder, found, place = json.JSONDecoder(), [], 0
    while (place := output.find("{\n", place)) >= 0:
        try:
            span, place = decoder.raw_decode(output, place)
        except ValueError:  # not written to its end yet
            break
        found.append(span)
    return found


def traces(gateway: GatewayProcess) -> list[list[dict[str, Any]]]:
    """The spans of each chat completion."""
    written = spans(gateway.output)
    chats = [span for span in written if span["kind"] == "SpanKind.SERVER" and CHAT in span["name"]]
    return [[span for span in written if span["context"]["trace_id"] == chat["context"]["trace_id"]] for chat in chats]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_chat_completion_is_one_trace(gateway: GatewayProcess, azure: Simulator, stream: bool):
    """The view is the server's span, the call to Azure the client's in it, and Azure is told of the trace."""
    before = len(traces(gateway))

    answer = gateway.chat(gateway.key(), stream=stream)

    assert 200 == answer.status
    wait_until(lambda: len(traces(gateway)) > before, what="a trace")
    [trace] = traces(gateway)[before:]
    server, client = sorted(trace, key=lambda span: span["kind"], reverse=True)
    assert ("SpanKind.SERVER", "SpanKind.CLIENT") == (server["kind"], client["kind"])
    assert (None, server["context"]["span_id"]) == (server["parent_id"], client["parent_id"])
    assert 200 == client["attributes"]["http.status_code"]
    _, trace_id, parent_id, _ = azure.served[0].headers["traceparent"].split("-")  # W3C Trace Context, section 3.2
    assert (client["context"]["trace_id"], client["context"]["span_id"]) == (f"0x{trace_id}", f"0x{parent_id}")
