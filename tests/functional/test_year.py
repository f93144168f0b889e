"""An admin's year with nothing but the command line: class lists, a term of traffic, warnings, a leaked key, a raise,
statements, the end of the term, and a person who is to be forgotten."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner

from llmgateway.cli import main
from tests import ROOT
from tests.alerts.sinks import mail_sink, webhook_sink
from tests.certificates import make_certificate
from tests.functional.conftest import fresh_stores
from tests.functional.test_secrets import everything_stored
from tests.gateway_process import GatewayProcess
from tests.servers import wait_until

FILES = ROOT / "tests" / "class_lists" / "files"
CLASSES = {
    "physics": FILES / "moodle_participants.csv",
    "essays": FILES / "canvas_gradebook.csv",
    "chemie": FILES / "excel_german.csv",
    "statistics": FILES / "moodle_grades.xlsx",
}
ZONE = ZoneInfo("Europe/Berlin")
FORGOTTEN = {
    "user": "Grace Höpper",
    "email": "grace.hoepper@uni.example",
    "note": "grace-note-4711",
    "name": "graces-laptop",
}


class Admin:
    """Somebody at a terminal, for whom each command is run in this process: a start takes longer than most of them."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._environ = {"ADMIN_KEY": gateway.admin_key, "LLMGATEWAY_URL": gateway.url}
        self.said = ""

    def types(self, *words: object, status: int | None = 0, stdin: str = "") -> str:
        """Run a command, and return what it prints; what it says beside it is in ``said``."""
        done = CliRunner().invoke(main, [str(word) for word in words], input=stdin, env=self._environ)
        self.said = done.stderr
        assert status in (done.exit_code, None), f"{words}: {done.output}"
        return done.stdout

    def asks(self, *words: object) -> object:
        return json.loads(self.types(*words, "--json"))


@pytest.fixture
def sinks(tmp_path):
    certificate = make_certificate(tmp_path)
    with webhook_sink() as hook, mail_sink(certificate=certificate, password="mail-password") as mails:
        yield hook, mails


@pytest.fixture(params=["sqlite", "redis+mongo"])
def stores(request, tmp_path):
    with fresh_stores(request.param, tmp_path / "instance") as made:
        yield made


def test_a_year(stores, azure, azure_environ, sinks, tmp_path):
    hook, mails = sinks
    environ = {"REQUESTS_CA_BUNDLE": str(mails.certificate), "LLMGATEWAY_TIMEZONE": "Europe/Berlin"}
    with GatewayProcess({**stores.environ, **azure_environ, **environ}, folder=tmp_path / "gateway") as gateway:
        live_through(gateway, stores, hook, mails, tmp_path)


def live_through(gateway, stores, hook, mails, folder):
    admin = Admin(gateway)

    keys = set_up(admin)
    set_alerts(admin, hook, mails)
    teach(gateway, keys)
    hear_of_the_budget(admin, gateway, keys, hook, mails)
    replace_a_leaked_key(admin, gateway, keys)
    raise_for_a_day(admin, gateway)
    settle_accounts(admin, gateway)
    end_the_term(admin, gateway, keys)
    forget(admin, gateway, stores, folder / "grace.json")


def set_up(admin: Admin) -> dict[str, dict[str, str]]:
    """Four courses from four exports; returns the keys of each by user."""
    assert "Europe/Berlin" in admin.types("settings", "show")
    keys: dict[str, dict[str, str]] = {}
    for number, (group, file) in enumerate(CLASSES.items()):
        centre = f"K-{number}"
        admin.types(
            "groups", "set", group, "--cost-centre", centre, "--member-budget", "3usd/month", "--budget", "9usd/month"
        )
        options = ("--group", group, "--dates", "dmy", "--ignore-other-columns")
        admin.types("keys", "import", file, *options, "--dry-run")
        assert [] == admin.asks("keys", "list", "--group", group), "a dry run has stored something"
        made = admin.types("keys", "import", file, *options, "--yes")
        keys[group] = {row["user"]: row["key"] for row in csv.DictReader(io.StringIO(made))}
        assert len(keys[group]) >= 2
        again = admin.types("keys", "import", file, *options, "--existing", "skip", "--yes")
        assert [] == [row for row in csv.DictReader(io.StringIO(again)) if row["key"]], "somebody has two keys now"
        assert len(keys[group]) == len(admin.asks("keys", "list", "--group", group))
        admin.types("keys", "import", file, *options, "--yes", status=1)
    return keys


def set_alerts(admin: Admin, hook, mails) -> None:
    secrets = f"{mails.url}\n{hook.url}\nhook-secret\n"
    options = ("--smtp", "--from", "llmgateway@example.org", "--email", "admin@example.org", "--add-webhook", "json")
    shown = admin.types(
        "alerts", "set", *options, "--threshold", 50, "--threshold", 100, "--event", "budget", stdin=secrets
    )
    assert "mail-password" not in shown + admin.said
    admin.types("alerts", "test")
    assert (1, 1) == (len(hook.posts), len(mails.mails))


def teach(gateway: GatewayProcess, keys: dict[str, dict[str, str]]) -> None:
    """A term: everybody of every course asks, with several models, plain and streamed."""
    for course in keys.values():
        for number, key in enumerate(course.values()):
            for turn in range(2 + number % 3):
                model = ("gpt-4o-mini", "gpt-4o", "o4-mini")[(number + turn) % 3]
                # Some keys of the lists are not active, or are valid in other years.
                assert gateway.chat(key, model=model, stream=bool(turn % 2)).status in (200, 401)


def hear_of_the_budget(admin: Admin, gateway: GatewayProcess, keys, hook, mails) -> None:
    """The course's budget is lowered until half of it is spent: both ways tell it, once."""
    before = len(hook.posts)
    admin.types("groups", "set", "essays", "--budget", "8requests/month")
    key = next(iter(keys["essays"].values()))
    wait_until(lambda: len(hook.posts) > before and len(mails.mails) > before, seconds=60, what="a warning")
    while gateway.chat(key).status == 200:
        pass
    wait_until(lambda: hook.posts[-1].json()["threshold"] == 100, seconds=60, what="the last warning")
    told = [(post.json()["scope"], post.json()["threshold"]) for post in hook.posts[before:]]
    assert len(told) == len(set(told)), "something was told twice"
    assert {"group:essays"} == {scope for scope, _ in told}
    admin.types("groups", "set", "essays", "--budget", "9usd/month")


def replace_a_leaked_key(admin: Admin, gateway: GatewayProcess, keys) -> None:
    """It is found in a repository; its user reads out the id of a request that somebody else made."""
    user, leaked = next((user, key) for user, key in keys["physics"].items() if gateway.chat(key).status == 200)
    thief = gateway.chat(leaked)
    admin.types("keys", "block", user)
    refused = gateway.chat(leaked)
    assert 401 == refused.status
    admin.types("keys", "unblock", user)
    keys["physics"][user] = new = admin.types("keys", "rotate", user).strip()
    assert (401, 200) == (gateway.chat(leaked).status, gateway.chat(new).status)

    def shown(answer) -> str:
        return admin.types("logs", "show", answer.header("x-request-id"), status=None)

    wait_until(lambda: user in shown(thief), seconds=20, what="the record")
    wait_until(lambda: "invalid_api_key" in shown(refused), seconds=20, what="the refusal")
    assert any("key.rotate" == entry["action"] for entry in admin.asks("audit", "--limit", 10))


def raise_for_a_day(admin: Admin, gateway: GatewayProcess) -> None:
    key = admin.types("keys", "add", "Konrad", "--group", "chemie").strip()
    admin.types("users", "limits", "Konrad", "--budget", "1requests/month")
    assert [200, 429] == [gateway.chat(key).status for _ in range(2)]
    admin.types("users", "raise", "Konrad", "--budget", "2requests/month", "--until", "tomorrow")
    assert [200, 429] == [gateway.chat(key).status for _ in range(2)]
    shown = admin.types("users", "show", "Konrad")
    assert "raise" in shown
    admin.types("users", "raise", "Konrad", "--end")
    assert 429 == gateway.chat(key).status
    admin.types("users", "reset", "Konrad")
    assert 200 == gateway.chat(key).status


def settle_accounts(admin: Admin, gateway: GatewayProcess) -> None:
    """The statements of all groups add up to the organisation's report, to the cent, in both currencies."""
    month = f"{datetime.now(ZONE):%Y-%m}"
    assert 200 == gateway.chat(gateway.key(user="nobody's"), model="gpt-4o").status  # without a group
    admin.types("currency", "set", "EUR", "--rate", f"{month}=0.9217")
    wait_until(lambda: admin.asks("status")["journal"]["records"] == 0, seconds=20, what="the last records")
    report = admin.asks("usage", "--by", "group", "--currency", "EUR")
    whole = admin.asks("statement", "--month", month)
    cents = {line["group"]: Decimal(str(line["cost_usd"])) for line in whole["groups"]}
    assert sum(cents.values()) == Decimal(str(report["total"]["cost_usd"])).quantize(Decimal("0.01"))
    for row in report["rows"]:
        if row["group"] is not None:
            statement = admin.asks("groups", "statement", row["group"], "--month", month)
            lines = [Decimal(str(person["cost_usd"])) for person in statement["persons"]]
            assert sum(lines) == Decimal(str(statement["total"]["cost_usd"]))
            assert all(line == line.quantize(Decimal("0.01")) for line in lines)
            assert cents[row["group"]] == Decimal(str(statement["total"]["cost_usd"]))
            page = admin.types("groups", "statement", row["group"], "--month", month, "--format", "html")
            assert "<script" not in page
            assert all(person["user"] in page for person in statement["persons"] if person["user"].isalnum())


def end_the_term(admin: Admin, gateway: GatewayProcess, keys) -> None:
    before = admin.asks("usage", "--by", "group")["total"]
    planned = admin.types("groups", "close", "statistics", "--keys", "remove", "--dry-run")
    assert len(keys["statistics"]) == len(admin.asks("keys", "list", "--group", "statistics"))
    closed = admin.types("groups", "close", "statistics", "--keys", "remove", "--yes")
    assert sorted(keys["statistics"]) == sorted(row["user"] for row in csv.DictReader(io.StringIO(closed)))
    assert len(planned.splitlines()) == len(closed.splitlines())
    assert {401} == {gateway.chat(key).status for key in keys["statistics"].values()}
    admin.types("groups", "close", "physics", "--move-to", "essays", "--yes")
    assert [] == admin.asks("keys", "list", "--group", "physics")
    assert {"statistics", "physics"}.isdisjoint(group["name"] for group in admin.asks("groups", "list"))
    admin.types("keys", "prune", "--unused", "1d", "--yes")
    assert before == admin.asks("usage", "--by", "group")["total"], "what was used stays in the reports"


def forget(admin: Admin, gateway: GatewayProcess, stores, export: Path) -> None:
    """Everything there is of a person, and then nothing, wherever one looks."""
    fields = ("--name", FORGOTTEN["name"], "--email", FORGOTTEN["email"], "--note", FORGOTTEN["note"])
    key = admin.types("keys", "add", FORGOTTEN["user"], "--group", "essays", *fields).strip()
    admin.types("users", "limits", FORGOTTEN["user"], "--requests-per-minute", 60)
    assert [200, 200] == [gateway.chat(key).status, gateway.chat(key, stream=True).status]
    assert 404 == gateway.chat(key, model="none-of-this-name").status
    namesake = "Grace Höpper jr."
    other = admin.types("keys", "add", namesake).strip()
    assert 200 == gateway.chat(other).status
    wait_until(lambda: len(admin.asks("logs", "--user", FORGOTTEN["user"])) == 3, seconds=20, what="the records")
    wait_until(lambda: len(admin.asks("logs", "--user", namesake)) == 1, seconds=20, what="the namesake's record")
    cost = admin.asks("usage", "--by", "group")["total"]
    admin.types("users", "export", FORGOTTEN["user"], "-o", export)
    exported = export.read_text()
    assert all(value in exported for value in FORGOTTEN.values())
    assert key not in exported
    export.unlink()

    admin.types("users", "erase", FORGOTTEN["user"], status=2)
    admin.types("users", "erase", FORGOTTEN["user"], "--yes")

    assert 401 == gateway.chat(key).status
    assert cost == admin.asks("usage", "--by", "group")["total"]
    assert 200 == gateway.chat(other).status
    admin.types("keys", "remove", namesake, "--yes")
    gateway.stop()
    found = [place for place, content in everything_stored(stores, gateway) if holds(content)]
    assert [] == [place for place in found if place != "redis' file"], (
        "Redis rewrites its append-only file when it likes"
    )
    assert not holds(gateway.output.encode())


def holds(content: bytes) -> bool:
    """Whether *content* has a trace of the person, as text or escaped."""
    name = FORGOTTEN["user"]
    words = [*FORGOTTEN.values(), json.dumps(name)[1:-1], name.encode("unicode_escape").decode()]
    cleaned = content.replace(f"{name} jr.".encode(), b"").replace(f"{json.dumps(name)[1:-1]} jr.".encode(), b"")
    return any(word.encode() in cleaned for word in words)
