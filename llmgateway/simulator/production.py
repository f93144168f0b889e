"""The tokens that the model produces for an answer, and when: Azure bills them, also those that no client receives."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..records import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The tokens of one answer.

    The model produces its choices in parallel, the reasoning of each one first. A *position* is the number of tokens
    that it has produced for each choice that is that long.
    """

    prompt: Usage
    """The counts of the prompt. Azure bills them as soon as it has read it."""
    reasoning: int = 0
    """Number of reasoning tokens of each choice."""
    written: tuple[int, ...] = ()
    """Number of the other tokens of each choice."""
    audio: int = 0
    """Part of the tokens of all choices: those of spoken answers."""
    rate: float | None = None
    """Tokens per second and choice; ``None``: the model takes no time."""
    scripted: Usage | None = None
    """The counts of the whole answer, if the script sets them."""
    tools: tuple[tuple[int, str], ...] = ()
    """The uses of Azure's own tools that it bills, each with the position at which it happens."""
    until: int | None = None
    """The position at which the model breaks down, which ends the answer."""

    @property
    def length(self) -> int:
        """The position at which the whole answer has been produced."""
        return self.reasoning + max(self.written, default=0)

    def at(self, position: int) -> Usage:
        """Return what Azure bills when the model has come to *position*."""
        if self.until is not None:
            position = min(position, self.until)
        if self.scripted is not None and position >= self.length:
            return self.scripted
        reasoning = min(self.reasoning, position) * len(self.written)
        completion = sum(min(self.reasoning + written, position) for written in self.written)
        return replace(
            self.prompt,
            completion_tokens=completion,
            total_tokens=self.prompt.prompt_tokens + completion,
            reasoning_tokens=reasoning,
            audio_completion_tokens=min(self.audio, completion),
        )

    def tools_at(self, position: int) -> dict[str, int]:
        """Return how often tools have been used when the model has come to *position*."""
        if self.until is not None:
            position = min(position, self.until)
        names = [name for used, name in self.tools if used <= position]
        return {name: names.count(name) for name in dict.fromkeys(names)}

    @property
    def whole(self) -> Usage:
        return self.at(self.length)


class Production:
    """The progress of a model with its work. One thread moves it; any thread may ask what is billed."""

    def __init__(self, work: Work, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._work = work
        self._clock = clock
        self._began: float | None = None
        self._stopped: float | None = None
        self._reached = 0

    def begin(self) -> None:
        """The model starts."""
        self._began = self._clock()

    def due(self, position: int) -> float | None:
        """Return when the model comes to *position*, on the clock; ``None`` if it takes no time."""
        if self._work.rate is None or self._began is None:
            return None
        return self._began + position / self._work.rate

    def reach(self, position: int) -> None:
        """The tokens up to *position* are about to be sent, so they have been produced."""
        self._reached = max(self._reached, position)

    def stop(self) -> None:
        """The model stops: the answer has ended, or its client has disconnected. Only the first call has an effect."""
        if self._stopped is None:
            self._stopped = self._clock()

    @property
    def billed(self) -> Usage:
        """What Azure bills for the tokens that have been produced so far."""
        return self._work.at(self._position)

    @property
    def tool_uses(self) -> dict[str, int]:
        """The uses of tools so far."""
        return self._work.tools_at(self._position)

    @property
    def _position(self) -> int:
        position = self._reached
        if self._work.rate is not None and self._began is not None:
            now = self._clock() if self._stopped is None else self._stopped
            position = max(position, int((now - self._began) * self._work.rate))
        return position
