"""What Azure's answers say about each deployment: its quota and region, and its last error. For admins."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Protocol

from ..azure.deployments import Target
from ..clock import Clock
from ..interfaces import Answer
from ..records import UNKNOWN_QUOTA, Quota
from ..usage.error_codes import REMEDIES

log = logging.getLogger(__name__)

MOST_DEPLOYMENTS = 200
"""The most deployments that are remembered. Clients can make names up where Azure's URL does not contain them."""

LOG_SECONDS = 60.0
"""The shortest time between two lines of the log about the same kind of 429 of a deployment."""

PUBLISH_SECONDS = 1.0
"""How often the gauges of a deployment change at most, unless its limit has changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastError:
    """The last answer of a deployment that was none."""

    at: float
    """Seconds since the epoch."""
    status: int | None
    """None if there was no answer."""
    code: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoweredQuota:
    """Azure has lowered a limit of a deployment, and not raised it again."""

    at: float
    """Seconds since the epoch."""
    before: Quota


@dataclass(slots=True, kw_only=True)
class DeploymentState:
    """What this process knows of one deployment."""

    name: str
    deployment: str
    base_url: str
    quota: Quota = UNKNOWN_QUOTA
    quota_at: float = 0.0
    """When Azure has said so, in seconds since the epoch."""
    region: str | None = None
    last_error: LastError | None = None
    lowered: LoweredQuota | None = None


class DeploymentNumbers(Protocol):
    """Metrics of deployments."""

    def quota_of(self, deployment: str, base_url: str, quota: Quota, *, lowered: bool) -> None: ...

    def limited(self, deployment: str, base_url: str, limit: str) -> None: ...


class DeploymentStates:
    """The deployments that have answered, or failed to, since this process started. Thread-safe.

    Args:
        numbers: The metrics.
    """

    def __init__(self, *, clock: Clock, numbers: DeploymentNumbers | None = None) -> None:
        self._clock = clock
        self._numbers = numbers
        self._lock = threading.Lock()
        self._states: dict[str, DeploymentState] = {}
        self._logged: dict[tuple[str, str], float] = {}

    def find(self, resource: str) -> DeploymentState | None:
        """Return what is known of :attr:`Target.resource`; None if it was not asked yet."""
        return self._states.get(resource)

    def lowered_from(self, target: Target) -> Quota | None:
        """Return the limits that a deployment had before Azure lowered them; None if it has not."""
        state = self._states.get(target.resource)
        return None if state is None or state.lowered is None else state.lowered.before

    def all(self) -> list[DeploymentState]:
        with self._lock:
            return list(self._states.values())

    def lowered(self) -> dict[str, str]:
        """Return which limits Azure has lowered, by deployment and resource."""
        return {
            f"{state.name or state.deployment} ({state.base_url})": describe_lowered(state.lowered.before, state.quota)
            for state in self.all()
            if state.lowered is not None
        }

    def answered(self, target: Target, answer: Answer) -> None:
        """Learn from the head of an answer."""
        quota = answer.quota
        if answer.status >= 400 and target.resource not in self._states and not target.is_registered:
            return  # it may not exist
        state = self._state(target)
        state.region = answer.region or state.region
        # Where it has spilled over, the headers are those of the other deployment.
        if quota is UNKNOWN_QUOTA or answer.spilled_to is not None:
            return
        before, now = state.quota, self._clock()
        merged = Quota(*(old if new is None else new for new, old in zip(quota, before, strict=True)))
        state.quota = merged
        changed = merged[::2] != before[::2]
        if changed:
            self._compare(state, before)
        if changed or not 0 <= now - state.quota_at < PUBLISH_SECONDS:
            state.quota_at = now
            if self._numbers is not None:
                lowered = state.lowered is not None
                self._numbers.quota_of(state.deployment, state.base_url, merged, lowered=lowered)

    def failed(self, target: Target, *, status: int | None, code: str | None) -> None:
        """Remember an error. A 429 is logged with what an admin can do."""
        if not target.is_registered and target.resource not in self._states and status in (400, 404):
            return  # nothing but a name that a client has made up
        now = self._clock()
        self._state(target).last_error = LastError(at=now, status=status, code=code)
        if code in REMEDIES and self._numbers is not None:
            self._numbers.limited(target.deployment, target.endpoint.base, code)
        if code in REMEDIES and self._may_log(target.resource, code, now):
            log.warning("Azure answered 429 (%s) for the deployment %s. %s", code, _shown(target), REMEDIES[code])

    def _may_log(self, resource: str, code: str, now: float) -> bool:
        with self._lock:
            last = self._logged.get((resource, code))
            if last is not None and 0 <= now - last < LOG_SECONDS:
                return False
            if len(self._logged) >= MOST_DEPLOYMENTS * len(REMEDIES):
                self._logged.clear()
            self._logged[resource, code] = now
        return True

    def _compare(self, state: DeploymentState, before: Quota) -> None:
        """Warn if Azure has lowered a limit, and forget that when it is as high as before again."""
        highest = before if state.lowered is None else state.lowered.before
        if state.quota.is_lower_than(highest):
            state.lowered = LoweredQuota(at=self._clock(), before=highest)
            if state.quota.is_lower_than(before):
                log.warning(
                    "Azure has lowered the quota of the deployment %s (%s): %s.",
                    state.name or state.deployment,
                    state.base_url,
                    describe_lowered(highest, state.quota),
                )
        elif state.lowered is not None:
            state.lowered = None
            log.warning(
                "The quota of the deployment %s (%s) is as high as before again.",
                state.name or state.deployment,
                state.base_url,
            )

    def _state(self, target: Target) -> DeploymentState:
        state = self._states.get(target.resource)
        if state is None:
            with self._lock:
                if len(self._states) >= MOST_DEPLOYMENTS:
                    del self._states[next(iter(self._states))]
                made = DeploymentState(name=target.name, deployment=target.deployment, base_url=target.endpoint.base)
                state = self._states.setdefault(target.resource, made)
        return state


def describe_lowered(before: Quota, now: Quota) -> str:
    """Say which limits are lower than before."""
    parts = []
    for what, old, new in (
        ("tokens", before.limit_tokens, now.limit_tokens),
        ("requests", before.limit_requests, now.limit_requests),
    ):
        if old is not None and new is not None and new < old:
            parts.append(f"{new} {what} per minute instead of {old}")
    return " and ".join(parts)


def _shown(target: Target) -> str:
    return f"{target.name} ({target.deployment})" if target.name else target.deployment
