"""Chooses the deployments that answer a request, and remembers those that cannot answer now.

A deployment is at its limit when Azure answers with 429 and says when to come back; it cools down until then. One that
fails again and again is left alone for a while, and then each process tests it with a single request. All processes and
hosts share which deployments are left alone, if there is Redis. A deployment that has only failed is still asked if no
other one can answer, because to refuse the request would be no better.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..azure.deployments import Target
from ..clock import Clock, Timer
from ..errors import UpstreamLimited
from ..interfaces import Cooldown, Cooldowns

log = logging.getLogger(__name__)

LIMITED = 429
FAILURES = (500, 502, 503, 504)
"""Statuses after which another deployment is asked. A 400 or 401 says something about the request or the key, and
another deployment must not hide it."""

FAILURES_TO_OPEN = 3
"""After so many failures in a row, a deployment is left alone."""

OPEN_SECONDS = 15.0
"""For how long. After that, one request tests it."""

TEST_SECONDS = 60.0
"""How long a test may take until another request may test the deployment, too."""

SHORTEST_SECONDS = 1.0
"""The shortest time that any deployment gets to begin its answer."""

LIMIT_SECONDS = 10.0
"""How long a deployment cools down if its 429 does not say when to come back."""

LONGEST_SECONDS = 300.0
"""The longest time for which a deployment is left alone, whatever Azure says: the admin may have raised its quota."""


@dataclass(slots=True)
class _Circuit:
    """How one deployment has failed in this process."""

    failures: int = 0
    tested_at: float = -math.inf


class Failover:
    """Thread-safe.

    Args:
        cooldowns: Which deployments are left alone, and until when.
        seconds: No other deployment is asked if a request is older.
        clock: Gives points in time, as *cooldowns* does.
        timer: Measures durations.
        on_rest: Takes a deployment's name at Azure, its base URL, and until when it is left alone.
    """

    def __init__(
        self,
        cooldowns: Cooldowns,
        *,
        seconds: float,
        clock: Clock,
        timer: Timer,
        on_rest: Callable[[str, str, float], None] = lambda *_: None,
    ) -> None:
        self._on_rest = on_rest
        self._cooldowns = cooldowns
        self.seconds = seconds
        self._clock = clock
        self._timer = timer
        self._lock = threading.Lock()
        self._circuits: dict[str, _Circuit] = {}

    def order(self, targets: Sequence[Target], *, sticky: bytes) -> list[Target]:
        """Return those of *targets* that can be asked now, in this order. There is at least one.

        The smallest priority comes first. Among equals, requests with the same *sticky* prefer the same deployment,
        because it has their beginning in its cache; over all requests each gets a part by its weight. Those that fail
        again and again come last, but one request that would ask them first tests them.

        Raises:
            UpstreamLimited: all of them are at their limits.
        """
        resting = self._cooldowns.current()
        ready: list[Target] = []
        failing: list[Target] = []
        for target in sorted(targets, key=lambda target: (target.priority, _score(target, sticky))):
            cooldown = resting.get(target.resource)
            if cooldown is None:
                may_be_asked = self._is_closed(target) or (not ready and self._begin_test(target))
                (ready if may_be_asked else failing).append(target)
            elif not cooldown.limited:
                self._open(target)
                failing.append(target)
        if not ready and not failing:
            raise limited(self.earliest(targets) or 0.0)
        return ready + failing

    def earliest(self, targets: Sequence[Target]) -> float | None:
        """Return the seconds after which the first of *targets* can be asked again; None if one can be now."""
        resting = self._cooldowns.current()
        if any(target.resource not in resting for target in targets):
            return None
        return max(0.0, min(resting[target.resource].until for target in targets) - self._clock())

    def _is_closed(self, target: Target) -> bool:
        circuit = self._circuits.get(target.resource)
        return circuit is None or circuit.failures < FAILURES_TO_OPEN

    def _open(self, target: Target) -> None:
        """Open the circuit of a deployment that another process has left alone: it must be tested here, too."""
        if self._is_closed(target):
            with self._lock:
                self._circuits[target.resource] = _Circuit(failures=FAILURES_TO_OPEN)

    def _begin_test(self, target: Target) -> bool:
        """Return whether to test a deployment whose circuit is open; only one request does at a time."""
        with self._lock:
            circuit = self._circuits.get(target.resource)
            if circuit is None:
                return True  # it has just answered another request
            now = self._timer()
            if now - circuit.tested_at < TEST_SECONDS:
                return False
            circuit.tested_at = now
        return True

    def resting(self) -> Mapping[str, Cooldown]:
        """Return the deployments that are left alone now, by :attr:`Target.resource`."""
        return self._cooldowns.current()

    def failures(self, resource: str) -> int:
        """Return how often in a row a deployment has failed in this process."""
        circuit = self._circuits.get(resource)
        return 0 if circuit is None else circuit.failures

    def has_time(self, age: float) -> bool:
        """Return whether another deployment may be asked for a request of this age, in seconds."""
        return age < self.seconds

    def seconds_for(self, age: float, *, others: bool, is_first: bool) -> float:
        """Return the seconds in which a deployment must begin its answer, besides the time-out in the settings.

        While others could answer, it may take half of what is left; else they would never be asked after a time-out.

        Args:
            age: Seconds since the request arrived.
            others: Whether another deployment could be asked after this one.
            is_first: Whether no other one was asked before.
        """
        left = max(SHORTEST_SECONDS, self.seconds - age)
        if others:
            return max(SHORTEST_SECONDS, left / 2)
        return math.inf if is_first else left

    def learn(self, target: Target, status: int, headers: Sequence[tuple[str, str]]) -> bool:
        """Remember how a deployment has answered, and return whether it cannot answer now.

        Args:
            headers: Those of the answer, with names in lower case.
        """
        if not target.is_registered:
            return False  # there is no other one
        if status == LIMITED:
            self._limited(target, headers)
        elif status in FAILURES:
            self.failed(target)
        else:
            return False
        return True

    def answered(self, target: Target) -> None:
        """Remember that a deployment has answered: its failures before do not count any more."""
        if target.resource in self._circuits:
            with self._lock:
                self._circuits.pop(target.resource, None)

    def _limited(self, target: Target, headers: Sequence[tuple[str, str]]) -> None:
        seconds = _retry_after(headers)
        self._rest(target, LIMIT_SECONDS if seconds is None else seconds, limited=True)
        self.end_test(target)

    def failed(self, target: Target) -> None:
        """Remember that a deployment has failed. After some failures in a row it is left alone."""
        if not target.is_registered:
            return
        with self._lock:
            circuit = self._circuits.setdefault(target.resource, _Circuit())
            circuit.failures += 1
            circuit.tested_at = -math.inf
            opens = circuit.failures >= FAILURES_TO_OPEN
        if opens:
            self._rest(target, OPEN_SECONDS, limited=False)

    def end_test(self, target: Target) -> None:
        """Let another request test a deployment: this one has ended without showing whether it can answer."""
        if target.resource in self._circuits:
            with self._lock:
                circuit = self._circuits.get(target.resource)
                if circuit is not None:
                    circuit.tested_at = -math.inf

    def state(self, target: Target) -> tuple[str, float]:
        """Return ``ok``, ``limited`` or ``failing``, and for how many seconds a deployment is left alone."""
        cooldown = self._cooldowns.current().get(target.resource)
        if cooldown is not None:
            return "limited" if cooldown.limited else "failing", max(0.0, cooldown.until - self._clock())
        return "ok" if self._is_closed(target) else "failing", 0.0

    def _rest(self, target: Target, seconds: float, *, limited: bool) -> None:
        seconds = min(seconds, LONGEST_SECONDS)
        if seconds <= 0:
            return
        before = self._cooldowns.current().get(target.resource)
        if before is not None and before.limited and not limited and before.until >= self._clock() + seconds:
            return  # a failure does not shorten what Azure has asked for
        self._cooldowns.rest(target.resource, seconds, limited=limited)
        self._on_rest(target.deployment, target.endpoint.base, self._clock() + seconds)
        if before is None:  # under load, hundreds of requests learn the same within a second
            log.warning(
                "The deployment %s %s; others are asked for %.1f s.",
                target.label,
                "is at its limit" if limited else "fails again and again",
                seconds,
            )


def with_retry_after(headers: list[tuple[str, str]], seconds: float) -> list[tuple[str, str]]:
    """Return the headers of a 429 with another time after which to come back."""
    others = [(name, value) for name, value in headers if name not in ("retry-after", "retry-after-ms")]
    return [
        *others,
        ("retry-after", str(max(1, math.ceil(seconds)))),
        ("retry-after-ms", str(math.ceil(seconds * 1000))),
    ]


def limited(seconds: float) -> UpstreamLimited:
    """Return the error of a request whose deployments are all at their limits for *seconds*."""
    return UpstreamLimited(
        f"All deployments of this model are at Azure's limits. Try again in {math.ceil(seconds)} s.",
        retry_after=max(1, math.ceil(seconds)),
        headers={"retry-after-ms": str(math.ceil(seconds * 1000))},
    )


def _retry_after(fields: Sequence[tuple[str, str]]) -> float | None:
    """Return the seconds after which Azure wants to be asked again; None if it does not say."""
    headers = dict(fields)
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) / unit
        except (KeyError, ValueError):  # Retry-After may also be a date (RFC 9110, section 10.2.3); Azure sends none
            continue
        if 0 <= seconds < math.inf:
            return seconds
    return None


def _score(target: Target, sticky: bytes) -> float:
    """Return a number that is the same for the same request; the smallest one is chosen by weight.

    Weighted rendezvous hashing: the choice changes for few requests if a deployment comes or goes.
    """
    digest = hashlib.blake2b(target.resource.encode(), key=sticky[:64], digest_size=8).digest()
    uniform = (int.from_bytes(digest) + 1) / (2**64 + 1)
    return -math.log(uniform) / target.weight if target.weight > 0 else math.inf
