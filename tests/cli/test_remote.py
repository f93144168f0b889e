"""The admin API from a terminal, in front of a gateway that runs."""

from __future__ import annotations

import csv
import io
import json
import stat
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from click.testing import CliRunner

from llmgateway.cli import main
from llmgateway.simulator import Simulator
from tests.gateway_process import GatewayProcess
from tests.servers import free_port

AZURE_KEY = "azure-key-of-the-command-line"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with Simulator(key=AZURE_KEY) as azure:
        environ = {"LLM_BASE_URL": f"{azure.url}/openai/v1", "LLM_API_KEY": AZURE_KEY}
        with GatewayProcess(environ, folder=tmp_path_factory.mktemp("gateway")) as started:
            yield started


@pytest.fixture
def run(gateway):
    """Run a command against the gateway; returns what went to standard output."""

    def run(*arguments: str, status: int = 0, stdin: str | bytes = "", **environ: str) -> str:
        asked = {"ADMIN_KEY": gateway.admin_key, "LLMGATEWAY_URL": gateway.url} | environ
        run.result = CliRunner().invoke(main, arguments, input=stdin, env=asked, color=True)
        assert status == run.result.exit_code, run.result.output
        return run.result.stdout

    return run


@pytest.fixture
def moved(gateway):
    """The address of a server that sends everybody on to the gateway."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(307)
            self.send_header("Location", f"{gateway.url}{self.path.partition('?')[0]}")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def told(run, *arguments: str, **options: str):
    return json.loads(run(*arguments, "--json", **options))


def commands(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("path", list(commands(main)), ids=" ".join)
def test_every_command_explains_itself(path):
    """With a sentence of its own, and without a gateway."""
    result = CliRunner().invoke(main, [*path, "--help"], env={"ADMIN_KEY": ""})

    assert 0 == result.exit_code
    assert "\n  " in result.stdout.partition("Usage:")[2]
    assert not [option for option in result.stdout.splitlines() if option.endswith("  --")]


def test_a_key_from_its_first_day_to_its_last(gateway, run):
    """It is created, limited, blocked, unblocked, replaced and removed; only the key goes to a pipe."""
    key = run("keys", "add", "ada", "--name", "thesis", "--requests-per-minute", "9", "--model", "gpt-4o-mini").strip()
    assert 200 == gateway.chat(key).status
    [listed] = told(run, "keys", "list", "--user", "ada")
    key_id = listed["id"]
    assert (["gpt-4o-mini"], 9) == (listed["models"], listed["limits"]["requests_per_minute"])

    changed = told(run, "keys", "set", key_id, "--budget", "5usd/month", "--requests-per-minute", "none", "--model", "")
    assert {"amount": 5, "unit": "usd", "period": "month"} == changed["limits"]["budget"]
    assert (None, None) == (changed["limits"]["requests_per_minute"], changed["models"])
    assert "5 usd/month" in run("keys", "show", key_id)

    run("keys", "block", key_id)
    assert 401 == gateway.chat(key).status
    assert [] == told(run, "keys", "list", "--user", "ada", "--active")
    run("keys", "unblock", key_id)
    assert 200 == gateway.chat(key).status

    new = run("keys", "rotate", key_id, "--overlap", "600").strip()
    assert [200, 200] == [gateway.chat(one).status for one in (key, new)]
    run("keys", "remove", key_id, status=1)
    assert "Remove the key 'thesis' of ada?" in run.result.stderr
    run("keys", "remove", key_id, "--yes")
    assert [401, 401] == [gateway.chat(one).status for one in (key, new)]


def test_a_key_of_ones_own_is_never_an_argument(gateway, run):
    """It comes from standard input: a command line is read by everybody on the machine."""
    assert "my-own-key-since-2019\n" == run("keys", "add", "eve", "--own-key", stdin="my-own-key-since-2019\n")
    assert 200 == gateway.chat("my-own-key-since-2019").status


def test_a_table_is_what_people_get(run):
    """A line for each key below a header, and nothing that a terminal would obey."""
    run("keys", "add", "grace", "--note", "\x1b[2J\nsecond line")
    [listed] = told(run, "keys", "list", "--user", "grace")

    header, line = run("keys", "list", "--user", "grace").splitlines()
    assert ["ID", "USER", "NAME", "GROUP", "ACTIVE", "EXPIRES_AT", "LIMITS"] == header.split()
    assert [listed["id"], "grace", "default", "-", "yes", "-", "-"] == line.split()
    assert "\x1b" not in run("keys", "show", listed["id"])


def test_a_group_keeps_what_is_not_given(gateway, run):
    """Made, changed in one field, revoked, and removed when nobody is in it any more."""
    run("groups", "set", "course", "--expires-at", "2036-01-01", "--tokens-per-minute", "1000", "--note", "Tuesdays")
    changed = told(run, "groups", "set", "course", "--budget", "50requests/total", "--note", "")
    assert "2036-01-01T00:00:00+00:00" == changed["expires_at"]
    assert (None, 1000) == (changed["note"], changed["limits"]["tokens_per_minute"])
    assert "course" in run("groups", "list")

    key = run("keys", "add", "alan", "--group", "course").strip()
    assert {"revoked": 1} == told(run, "groups", "revoke", "course", "--yes")
    assert 401 == gateway.chat(key).status
    run("groups", "remove", "course", status=1)
    assert "There are keys in this group" in run.result.stderr
    [member] = told(run, "keys", "list", "--group", "course")
    run("keys", "remove", member["id"], "--yes")
    run("groups", "remove", "course")
    assert [] == told(run, "groups", "list")


def test_limits_of_everybody(run):
    """Change in the parts that are given."""
    run("limits", "set", "--tokens-per-minute", "900000")
    told(run, "limits", "set", "--budget", "2000.5usd/month")
    assert ["budget", "2000.5", "usd/month"] == run("limits", "show").splitlines()[-1].split()
    shown = told(run, "limits", "show")
    assert (900000, 2000.5) == (shown["tokens_per_minute"], shown["budget"]["amount"])

    cleared = told(run, "limits", "set", "--tokens-per-minute", "none", "--budget", "none")
    assert {None} == set(cleared.values())


@pytest.mark.parametrize(
    ("option", "value", "word"), [("--budget", "5", "5usd/month"), ("--tokens-per-minute", "-1", "whole number")]
)
def test_a_limit_that_is_none_is_explained(run, option, value, word):
    """Before anybody is asked."""
    run("limits", "set", option, value, status=2)

    assert word in run.result.stderr


def test_prompts(run, tmp_path):
    """From standard input, a file or the line; of everybody, or of a group; with a preview of what would be sent."""
    run("groups", "set", "seminar")
    run("prompt", "set", stdin="Be brief.\n")
    file = tmp_path / "prompt.txt"
    file.write_text("Sei höflich.\n")
    run("prompt", "set", str(file), "--group", "seminar")
    assert "Sei höflich." in run("prompt", "show", "--group", "seminar")
    assert "Be brief." in run("prompt", "show")

    preview = run("prompt", "preview", "Hello", "--group", "seminar", "--model", "gpt-4o")
    assert ["system: Sei höflich.", "user: Hello"] == preview.splitlines()
    assert "of group seminar" in run.result.stderr
    run("prompt", "clear", "--group", "seminar")
    assert "of the organisation" in run.result.stderr
    assert ["Sei höflich."] == [one["prompt"] for one in told(run, "prompt", "versions", "--group", "seminar")]
    run("prompt", "set", "--text", "")
    assert "" == told(run, "prompt", "show")["prompt"]


def test_azures_key_comes_from_standard_input(gateway, run):
    """And is not repeated."""
    run("llm-key", "set", stdin="wrong-azure-key\n")
    key = run("keys", "add", "ada").strip()
    assert "upstream_credentials" == gateway.chat(key).error["code"]
    run("llm-key", "set", stdin=AZURE_KEY)

    assert 200 == gateway.chat(key).status
    assert AZURE_KEY not in run.result.output


def test_prices_reports_and_traces(run):
    """The rest of the admin API answers, too."""
    run("models", "set", "gpt-4o", "--prompt", "2", "--completion", "8")
    assert ["gpt-4o", "2", "2", "8"] == run("models", "list").splitlines()[1].split()
    run("models", "remove", "gpt-4o")
    assert "prices.remove" in run("audit", "--target", "gpt-4o").splitlines()[1]
    assert max(map(len, run("audit").splitlines())) < 300
    assert "total" in run("usage").splitlines()[-1]
    assert run("usage", "--by", "user", "--csv").startswith("user,requests,")
    assert {"rows", "total"} == told(run, "usage").keys()
    assert run("logs", "--limit", "3").startswith("TIMESTAMP")
    assert "normal" in run("status")


class TestImport:
    def test_hands_out_a_class(self, gateway, run, tmp_path):
        """A line for each with the key in it, in a file that nobody else reads, which is never overwritten."""
        roster, new = tmp_path / "class.csv", tmp_path / "keys.csv"
        roster.write_text("user;email\nada;ada@example.org\nalan;alan@example.org\n")

        run("keys", "import", str(roster), "--output", str(new))

        rows = list(csv.DictReader(io.StringIO(new.read_text())))
        assert ["ada", "alan"] == [row["user"] for row in rows]
        assert [200, 200] == [gateway.chat(row["key"]).status for row in rows]
        assert 0o600 == stat.S_IMODE(new.stat().st_mode)
        assert "Sending the file" in run.result.stderr
        before = new.read_text()
        run("keys", "import", str(roster), "--output", str(new), status=2)
        assert before == new.read_text()

    def test_from_a_pipe_to_a_pipe(self, run):
        """What is printed is the table and nothing else."""
        rows = list(csv.DictReader(io.StringIO(run("keys", "import", "-", stdin="user\nada\n"))))

        assert [("ada", True)] == [(row["user"], row["key"].startswith("llmgw-")) for row in rows]

    def test_names_every_bad_line(self, run, tmp_path):
        """By file and line on standard error; nothing is stored, and no file is left."""
        roster, new = tmp_path / "class.csv", tmp_path / "keys.csv"
        roster.write_text("user,email,requests_per_minute\nzoe,nobody,5\nzack,,-3\nzuse,z@example.org,1\n")

        run("keys", "import", str(roster), "--output", str(new), status=1)

        problems = run.result.stderr.splitlines()
        assert f"{roster}:2: email: Not a valid email address." in problems
        assert [line for line in problems if line.startswith(f"{roster}:3: requests_per_minute: Must be from 1")]
        assert [roster] == list(tmp_path.iterdir())
        assert [] == told(run, "keys", "list", "--user", "zuse")


class TestTroubles:
    def test_no_gateway(self, run):
        """Its address, and how to name another."""
        url = f"http://127.0.0.1:{free_port()}"
        run("keys", "list", "--url", url, status=1)

        problem = f"There is no gateway at {url}. Start one, or name another with --url."
        assert f"llmgateway: {problem}\n" == run.result.stderr

    def test_a_wrong_key(self, run):
        """What the gateway says about it."""
        run("keys", "list", ADMIN_KEY="a-wrong-key", status=1)

        assert "The AdminKey is wrong" in run.result.stderr
        assert "a-wrong-key" not in run.result.output

    def test_no_key(self, run):
        """Where it comes from."""
        run("keys", "list", ADMIN_KEY="", status=2)

        assert "ADMIN_KEY is missing" in run.result.stderr

    def test_another_server(self, run):
        """Something that is no gateway is called that."""
        with Simulator() as azure:
            run("keys", "list", "--url", azure.url, status=1)

        assert "is not an LLMGateway" in run.result.stderr

    def test_a_server_that_sends_us_on(self, gateway, run, moved):
        """The admin key does not go along; its owner says where to send it."""
        run("keys", "list", "--url", moved, status=1)

        assert f"has moved to {gateway.url}/admin/keys" in run.result.stderr

    def test_fields_that_are_wrong(self, run):
        """By name, with the reason."""
        run("keys", "add", "ada", "--email", "nobody", "--expires-at", "tomorrow", status=1)

        assert "email: Not a valid email address." in run.result.stderr
        assert "expires_at: Must be a time like" in run.result.stderr

    def test_takes_the_address_as_people_paste_it(self, gateway, run):
        """With the path of the API or of the pages behind it."""
        for path in ("/", "/v1", "/v1/", "/docs"):
            run("limits", "show", "--url", gateway.url + path)
