"""``python -m tests.benchmarks.year FOLDER``: a year of an organisation in the embedded store, in some minutes.

The rows of keys, groups and records, and their sums, are made by SQLite itself, because one by one they would take
hours. The last day is today.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from llmgateway.records import bucket_of
from llmgateway.stores.sqlite import SQLiteDatabase
from llmgateway.stores.sums import SUMS

from .stock import COARSER

DAYS = 365
GROUPS = 300
MODELS = (
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-4.1",
    "gpt-4.1-mini",
    "o4-mini",
    "gpt-5",
    "gpt-5-mini",
    "text-embedding-3-large",
)
MODELS_OF_A_KEY = 3
_ON_A_DAY = (1.25, 1.3, 1.3, 1.25, 1.0, 0.4, 0.5)
"""How busy each weekday is, beginning with Monday."""

# How SQLite draws a number between 0 and 1. Of keys, and of the models of a key, the first are drawn most often.
_ANY = "(abs(random()) / 9223372036854775808.0)"
_RECORDS = f"""
    INSERT INTO logs (id, timestamp, key_id, user, "group", model, deployment, endpoint, stream, status, outcome,
        prompt_tokens, completion_tokens, total_tokens, cached_tokens, reasoning_tokens, usage_source, cost_usd,
        prompt_version, content_filter, ttft_ms, duration_ms, upstream_request_id, region, client_address, error_code)
    WITH RECURSIVE counted (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM counted LIMIT :records),
    drawn AS MATERIALIZED (
        SELECT number, :day + cast(:length * number / (:records + 1) AS INTEGER) AS at,
            cast(:keys * pow({_ANY}, 1.6) AS INTEGER) AS key,
            cast({MODELS_OF_A_KEY} * pow({_ANY}, 2.2) AS INTEGER) AS choice,
            cast(20 + 3000 * pow({_ANY}, 3) AS INTEGER) AS prompt, cast(5 + 1500 * pow({_ANY}, 3) AS INTEGER) AS said,
            abs(random() % 100) AS luck, cast(180 + 4000 * pow({_ANY}, 5) AS INTEGER) AS ttft
        FROM counted
    )
    SELECT printf('%08x-%04x-7000-8000-%012x', at >> 16, at & 65535, drawn.number), at, key_id, user, "group", name,
        name,
        '/v1/chat/completions', luck % 2, iif(luck = 0, 500, iif(luck = 1, 400, 200)),
        iif(luck < 2, 'upstream_error', iif(luck = 2, 'client_closed', 'ok')),
        prompt, said, prompt + said, prompt / 4, said / 5, iif(luck = 2, 'estimated', 'upstream'),
        (prompt + 4 * said) * price, 1, '[]', iif(luck % 2, ttft, NULL), ttft + said * 12,
        printf('%08x-%04x-4000-9000-%012x', drawn.number, at & 65535, at), 'swedencentral',
        '10.0.' || (key / 250) || '.' || (key % 250), iif(luck < 2, 'server_error', NULL)
    FROM drawn JOIN bench_keys ON bench_keys.number = drawn.key
    JOIN bench_models ON bench_models.number = (drawn.key + drawn.choice) % :models
"""
_DAY = "CAST(strftime('%Y%m%d', timestamp / 1000, 'unixepoch') AS INTEGER)"
_AMOUNTS = """count(*), sum(prompt_tokens), sum(completion_tokens), sum(total_tokens), sum(cached_tokens),
    sum(reasoning_tokens), total(cost_usd), sum(outcome <> 'ok'), 0,
    sum(iif(usage_source = 'estimated', total_tokens, 0)), 0"""
_SUMS = (
    """INSERT INTO usage_series (key_id, user, "group", model, deployment)
        SELECT DISTINCT key_id, user, "group", model, deployment FROM logs""",
    f"""INSERT INTO usage_daily (series, month, day, {", ".join(SUMS)})
        SELECT series.id, {_DAY} / 100, {_DAY} AS day, {_AMOUNTS} FROM logs CROSS JOIN usage_series AS series
            ON series.key_id = logs.key_id AND series.model = logs.model GROUP BY 1, 2, 3""",
    *COARSER,
)


def fill(path: Path, *, keys: int, records: int) -> None:
    """Put a year of records, with their keys, groups and sums, into the new file *path*."""
    with closing(SQLiteDatabase(path, durable=False)):
        pass  # makes the tables
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA synchronous = OFF")
        _add_groups(database)
        _add_keys(database, keys)
        _say("keys")
        _add_records(database, keys=keys, records=records)
        add_sums(database)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _add_groups(database: sqlite3.Connection) -> None:
    budget = {"budget": {"amount": 500.0, "unit": "usd", "period": "month"}}
    database.executemany(
        "INSERT INTO groups (name, created_at, note, limits, cost_centre) VALUES (?, ?, ?, ?, ?)",
        (
            (_group(number), _ms(_first_day()), f"Course {number}", json.dumps(budget), str(4000 + number % 40))
            for number in range(GROUPS)
        ),
    )


def _add_keys(database: sqlite3.Connection, count: int) -> None:
    """Add keys, four of five people with one each, and the table from which records take them."""
    made = _ms(_first_day())
    limits = json.dumps({"requests_per_minute": 60, "budget": {"amount": 20.0, "unit": "usd", "period": "month"}})
    database.execute("BEGIN")
    database.executemany(
        'INSERT INTO keys (id, digest, user, name, created_at, "group", email, active, expires_at, limits)'
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (
                _key(number),
                hashlib.sha256(f"llmgw-year-{number}".encode()).hexdigest(),
                _user(number),
                f"laptop {number}",
                made + number * 1000,
                _group(number % GROUPS) if number % 10 else None,
                f"{_user(number)}@example.org",
                number % 25 != 7,
                made + (400 + number % 200) * 86_400_000,
                limits,
            )
            for number in range(count)
        ),
    )
    database.execute('CREATE TEMP TABLE bench_keys (number INTEGER PRIMARY KEY, key_id TEXT, user TEXT, "group" TEXT)')
    database.executemany(
        "INSERT INTO bench_keys VALUES (?, ?, ?, ?)",
        ((n, _key(n), _user(n), _group(n % GROUPS) if n % 10 else None) for n in range(count)),
    )
    database.execute("CREATE TEMP TABLE bench_models (number INTEGER PRIMARY KEY, name TEXT, price REAL)")
    database.executemany(
        "INSERT INTO bench_models VALUES (?, ?, ?)",
        ((number, name, 3e-6 / (number + 1)) for number, name in enumerate(MODELS)),
    )
    database.execute("COMMIT")


def _add_records(database: sqlite3.Connection, *, keys: int, records: int) -> None:
    # Indexes are made afterwards, each in one go.
    indexes = database.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'logs' AND sql IS NOT NULL"
    ).fetchall()
    for name, _ in indexes:
        database.execute(f"DROP INDEX {name}")
    now = _ms(datetime.now(UTC))
    for number, (start, share) in enumerate(_shares()):
        length = min(86_400_000, now - _ms(start))
        parameters = {
            "day": _ms(start),
            "length": length,
            "records": round(records * share * length / 86_400_000),
            "keys": keys,
            "models": len(MODELS),
        }
        database.execute(_RECORDS, parameters)
        if number % 50 == 0:
            _say(f"records of day {number}")
    for name, statement in indexes:
        _say(f"index {name}")
        database.execute(statement)


def add_sums(database: sqlite3.Connection) -> None:
    """Add up the records, and make up how they are spread over durations and hours. A rebuild would take hours."""
    database.execute("BEGIN")
    for statement in _SUMS:
        _say(statement.split("(")[0].strip())
        database.execute(statement)
    draw = random.Random(15)
    rows = database.execute("SELECT requests, cost_usd, series, local_day, day FROM usage_days").fetchall()
    database.executemany(
        "UPDATE usage_days SET spread = ? WHERE series = ? AND local_day = ? AND day = ?",
        ((_spread(requests, cost, draw), *cell) for requests, cost, *cell in rows),
    )
    database.execute("COMMIT")


def _spread(requests: int, cost: float, draw: random.Random) -> str:
    drawn = min(requests, 200)  # of many, the shares are those of some
    counts: Counter[str] = Counter()
    each = requests // drawn if drawn else 0
    for _ in range(drawn):
        hour = min(23, max(0, round(draw.gauss(13, 4))))
        counts[f"h{hour}"] += each
        counts[f"d{bucket_of(draw.lognormvariate(8, 0.8))}"] += each
        if draw.random() < 0.5:
            counts[f"t{bucket_of(draw.lognormvariate(6.3, 0.5))}"] += each
    return json.dumps(
        {**counts, **{f"c{name[1:]}": cost * n / requests for name, n in counts.items() if name[0] == "h"}}
    )


def _shares() -> Iterator[tuple[datetime, float]]:
    days = [_first_day() + timedelta(days=number) for number in range(DAYS)]
    whole = sum(_ON_A_DAY[day.weekday()] for day in days)
    return ((day, _ON_A_DAY[day.weekday()] / whole) for day in days)


def _first_day() -> datetime:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=DAYS - 1)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _key(number: int) -> str:
    return f"key_{number:028x}"


def _user(number: int) -> str:
    return f"user{number - 1 if number % 5 == 4 else number:05}"


def _group(number: int) -> str:
    return f"course-{number:03}"


_began = time.monotonic()


def _say(what: str) -> None:
    click.echo(f"{time.monotonic() - _began:6.1f} s: {what}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the instance folder; it gets a gateway.sqlite")
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--records", type=int, default=10_000_000)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    fill(arguments.folder / "gateway.sqlite", keys=arguments.keys, records=arguments.records)


if __name__ == "__main__":
    main()
