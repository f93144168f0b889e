"""What commands print and ask: columns, order, bars, colours, questions, and the way to the gateway."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest
from click.testing import CliRunner

from llmgateway.cli import main
from llmgateway.cli.client import Client
from llmgateway.cli.tables import cell, sorted_by, sparkline
from llmgateway.simulator import Simulator
from tests import ROOT
from tests.gateway_process import GatewayProcess
from tests.servers import wait_until

AZURE_KEY = "azure-key-of-the-command-line"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with Simulator(key=AZURE_KEY) as azure:
        environ = {"LLM_BASE_URL": f"{azure.url}/openai/v1", "LLM_API_KEY": AZURE_KEY}
        with GatewayProcess(environ, folder=tmp_path_factory.mktemp("gateway")) as started:
            yield started


@pytest.fixture
def run(gateway):
    def run(*arguments: str, status: int = 0, color: bool = False, **environ: str) -> str:
        asked = {"ADMIN_KEY": gateway.admin_key, "LLMGATEWAY_URL": gateway.url} | environ
        run.result = CliRunner().invoke(main, arguments, env=asked, color=color)
        assert status == run.result.exit_code, run.result.output
        return run.result.stdout

    return run


@pytest.fixture
def people(run):
    """grace has one key, ada two; removed afterwards."""
    ids = {}
    for user, name in (("ada", "thesis"), ("ada", "notebook"), ("grace", "course")):
        made = json.loads(run("keys", "add", user, "--name", name, "--json"))
        ids[name] = made["id"]
    yield ids
    for key_id in ids.values():
        run("keys", "remove", key_id, "--yes")


def names(table: str) -> list[str]:
    return [line.split()[0] for line in table.splitlines()[1:]]


class TestPeople:
    def test_a_user_with_one_key_stands_for_it(self, run, people):
        assert people["course"] in run("keys", "show", "grace")
        run("keys", "block", "grace")
        assert not json.loads(run("keys", "show", "grace", "--json"))["active"]

    @pytest.mark.parametrize("command", ["block", "unblock", "remove"])
    def test_several_keys_are_listed_and_need_a_word(self, run, people, command):
        """Without a terminal nobody can be asked: nothing changes."""
        run("keys", command, "ada", status=2)

        assert all(people[name] in run.result.stderr for name in ("thesis", "notebook"))
        assert "--all" in run.result.stderr
        assert [True, True] == [key["active"] for key in json.loads(run("keys", "list", "--user", "ada", "--json"))]

    def test_all_takes_all(self, run, people):
        run("keys", "block", "ada", "--all")

        assert [False, False] == [key["active"] for key in json.loads(run("keys", "list", "--user", "ada", "--json"))]
        assert json.loads(run("keys", "show", "grace", "--json"))["active"]

    def test_what_is_for_one_key_names_the_others(self, run, people):
        run("keys", "rotate", "ada", status=2)

        assert "name one by its id" in run.result.stderr

    def test_names_are_compared_exactly(self, run, people):
        run("keys", "block", "Ada", "--all", status=2)
        assert "Ada has no key" in run.result.stderr

    def test_an_id_is_never_a_name(self, run):
        made = json.loads(run("keys", "add", "key_of_ada", "--json"))

        run("keys", "show", "key_of_ada", status=1)
        assert "There is no key with this id. 'llmgateway keys list' lists" in run.result.stderr
        run("keys", "remove", made["id"], "--yes")


class TestTables:
    def test_columns_and_order_are_chosen(self, run, people):
        assert ["grace", "ada", "ada"] == names(run("keys", "list", "--columns", "user,name", "--sort", "-user"))
        assert ["course", "notebook", "thesis"] == names(run("keys", "list", "--columns", "name", "--sort", "name"))
        chosen = json.loads(run("keys", "list", "--columns", "user", "--sort", "user", "--json"))
        assert [{"user": "ada"}, {"user": "ada"}, {"user": "grace"}] == chosen

    @pytest.mark.parametrize("option", [("--columns", "user,colour"), ("--sort", "-colour")])
    def test_a_column_that_there_is_not(self, run, people, option):
        run("keys", "list", *option, status=2)

        assert "There is no column colour. There are: id, user," in run.result.stderr

    def test_sorts_numbers_as_numbers_and_nothing_last(self):
        items = [{"n": 10}, {"n": None}, {"n": 9}, {"n": "Zoe"}, {"n": "ada"}]

        assert [9, 10, "ada", "Zoe", None] == [item["n"] for item in sorted_by(items, "n", descending=False)]
        assert ["Zoe", "ada", 10, 9, None] == [item["n"] for item in sorted_by(items, "n", descending=True)]

    def test_what_is_spent_and_left_is_shown_with_its_unit_and_sorted_as_a_number(self, run, people):
        for name, budget in (("thesis", "100usd/month"), ("notebook", "20usd/month"), ("course", "5000tokens/day")):
            run("keys", "set", people[name], "--budget", budget)

        table = run("keys", "list", "--columns", "left,name,spent", "--sort", "left").splitlines()

        assert ["LEFT", "NAME", "SPENT"] == table[0].split()
        rows = [line.split("  ") for line in table[1:]]
        assert [
            ["20 usd", "notebook", "0 usd"],
            ["100 usd", "thesis", "0 usd"],
            ["5000 tokens", "course", "0 tokens"],
        ] == [[cell.strip() for cell in row if cell] for row in rows]
        chosen = json.loads(run("keys", "list", "--columns", "name,left", "--sort", "left", "--json"))
        assert [20.0, 100.0, 5000.0] == [key["left"] for key in chosen]
        whole = json.loads(run("keys", "list", "--json"))
        assert {"limit": 100, "used": 0, "left": 100, "unit": "usd", "period": "month"}.items() <= (
            whole[0]["remaining"]["budget"].items()
        )
        assert ("left" in whole[0], whole[0]["last_used"]) == (False, None)

    def test_what_is_left_of_limits_is_a_line_for_each(self):
        renews = {"renews_at": "2026-11-01T00:00:00+00:00"}
        remaining = {
            "requests_per_minute": {"limit": 30, "used": 1, "left": 29, **renews},
            "tokens_per_minute": None,
            "parallel_requests": {"limit": 4, "used": 0, "left": 4, "renews_at": None},
            "budget": {"limit": 5, "used": 0.75, "left": 4.25, "unit": "usd", "period": "month", **renews},
        }
        nothing = dict.fromkeys(remaining)

        assert [
            "1 of 30 requests/min used, 29 left, renews 2026-11-01 00:00 UTC",
            "0 of 4 at once used, 4 left",
            "0.75 of 5 usd/month used, 4.25 left, renews 2026-11-01 00:00 UTC",
        ] == cell(remaining).splitlines()
        assert "-" == cell(nothing)
        unknown = {"limit": 5, "used": None, "left": None, "unit": "usd", "period": "total", "renews_at": None}
        assert "? of 5 usd/total used, ? left" == cell(nothing | {"budget": unknown})

    def test_colours_are_for_terminals_that_want_them(self, run, people):
        assert "\x1b[" in run("keys", "list", color=True)
        assert "\x1b[" not in run("keys", "list")
        assert "\x1b[" not in run("keys", "list", color=True, NO_COLOR="1")


class TestTrends:
    def test_bars_are_as_high_as_their_numbers(self):
        assert "·▁▄█" == sparkline([0, 1, 50, 100])
        assert "··" == sparkline([0, 0])
        assert "" == sparkline([])

    def test_usage_shows_the_days_of_its_month(self, gateway, run):
        key = run("keys", "add", "trend").strip()
        assert 200 == gateway.chat(key).status
        wait_until(lambda: "trend" in run("usage", "--by", "user"), what="the record")

        by_month, by_user = run("usage", "--trend"), run("usage", "--by", "user", "--trend")

        row = next(line for line in by_month.splitlines() if " trend " in line)
        assert 28 <= len(row.split()[-1]) <= 31
        assert "█" in row
        assert "█" == next(line for line in by_user.splitlines() if line.startswith("trend")).split()[-1]
        assert "█" not in run("usage")
        assert "TREND" not in run("usage", "--by", "day", "--trend")
        assert {"user": "trend", "requests": 1} in json.loads(run("usage", "--json", "--columns", "user,requests"))


class TestTheWay:
    def test_an_address_needs_no_scheme(self, gateway, run):
        run("status", LLMGATEWAY_URL=gateway.url.removeprefix("http://"))

    @pytest.mark.parametrize(
        ("written", "meant"),
        [
            ("gateway.example.org", "https://gateway.example.org"),
            ("gateway.example.org:8443/llm/v1/", "https://gateway.example.org:8443/llm"),
            ("localhost:8080", "http://localhost:8080"),
            ("127.0.0.1:8080/docs", "http://127.0.0.1:8080"),
            ("[::1]:8080", "http://[::1]:8080"),
            ("10.0.0.9:8080", "https://10.0.0.9:8080"),
            ("HTTP://gateway.example.org", "HTTP://gateway.example.org"),
        ],
    )
    def test_what_an_address_means(self, written, meant):
        assert meant == Client(written, "x" * 20).url

    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("http://gateway.example.org", True),
            ("HTTP://10.0.0.9:8080", True),
            ("https://gateway.example.org", False),
            ("http://127.0.0.9:8080", False),
            ("http://[::1]", False),
            ("http://localhost", False),
            ("http://localhost.example.org", True),
        ],
    )
    def test_knows_when_everybody_can_read_the_key(self, url, expected):
        assert expected == Client(url, "x" * 20).is_in_the_clear

    def test_warns_before_the_key_travels_in_the_clear(self, run):
        run("status", status=3, LLMGATEWAY_URL="http://192.0.2.1:1", https_proxy="", http_proxy="http://127.0.0.1:9")

        assert "warning: The admin key travels to http://192.0.2.1:1 without encryption" in run.result.stderr

    def test_the_key_may_stand_in_a_file(self, gateway, run, tmp_path):
        file = tmp_path / "key"
        file.write_text(f"{gateway.admin_key}\n# of the department\n")

        run("status", ADMIN_KEY="", ADMIN_KEY_FILE=str(file))
        run("status", "--admin-key-file", str(file), ADMIN_KEY="")
        run("status", "--admin-key-file", str(tmp_path / "none"), ADMIN_KEY="", status=2)
        assert "cannot be read" in run.result.stderr


def at_a_terminal(gateway, answer: str, *arguments: str) -> tuple[int, str]:
    """Run a command at a terminal, type *answer*, and return its exit status and all that the terminal shows."""
    controller, terminal = pty.openpty()
    environ = os.environ | {"ADMIN_KEY": gateway.admin_key, "LLMGATEWAY_URL": gateway.url, "TERM": "xterm"}
    command = [sys.executable, "-m", "llmgateway", *arguments]
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environ, cwd=ROOT)
    os.close(terminal)
    os.write(controller, answer.encode())
    shown = b""
    try:
        while part := os.read(controller, 65536):
            shown += part
    except OSError:  # the other end is closed
        pass
    os.close(controller)
    return process.wait(20), shown.decode()


def test_a_question_at_a_terminal(gateway, run, people):
    """No changes nothing, and yes does it; the keys are shown before."""
    status, shown = at_a_terminal(gateway, "n\n", "keys", "block", "ada")
    assert (1, True) == (status, "Block all 2 keys of ada?" in shown)
    assert people["thesis"] in shown
    assert "Nothing was changed." in shown

    assert 0 == at_a_terminal(gateway, "y\n", "keys", "block", "ada")[0]
    assert [False, False] == [key["active"] for key in json.loads(run("keys", "list", "--user", "ada", "--json"))]


def test_users_and_groups_are_completed(gateway, run, people):
    run("groups", "set", "physics")
    asked = {"ADMIN_KEY": gateway.admin_key, "LLMGATEWAY_URL": gateway.url, "_LLMGATEWAY_COMPLETE": "bash_complete"}

    def completed(line: str) -> list[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        command = [sys.executable, "-c", "from llmgateway.cli import main; main(prog_name='llmgateway')"]
        done = subprocess.run(command, env=os.environ | asked | words, capture_output=True, text=True, check=True)
        return [row.partition(",")[2] for row in done.stdout.splitlines()]

    assert ["grace"] == completed("llmgateway keys block g")
    assert ["physics"] == completed("llmgateway keys list --group ph")
    assert ["physics"] == completed("llmgateway groups show p")
    assert ["physics"] == completed("llmgateway groups close mechanics --move-to p")
    assert ["physics"] == completed("llmgateway keys bulk move --group mechanics --to p")
    run("admins", "add", "Grace", "--role", "viewer")
    assert ["Grace"] == completed("llmgateway audit --admin G")
    run("admins", "remove", "Grace", "--yes")
    run("groups", "remove", "physics")
