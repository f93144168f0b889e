"""People, raises and the time zone from a terminal, in front of a gateway that runs."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from llmgateway.records import Identity
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteIdentities

from .test_remote import azure, gateway, run  # noqa: F401

NO_LIMITS = dict.fromkeys(("requests_per_minute", "tokens_per_minute", "parallel_requests", "budget"))


@pytest.fixture
def told(run):  # noqa: F811
    """Run a command with ``--json``, and return what it prints."""
    return lambda *arguments: json.loads(run(*arguments, "--json"))


def test_people_are_limited(run, told):  # noqa: F811
    """Shown, listed, changed by part, and reset."""
    run("keys", "add", "Zoë Ärmel", "--budget", "1usd/week")
    run("users", "limits", "Zoë Ärmel", "--budget", "8usd/month", "--requests-per-minute", "30")
    limits = told("users", "limits", "Zoë Ärmel", "--requests-per-minute", "none")["limits"]
    assert NO_LIMITS | {"budget": {"amount": 8, "unit": "usd", "period": "month"}} == limits

    shown = told("users", "show", "Zoë Ärmel")
    assert ("Zoë Ärmel", "week") == (shown["user"], shown["keys"][0]["limits"]["budget"]["period"])
    assert "8 usd/month" in run("users", "show", "Zoë Ärmel")
    assert "Zoë Ärmel" in [person["user"] for person in told("users", "list")]
    assert "Zoë Ärmel  1" in run("users", "list")

    run("users", "reset", "Zoë Ärmel")
    assert NO_LIMITS == told("users", "show", "Zoë Ärmel")["limits"]
    run("users", "show", "nobody", status=1)
    assert "llmgateway users list" in run.result.stderr


def test_members_are_limited(told, run):  # noqa: F811
    made = told("groups", "set", "class", "--budget", "100usd/total", "--member-budget", "2usd/week")
    assert (100, 2) == (made["limits"]["budget"]["amount"], made["member_limits"]["budget"]["amount"])
    changed = told("groups", "set", "class", "--member-parallel-requests", "3", "--member-budget", "none")
    assert NO_LIMITS | {"parallel_requests": 3} == changed["member_limits"]
    assert 100 == changed["limits"]["budget"]["amount"]
    run("groups", "remove", "class")


def test_people_may_make_keys(told, run):  # noqa: F811
    offered = told("groups", "set", "class", "--self-service", "2keys/180days")["self_service"]
    assert {"keys": 2, "days": 180, "models": None, "limits": NO_LIMITS} == offered
    assert told("groups", "set", "class", "--note", "x")["self_service"] == offered
    assert told("groups", "set", "class", "--self-service", "none")["self_service"] is None
    run("groups", "remove", "class")

    assert {"without_group": None} == told("settings", "self-service")
    assert 1 == told("settings", "self-service", "--self-service", "1key")["without_group"]["keys"]
    assert {"without_group": None} == told("settings", "self-service", "--self-service", "none")
    run("settings", "self-service", "--self-service", "many", status=2)
    assert "2keys/180days" in run.result.stderr


def test_accounts_get_the_keys_of_people(gateway, run, told):  # noqa: F811
    """Those that wait are listed; one is given keys, found by them, blocked, let in again, and forgotten."""
    now = datetime.now(UTC)
    identity = Identity(
        id="person_1", issuer="https://id.example.org", subject="1", claimed="ada", first_at=now, signed_in_at=now
    )
    database = SQLiteDatabase(gateway.instance / "gateway.sqlite")
    SQLiteIdentities(database).change(identity.id, lambda _: identity)
    database.close()
    run("keys", "add", "ada")

    assert ["person_1"] == [each["id"] for each in told("accounts", "list", "--waiting")]
    assert "ada" == told("accounts", "set", "person_1", "--user", "ada")["user"]
    assert [] == told("accounts", "list", "--waiting")
    assert "person_1  ada" in run("accounts", "list", "--user", "ada")
    run("accounts", "block", "person_1")
    assert not told("accounts", "show", "person_1")["active"]
    run("accounts", "unblock", "person_1")
    assert told("accounts", "show", "person_1")["active"]
    assert told("accounts", "set", "person_1", "--user", "")["user"] is None

    run("accounts", "remove", "person_1", "--yes")
    run("accounts", "show", "person_1", status=1)
    assert "'llmgateway accounts list' lists those there are" in run.result.stderr


@pytest.mark.parametrize("kind", ["keys", "groups", "users"])
def test_limits_are_raised_for_a_while(run, told, kind):  # noqa: F811
    """For hours or days, until a day or a time; ended early; what raises nothing is refused."""
    limits = ("--requests-per-minute", "10")
    if kind == "keys":
        name = told("keys", "add", "raised", *limits)["id"]
    else:
        name = f"raised-{kind}"
        run(kind, "limits" if kind == "users" else "set", name, *limits)

    def end(text: str) -> datetime:
        raised = told(kind, "raise", name, "--requests-per-minute", "20", "--until", text)["raise"]
        assert NO_LIMITS | {"requests_per_minute": 20} == raised["limits"]
        return datetime.fromisoformat(raised["until"])

    now = datetime.now(UTC)
    assert timedelta(seconds=-1) < end("3h") - now - timedelta(hours=3) < timedelta(minutes=5)
    assert timedelta(seconds=-1) < end("2d") - now - timedelta(days=2) < timedelta(minutes=5)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    assert end("tomorrow") in (midnight + timedelta(days=2), midnight + timedelta(days=3))
    assert datetime(2099, 5, 2, tzinfo=UTC) == end("2099-05-01")
    assert datetime(2099, 5, 1, 16, tzinfo=UTC) == end("2099-05-01T18:00:00+02:00")

    run(kind, "raise", name, "--end")
    assert told(kind, "show", name)["raise"] is None
    run(kind, "raise", name, "--requests-per-minute", "5", "--until", "2d", status=1)
    assert "which is 10" in run.result.stderr
    for wrong in (["--until", "2d"], ["--requests-per-minute", "50"], ["--budget", "none", "--until", "2d"]):
        run(kind, "raise", name, *wrong, status=2)
    run(kind, "raise", name, "--end", "--until", "2d", status=2)


def test_the_time_zone(run, told):  # noqa: F811
    """Set, shown until it holds, and taken back."""
    shown = told("settings", "show")
    assert ("UTC", None) == (shown["timezone"], shown["pending"])
    pending = told("settings", "set", "--timezone", "Asia/Tokyo")["pending"]
    assert "Asia/Tokyo" == pending["timezone"]
    assert "Asia/Tokyo" in run("settings", "show")
    run("settings", "set", "--timezone", "Tokyo", status=1)
    assert "Did you mean Asia/Tokyo?" in run.result.stderr
    assert told("settings", "set", "--timezone", "UTC")["pending"] is None
