"""The commands for deployments, content filters and the doctor, in front of a gateway that runs, and without one."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from llmgateway.cli import main
from llmgateway.simulator import Simulator
from tests.gateway_process import GatewayProcess
from tests.resources import listing_resource
from tests.servers import free_port

AZURE_KEY = "azure-key-of-the-doctor"


@pytest.fixture(scope="module")
def azure():
    with Simulator(key=AZURE_KEY) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def gateway(azure, tmp_path_factory):
    with GatewayProcess({"LLM_BASE_URL": "none"}, folder=tmp_path_factory.mktemp("gateway")) as started:
        yield started


@pytest.fixture
def run(gateway):
    """Run a command against the gateway; returns what went to standard output."""

    def run(*arguments: str, status: int = 0, stdin: str = "") -> str:
        environ = {"ADMIN_KEY": gateway.admin_key, "LLMGATEWAY_URL": gateway.url}
        result = CliRunner().invoke(main, arguments, input=stdin, env=environ)
        assert status == result.exit_code, result.output
        return result.output

    return run


@pytest.fixture
def local(tmp_path):
    """Run the doctor without a gateway, with these settings alone."""

    def run(*arguments: str, status: int, **environ: str) -> str:
        names = ("ADMIN_KEY", "LLM_BASE_URL", "LLM_API_KEY", "LLM_API_VERSION", "LLMGATEWAY_MODELS", "HTTPS_PROXY")
        given = dict.fromkeys(names, "") | {"ADMIN_KEY": "hunter2-hunter2-hunter2"}
        folder = {"LLMGATEWAY_INSTANCE": str(tmp_path / "instance")}
        result = CliRunner().invoke(main, ["doctor", "--local", *arguments], env=given | folder | environ)
        assert status == result.exit_code, result.output
        assert not (tmp_path / "instance").exists()
        return result.stdout

    return run


def test_deployments_are_registered_changed_and_removed(azure, run):
    """Each by its name; the others and all keys stay, and no key is shown."""
    url = f"{azure.url}/openai/v1"
    run("models", "deploy", "four", "--name", "east", "--base-url", url, "--deployment", "gpt-4o", "--key-from-stdin",
        stdin=f"{AZURE_KEY}\n")  # fmt: skip
    west = "https://west.openai.azure.com/openai/v1"  # the key of LLM_BASE_URL may go to hosts of Azure
    run("models", "deploy", "four", "--name", "west", "--base-url", west, "--deployment", "nothing", "--priority", "2")
    run("models", "alias", "four", "four-*")
    shown = run("models", "show", "four")

    assert f"east: gpt-4o at {url}, priority 1, weight 1, key of its own" in shown
    assert f"west: nothing at {west}, priority 2, weight 1, key of LLM_BASE_URL" in shown
    run("models", "deploy", "four", "--name", "EAST", "--weight", "3", "--inactive")
    [model] = json.loads(run("models", "list", "--json"))
    assert [("east", 3.0, False, True), ("west", 1.0, True, False)] == [
        tuple(each[name] for name in ("name", "weight", "active", "has_key")) for each in model["deployments"]
    ]
    assert ["four-*"] == model["aliases"]
    assert "(east), west" in run("models", "list")
    assert "It has: east, west." in run("models", "undeploy", "four", "north", status=2)
    run("models", "undeploy", "four", "west")
    run("models", "alias", "four", "--none")
    [model] = json.loads(run("models", "list", "--json"))
    assert (["east"], None) == ([each["name"] for each in model["deployments"]], model.get("aliases"))
    assert AZURE_KEY not in shown + json.dumps(model)
    run("models", "undeploy", "four", "east")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["models", "deploy", "m", "--name", "n"], "give --base-url"),
        (["models", "deploy", "m", "--name", "n", "--key-from-stdin", "--identity"], "or choose the identity"),
        (["models", "alias", "m"], "--none"),
        (["models", "alias", "m", "a", "--none"], "--none"),
    ],
)
def test_says_how_commands_are_used(run, arguments, problem):
    """With status 2."""
    assert problem in run(*arguments, status=2)


def test_what_azure_lists_is_imported(run):
    """First as a dry run."""
    with listing_resource({"listed": "gpt-4o"}, key="listed-key") as url:
        command = ("models", "import", f"{url}/openai/v1", "--key-from-stdin", "--name", "east")
        assert "register" in run(*command, "--dry-run", stdin="listed-key\n")
        assert [] == json.loads(run("models", "list", "--json"))
        run(*command, stdin="listed-key\n")
    [model] = json.loads(run("models", "list", "--json"))
    assert ("listed", ["east"]) == (model["name"], [each["name"] for each in model["deployments"]])
    run("models", "remove", "listed")


def test_the_doctor_asks_the_gateway(azure, run):
    """With status 1 as long as anything fails, or if there is nothing to try."""
    assert "There is nothing to try" in run("doctor", status=1)
    arguments = ("models", "deploy", "sick", "--name", "east", "--base-url", f"{azure.url}/openai/v1", "--deployment")
    run(*arguments, "nothing", "--key-from-stdin", stdin=f"{AZURE_KEY}\n")
    sick = run("doctor", status=1)
    run(*arguments, "gpt-4o")
    well = run("doctor")

    assert "FAILS  sick / east: chat/completions" in sick
    assert "There is no deployment 'nothing'" in sick
    assert "1 of 1 fail." in sick
    assert "ok     sick / east: chat/completions" in well
    assert "stream_options yes" in well
    assert f"{azure.url}/openai/v1/chat/completions" in well
    assert "Everything works." in well
    found = json.loads(run("doctor", "--model", "sick", "--json"))
    assert (True, "sick") == (found["ok"], found["items"][0]["model"])
    run("models", "remove", "sick")


def test_the_local_doctor_needs_no_gateway(azure, local):
    """It reads the settings from the environment, and leaves nothing behind."""
    settings = {"LLM_BASE_URL": f"{azure.url}/openai/v1", "LLM_API_KEY": AZURE_KEY, "LLMGATEWAY_MODELS": "gpt-4o"}

    assert "Everything works." in local(status=0, **settings)
    wrong = local(status=1, **settings | {"LLM_API_KEY": "the-key-of-another-resource"})
    assert "refuses the key (401)" in wrong
    assert "the-key-of-another-resource" not in wrong
    assert False is json.loads(local("--json", status=1, **settings | {"LLMGATEWAY_MODELS": "nothing"}))["ok"]


@pytest.mark.parametrize(
    ("base_url", "says"),
    [
        ("", "LLM_BASE_URL is missing"),
        ("https://portal.azure.com/#@org/resource/openai", "is the address of a page, not of a resource"),
        ("https://ai.azure.com/resource/deployments", "is the address of a page, not of a resource"),
        ("https://n.services.ai.azure.com/api/projects/p", "write https://n.services.ai.azure.com/openai/v1"),
        ("https://n.openai.azure.com/openai/deployments/d", "set LLM_API_VERSION"),
        ("https://ada:pw@n.openai.azure.com", "must not contain a user or a password"),
        ("n.openai.azure.com", "must be a URL such as"),
        ("https://no-such-resource-at-all.invalid/openai/v1", "There is no host no-such-resource-at-all.invalid"),
    ],
)
def test_the_local_doctor_knows_wrong_addresses(local, base_url, says):
    """Before any call, or by its failure."""
    assert says in local(status=1, LLM_BASE_URL=base_url, LLM_API_KEY="azure-key", LLMGATEWAY_MODELS="gpt-4o")


def test_the_local_doctor_knows_a_proxy_that_is_away(local):
    """The proxy is named, since its address is what has to be changed."""
    proxy = f"http://127.0.0.1:{free_port()}"
    settings = {"LLM_BASE_URL": "https://n.openai.azure.com/openai/v1", "LLM_API_KEY": "azure-key"}

    assert "Check HTTPS_PROXY and NO_PROXY" in local(status=1, HTTPS_PROXY=proxy, NO_PROXY="", **settings)


def test_content_filters_are_reported(run):
    """An empty report has its total."""
    assert "total" in run("filters")
    assert {"requests": 0, "fired": 0} == json.loads(run("filters", "--by", "key,category", "--json"))["total"]
