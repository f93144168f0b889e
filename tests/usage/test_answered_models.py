"""Models that have answered stay in the list for 30 days; those that Azure does not know are missing for an hour."""

from __future__ import annotations

import pytest

from llmgateway.errors import StoreUnavailable
from llmgateway.records import UNKNOWN_MODEL, UsageRow
from llmgateway.usage.answered_models import MOST_REFUSED, RELOAD_SECONDS, AnsweredModels

DAY = 86_400.0


class Log:
    """A usage log that can be away."""

    def __init__(self) -> None:
        self.rows: list[UsageRow] = []
        self.queries = []
        self.is_away = False

    def report(self, query):
        self.queries.append(query)
        if self.is_away:
            raise StoreUnavailable("away")
        return self.rows


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def models(log, clock):
    return AnsweredModels(log.report, clock=clock)


def row(model, requests=1, errors=0):
    return UsageRow(by={"model": model}, requests=requests, errors=errors)


def test_lists_what_the_log_has_and_what_was_just_answered(models, log):
    """Other processes, and this one before its restart, have written the log."""
    log.rows = [row("gpt-5"), row("failed", 3, 3), row(UNKNOWN_MODEL, 9), row(None)]
    models.answered("gpt-4o")

    assert ["gpt-4o", "gpt-5"] == models.names()


def test_reads_the_log_once_a_minute(models, log, clock):
    """However often the list is asked for. It asks for 30 days, and does not wait for long."""
    for seconds in (0, RELOAD_SECONDS - 1, 1):
        clock.advance(seconds)
        models.names()

    assert ["2025-12-02"] * 2 == [str(query.first_day) for query in log.queries]
    assert all(query.promptly for query in log.queries)


def test_keeps_the_list_while_the_log_is_away(models, log, clock):
    """And reads it again later."""
    log.rows = [row("gpt-5")]
    models.names()
    log.is_away = True
    clock.advance(RELOAD_SECONDS)

    assert ["gpt-5"] == models.names()
    log.is_away, log.rows = False, [row("gpt-6")]
    clock.advance(RELOAD_SECONDS)
    assert ["gpt-6"] == models.names()


def test_forgets_what_has_not_answered_for_a_month(models, clock):
    """Also in a process that runs for longer."""
    models.answered("gpt-4o")
    clock.advance(30 * DAY)
    assert ["gpt-4o"] == models.names()
    clock.advance(DAY)

    assert [] == models.names()


def test_a_refused_model_is_missing_for_an_hour(models, log, clock):
    """Then it may be tried again."""
    log.rows = [row("gpt-4o")]
    models.refused("gpt-4o")
    clock.advance(3599)
    assert (True, []) == (models.is_missing("gpt-4o"), models.names())
    clock.advance(1)

    assert (False, ["gpt-4o"]) == (models.is_missing("gpt-4o"), models.names())


def test_an_answer_ends_a_refusal(models):
    """The deployment was created in the meantime."""
    models.refused("gpt-4o")
    models.answered("gpt-4o")

    assert (False, ["gpt-4o"]) == (models.is_missing("gpt-4o"), models.names())


def test_remembers_so_many_refusals(models):
    """Clients can send any name. The latest count."""
    for number in range(MOST_REFUSED + 1):
        models.refused(f"made-up-{number}")

    assert not models.is_missing("made-up-0")
    assert models.is_missing("made-up-1")
    assert models.is_missing(f"made-up-{MOST_REFUSED}")
