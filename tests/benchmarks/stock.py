"""Stores that have grown: many keys, many records. Filled in bulk, because one by one it would take hours."""

from __future__ import annotations

import datetime
import hashlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from llmgateway.records import Batch, Outcome, UsageRecord, UsageSource, new_request_id
from llmgateway.settings import Settings
from llmgateway.stores import open_stores
from llmgateway.stores.sums import SUMS
from tests.gateway_process import GatewayProcess

RECORDS_OF_A_CELL = 14
"""Requests of one key with one model on one day."""
USERS_OF_FEW = 36
"""Who makes some thousand requests a day."""
DAYS = 365
MODELS = ("gpt-4o", "gpt-4o-mini")
_ADDED_UP = ", ".join(f"sum({name})" for name in SUMS)
COARSER = (
    f"""INSERT INTO usage_monthly (month, series, {", ".join(SUMS)})
        SELECT month, series, {_ADDED_UP} FROM usage_daily GROUP BY 1, 2""",
    """INSERT INTO usage_day_series (whole, "group", model, deployment)
        SELECT DISTINCT 1, NULL, model, deployment FROM usage_series
        UNION ALL SELECT DISTINCT 0, "group", model, deployment FROM usage_series""",
    f"""INSERT INTO usage_days (series, local_day, day, {", ".join(SUMS)})
        SELECT coarser.id, day, day, {_ADDED_UP} FROM usage_daily
            JOIN usage_series AS finer ON finer.id = series
            JOIN usage_day_series AS coarser ON coarser.whole = 0 AND coarser."group" IS finer."group"
                AND coarser.model = finer.model AND coarser.deployment IS finer.deployment
            GROUP BY 1, 2, 3""",
    f"""INSERT INTO usage_days (series, local_day, day, {", ".join(SUMS)})
        SELECT coarser.id, day, day, {_ADDED_UP} FROM usage_days
            JOIN usage_day_series AS finer ON finer.id = series
            JOIN usage_day_series AS coarser ON coarser.whole = 1 AND coarser.model = finer.model
                AND coarser.deployment IS finer.deployment
            GROUP BY 1, 2, 3""",
)
"""Statements that make the coarser sums of ``usage_daily``, in which there is nothing on another day than in UTC."""
BATCH_RECORDS = 500  # what the journal ships at once


def add_keys(gateway: GatewayProcess, count: int) -> Iterator[str]:
    """Put *count* keys into the embedded store, all like one that is there already, and return them.

    The rows are written straight into the table: an admin's call for each would sync the disk for each.
    """
    with closing(_database(gateway)) as database:
        database.row_factory = sqlite3.Row
        pattern = dict(database.execute("SELECT * FROM keys LIMIT 1").fetchone())
        columns = ", ".join(f'"{name}"' for name in pattern)
        values = ", ".join(f":{name}" for name in pattern)
        database.execute("BEGIN IMMEDIATE")
        database.executemany(
            f"INSERT INTO keys ({columns}) VALUES ({values})",
            (
                pattern | {"id": f"key_{number:028x}", "digest": _digest(key), "user": f"user{number}"}
                for number, key in enumerate(_keys(count))
            ),
        )
        database.execute("COMMIT")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return _keys(count)


def add_sums(gateway: GatewayProcess, records: int) -> None:
    """Leave in the embedded store the daily sums that *records* records of a year leave; reports read nothing else."""
    users = max(1, records // (RECORDS_OF_A_CELL * len(MODELS) * DAYS))
    cells = users * len(MODELS) * DAYS
    each, rest = divmod(records, cells)
    with closing(_database(gateway)) as database:
        database.execute("BEGIN IMMEDIATE")
        (first,) = database.execute("SELECT coalesce(max(id), 0) + 1 FROM usage_series").fetchone()
        database.executemany(
            'INSERT INTO usage_series (id, key_id, user, "group", model) VALUES (?, ?, ?, ?, ?)',
            (
                (first + user * len(MODELS) + number, f"key_{user:028x}", f"user{user}", f"group{user % 40}", model)
                for user in range(users)
                for number, model in enumerate(MODELS)
            ),
        )
        columns = ["series", "month", "day", *SUMS]
        database.executemany(
            f"INSERT INTO usage_daily ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
            (_cell(first, number, each + (number < rest)) for number in range(cells)),
        )
        for table in ("usage_monthly", "usage_days", "usage_day_series"):
            database.execute(f"DELETE FROM {table}")
        for statement in COARSER:
            database.execute(statement)
        database.execute("COMMIT")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _cell(first: int, number: int, requests: int) -> tuple[float, ...]:
    series, day = divmod(number, DAYS)
    date = _day(day)
    day_number = (date.year * 100 + date.month) * 100 + date.day
    prompt, completion = requests * (60 + number % 100), requests * (200 + number % 300)
    sums = {
        "requests": requests,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "cost_usd": (prompt + 4 * completion) / 1e6,
    }
    return (first + series, day_number // 100, day_number, *(sums.get(name, 0) for name in SUMS))


@dataclass(frozen=True)
class Appended:
    """What it cost to put records into a usage log."""

    records: int
    seconds: float
    cpu_seconds: float
    """Of the process that appends; a database's own are not in it."""


def append_records(gateway: GatewayProcess, count: int) -> Appended:
    """Put *count* records, a thousand a day, into the usage log of *gateway* by ``append``, as its journal does."""
    usage_log = open_stores(Settings.from_env(gateway.environ), clock=time.time).usage_log
    batches = _batches([*_records(count)])
    began, cpu_began = time.monotonic(), time.process_time()
    for number, records in enumerate(batches):
        usage_log.append(records, batch=Batch("benchmark", number))
    return Appended(count, time.monotonic() - began, time.process_time() - cpu_began)


def _batches(records: Sequence[UsageRecord]) -> list[Sequence[UsageRecord]]:
    return [records[start : start + BATCH_RECORDS] for start in range(0, len(records), BATCH_RECORDS)]


def _records(count: int) -> Iterator[UsageRecord]:
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    apart = datetime.timedelta(days=1) / (RECORDS_OF_A_CELL * len(MODELS) * USERS_OF_FEW)
    for number in range(count):
        user = number // len(MODELS) % USERS_OF_FEW
        model = MODELS[number % len(MODELS)]
        moment = now - apart * (count - number)
        yield UsageRecord(
            id=new_request_id(moment.timestamp()),
            timestamp=moment.replace(microsecond=0),
            key_id=f"key_{user:028x}",
            user=f"user{user}",
            group=f"group{user % 40}",
            model=model,
            deployment=model,
            endpoint="/v1/chat/completions",
            stream=bool(number % 2),
            status=200,
            outcome=Outcome.OK,
            prompt_tokens=60,
            completion_tokens=200,
            total_tokens=260,
            usage_source=UsageSource.UPSTREAM,
            cost_usd=0.001,
            duration_ms=2000.0,
            client_address="127.0.0.1",
        )


def _day(number: int) -> datetime.date:
    today = datetime.datetime.now(datetime.UTC).date()
    return today - datetime.timedelta(days=DAYS - 1 - number)


def _keys(count: int) -> Iterator[str]:
    return (f"llmgw-benchmark-{number:07}" for number in range(count))


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _database(gateway: GatewayProcess) -> sqlite3.Connection:
    return sqlite3.connect(Path(gateway.instance) / "gateway.sqlite", isolation_level=None, timeout=30)
