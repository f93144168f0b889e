"""What this process has learnt about Azure's deployments from their answers."""

from __future__ import annotations

import threading

from ..records import Usage
from .booking import Asked

SLOWEST, FASTEST = 50.0, 300.0
"""The limits of what is assumed about a deployment's speed, in tokens per second. Large models write some 50 tokens a
second, the fastest ones less than 300."""

ANSWERS_TO_TRUST = 10
"""A deployment's speed counts as :data:`FASTEST` until so many of its answers were measured."""

LEAST_TOKENS, LEAST_SECONDS, LONGEST_PROMPT = 200, 1.0, 10
"""Shorter answers say nothing about the speed: most of their time passes before the first token, or their tokens
arrive together. Neither do answers whose prompt has more than ten times as many tokens: to read it takes too much of
the time."""

MOST_DEPLOYMENTS = 1000
"""The most deployments that are remembered. Where Azure's URL does not contain the deployment, clients can make names
up."""

REASONING_ANSWERS = 3
"""A deployment is known to think when so many of its answers contained reasoning. A single one may be a wrong count."""

RECENT_ANSWERS = 20
"""The mean length of answers follows about this many of the last ones."""


_NOTHING_ASKED = Asked()


class _Deployment:
    __slots__ = ("answers", "fastest", "ignores_limits", "mean", "measured", "model", "reasoned")

    def __init__(self) -> None:
        self.model: str | None = None
        self.reasoned = 0
        self.fastest = SLOWEST
        self.measured = 0
        self.mean = 0.0
        self.answers = 0
        self.ignores_limits = False


class ObservedDeployments:
    """Remembers how each deployment has answered: its model, its speed, and the length of its answers. Thread-safe.

    Upper and lower case in the name of a deployment make no difference, as at Azure. Only answers that Azure counted
    teach numbers. Nothing is stored: a new process learns again. If there are too
    many deployments, the one that has not answered for the longest time is forgotten.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deployments: dict[str, _Deployment] = {}  # the one that answered last is the last

    def learn(
        self,
        deployment: str,
        *,
        model: str | None,
        usage: Usage | None = None,
        seconds: float | None = None,
        asked: Asked = _NOTHING_ASKED,
    ) -> None:
        """Remember an answer.

        Args:
            model: The name of the model in the answer.
            usage: What Azure counted.
            seconds: The time in which the answer was written.
            asked: What the client has asked for. Choices are written at the same time, so with more than one of them
                the speed of each is unknown.
        """
        if model is None and usage is None:
            return
        name, choices = deployment.lower(), asked.choices
        with self._lock:
            known = self._deployments.pop(name, None) or _Deployment()
            self._deployments[name] = known
            if len(self._deployments) > MOST_DEPLOYMENTS:
                del self._deployments[next(iter(self._deployments))]
            known.model = model or known.model
            if usage is None:
                return
            known.reasoned += usage.reasoning_tokens > 0
            tokens = usage.completion_tokens
            if asked.most_tokens is not None and tokens > asked.most_tokens * choices:
                known.ignores_limits = True
            known.answers += 1
            known.mean += (tokens / choices - known.mean) / min(known.answers, RECENT_ANSWERS)
            if seconds is not None and choices == 1 and _tells_speed(usage, seconds):
                known.fastest = max(known.fastest, min(tokens / seconds, FASTEST))
                known.measured += 1

    def model(self, deployment: str) -> str | None:
        """Return the name of the model in the deployment's last answer. It is the most reliable name of the model."""
        known = self._deployments.get(deployment.lower())
        return known.model if known else None

    def thinks(self, deployment: str) -> bool:
        """Return whether answers of the deployment contained reasoning, whatever the name of its model says."""
        known = self._deployments.get(deployment.lower())
        return known is not None and known.reasoned >= REASONING_ANSWERS

    def tokens_per_second(self, deployment: str) -> float:
        """Return the highest speed at which one choice was written, from :data:`SLOWEST` to :data:`FASTEST`."""
        known = self._deployments.get(deployment.lower())
        return FASTEST if known is None or known.measured < ANSWERS_TO_TRUST else known.fastest

    def ignores_limits(self, deployment: str) -> bool:
        """Return whether an answer of the deployment had more tokens than its client allowed.

        Some models count their reasoning beside the limit (Grok on Foundry, 2025).
        """
        known = self._deployments.get(deployment.lower())
        return known is not None and known.ignores_limits

    def mean_completion_tokens(self, deployment: str) -> float | None:
        """Return the mean tokens of one choice in the deployment's recent answers; None if none is known."""
        known = self._deployments.get(deployment.lower())
        return known.mean if known and known.answers else None


def _tells_speed(usage: Usage, seconds: float) -> bool:
    tokens = usage.completion_tokens
    return seconds >= LEAST_SECONDS and tokens >= LEAST_TOKENS and usage.prompt_tokens <= LONGEST_PROMPT * tokens
