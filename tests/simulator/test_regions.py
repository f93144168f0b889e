"""Several resources in one process; lists of what they have; spill-over and service tiers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from llmgateway.simulator import DEFAULT_KEY, Deployment, Script, Simulator, Subscription
from tests import ROOT

from .calls import CHAT, CLASSIC, STREAM, V1, call

PTU = Deployment("ptu", model="gpt-4o-2024-11-20", provisioned=True, spillover="paygo", tokens_per_minute=100)
PAYGO = Deployment("paygo", model="gpt-4o-2024-11-20", tokens_per_minute=1_000)
LARGE = {**CHAT, "model": "ptu", "max_tokens": 90}


def key_of(short: str) -> dict[str, str]:
    return {"api-key": f"{DEFAULT_KEY}-{short}"}


@pytest.fixture
def azure(clock):
    with Simulator(deployments=("gpt-4o-mini", PTU, PAYGO), requests_per_minute=600, clock=clock) as simulator:
        yield simulator


def test_regions_have_keys_limits_and_books_of_their_own(clock):
    """What is used up in one is left in the other; the header says which one answers."""
    regions = ["eastus2", "Sweden Central"]
    with Subscription.of_regions(
        regions, tokens_per_minute=1_000, requests_per_minute=600, clock=clock
    ) as subscription:
        east, sweden = subscription.resources
        used = call(east, {**CHAT, "max_tokens": 980}, headers=key_of("eastus2"))
        full = call(east, headers=key_of("eastus2"))
        other = call(sweden, headers=key_of("swedencentral"))
        foreign = call(sweden, headers=key_of("eastus2"))
        clock.advance(60)
        recovered = call(east, headers=key_of("eastus2"))

        assert [answer.status for answer in (used, full, other, foreign, recovered)] == [200, 429, 200, 401, 200]
        assert [used.headers["x-ms-region"], full.headers["x-ms-region"]] == ["East US 2", "East US 2"]
        assert other.headers["x-ms-region"] == "Sweden Central"
        assert [len(east.served), len(sweden.served), len(subscription.served)] == [3, 2, 5]
        assert {charge.region for charge in sweden.meter.charges} == {"Sweden Central"}


def test_a_newer_429_names_the_region():
    """And the deployment's limit is not that of the region it was recorded in."""
    with Simulator(region="Sweden Central") as azure:
        azure.script(Script(fault="token_rate_limit_newer"))

        assert "in Sweden Central have exceeded the token rate limit" in call(azure).json["error"]["message"]


def test_a_deployment_has_limits_of_its_own(clock):
    """They come before those of the resource."""
    small = Deployment("small", tokens_per_minute=30)
    with Simulator(deployments=("gpt-4o", small), requests_per_minute=600, clock=clock) as azure:
        body = {**CHAT, "max_tokens": 50}

        assert call(azure, {**body, "model": "small"}).status == 429
        assert call(azure, {**body, "model": "gpt-4o"}).status == 200


def test_resources_come_from_a_file():
    """Regions, keys, deployments with all their fields, and how long tokens live."""
    document = {
        "token_lifetime": 60,
        "resources": [
            {"region": "eastus2", "key": "k", "deployments": ["gpt-4o", {"name": "p", "provisioned": True}]},
            {"region": "uksouth", "tokens_per_minute": 5, "deployments": [{"name": "d", "tiers": ["default", "flex"]}]},
        ],
    }
    with Subscription.from_json(document) as subscription:
        east, south = subscription.resources

        assert subscription.directory.lifetime == 60
        assert call(east, {**CHAT, "model": "p"}, headers={"api-key": "k"}).status == 200
        assert call(south, {**CHAT, "model": "d"}, headers=key_of("uksouth")).status == 429


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([], 'a list of "resources"'),
        ({"resources": []}, "empty"),
        ({"resources": [{"regoin": "x"}]}, r"resources\[0\] has no regoin"),
        ({"resources": [{"deployments": [{"model": "x"}]}]}, "a name"),
        ({"resources": [{"deployments": [{"name": "x", "colour": "red"}]}]}, "a deployment has no colour"),
        ({"resources": [{"deployments": [{"name": "x", "maker": "acme"}]}]}, "maker 'acme' is none of openai"),
    ],
)
def test_a_wrong_file_is_explained(document, problem):
    """The text names the field."""
    with pytest.raises(ValueError, match=problem):
        Subscription.from_json(document)


@pytest.mark.parametrize("path", ["/openai/models?api-version=2024-10-21", "/openai/v1/models"])
def test_models_are_listed(azure, path):
    """All of the region, not the deployments; one can be asked for."""
    answer = call(azure, b"", path=path, method="GET")
    names = [model["id"] for model in answer.json["data"]]

    assert answer.status == 200
    assert {"gpt-4o-2024-11-20", "text-embedding-3-small"} <= set(names)
    assert "ptu" not in names
    one = call(azure, b"", path=path.replace("models", "models/whisper"), method="GET").json
    assert (one["id"], one["object"], one["capabilities"]["chat_completion"]) == ("whisper", "model", False)


def test_deployments_are_listed_by_an_old_version(azure):
    """Their name is the id; newer versions have no such list."""
    path = "/openai/deployments?api-version="
    answer = call(azure, b"", path=path + "2023-03-15-preview", method="GET")
    models = {one["id"]: one["model"] for one in answer.json["data"]}

    assert models == {"gpt-4o-mini": "gpt-4o-mini", "ptu": "gpt-4o", "paygo": "gpt-4o"}
    assert call(azure, b"", path=path + "2024-10-21", method="GET").status == 404


@pytest.mark.parametrize("path", ["/openai/models?api-version=2024-10-21", "/openai/v1/models"])
def test_lists_need_the_key_and_a_version(azure, path):
    """As everything does."""
    assert call(azure, b"", path=path, method="GET", headers={"api-key": "wrong"}).status == 401
    assert call(azure, b"", path="/openai/models", method="GET").status == 404
    assert call(azure, b"", path=path.replace("models", "models/none"), method="GET").status == 404


def test_a_full_provisioned_deployment_spills_over(azure):
    """The headers say from where and to where; the bill says to where."""
    first, second = (call(azure, LARGE) for _ in range(2))

    assert (first.headers["x-ms-deployment-name"], first.headers["x-ms-is-spilled-over"]) == ("ptu", "false")
    assert (second.headers["x-ms-deployment-name"], second.headers["x-ms-is-spilled-over"]) == ("paygo", "true")
    assert second.headers["x-ms-spillover-from-deployment"] == "ptu"
    assert second.headers["x-ratelimit-limit-tokens"] == "1000"
    assert "x-ms-spillover-from-deployment" not in first.headers
    accounts = [served.account for served in azure.served]
    assert [(one.deployment, one.spilled_from, one.provisioned) for one in accounts] == [
        ("ptu", None, True),
        ("paygo", "ptu", False),
    ]


@pytest.mark.parametrize(("fault", "status"), [("capacity", 200), ("unavailable", 200), ("timeout", 408)])
def test_some_failures_spill_over(azure, fault, status):
    """429, 500 and 503; others reach the client."""
    azure.script(Script(fault=fault))

    assert call(azure, {**STREAM, "model": "ptu"}).status == status


def test_a_spillover_can_be_full_too(azure):
    """Then the client gets the first error, and a header with the second one."""
    answers = [call(azure, {**LARGE, "max_tokens": 900}) for _ in range(2)]

    assert [answer.status for answer in answers] == [200, 429]
    assert answers[1].headers["x-ms-spillover-error"] == "429"


def test_a_request_can_name_its_spillover(azure):
    """Its header comes before the property of the deployment."""
    call(azure, LARGE)
    headers = {"api-key": DEFAULT_KEY, "x-ms-spillover-deployment": "gpt-4o-mini"}

    assert call(azure, LARGE, headers=headers).headers["x-ms-deployment-name"] == "gpt-4o-mini"


def test_only_provisioned_deployments_spill_over(azure):
    """The header of a request changes nothing elsewhere."""
    azure.script(Script(fault="capacity"))
    headers = {"api-key": DEFAULT_KEY, "x-ms-spillover-deployment": "paygo"}

    assert call(azure, headers=headers).status == 429


@pytest.mark.parametrize(
    ("body", "header", "served"),
    [
        (None, None, None),
        ("priority", None, "priority"),
        ("flex", None, "default"),
        ("auto", None, "default"),
        ("default", "priority", "priority"),
        ("default", "auto", "priority"),
    ],
)
def test_a_service_tier_is_served_and_billed(azure, body, header, served):
    """The header beats the body, and means priority by auto; what the deployment has not is default."""
    headers = {"api-key": DEFAULT_KEY} | ({} if header is None else {"x-ms-service-tier": header})
    answer = call(azure, CHAT if body is None else {**CHAT, "service_tier": body}, headers=headers)

    assert answer.json.get("service_tier") == served
    assert azure.served[0].account.tier == (served or "default")


def test_a_deployment_can_default_to_priority():
    """Then requests that say nothing are served so."""
    with Simulator(deployments=(Deployment("gpt-4o-mini", default_tier="priority"),)) as azure:
        assert call(azure, path=CLASSIC).json["service_tier"] == "priority"


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "llmgateway", "simulator", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "LLM_API_KEY"},
    )


def test_the_command_starts_regions():
    """It tells the address and the key of each."""
    process = start("--regions", "eastus2, swedencentral", "--port", "0")
    try:
        lines = [process.stdout.readline() for _ in range(2)]
        assert [line.split(":")[0] for line in lines] == ["East US 2", "Sweden Central"]
        assert [line.split("LLM_API_KEY=")[1].strip() for line in lines] == [
            f"{DEFAULT_KEY}-eastus2",
            f"{DEFAULT_KEY}-swedencentral",
        ]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
    assert process.returncode == 0


def test_the_command_reads_a_file(tmp_path):
    """And shows no key that stands in it."""
    file = tmp_path / "azure.json"
    file.write_text(json.dumps({"resources": [{"region": "uksouth", "key": "hidden"}]}))
    process = start("--config", str(file), "--port", "0")
    try:
        line = process.stdout.readline()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)

    assert line.startswith("UK South: LLM_BASE_URL=http://127.0.0.1:")
    assert line.rstrip().endswith(V1.removesuffix("/chat/completions"))


@pytest.mark.parametrize(
    ("text", "problem"), [("{", "--config:"), ('{"resources": []}', '"resources" is empty')], ids=["json", "empty"]
)
def test_the_command_explains_a_wrong_file(tmp_path, text, problem):
    """With exit status 2."""
    file = tmp_path / "azure.json"
    file.write_text(text)
    _, said = (process := start("--config", str(file))).communicate(timeout=20)

    assert (process.returncode, problem in said) == (2, True)


def test_the_command_takes_regions_or_a_file():
    """Not neither."""
    _, said = (process := start("--regions", " , ")).communicate(timeout=20)

    assert (process.returncode, "--regions" in said) == (2, True)
