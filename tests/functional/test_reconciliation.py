"""Traffic through the gateway, and the bill that the simulator's own meter writes for it, are the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llmgateway.cli import main
from llmgateway.simulator import Deployment, Script, Simulator
from llmgateway.simulator.bills import Item, write_export, write_metrics
from tests.gateway_process import GatewayProcess
from tests.servers import wait_until

from .conftest import AZURE_KEY

DEPLOYMENTS = ("chat-eu", "gpt-4o-mini", "think", "talk")
SCHEMAS = ("ea_actual", "ea_2024", "mca", "focus")


@pytest.fixture(scope="module")
def azure() -> Iterator[Simulator]:
    deployments = (
        Deployment("chat-eu", model="gpt-4o"),
        "gpt-4o-mini",
        Deployment("think", model="o4-mini"),
        Deployment("talk", model="gpt-4o-audio-preview"),
    )
    with Simulator(key=AZURE_KEY, deployments=deployments) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def gateway(azure: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    environ = {"LLM_BASE_URL": f"{azure.url}/openai/v1", "LLM_API_KEY": AZURE_KEY}
    with GatewayProcess(environ, folder=tmp_path_factory.mktemp("reconciliation")) as process:
        key = process.key()
        scripts = [
            Script(tokens=30, cached_tokens=2),
            Script(tokens=7, reasoning_tokens=64),
            Script(fault="server_error"),
            Script(tokens=1),
        ]
        for number, model in enumerate(DEPLOYMENTS * len(scripts)):
            azure.script(scripts[number // len(DEPLOYMENTS)])
            process.chat(key, model=model, stream=number % 2 == 1)
        requests = len(DEPLOYMENTS) * len(scripts)
        wait_until(
            lambda: process.admin("GET", "/admin/usage").json()["total"]["requests"] == requests, what="all records"
        )
        yield process
        process.stop()


@pytest.fixture
def reconcile(gateway: GatewayProcess) -> Callable[..., dict[str, Any]]:
    """Run ``llmgateway reconcile --json``; return what it prints."""

    def run(*arguments: object, status: int = 0) -> dict[str, Any]:
        command = ["reconcile", "--json", "--threshold", "0", *map(str, arguments)]
        environ = {"ADMIN_KEY": gateway.admin_key, "LLMGATEWAY_URL": gateway.url}
        result = CliRunner().invoke(main, command, env=environ)
        assert status == result.exit_code, result.output
        document: dict[str, Any] = json.loads(result.stdout)
        return document

    return run


def tokens(document: dict[str, Any]) -> dict[str, float]:
    """Azure's tokens by kind."""
    found: dict[str, float] = {}
    for each in document["totals"]:
        if each["kind"] != "cost":
            found[each["kind"]] = found.get(each["kind"], 0.0) + each["azure"]
    return found


@pytest.mark.parametrize("tagged", [True, False], ids=["by_deployment", "by_model"])
@pytest.mark.parametrize(("unit", "bom", "parts"), [("1K", True, 1), ("1M", False, 3)])
@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_bill_agrees(
    azure: Simulator,
    reconcile: Callable[..., dict[str, Any]],
    tmp_path: Path,
    schema: Any,
    unit: Any,
    bom: bool,
    parts: int,
    tagged: bool,
) -> None:
    """To the token, in every schema; a machine is left out, and a meter that nobody knows is listed."""
    write_export(tmp_path, [azure], schema=schema, unit=unit, bom=bom, parts=parts, tagged=tagged)
    names = (
        []
        if tagged
        else ["--model", "chat-eu=gpt-4o", "--model", "think=o4-mini", "--model", "talk=gpt-4o-audio-preview"]
    )

    document = reconcile(tmp_path, *names)

    assert {0.0} == {each["gap"] for each in document["days"] if each["kind"] != "cost"}
    assert ["quasar 9 Zt glbl Widgets"] == [meter["meter"] for meter in document["not_compared"]]
    assert 1 == sum(file["rows_of_other_services"] for file in document["files"])
    used = [served.usage for served in azure.served if served.usage]
    assert tokens(document) == {
        "prompt": sum(one.prompt_tokens - one.cached_tokens for one in used),
        "cached": sum(one.cached_tokens for one in used),
        "completion": sum(one.completion_tokens for one in used),
    }


@pytest.mark.parametrize("form", ["json", "csv"])
def test_metrics_agree(azure: Simulator, reconcile: Callable[..., dict[str, Any]], tmp_path: Path, form: Any) -> None:
    """All prompt tokens, completion tokens and both, by deployment; requests are listed."""
    write_metrics(tmp_path, azure, form=form)

    document = reconcile(tmp_path)

    assert {0.0} == {each["gap"] for each in document["days"]}
    assert len(DEPLOYMENTS) * 3 == len(document["days"])
    assert ["AzureOpenAIRequests"] == [metric["meter"] for metric in document["not_compared"]]


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("kind", ["prompt", "cached", "completion"])
@pytest.mark.parametrize("deployment", DEPLOYMENTS[:2])
def test_a_gap_is_found_where_it_is(
    azure: Simulator,
    reconcile: Callable[..., dict[str, Any]],
    tmp_path: Path,
    schema: Any,
    kind: str,
    deployment: str,
) -> None:
    """Twice as much of one kind at one deployment is found there, and nowhere else."""

    def doubled(item: Item) -> Item:
        is_wanted = item.charge.deployment == deployment and item.charge.kind == kind
        return item._replace(quantity=item.quantity * 2) if is_wanted else item

    write_export(tmp_path, [azure], schema=schema, change=doubled)

    (gap,) = reconcile(tmp_path, status=1)["beyond"]

    assert (deployment, kind, -50.0) == (gap["name"], gap["kind"], gap["percent"])
    assert gap["day"] == f"{next(iter(azure.meter.charges)).day}"


def test_a_charge_that_is_gone_is_found_where_it_was(
    azure: Simulator, reconcile: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Azure has nothing of this kind at this deployment any more."""
    gone = next(charge for charge in azure.meter.charges if charge.kind == "completion")
    write_export(tmp_path, [azure], schema="focus", change=lambda item: None if item.charge == gone else item)

    (gap,) = reconcile(tmp_path, status=1)["beyond"]

    assert (gone.deployment, "completion", 0.0, gone.quantity) == (
        gap["name"],
        gap["kind"],
        gap["azure"],
        gap["ours"],
    )
