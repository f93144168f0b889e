"""The admin API from a terminal, in front of a gateway that runs."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from click.testing import CliRunner

from llmgateway.cli import main
from llmgateway.simulator import Script, Simulator
from llmgateway.simulator.deployments import DEFAULT_DEPLOYMENTS
from tests.gateway_process import GatewayProcess
from tests.servers import free_port, wait_until

AZURE_KEY = "azure-key-of-the-command-line"
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"


@pytest.fixture(scope="module")
def azure():
    with Simulator(key=AZURE_KEY, deployments=(*DEFAULT_DEPLOYMENTS, "house")) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def gateway(azure, tmp_path_factory):
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
        return run.result.stdout.replace(BOLD, "").replace(PLAIN, "")  # of headings; nothing else may have a colour

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
    run("keys", "remove", key_id, status=2)
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
    spent = ["SPENT", "LEFT", "LAST_USED"]
    assert ["ID", "USER", "NAME", "GROUP", "ACTIVE", "EXPIRES_AT", *spent, "LIMITS"] == header.split()
    assert [listed["id"], "grace", "default", "-", "yes", "-", "0", "usd", "-", "-", "-"] == line.split()
    assert "\x1b" not in run("keys", "show", listed["id"])


def test_a_group_keeps_what_is_not_given(gateway, run):
    """Made, changed in one field, revoked, and removed when nobody is in it any more."""
    run("groups", "set", "course", "--expires-at", "2036-01-01", "--tokens-per-minute", "1000", "--note", "Tuesdays")
    changed = told(run, "groups", "set", "course", "--budget", "50requests/total", "--note", "")
    assert "2036-01-02T00:00:00+00:00" == changed["expires_at"]
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
    assert ["budget", "2000.5", "usd/month"] in [line.split() for line in run("limits", "show").splitlines()]
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
    assert run("usage", "--by", "user", "--csv").startswith('"user","requests",')
    assert {"rows", "total"} == told(run, "usage").keys()
    assert run("logs", "--limit", "3").startswith("TIMESTAMP")
    assert "normal" in run("status")


class TestImport:
    def test_hands_out_a_class(self, gateway, run, tmp_path):
        """A line for each with the key in it, in a file that nobody else reads, which is never overwritten."""
        roster, new = tmp_path / "class.csv", tmp_path / "keys.csv"
        roster.write_text("user;email\nclass-1;ada@example.org\nclass-2;alan@example.org\n")

        run("keys", "import", str(roster), "--output", str(new))

        rows = list(csv.DictReader(io.StringIO(new.read_text())))
        assert ["class-1", "class-2"] == [row["user"] for row in rows]
        assert [200, 200] == [gateway.chat(row["key"]).status for row in rows]
        assert 0o600 == stat.S_IMODE(new.stat().st_mode)
        assert "Sending the file" in run.result.stderr
        before = new.read_text()
        run("keys", "import", str(roster), "--output", str(new), status=2)
        assert before == new.read_text()

    def test_from_a_pipe_to_a_pipe(self, run):
        """What is printed is the table and nothing else."""
        rows = list(csv.DictReader(io.StringIO(run("keys", "import", "-", stdin="user\npiped\n"))))

        assert [("piped", True)] == [(row["user"], row["key"].startswith("llmgw-")) for row in rows]

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

    def test_shows_the_plan_and_stores_nothing(self, run, tmp_path):
        """Line by line, with what was recognised and what was ignored; --json has all of it."""
        run("groups", "set", "planned")
        roster = tmp_path / "class.csv"
        roster.write_bytes("Vorname;Nachname;E-Mail;Fach\nÄnne;Groß;a@x.example;Physik\n".encode("cp1252"))
        import_ = ("keys", "import", str(roster), "--group", "planned")

        header, line = run(*import_, "--dry-run").splitlines()

        assert ["LINE", "ACTION", "USER", "GROUP", "WHY"] == header.split()
        assert ["2", "create", "Änne", "Groß", "planned", "-"] == line.split()
        for word in ("user from Vorname + Nachname", "Ignored: Fach.", "Windows-1252", "Nothing was stored."):
            assert word in run.result.stderr
        assert [] == told(run, "keys", "list", "--group", "planned")
        assert {"create": 1, "skip": 0, "update": 0, "refuse": 0} == told(run, *import_, "--dry-run")["counts"]

        run(*import_)
        run(*import_, status=1)
        assert f"{roster}:2: user: Has a key in the group 'planned' already" in run.result.stderr
        assert "--existing skip" in run.result.stderr
        assert "refuse" in run(*import_, "--dry-run", status=1)
        run(*import_, "--existing", "skip")
        assert "Created 0 keys, skipped 1." in run.result.stderr
        run(*import_, "--existing", "update", "--map", "note=Fach")
        assert "Created 0 keys, updated 1." in run.result.stderr
        [key] = told(run, "keys", "list", "--group", "planned")
        assert ("Änne Groß", "a@x.example", "Physik") == (key["user"], key["email"], key["note"])

    def test_the_plan_says_all_that_is_wrong(self, run, tmp_path):
        """By line, to the end of each text, with names of columns and not of options."""
        roster = tmp_path / "class.csv"
        roster.write_text("user,budget_amount,expires_at\nzoe,abc,3/4/2027\n")
        run("keys", "import", str(roster), "--dry-run", status=1)

        problems = run.result.stderr.splitlines()
        for expected in (
            "budget_amount: Must be a number",
            "budget_unit: Is missing. A budget has an amount, a unit (usd, tokens or requests)",
            "expires_at: 3/4/2027 can be 2027-04-03 or 2027-03-04.",
        ):
            assert [line for line in problems if line.startswith(f"{roster}:2: {expected}")]
        assert "--dates dmy for the day, --dates mdy for the month." in run.result.stderr
        assert f"llmgateway: {roster}: 1 line is not right, so that nothing of it would be imported." == problems[-1]

        roster.write_text("user,emial\nzoe,z@example.org\n")
        run("keys", "import", str(roster), status=1)
        assert "starts_at, expires_at, models, requests_per_minute" in run.result.stderr
        assert "'errors'" not in run.result.stderr

        roster.write_text("")
        run("keys", "import", str(roster), status=1)
        assert f"{roster}: Is empty." in run.result.stderr

    def test_says_which_option_is_wrong(self, run):
        """By its name on the command line."""
        run("keys", "import", "-", "--map", "user=Benutzer", stdin="user;Fach\nx;y\n", status=1)
        assert "--map: There is no column 'Benutzer' in the file" in run.result.stderr

        run("keys", "import", "-", stdin="user;Fach\nx;y\n", status=1)
        assert "--ignore-other-columns" in run.result.stderr

    def test_json_has_what_was_done(self, run):
        """With the new keys."""
        [line] = told(run, "keys", "import", "-", stdin="user\njson-1\n")["lines"]

        assert ("create", "json-1", True) == (line["action"], line["user"], line["key"].startswith("llmgw-"))

    @pytest.mark.parametrize(("answer", "status", "count"), [("y", 0, 1), ("n", 1, 0)])
    def test_asks_on_a_terminal(self, gateway, run, tmp_path, answer, status, count):
        """With the plan; nothing is stored before the answer."""
        roster = tmp_path / "class.csv"
        roster.write_text(f"user\nasked-{answer}\n")
        ours, theirs = os.openpty()
        environ = os.environ | {"ADMIN_KEY": gateway.admin_key, "LLMGATEWAY_URL": gateway.url}
        command = [sys.executable, "-m", "llmgateway", "keys", "import", str(roster)]
        with open(ours, "wb", buffering=0) as keyboard:
            keyboard.write(f"{answer}\n".encode())
            done = subprocess.run(command, stdin=theirs, capture_output=True, text=True, env=environ, timeout=60)
            os.close(theirs)

        assert status == done.returncode, done.stderr
        assert "Create 1. Do it?" in done.stderr
        assert count == len(told(run, "keys", "list", "--user", f"asked-{answer}"))


def test_days_as_people_say_them(run):
    """Tomorrow is a whole day; hours are counted from now."""
    now = datetime.now(UTC)
    key = told(run, "keys", "add", "dated", "--starts-at", "today", "--expires-at", "tomorrow")
    later = told(run, "keys", "set", key["id"], "--expires-at", "3d")

    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    assert [midnight, midnight + timedelta(days=2)] == [
        datetime.fromisoformat(key[name]) for name in ("starts_at", "expires_at")
    ]
    assert timedelta(days=3) <= datetime.fromisoformat(later["expires_at"]) - now.replace(microsecond=0)
    run("logs", "--since", "2h", "--until", "today")


def test_days_as_people_say_them_in_searches_and_for_admins(run):
    """Wherever a command takes a day."""
    run("audit", "--since", "2h", "--until", "tomorrow")
    run("keys", "bulk", "block", "--created-since", "tomorrow", "--dry-run")
    run("keys", "bulk", "extend", "--created-before", "yesterday", "--to", "tomorrow", "--dry-run")
    run("keys", "prune", "--unused", "99999d", "--dry-run")
    admin = told(run, "admins", "add", "Dated", "--role", "viewer", "--expires-at", "tomorrow")
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    assert midnight + timedelta(days=2) == datetime.fromisoformat(admin["expires_at"])
    run("admins", "remove", "Dated", "--yes")


def test_the_audit_shows_what_has_changed(run):
    """And nothing that has stayed; the JSON has everything."""
    run("groups", "set", "audited", "--tokens-per-minute", "1000", "--note", "Mondays")
    run("groups", "set", "audited", "--note", "Tuesdays")

    line = run("audit", "--target", "audited", "--limit", "1").splitlines()[-1]

    assert line.endswith("note Mondays  note Tuesdays")
    [entry] = told(run, "audit", "--target", "audited", "--limit", "1")
    assert "audited" == entry["before"]["name"] == entry["after"]["name"]
    run("groups", "remove", "audited")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("groups set limited --member-budget 0usd/day", "--member-budget: Must be more than 0."),
        (
            "users limits ada --budget 0usd/day",
            "--budget: Must be more than 0. To let nothing through, block the key; ",
        ),
        ("keys bulk move --all --to nowhere", "--to: There is no such group. Make it first: 'llmgateway groups set'."),
        ("keys prune --unused soon", "--unused: Must be a time like"),
        ("admins add Grace --role group", "--group: Name the groups"),
        ("settings set --timezone Berlin", "--timezone: Must be a time zone"),
    ],
)
def test_problems_name_options(run, command, expected):
    run(*command.split(), status=1)

    assert expected in run.result.stderr
    assert "'errors'" not in run.result.stderr
    assert "null" not in run.result.stderr


class TestTroubles:
    def test_no_gateway(self, run):
        """Its address, and how to name another."""
        url = f"http://127.0.0.1:{free_port()}"
        run("keys", "list", "--url", url, status=3)

        problem = f"There is no gateway at {url}. Start one, or name another with --url."
        assert f"llmgateway: {problem}\n" == run.result.stderr

    def test_a_wrong_key(self, run):
        """What the gateway says about it."""
        run("keys", "list", ADMIN_KEY="a-wrong-key", status=4)

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
        run("keys", "list", "--url", moved, status=3)

        assert f"has moved to {gateway.url}/admin/keys" in run.result.stderr

    def test_fields_that_are_wrong(self, run):
        """By name, with the reason."""
        run("keys", "add", "ada", "--email", "nobody", "--expires-at", "soon", status=1)

        assert "--email: Not a valid email address." in run.result.stderr
        assert "--expires-at: Must be a time like" in run.result.stderr
        assert "or like today, 3h, 2d." in run.result.stderr
        assert "errors" not in run.result.stderr

    def test_takes_the_address_as_people_paste_it(self, gateway, run):
        """With the path of the API or of the pages behind it."""
        for path in ("/", "/v1", "/v1/", "/docs"):
            run("limits", "show", "--url", gateway.url + path)


def test_sets_what_a_model_costs_and_can_do(run):
    """Only what is named changes; --like takes list prices, with those of tiers and long prompts."""
    run("models", "set", "house", "--prompt", "2", "--completion", "8", "--audio-prompt", "40")
    run("models", "set", "house", "--max-output-tokens", "4096", "--reasoning", "no", "--tokens-per-second", "80.5")
    run("models", "set", "course", "--like", "GPT-4o", "--deployment-type", "eu")
    run("models", "set", "course", "--like", "gpt-5.6-sol", "--cached", "0.1")

    assert told(run, "models", "show", "house") == {
        "name": "house",
        "prices": {"prompt": 2, "cached": 2, "completion": 8, "audio_prompt": 40},
        "max_output_tokens": 4096,
        "tokens_per_second": 80.5,
        "reasoning": False,
    }
    prices = told(run, "models", "show", "course")["prices"]
    assert (4.0, 0.1, 8.0) == (prices["prompt"], prices["cached"], prices["tiers"]["priority"]["prompt"])
    assert (272_000, 8.0) == (prices["long_context"]["above"], prices["long_context"]["prompt"])
    run("models", "set", "house", "--max-output-tokens", "none", "--reasoning", "none", "--tokens-per-second", "none")
    assert {"name", "prices"} == told(run, "models", "show", "house").keys()
    assert not {"MAX_OUTPUT_TOKENS", "REASONING"} & set(run("models", "list").splitlines()[0].split())
    for name in ("house", "course"):
        run("models", "remove", name)


def test_lists_all_that_is_set_of_models(run):
    """A column for each setting that some model has; of tiers their names, of long prompts where they begin."""
    run("models", "set", "house", "--prompt", "2", "--completion", "8", "--image", "3.5", "--audio-prompt", "40")
    run("models", "set", "house", "--max-output-tokens", "4096", "--reasoning", "no", "--tokens-per-second", "80.5")
    run("models", "set", "solo", "--reasoning", "yes")
    run("models", "set", "course", "--like", "gpt-5.6-sol")

    header, *lines = (re.split(r"  +", line) for line in run("models", "list").splitlines())
    course, house, solo = (dict(zip(header, line, strict=True)) for line in lines)

    others = "CACHE_WRITE AUDIO_PROMPT IMAGE LONG_CONTEXT TIERS MAX_OUTPUT_TOKENS TOKENS_PER_SECOND REASONING"
    assert ["NAME", "PROMPT", "CACHED", "COMPLETION", *others.split()] == header
    assert ("above 272000", "flex, priority", "4") == (course["LONG_CONTEXT"], course["TIERS"], course["IMAGE"])
    assert ["house", "2", "2", "8", "-", "40", "3.5", "-", "-", "4096", "80.5", "no"] == list(house.values())
    assert ("solo", "-", "yes") == (solo["NAME"], solo["PROMPT"], solo["REASONING"])
    assert told(run, "models", "show", "course")["prices"] == told(run, "models", "list")[0]["prices"]
    for name in ("house", "solo", "course"):
        run("models", "remove", name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Nothing to set"),
        (("--prompt", "2"), "--completion"),
        (("--cached", "2"), "--prompt"),
        (("--like", "nobody-knows"), "No list price"),
        (("--like", "gpt-4o", "--deployment-type", "regional"), "No list price"),
    ],
)
def test_says_what_is_missing_to_set_a_price(run, arguments, message):
    """Before anything is sent."""
    run("models", "set", "house", *arguments, status=2)

    assert message in run.result.output


def test_a_table_of_prices_changes_models_in_their_own_spelling(run, tmp_path):
    """Upper and lower case make no difference, so the model is not there twice."""
    run("models", "set", "GPT-4o", "--prompt", "1", "--completion", "2")
    row = {"deployment": "global", "tier": "default", "above": 0, "source": "test", "date": "2026-11-28"}
    table = tmp_path / "prices.json"
    table.write_text(json.dumps({"prices": [{"model": "gpt-4o", **row, "prompt": 9.0, "completion": 10.0}]}))

    run("models", "prices", str(table))

    assert [("GPT-4o", 9.0)] == [(each["name"], each["prices"]["prompt"]) for each in told(run, "models", "list")]
    run("models", "remove", "GPT-4o")


def test_takes_a_table_of_prices_over(run, tmp_path):
    """Every model in it gets prices of its own, once; a file that is no table changes nothing."""
    row = {"deployment": "global", "tier": "default", "above": 0, "source": "test", "date": "2026-11-28"}
    rows = [
        {"model": "gpt-4o", **row, "prompt": 9.0, "cached": 1.0, "completion": 10.0},
        {"model": "gpt-4o", **row, "tier": "priority", "prompt": 18.0, "completion": 20.0},
        {"model": "gpt-4o", **row, "deployment": "eu", "prompt": 99.0, "completion": 10.0},
        {"model": "embed", **row, "prompt": 0.5},
    ]
    table = tmp_path / "prices.json"
    table.write_text(json.dumps({"prices": rows}))

    assert ["embed", "gpt-4o"] == [model["name"] for model in told(run, "models", "prices", str(table), "--dry-run")]
    assert [] == told(run, "models", "list")
    run("models", "prices", str(table))
    assert told(run, "models", "list") == [
        {"name": "embed", "prices": {"prompt": 0.5, "cached": 0.5, "completion": 0.0}},
        {
            "name": "gpt-4o",
            "prices": {
                "prompt": 9.0,
                "cached": 1.0,
                "completion": 10.0,
                "tiers": {"priority": {"prompt": 18.0, "cached": 18.0, "completion": 20.0}},
            },
        },
    ]
    assert [] == told(run, "models", "prices", str(table))
    table.write_text('{"prices": [1]}')
    run("models", "prices", str(table), status=2)
    assert "not a table of prices" in run.result.output
    for name in ("embed", "gpt-4o"):
        run("models", "remove", name)


def test_reports_what_has_no_known_price(gateway, run):
    """The cost of such requests is empty, not 0, and their number is shown if there are any."""
    key = run("keys", "add", "eve").strip()
    assert 200 == gateway.chat(key, model="house").status
    wait_until(lambda: "house" in run("usage", "--by", "model"))

    head, *rows = [line.split() for line in run("usage", "--by", "model").splitlines()]
    (house,) = (dict(zip(head, row, strict=True)) for row in rows if row[0] == "house")
    assert ("-", "1") == (house["COST_USD"], house["UNPRICED_REQUESTS"])
    assert "house" in run("status")


def test_reports_what_azure_did_not_count(gateway, run, azure):
    """Estimated tokens get a column of their own if there are any; their records can be listed alone."""
    key = run("keys", "add", "mallory").strip()
    assert 200 == gateway.chat(key).status
    wait_until(lambda: "mallory" in run("logs"))
    assert "ESTIMATED_TOKENS" not in run("usage")
    azure.script(Script(tokens=20, cut_after_events=12))
    gateway.chat(key, stream=True)
    wait_until(lambda: told(run, "logs", "--usage-source", "estimated"))

    head, *rows = [line.split() for line in run("usage", "--by", "user").splitlines()]
    (row,) = (dict(zip(head, row, strict=True)) for row in rows if row[0] == "mallory")
    (record,) = told(run, "logs", "--user", "mallory", "--usage-source", "estimated")
    assert str(record["total_tokens"]) == row["ESTIMATED_TOKENS"]
    assert int(row["ESTIMATED_TOKENS"]) < int(row["TOTAL_TOKENS"])
    assert "BOUND_TOKENS" not in head
    assert [] == told(run, "logs", "--usage-source", "bound")
    run("logs", "--usage-source", "guessed", status=1)
    assert "Must be one of `upstream`" in run.result.output


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", '"http://127.0.0.1:8080"', "http://"])
def test_says_how_to_write_the_address(run, url):
    """Not in the words of a library."""
    run("status", status=2, LLMGATEWAY_URL=url)

    assert "write it like http://127.0.0.1:8080" in run.result.stderr


@pytest.mark.parametrize("key", ["a-secret\nof-somebody", "\u043a\u043b\u044e\u0447-secret"], ids=ascii)
def test_does_not_show_an_admin_key_that_cannot_be_sent(run, key):
    """Its error is copied into tickets."""
    run("status", status=4, ADMIN_KEY=key)

    assert "ADMIN_KEY has characters that a header cannot carry" in run.result.stderr
    assert "secret" not in run.result.output


def test_many_keys_by_filter(gateway, run):
    """They are listed, and changed when the answer is yes; --yes says so without a terminal."""
    run("groups", "set", "autumn")
    run("groups", "set", "spring")
    for name in ("ina", "ben"):
        run("keys", "add", name, "--group", "autumn", "--expires-at", "2036-01-01")

    shown = run("keys", "bulk", "block", "--group", "autumn", "--dry-run").splitlines()
    assert ["ID", "USER", "NAME", "GROUP", "ACTIVE", "EXPIRES_AT", "LAST_USED", "HAPPENS"] == shown[0].split()
    assert ["blocked", "blocked"] == [line.split()[-1] for line in shown[1:]]
    run("keys", "bulk", "block", "--group", "autumn", status=2)
    assert "say --yes" in run.result.stderr
    run("keys", "bulk", "block", "--group", "autumn", "--yes")
    assert "2 keys blocked." in run.result.stderr
    run("keys", "bulk", "block", "--group", "autumn", "--yes")
    assert "Nothing has to be changed." in run.result.stderr

    run("keys", "bulk", "extend", "--group", "autumn", "--to", "2037-01-01T00:00:00Z", "--yes")
    run("keys", "bulk", "move", "--group", "autumn", "--to", "spring", "--yes")
    moved = told(run, "keys", "list", "--group", "spring")
    assert ["2037-01-01"] * 2 == [one["expires_at"][:10] for one in moved]
    assert [] == told(run, "keys", "bulk", "remove", "--user", "nobody", "--dry-run")["items"]
    run("keys", "bulk", "block", "--yes", status=2)
    assert "--all" in run.result.stderr
    run("keys", "bulk", "move", "--all", "--yes", status=2)

    assert [] == told(run, "keys", "prune", "--unused", "180d", "--group", "spring", "--dry-run")["items"]
    assert 2 == told(run, "keys", "prune", "--unused", "0d", "--group", "spring", "--yes")["count"]
    assert [] == told(run, "keys", "list", "--group", "spring")


def test_a_group_ends(gateway, run):
    """Its members come as CSV, first without a change; the group is gone, or stays closed."""
    for name in ("winter", "summer"):
        run("groups", "set", name)
        run("keys", "add", f"{name}'s", "--group", name, "--email", "person@example.org")

    run("groups", "close", "winter", status=2)
    run("groups", "close", "winter", "--keys", "remove", "--move-to", "summer", status=2)
    run("groups", "close", "winter", "--keys", "remove", status=2)
    assert "End the group winter, and remove 1 key?" in run.result.stderr
    before = run("groups", "close", "winter", "--keys", "remove", "--dry-run")
    assert before == run("groups", "close", "winter", "--keys", "remove", "--yes")
    [row] = csv.DictReader(io.StringIO(before))
    assert ("winter's", "person@example.org", "removed") == (row["user"], row["email"], row["happened"])
    run("groups", "show", "winter", status=1)

    closed = told(run, "groups", "close", "summer", "--keys", "block", "--yes")
    assert ("closed", "blocked") == (closed["group"], closed["items"][0]["happened"])
    assert told(run, "groups", "show", "summer")["expires_at"]


def test_a_person_is_exported_and_erased(gateway, run, tmp_path):
    """The file has everything; then the keys are refused and nothing is under the name; a second time finds nobody."""
    key = run("keys", "add", "Élodie Test-Ö", "--email", "elodie@example.org").strip()
    assert 200 == gateway.chat(key).status
    file = tmp_path / "person.json"

    run("users", "export", "Élodie Test-Ö", "-o", str(file))

    kept = json.loads(file.read_text())
    assert ("Élodie Test-Ö", ["elodie@example.org"]) == (kept["user"], [one["email"] for one in kept["keys"]])
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    assert kept["key_ids"] == json.loads(run("users", "export", "Élodie Test-Ö"))["key_ids"]
    run("users", "export", "Élodie Test-Ö", "-o", str(file), status=2)
    assert "exists already" in run.result.stderr

    assert 1 == told(run, "users", "erase", "Élodie Test-Ö", "--dry-run")["counts"]["keys"]
    run("users", "erase", "Élodie Test-Ö", status=2)
    assert "Erase Élodie Test-Ö: 1 key," in run.result.stderr
    assert 200 == gateway.chat(key).status
    erased = told(run, "users", "erase", "Élodie Test-Ö", "--yes")
    assert erased["complete"]
    assert 401 == gateway.chat(key).status
    assert [] == told(run, "keys", "list", "--user", "Élodie Test-Ö")
    assert erased["erased_as"] in {row["user"] for row in told(run, "usage", "--by", "user")["rows"]}
    run("users", "erase", "Élodie Test-Ö", "--yes", status=1)
    run("users", "export", "nobody", status=1)
