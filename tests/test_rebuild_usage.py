"""``llmgateway rebuild-usage``, as an operator types it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from datetime import date

import pytest

from llmgateway.records import Batch
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteUsageLog
from tests import ROOT
from tests.servers import free_port
from tests.stores.contract import usage


@pytest.fixture
def run(tmp_path):
    """Run the command with the stores' settings alone; its exit status, and all that it says."""

    def run(**settings: str) -> tuple[int, str]:
        result = subprocess.run(
            [sys.executable, "-m", "llmgateway", "rebuild-usage"],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LLMGATEWAY_INSTANCE": str(tmp_path), **settings},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return result.returncode, result.stdout + result.stderr

    return run


@pytest.fixture
def database(tmp_path):
    with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
        yield database


def test_makes_the_sums_those_of_the_log(run, database):
    """It needs neither an admin key nor Azure's address, and says how many days it counted."""
    log = SQLiteUsageLog(database)
    log.append([usage(1), usage(2)], batch=Batch("test", 1))
    with database.transaction() as connection:
        connection.execute("UPDATE usage_daily SET requests = 99")

    status, said = run()

    assert 0 == status
    assert "The sums of 1 days were counted again from the usage log." in said
    assert [2] == [row.requests for row in log.report()]


def test_says_which_days_it_left(run, database):
    """Days whose records were purged cannot be counted again."""
    log = SQLiteUsageLog(database)
    log.append([usage(1)], batch=Batch("test", 1))
    log.purge(date(2026, 1, 2), limit=10)

    status, said = run(ADMIN_KEY="")

    assert 0 == status
    assert "Days before 2026-01-02 were not changed" in said
    assert [1] == [row.requests for row in log.report()]


def test_says_what_is_missing(run, tmp_path):
    """A folder that is not there is not made: it would be rebuilt as empty. A store that is away is said."""
    status, said = run(LLMGATEWAY_INSTANCE=str(tmp_path / "nowhere"))
    assert (2, True) == (status, "LLMGATEWAY_INSTANCE" in said)

    status, said = run(MONGOHOST=f"127.0.0.1:{free_port()}", LLMGATEWAY_STORE_TIMEOUT="0.1")
    assert (1, True) == (status, "MongoDB does not serve" in said)
