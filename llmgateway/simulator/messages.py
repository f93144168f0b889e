"""What comes in and what goes out, without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..records import Usage
from .meter import Account
from .production import Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An HTTP request, read to its end."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Names in lower case."""
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP answer, not yet framed."""

    status: int
    headers: Mapping[str, str]
    parts: Sequence[bytes]
    """The events of a stream, or the whole body."""
    stream: bool = False
    usage: Usage | None = None
    work: Work | None = None
    """What the model has to do for it; ``None`` for answers that cost nothing."""
    positions: Sequence[int] = ()
    """Where the model has to have come before each part can be sent."""
    account: Account | None = None
    """What the meters add up; ``None`` for answers that no deployment has given."""
