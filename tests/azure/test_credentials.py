"""Keys, and tokens that one thread renews before they end."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from llmgateway.azure.credentials import EntraToken, StaticKey, Token, TokenUnavailable
from llmgateway.errors import UpstreamCredentials
from tests.conftest import Clock
from tests.servers import wait_until


@dataclass
class Source:
    """Gives ``token-1``, ``token-2`` …; each waits for the gate, and fails if there is an error."""

    seconds: float = 3600
    error: Exception | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    calls: int = 0
    threads: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.gate.set()

    def __call__(self) -> Token:
        self.calls += 1
        self.threads.add(threading.current_thread().name)
        number = self.calls
        self.gate.wait(30)
        if self.error is not None:
            raise self.error
        return Token(value=f"token-{number}", seconds=self.seconds)


@pytest.fixture
def source():
    source = Source()
    yield source
    source.gate.set()


@pytest.fixture
def timer():
    return Clock(now=1000.0)


@pytest.fixture
def make(source, clock, timer) -> Callable[..., EntraToken]:
    return lambda **options: EntraToken(source, clock=clock, timer=timer, **options)


@pytest.fixture
def advance(clock, timer):
    def advance(seconds: float) -> None:
        clock.advance(seconds)
        timer.advance(seconds)

    return advance


def held(number: int) -> tuple[str, str]:
    return "Authorization", f"Bearer token-{number}"


THROTTLED = TokenUnavailable("status 429", "Too many requests.")


@pytest.mark.parametrize(
    ("name", "value"),
    [("api-key", "k3y"), ("Ocp-Apim-Subscription-Key", "k3y"), ("Authorization", "Bearer k3y")],
)
def test_key_in_each_header(name, value):
    """A key is sent as it is, and as Bearer in ``Authorization``; nothing is ever wrong with it."""
    key = StaticKey(name, "k3y")

    assert (name, value) == key.header()
    assert key.problem() is None
    assert "k3y" not in repr(key)


def test_key_with_a_line_break():
    """A key that would add a header is refused."""
    with pytest.raises(ValueError, match="not allowed in a header"):
        StaticKey("api-key", "k3y\r\nX: y")


def test_starts_at_the_first_use(source, make):
    """Made before a fork it starts nothing and asks nobody."""
    before = threading.active_count()
    token = make()
    assert (before, 0) == (threading.active_count(), source.calls)

    assert held(1) == token.header()
    assert before + 1 == threading.active_count()
    assert "token-1" not in repr(token) + repr(vars(token))


def test_looking_for_a_problem_starts_it(source, make):
    """A health check of a new process makes the first request find a token."""
    token = make()

    assert token.problem() is None
    wait_until(lambda: source.calls == 1)


def test_all_wait_for_the_one_first_fetch(source, make):
    """The first requests of a process share one attempt, in a thread that is none of theirs."""
    source.gate.clear()
    token = make()
    with ThreadPoolExecutor(8, "request") as pool:
        answers = [pool.submit(token.header) for _ in range(8)]
        wait_until(lambda: source.calls)
        source.gate.set()
        assert [held(1)] * 8 == [answer.result(10) for answer in answers]

    assert (1, {"azure-token"}) == (source.calls, source.threads)


def test_first_wait_is_bounded(source, make, timer):
    """If nobody answers, the first requests fail after the bound, and later ones at once."""
    source.gate.clear()
    token = make(first_seconds=0.3)
    began = time.monotonic()
    with pytest.raises(UpstreamCredentials, match="no answer yet"):
        token.header()
    assert 0.25 < time.monotonic() - began < 5

    timer.advance(0.3)
    began = time.monotonic()
    for _ in range(100):
        with pytest.raises(UpstreamCredentials):
            token.header()
    assert time.monotonic() - began < 5
    assert 1 == source.calls


def test_first_failure_is_tried_again_while_requests_wait(source, make, advance):
    """A platform that is not ready when a process starts costs its first users seconds, not errors."""
    source.error = THROTTLED
    token = make(first_seconds=30)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(token.header)
        wait_until(lambda: token.problem() is not None)
        source.error = None
        advance(1)
        token.problem()
        assert held(2) == answer.result(10)

    assert token.problem() is None


def test_says_why_there_is_no_token(source, make, timer):
    """The user's error has the short reason, and nothing of what the authority says beside it."""
    source.error = TokenUnavailable("AADSTS700016", "Application of tenant Contoso was not found")
    token = make()
    token.problem()
    wait_until(lambda: token.problem() is not None)
    timer.advance(5)

    with pytest.raises(UpstreamCredentials, match="AADSTS700016") as refused:
        token.header()

    assert "Contoso" not in refused.value.message + (token.problem() or "")
    assert "no token: the request for one fails since 2026-01-01T00:00:00Z (AADSTS700016)" == token.problem()


@pytest.mark.parametrize("moved", ["clock", "timer"])
def test_renews_when_half_of_the_time_is_over(source, make, request, moved):
    """No request waits: the old token is sent until the new one is there.

    The timer stands still while a machine is suspended, the clock does not: either of them is enough.
    """
    token = make()
    token.header()
    source.gate.clear()
    moving = request.getfixturevalue(moved)
    moving.advance(1799)
    assert (held(1), 1) == (token.header(), source.calls)

    moving.advance(1)
    for _ in range(100):
        assert held(1) == token.header()
    wait_until(lambda: source.calls == 2)
    assert held(1) == token.header()
    source.gate.set()

    wait_until(lambda: token.header() == held(2))
    assert 2 == source.calls


def test_renews_without_requests(source):
    """A token does not end because nobody asks for it: the thread wakes up by itself."""
    source.seconds = 2
    token = EntraToken(source)
    token.header()

    wait_until(lambda: source.calls >= 3)


def test_failing_renewal_keeps_the_old_token_until_it_ends(source, make, advance):
    """It is named, with both times; when the token has ended, requests fail at once; then it heals by itself."""
    token = make()
    token.header()
    source.error = THROTTLED
    advance(1800)
    token.header()
    wait_until(lambda: token.problem() is not None)
    told = "renewal fails since 2026-01-01T00:30:00Z (status 429), token valid until 2026-01-01T01:00:00Z"
    assert told == token.problem()

    advance(1799.9)
    assert (held(1), told) == (token.header(), token.problem())

    advance(0.2)
    with pytest.raises(UpstreamCredentials, match="token ended 2026-01-01T01:00:00Z"):
        token.header()

    source.error = None
    advance(60)
    wait_until(lambda: token.problem() is None)
    assert ("Authorization", f"Bearer token-{source.calls}") == token.header()


def test_logs_a_line_a_minute(source, make, advance, caplog):
    """However often it fails; the line has the whole reason. The end of the trouble is told, too."""
    caplog.set_level(logging.INFO)
    token = make()
    token.header()
    source.error = THROTTLED
    advance(1800)
    for _ in range(12):  # two minutes
        token.problem()
        wait_until(lambda: not token._is_due(), what="the end of the attempt")
        advance(10)
    source.error = None
    advance(60)
    token.problem()
    wait_until(lambda: token.problem() is None)

    lines = [(record.levelname, record.message) for record in caplog.records]
    assert ["WARNING", "WARNING", "INFO"] == [level for level, _ in lines]
    assert "Azure credential: renewal fails since 2026-01-01T00:30:00Z (status 429), token valid until" in lines[0][1]
    assert "Too many requests." in lines[0][1]
    assert "fetched again" in lines[2][1]


def test_asks_less_and_less_often(source, make, advance):
    """Attempts that fail are one second apart, then two, four … sixty."""
    source.error = THROTTLED
    token = make()
    token.problem()
    wait_until(lambda: token.problem() is not None)
    for count, pause in enumerate([1, 2, 4, 8, 16, 32, 60, 60], start=1):
        wait_until(lambda: not token._is_due(), what="the end of the attempt")
        assert count == source.calls
        advance(pause - 0.1)
        assert not token._is_due()
        advance(0.1)
        token.problem()
        wait_until(lambda count=count: source.calls == count + 1)


@pytest.mark.parametrize("seconds", [-86_400, 3600, 86_400])
def test_clock_that_is_set_ends_no_token(source, make, clock, timer, seconds):
    """The end is measured with the timer. A clock that jumps ahead only brings the renewal forward."""
    token = make()
    token.header()
    source.gate.clear()
    clock.advance(seconds)
    assert held(1) == token.header()
    timer.advance(3599)
    assert held(1) == token.header()
    timer.advance(1)

    with pytest.raises(UpstreamCredentials):
        token.header()


def test_token_that_has_ended_when_it_comes(source, make, timer):
    """A clock that is wrong makes every token look old; that is said."""
    source.seconds = -30
    token = make()
    token.problem()
    wait_until(lambda: token.problem() is not None)
    timer.advance(5)

    with pytest.raises(UpstreamCredentials, match="token already ended"):
        token.header()


def test_short_tokens_do_not_make_it_ask_without_end(source, make):
    """A platform may give the same token until its end: there is a second between two attempts at least."""
    source.seconds = 0.2
    token = make()
    token.header()
    wait_until(lambda: not token._is_due())

    assert 1 == source.calls


def test_bug_does_not_end_the_thread(source, make, advance, caplog):
    """An error that nobody has thought of is logged, and the next attempt comes."""
    source.error = ZeroDivisionError("a bug")
    token = make()
    token.problem()
    wait_until(lambda: token.problem() is not None)
    assert "ZeroDivisionError" in caplog.text

    source.error = None
    advance(1)
    token.problem()
    wait_until(lambda: token.header() == held(2))


def test_says_that_nobody_answers(source, make, advance):
    """An attempt that hangs is a problem before it fails."""
    token = make()
    token.header()
    source.gate.clear()
    advance(1800)
    token.header()
    wait_until(lambda: source.calls == 2)
    assert token.problem() is None

    advance(15)
    told = "renewal gets no answer since 2026-01-01T00:30:00Z, token valid until 2026-01-01T01:00:00Z"
    assert told == token.problem()


def test_each_process_fetches_its_own(source, make, advance):
    """A child has no thread of its parent. It uses the token that it has inherited, and renews it itself."""
    token, unused = make(), make()
    token.header()
    reading, writing = os.pipe()
    children = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            try:
                os.write(writing, _in_child(token, unused, source, advance))
            finally:
                os._exit(0)
        children.append(pid)
    os.close(writing)
    for pid in children:
        os.waitpid(pid, 0)
    with os.fdopen(reading) as pipe:
        said = pipe.read()

    assert "renewed\n" * 3 == said
    assert 1 == source.calls


def _in_child(token: EntraToken, unused: EntraToken, source: Source, advance: Callable[[float], None]) -> bytes:
    assert held(1) == token.header()
    assert held(2) == unused.header()
    advance(1800)
    wait_until(lambda: token.header() == held(3))
    return b"renewed\n"
