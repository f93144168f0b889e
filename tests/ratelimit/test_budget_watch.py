"""The numbers of budgets for metrics: read in the background, by one process of a host, while somebody asks."""

from __future__ import annotations

import pytest

from llmgateway.errors import StoreUnavailable
from llmgateway.ratelimit.allowances import Allowance
from llmgateway.ratelimit.budget_watch import (
    KEPT_SECONDS,
    MOST_GROUPS,
    READ_SECONDS,
    UNASKED_SECONDS,
    BudgetWatch,
    read_budgets,
)
from llmgateway.records import Budget, BudgetState, Group, Limits, Organisation, Period, Unit
from tests.parts import NEW_YEAR

BUDGET = Budget(amount=5, unit=Unit.USD, period=Period.MONTH)


class Read:
    """Reads numbers that grow, and counts how often it was asked."""

    def __init__(self) -> None:
        self.times = 0
        self.is_away = False

    def __call__(self) -> list[BudgetState]:
        self.times += 1
        if self.is_away:
            raise StoreUnavailable("away")
        return [BudgetState("group", "ml", "usd", "month", 5.0, self.times, 5.0 - self.times)]


class Process:
    """One of the processes of a host."""

    def __init__(self, folder, clock) -> None:
        self.read = Read()
        self.watch = BudgetWatch(self.read, folder / "budgets.json", clock=clock, look_seconds=3600)

    def spent(self) -> list[float | None]:
        return [state.spent for state in self.watch.latest()]


@pytest.fixture
def processes(tmp_path, clock):
    return [Process(tmp_path, clock) for _ in range(2)]


def test_whoever_asks_waits_for_nothing(processes):
    """The first answer is empty, and later ones are what was read in between."""
    one, _ = processes

    assert ([], 0) == (one.spent(), one.read.times)
    assert one.watch.turn()
    assert ([1], 1) == (one.spent(), one.read.times)


def test_one_process_reads_for_all(processes, clock):
    """All of them show the same numbers, and these are read again when they are old, whoever sees that first."""
    one, other = processes
    assert [] == one.spent() == other.spent()

    for process in (one, other, one):
        process.watch.turn()
    assert [1] == one.spent() == other.spent()
    clock.advance(READ_SECONDS)
    for process in (other, one):
        process.watch.turn()

    assert [1] == one.spent() == other.spent()
    assert (1, 1) == (one.read.times, other.read.times)


def test_reading_ends_when_nobody_asks(processes, clock):
    """A gateway without Prometheus reads nothing. When somebody asks again, it begins again."""
    one, _ = processes
    assert not one.watch.turn()
    one.spent()
    assert one.watch.turn()

    clock.advance(UNASKED_SECONDS)

    assert not one.watch.turn()
    assert ([], 1) == (one.spent(), one.read.times)
    assert one.watch.turn()
    assert [2] == one.spent()


def test_numbers_that_cannot_be_read_again_are_shown_for_a_while(processes, clock):
    """Then there are none, in place of old ones; and they come back by themselves."""
    one, _ = processes
    one.spent()
    one.watch.turn()
    one.read.is_away = True

    clock.advance(KEPT_SECONDS - 1)
    assert one.watch.turn()
    assert [1] == one.spent()
    clock.advance(1)
    assert [] == one.spent()

    one.read.is_away = False
    one.watch.turn()
    assert [3] == one.spent()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"at": 1}', b'{"at": 9e99, "budgets": [["group"]]}'])
def test_a_file_that_is_none_is_replaced(processes, tmp_path, content):
    """One of another version, or of a disk that was full."""
    one, _ = processes
    (tmp_path / "budgets.json").write_bytes(content)

    assert [] == one.spent()
    one.watch.turn()

    assert [1] == one.spent()
    assert ["budgets.json"] == [path.name for path in tmp_path.iterdir()]


def test_a_file_that_cannot_be_written_is_logged(processes, tmp_path, caplog):
    """The gateway goes on."""
    one, _ = processes
    one.spent()
    (tmp_path / "budgets.json").mkdir()

    assert one.watch.turn()

    assert "The numbers of budgets cannot be written to" in caplog.text


def test_a_clock_that_was_set_back_does_not_stop_it(processes, clock):
    """Numbers of the future are read again."""
    one, _ = processes
    one.spent()
    one.watch.turn()

    clock.advance(-1000)
    assert [] == one.spent()
    one.watch.turn()

    assert [2] == one.spent()


class Allowances:
    """Of every scope 2 are used of 5."""

    def of(self, scopes):
        self.scopes = [str(scope) for scope in scopes]
        return [{"budget": Allowance(5, 2, 3, None, scope.limits.budget)} for scope in scopes]


def test_reads_the_organisation_and_the_groups_that_have_a_budget():
    """Other limits are no budgets; a gateway without budgets has no numbers."""
    groups = {
        name: Group(name=name, created_at=NEW_YEAR, limits=limits)
        for name, limits in {
            "b": Limits(budget=BUDGET),
            "c": Limits(requests_per_minute=1),
            "a": Limits(budget=BUDGET),
        }.items()
    }

    found = read_budgets(Organisation(limits=Limits(budget=BUDGET), groups=groups), Allowances(), NEW_YEAR)

    rest = ("usd", "month", 5, 2, 3)
    assert [("organisation", "", *rest), ("group", "a", *rest), ("group", "b", *rest)] == found
    assert [] == read_budgets(Organisation(), Allowances(), NEW_YEAR)


def test_there_are_not_more_numbers_than_prometheus_likes():
    """Of a thousand groups, the first ones by name have numbers; each time the same."""
    groups = {
        f"{number:04}": Group(name=f"{number:04}", created_at=NEW_YEAR, limits=Limits(budget=BUDGET))
        for number in reversed(range(1000))
    }

    found = read_budgets(Organisation(groups=groups), Allowances(), NEW_YEAR)

    assert [f"{number:04}" for number in range(MOST_GROUPS)] == [state.name for state in found]
