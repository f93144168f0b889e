"""What is used and left, on every combination of stores: in the API, in the command line, and for Prometheus."""

from __future__ import annotations

import json
import secrets
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from click.testing import CliRunner

from llmgateway.cli import main
from llmgateway.stores.sqlite import COUNTERS, SQLiteDatabase
from tests.servers import wait_until

EVERYTHING = "include=spent,remaining,last_used"


def budget(amount: float, unit: str = "requests") -> dict[str, object]:
    return {"budget": {"amount": amount, "unit": unit, "period": "month"}}


@pytest.fixture
def group(gateway) -> str:
    """A group of its own with a budget in dollars."""
    name = f"group-{secrets.token_hex(4)}"
    assert 200 == gateway.admin("PUT", f"/admin/groups/{name}", json={"limits": budget(50, "usd")}).status
    return name


def lose_counters(stores) -> None:
    """As if nobody had used a key for a while, or Redis had been emptied."""
    if stores.redis is not None:
        with redis.Redis.from_url(stores.redis.url) as client:
            client.flushall()
        return
    database = SQLiteDatabase(stores.instance / "counters.sqlite", migrations=COUNTERS, durable=False)
    with closing(database), database.transaction() as connection:
        connection.execute("DELETE FROM counters")


def _next_month() -> str:
    following = datetime.now(UTC).replace(day=1) + timedelta(days=31)
    return f"{following.replace(day=1):%Y-%m-%d} 00:00"


def run(gateway, *arguments: str) -> str:
    environ = {"ADMIN_KEY": gateway.admin_key, "LLMGATEWAY_URL": gateway.url}
    result = CliRunner().invoke(main, arguments, env=environ)
    assert 0 == result.exit_code, result.output
    return result.stdout


def test_a_class_is_seen_at_one_glance(pair, stores, group):
    """Of every key what is spent, left and when it was used last, whichever process has served it; the same from the
    counters, and, when these are gone, from the usage log."""
    keys = [pair.new_key(user=f"{group}-{number}", group=group, limits=budget(10)) for number in range(4)]
    since = datetime.now(UTC)
    for worker in pair.workers():
        with closing(pair.connect_to(worker)) as connection:
            for number, key in enumerate(keys):
                for _ in range(number):
                    assert 200 == pair.chat(key["key"], connection=connection).status

    def page() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = pair.admin("GET", f"/admin/keys?group={group}&{EVERYTHING}").json()["items"]
        return found

    def seen() -> list[tuple[float, float, int]]:
        keys = page()
        budgets = [key["remaining"]["budget"] for key in keys]
        return [(one["used"], one["left"], key["spent"]["requests"]) for one, key in zip(budgets, keys, strict=True)]

    expected = [(0, 10, 0), (2, 8, 2), (4, 6, 4), (6, 4, 6)]
    wait_until(lambda: seen() == expected, what="the records of both processes")
    lose_counters(stores)
    assert expected == seen() == seen()
    cost = sum(key["spent"]["cost_usd"] for key in page())
    remaining = pair.admin("GET", f"/admin/groups/{group}").json()["remaining"]["budget"]
    assert (50, pytest.approx(cost), pytest.approx(50 - cost)) == tuple(
        remaining[name] for name in ("limit", "used", "left")
    )

    never, *used = (key["last_used"] for key in page())
    assert never is None
    assert all(since <= datetime.fromisoformat(at) <= datetime.now(UTC) for at in used)


def test_the_command_line_shows_it(gateway, group):
    """In columns that can be sorted, and in lines; with --json all of it."""
    rich, poor = (gateway.new_key(user=f"{group}-{amount}", group=group, limits=budget(amount)) for amount in (20, 3))
    free = gateway.new_key(user=f"{group}-free", group=group)
    for key in (rich, poor, poor, free):
        assert 200 == gateway.chat(key["key"]).status
    wait_until(lambda: "null" not in run(gateway, "keys", "list", "--group", group, "--columns", "last_used", "--json"))

    rows = [
        line.split("  ")
        for line in run(
            gateway, *("keys", "list", "--group", group, "--columns", "user,spent,left", "--sort", "-left")
        ).splitlines()
    ]
    shown = {cells[0]: [cell.strip() for cell in cells[1:] if cell.strip()] for cells in rows}
    assert ["USER", rich["user"], poor["user"], free["user"]] == list(shown)
    assert [["SPENT", "LEFT"], ["1 requests", "19 requests"], ["2 requests", "1 requests"]] == [*shown.values()][:3]
    spent, left = shown[free["user"]]
    assert (True, "-") == (spent.startswith("0.0000") and spent.endswith(" usd"), left)
    lines = run(gateway, "keys", "show", poor["id"]).splitlines()
    assert [f"remaining   2 of 3 requests/month used, 1 left, renews {_next_month()} UTC"] == [
        line for line in lines if line.startswith("remaining")
    ]

    whole = json.loads(run(gateway, "keys", "show", poor["id"], "--json"))
    assert (2, 2, 1) == (
        whole["spent"]["requests"],
        whole["remaining"]["budget"]["used"],
        whole["remaining"]["budget"]["left"],
    )
    (line,) = (line for line in run(gateway, "groups", "list").splitlines() if line.startswith(group))
    assert " usd " in line
    assert " of 50 usd/month used, 49.9" in run(gateway, "groups", "show", group)
    assert "remaining" in run(gateway, "limits", "show")


def test_prometheus_reads_the_same_numbers_from_every_process(start_gateway, group):
    """Limit, spent and left of a budget are not added up, although each process answers."""
    gateway = start_gateway(LLMGATEWAY_PROCESSES="2", LLMGATEWAY_THREADS="16")
    key = gateway.key(group=group)
    for worker in gateway.workers():
        with closing(gateway.connect_to(worker)) as connection:
            assert 200 == gateway.chat(key, connection=connection).status
    labels = f'{{name="{group}",period="month",scope="group",unit="usd"}}'

    def numbers(worker: int) -> tuple[float, ...]:
        with closing(gateway.connect_to(worker)) as connection:
            text = gateway.admin("GET", "/metrics", connection=connection).body.decode()
        found = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("llmgateway_budget"))
        return tuple(float(found.get(f"llmgateway_budget_{name}{labels}", -1)) for name in ("limit", "spent", "left"))

    one, other = gateway.workers()
    wait_until(lambda: numbers(one)[1] > 0, seconds=60, what="numbers that were read after the requests")
    limit, spent, left = numbers(other)

    assert numbers(one) == (limit, spent, left)
    assert (50, pytest.approx(50)) == (limit, spent + left)
