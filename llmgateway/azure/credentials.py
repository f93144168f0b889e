"""What proves to Azure that a request is ours: a key, or a token of Microsoft Entra ID that is renewed in time."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ..clock import Clock, Timer
from ..errors import UpstreamCredentials

log = logging.getLogger(__name__)

FIRST_SECONDS = 5.0
"""How long requests wait for the first token of a process, counted from the first attempt to get it."""

LOG_SECONDS = 60.0
"""The shortest time between two lines of the log about tokens that cannot be fetched."""

_SHORTEST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
"""Seconds between two attempts while tokens cannot be fetched: they double from the one to the other."""

_LONGEST_SLEEP = 10.0
"""After this many seconds the thread looks at the clock again: a machine that was suspended has missed a renewal."""

_SILENCE = 15.0
"""An attempt that takes more seconds is reported as a problem, although it has not failed yet."""


class Credential(Protocol):
    """What a request to Azure carries as its proof. Thread-safe. ``repr()`` shows no secret."""

    def header(self) -> tuple[str, str]:
        """Return the name and the value of the header.

        Does not wait for the network, except for the first token of a process (:data:`FIRST_SECONDS` at most).

        Raises:
            UpstreamCredentials: there is nothing that Azure would accept.
        """
        ...

    def problem(self) -> str | None:
        """Return what is known to be wrong, without secrets and names of accounts; None if nothing is."""
        ...


class StaticKey:
    """A :class:`Credential` that is a key, sent in the header that the resource expects.

    Args:
        header_name: ``api-key``, ``Ocp-Apim-Subscription-Key``, or ``Authorization``, which carries it as Bearer.
    """

    def __init__(self, header_name: str, key: str) -> None:
        if not key.isprintable():  # settings and the admin API refuse such a key
            raise ValueError("Azure's key contains characters that are not allowed in a header")
        self._header = header_name, f"Bearer {key}" if header_name == "Authorization" else key

    def __repr__(self) -> str:
        return f"StaticKey({self._header[0]!r})"

    def header(self) -> tuple[str, str]:
        return self._header

    def problem(self) -> str | None:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token as it was received."""

    value: str = field(repr=False)
    seconds: float
    """How long it is valid from now on."""


class TokenUnavailable(Exception):
    """No token was issued, or none arrived.

    Args:
        code: A short cause that everybody may see, like ``AADSTS700016`` or ``status 429``.
        detail: The whole message, for the log. Contains no secret.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class _HeldToken:
    header: tuple[str, str] = field(repr=False)
    ends: float
    """On the timer."""
    ends_on: float
    """On the clock, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    code: str
    since: float
    """On the clock: when the first of these attempts failed."""
    attempts: int


class EntraToken:
    """A :class:`Credential` that is a token of Microsoft Entra ID. Thread-safe.

    One thread of each process fetches the tokens. It starts at the first call of :meth:`header` or :meth:`problem`, so
    an instance may be created before a fork; a child process starts a thread of its own. The thread renews a token when
    half of its time is over. If that fails, requests go on with the old token until it ends.

    The end of a token is measured with *timer*, so that a clock that is set does not end it. The renewal also looks at
    *clock*, which, unlike the timer, goes on while a machine is suspended.

    Args:
        fetch: Asks for a new token, never for a cached one. May take long. Raises TokenUnavailable.
        first_seconds: As :data:`FIRST_SECONDS`.
    """

    def __init__(
        self,
        fetch: Callable[[], Token],
        *,
        clock: Clock = time.time,
        timer: Timer = time.monotonic,
        first_seconds: float = FIRST_SECONDS,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._timer = timer
        self._first_seconds = first_seconds
        self._starting = threading.Lock()
        self._pid = 0
        self._changed = threading.Condition()
        self._woken = threading.Event()
        self._token: _HeldToken | None = None
        self._failure: _Failure | None = None
        # When the next attempt is due, on the timer and on the clock: whichever comes first.
        self._next = -math.inf, -math.inf
        self._waited_from = math.inf
        self._asked_at: float | None = None  # the attempt that runs, on the timer
        self._logged_at = -math.inf

    def __repr__(self) -> str:
        return "EntraToken()"

    def header(self) -> tuple[str, str]:
        if self._pid != os.getpid():
            self._start()
        token = self._token
        if token is None or self._timer() >= token.ends:
            token = self._wait()
        elif self._is_due():
            self._woken.set()
        return token.header

    def problem(self) -> str | None:
        if self._pid != os.getpid():
            self._start()
        if self._is_due():
            self._woken.set()
        failure, asked_at = self._failure, self._asked_at
        if failure is not None:
            what = f"fails since {_moment(failure.since)} ({failure.code})"
        elif asked_at is not None and (silence := self._timer() - asked_at) >= _SILENCE:
            what = f"gets no answer since {_moment(self._clock() - silence)}"
        else:
            return None
        token = self._token
        if token is None:
            return f"no token: the request for one {what}"
        if self._timer() >= token.ends:
            return f"no token: renewal {what}, token ended {_moment(token.ends_on)}"
        return f"renewal {what}, token valid until {_moment(token.ends_on)}"

    def _wait(self) -> _HeldToken:
        """Wait for the first token of this process. Later there is one, or its renewal has failed for long."""
        self._woken.set()
        with self._changed:
            left = self._waited_from + self._first_seconds - self._timer()
            self._changed.wait_for(self._is_valid, timeout=max(0.0, left))
            token = self._token
        if token is not None and self._is_valid():
            return token
        raise UpstreamCredentials(
            f"The gateway has no token for Azure ({self.problem() or 'no answer yet'}). Your own key is fine: tell the "
            "admin, who finds the reason in the gateway's log."
        )

    def _is_valid(self) -> bool:
        return self._token is not None and self._timer() < self._token.ends

    def _is_due(self) -> bool:
        on_timer, on_clock = self._next
        return self._timer() >= on_timer or self._clock() >= on_clock

    def _start(self) -> None:
        with self._starting:
            if self._pid == os.getpid():
                return
            # Of its own in each process: a thread that was not forked may hold those of the parent.
            self._changed = threading.Condition()
            self._woken = threading.Event()
            self._asked_at = None
            self._waited_from = self._timer()
            threading.Thread(target=self._run, name="azure-token", daemon=True).start()
            self._pid = os.getpid()

    def _run(self) -> None:
        while True:
            while not self._is_due():
                self._woken.wait(max(0.0, min(self._next[0] - self._timer(), _LONGEST_SLEEP)))
                self._woken.clear()
            self._renew()

    def _renew(self) -> None:
        self._asked_at = self._timer()
        try:
            token = self._fetch()
            if token.seconds <= 0:
                raise TokenUnavailable("token already ended", "it came with a time that is over: is the clock right?")
        except TokenUnavailable as error:
            self._keep_old(error)
        except Exception as error:
            # A bug must not end the thread, or there would never be a token again.
            log.exception("A token for Azure cannot be fetched.")
            self._keep_old(TokenUnavailable("internal error", repr(type(error))))
        else:
            self._replace(token)
        finally:
            self._asked_at = None

    def _replace(self, token: Token) -> None:
        # Counted from the question, because the token is not older than that.
        asked_at = self._timer() if self._asked_at is None else self._asked_at
        pause = max(token.seconds / 2, _SHORTEST_PAUSE)
        failure, self._failure = self._failure, None
        with self._changed:
            self._token = _HeldToken(
                header=("Authorization", f"Bearer {token.value}"),
                ends=asked_at + token.seconds,
                ends_on=self._clock() + token.seconds,
            )
            self._next = self._timer() + pause, self._clock() + pause
            self._changed.notify_all()
        self._logged_at = -math.inf
        if failure is not None:
            log.info("A token for Azure has been fetched again, after %d attempts that failed.", failure.attempts)

    def _keep_old(self, error: TokenUnavailable) -> None:
        before = self._failure
        since, attempts = (self._clock(), 1) if before is None else (before.since, before.attempts + 1)
        self._failure = _Failure(code=error.code, since=since, attempts=attempts)
        pause = min(_SHORTEST_PAUSE * 2 ** min(attempts - 1, 10), _LONGEST_PAUSE)
        self._next = self._timer() + pause, self._clock() + pause
        if self._timer() - self._logged_at < LOG_SECONDS:
            return
        self._logged_at = self._timer()
        level = logging.WARNING if self._is_valid() else logging.ERROR
        log.log(level, "Azure credential: %s. This is logged once a minute: %s", self.problem(), error)


def _moment(on: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(on))
