"""What is measured, in groups: each has rows in the table, and a way to take their figures from a site."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from tests.gateway_process import GatewayProcess

from . import stock
from .load import Load, Result, cpu_seconds, family, run
from .report import Figure, Row
from .sites import Alone, BareFlask, Gateway, LiteLLM, Site, Target

SPARE_THREADS = 40
"""Threads of a gateway that has to hold streams, beside one for each."""

ASKED_KEYS = (10, 500)
"""How many different ones a load uses, if there are so many: what a request costs may depend on either number."""

REPORTS = ("day", "month,user", "key,model")
REPETITIONS = 5
_BUSY = 0.9  # of a processor: then the generator was at its own limit


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much, and for how long."""

    seconds: float = 10.0
    """That count, of each load."""
    clients: int = 16
    tokens: int = 1000
    """Of a stream that comes as fast as it can."""
    streams: tuple[int, ...] = (300, 600)
    chunks_per_second: int = 50
    paced_tokens: int = 250
    rates: tuple[int, ...] = (25, 200)
    keys: tuple[int, ...] = (10, 1_000_000)
    records: tuple[int, int] = (10_000, 10_000_000)

    @property
    def gap_us(self) -> int:
        return 1_000_000 // self.chunks_per_second


QUICK = Scale(
    seconds=0.4, tokens=100, streams=(10,), paced_tokens=20, rates=(25,), keys=(10, 1000), records=(1000, 100_000)
)


@dataclass
class Bench:
    """What all measurements share."""

    scale: Scale
    alone: Alone
    notes: list[str] = field(default_factory=list)
    say: Callable[[str], None] = lambda _: None

    def note(self, text: str) -> None:
        """Say *text* below the table, once."""
        if text not in self.notes:
            self.notes.append(text)

    def run(self, site: Site, target: Target, **load: Any) -> Result:
        """Put *load* on *target*; what is odd about the result goes into the notes."""
        load = {"seconds": self.scale.seconds, "ramp": min(1.0, self.scale.seconds), "keys": target.keys} | load
        result = run(Load(port=target.port, path=target.path, pid=target.pid, **load))
        self.say(f"    {result.summary()}")
        what = ", ".join(f"{name}={load[name]}" for name in ("clients", "stream", "rate") if load.get(name))
        if result.errors:
            self.note(f"{site.name} ({what}): {result.errors}")
        if result.own_cores > _BUSY and target.pid:
            self.note(f"{site.name} ({what}): the load generator was at its limit; the rate is no less than that.")
        return result


@dataclass(frozen=True)
class Measure:
    """One group of rows."""

    rows: Callable[[Scale], list[Row]]
    take: Callable[[Bench, Site], Iterator[Figure]]
    """One figure for each row, in their order."""
    sites: tuple[type, ...] = (Gateway, LiteLLM)
    """Who can be measured."""


def _plain_rows(scale: Scale) -> list[Row]:
    return [
        Row("plain answer, CPU per request", "≤ 1.0 ms", "less"),
        Row(f"plain answers per second, {scale.clients} clients, one process", "≥ 800", "more"),
    ]


def _plain(bench: Bench, site: Site) -> Iterator[Figure]:
    with site.open() as target:
        result = bench.run(site, target, clients=bench.scale.clients)
    yield _cpu_per_answer(target, result)
    yield _rate(result.answers / result.seconds)


def _stream_rows(scale: Scale) -> list[Row]:
    rows = [
        Row("streamed chunk, CPU, upstream as fast as it can", "≤ 20 µs", "less"),
        Row("chunks per second, same", "≥ 50,000", "more"),
    ]
    for streams, ttft, cpu in zip(scale.streams, ("80 ms", "300 ms"), ("45 µs", "40 µs"), strict=False):
        rows += _paced_rows(scale, streams, ttft=ttft, cpu=cpu)
        if streams == scale.streams[0]:
            rows.append(Row(f"memory under {streams} streams", "≤ 120 MB", "less"))
    return rows


def _streams(bench: Bench, site: Site) -> Iterator[Figure]:
    with site.open() as target:
        result = _fast(bench, site, target)
        yield _cpu_per_chunk(target, result)
        yield _rate(result.chunks / result.seconds)
    for streams in bench.scale.streams:
        with site.open(threads=streams + SPARE_THREADS) as target:
            result = _paced(bench, site, target, streams)
            yield from _paced_figures(bench.scale, target, result, streams)
            if streams == bench.scale.streams[0]:
                yield _memory(target, result)


def _tls_rows(scale: Scale) -> list[Row]:
    rows = [
        Row("upstream behind TLS: plain answer, CPU per request", "≤ 1.0 ms", "less"),
        Row("upstream behind TLS: streamed chunk, CPU, as fast as it can", better="less"),
    ]
    for streams in scale.streams:
        rows += _paced_rows(scale, streams, before="upstream behind TLS: ", ttft="300 ms", cpu="65 µs")
    return rows


def _tls(bench: Bench, site: Site) -> Iterator[Figure]:
    with site.open(tls=True) as target:
        yield _cpu_per_answer(target, bench.run(site, target, clients=bench.scale.clients))
        yield _cpu_per_chunk(target, _fast(bench, site, target))
    for streams in bench.scale.streams:
        with site.open(threads=streams + SPARE_THREADS, tls=True) as target:
            result = _paced(bench, site, target, streams)
            yield from _paced_figures(bench.scale, target, result, streams)


def _fast(bench: Bench, site: Site, target: Target) -> Result:
    clients, tokens = bench.scale.clients, bench.scale.tokens
    return bench.run(site, target, clients=clients, stream=True, tokens=tokens, to_the_end=True)


def _paced_rows(scale: Scale, streams: int, *, ttft: str, cpu: str, before: str = "") -> list[Row]:
    what = f"{before}{streams} streams at {scale.chunks_per_second} chunks/s"
    first = f"{scale.gap_us // 1000} ms of it the upstream's"
    return [
        Row(what, "all"),
        Row(f"{what}: first token ({first}), p50 / p99", f"p99 < {ttft}"),
        Row(f"{what}: CPU per chunk", f"≤ {cpu}", "less"),
    ]


def _paced(bench: Bench, site: Site, target: Target, streams: int) -> Result:
    scale = bench.scale
    # As long as a stream lasts: then at every later moment as many begin as end.
    lasting = (scale.paced_tokens + 1) * scale.gap_us / 1e6
    return bench.run(
        site, target, clients=streams, stream=True, tokens=scale.paced_tokens, gap_us=scale.gap_us, ramp=lasting
    )


def _paced_figures(scale: Scale, target: Target, result: Result, streams: int) -> Iterator[Figure]:
    wanted = streams * scale.chunks_per_second
    # Some events come together with the first token, and some together behind the last.
    pieces = (scale.paced_tokens + 1) / max(1, result.events_each)
    came = result.chunks / result.seconds * pieces
    yield Figure("all" if came >= 0.98 * wanted else f"{came:,.0f} of {wanted:,}/s", came)
    middle, high = result.ttft_ms
    yield Figure(f"{middle:,.0f} / {high:,.0f} ms", high)
    yield _cpu_per_chunk(target, result)


def _latency_rows(scale: Scale) -> list[Row]:
    return [Row(f"added latency at {rate} plain answers/s (open loop), p50 / p99") for rate in scale.rates]


def _latency(bench: Bench, site: Site) -> Iterator[Figure]:
    with site.open() as target, bench.alone.open() as upstream:
        for rate in bench.scale.rates:
            # Many clients, so that nobody has to wait for a connection; after each other, so that the
            # machine is the same.
            load = {"rate": rate, "clients": 100, "tokens": 16}
            direct = bench.run(bench.alone, upstream, **load)
            result = bench.run(site, target, **load)
            if result.answers < 0.9 * direct.answers:
                yield Figure(f"{result.answers / result.seconds:.0f} of {rate}/s, and ever later")
                continue
            middle, high = (
                through - without for through, without in zip(result.latency_ms, direct.latency_ms, strict=True)
            )
            yield Figure(f"{middle:.1f} / {high:.1f} ms", middle)


def _start_rows(_: Scale) -> list[Row]:
    return [Row("cold start to the first answer", "≤ 1.5 s", "less")]


def _start(_: Bench, site: Site) -> Iterator[Figure]:
    assert isinstance(site, Gateway | LiteLLM)
    with site.cold_start() as seconds:
        yield Figure(f"{seconds:.1f} s", seconds)


def _key_rows(scale: Scale) -> list[Row]:
    return [
        Row(f"plain answer, CPU per request, with {count:,} keys, {asked:,} in use", better="less")
        for count, asked in _stocks(scale)
    ]


def _stocks(scale: Scale) -> Iterator[tuple[int, int]]:
    for count in scale.keys:
        yield from ((count, asked) for asked in ASKED_KEYS if asked <= count)


def _keys(bench: Bench, site: Site) -> Iterator[Figure]:
    bench.note(
        "Keys beyond the first were written straight into the embedded store's table. Those in use were spread evenly, "
        "used in turn, and each once before: a key's first request may cost more."
    )
    for count, asked in _stocks(bench.scale):
        with site.open() as target:
            assert target.gateway is not None
            if not _is_embedded(target.gateway):
                yield Figure()
                continue
            keys = tuple(islice(stock.add_keys(target.gateway, count), None, None, count // asked))[:asked]
            for key in keys:
                assert replace(target, keys=(key,)).answers(), "a key that was put into the store is not known"
            result = bench.run(site, target, clients=bench.scale.clients, keys=keys)
            yield _cpu_per_answer(target, result)


def _usage_rows(scale: Scale) -> list[Row]:
    few, many = scale.records
    slowest = "slowest of `by=" + "`, `by=".join(REPORTS) + "`"
    return [
        Row("usage record into the log, 500 at once: time / CPU"),
        Row(f"usage report over {few:,} records, {slowest}: time / CPU"),
        Row(f"usage report over {many:,} records, same", "< 1 s"),
    ]


def _usage(bench: Bench, site: Site) -> Iterator[Figure]:
    few, many = bench.scale.records
    bench.note(
        f"{few:,} records went through UsageLog.append, as the journal ships them. Of {many:,} the daily sums of a "
        f"year were written straight into their table, {stock.RECORDS_OF_A_CELL} requests for each key, model and day: "
        "reports read nothing else."
    )
    with site.open() as target:
        gateway = target.gateway
        assert gateway is not None
        before = _recorded(gateway)
        appended = stock.append_records(gateway, few)
        microseconds = 1e6 / appended.records
        yield Figure(f"{appended.seconds * microseconds:,.0f} / {appended.cpu_seconds * microseconds:.0f} µs")
        _check(_recorded(gateway), before + few)
        yield _slowest_report(gateway)
    if not _is_embedded(gateway):
        yield Figure()
        return
    with site.open() as target:
        gateway = target.gateway
        assert gateway is not None
        before = _recorded(gateway)
        stock.add_sums(gateway, many)
        _check(_recorded(gateway), before + many)
        yield _slowest_report(gateway)


def _recorded(gateway: GatewayProcess) -> int:
    """How many requests the report has, when those of the warm-up have arrived in it."""
    wait_for = 15.0
    end = time.monotonic() + wait_for
    while gateway.admin("GET", "/admin/status").json()["journal"]["records"] and time.monotonic() < end:
        time.sleep(0.1)
    requests: int = gateway.admin("GET", "/admin/usage?by=month").json()["total"]["requests"]
    return requests


def _check(found: int, expected: int) -> None:
    if found != expected:
        raise RuntimeError(f"the report has {found} requests where there are {expected}")


def _slowest_report(gateway: GatewayProcess) -> Figure:
    seconds, cpu = max(_report(gateway, by) for by in REPORTS)
    return Figure(f"{seconds:.2f} / {cpu:.2f} s", seconds)


def _report(gateway: GatewayProcess, by: str) -> tuple[float, float]:
    """Median time until the whole answer is there, and the gateway's own CPU time; in seconds."""
    serving = family(gateway.pid)
    times = []
    cpu_before = cpu_seconds(serving)
    for _ in range(REPETITIONS):
        began = time.monotonic()
        answer = gateway.admin("GET", f"/admin/usage?by={by}")
        times.append(time.monotonic() - began)
        if answer.status != 200:
            raise RuntimeError(f"the report by {by} was answered with {answer.status}")
    return statistics.median(times), (cpu_seconds(serving) - cpu_before) / REPETITIONS


def _is_embedded(gateway: GatewayProcess) -> bool:
    return "MONGOHOST" not in gateway.environ


def _cpu_per_answer(target: Target, result: Result) -> Figure:
    if target.pid is None or not result.answers:
        return Figure()
    return Figure(f"{result.cpu_ms_per_answer:.2f} ms", result.cpu_ms_per_answer)


def _cpu_per_chunk(target: Target, result: Result) -> Figure:
    if target.pid is None or not result.chunks:
        return Figure()
    return Figure(f"{result.cpu_us_per_chunk:,.0f} µs", result.cpu_us_per_chunk)


def _memory(target: Target, result: Result) -> Figure:
    return Figure(f"{result.memory_mb:.0f} MB", result.memory_mb) if target.pid else Figure()


def _rate(per_second: float) -> Figure:
    return Figure(f"{per_second:,.0f}", per_second)


MEASURES = {
    "plain": Measure(_plain_rows, _plain, (Alone, BareFlask, Gateway, LiteLLM)),
    "streams": Measure(_stream_rows, _streams, (Alone, Gateway, LiteLLM)),
    "tls": Measure(_tls_rows, _tls, (Gateway,)),
    "latency": Measure(_latency_rows, _latency),
    "start": Measure(_start_rows, _start),
    "keys": Measure(_key_rows, _keys, (Gateway,)),
    "usage": Measure(_usage_rows, _usage, (Gateway,)),
}
