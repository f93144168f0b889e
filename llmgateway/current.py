"""The request that the calling thread answers now, for the lines of the log and for refusals.

The web layer begins it, and each layer adds what it learns. Background threads have none.
"""

from __future__ import annotations

from contextvars import ContextVar


class CurrentRequest:
    """What is known of a request so far."""

    __slots__ = ("admin", "group", "id", "is_recorded", "key_id", "model", "user")

    def __init__(self, request_id: str) -> None:
        self.id = request_id
        self.admin: str | None = None
        """The identifier of the admin who sends it, or ``ADMIN_KEY`` for the first owner."""
        self.key_id: str | None = None
        """The key that was sent, also if it is not valid any more; None if nobody has it."""
        self.user: str | None = None
        self.group: str | None = None
        self.model: str | None = None
        """As the client named it."""
        self.is_recorded = False
        """Whether it leaves a usage record, because Azure may have received it."""

    def of_key(self, key_id: str, user: str, group: str | None) -> None:
        """Note whose request it is."""
        self.key_id, self.user, self.group = key_id, user, group


_current: ContextVar[CurrentRequest | None] = ContextVar("llmgateway_request", default=None)

current_request = _current.get
"""Return the request of the calling thread; None if it answers none."""


def begin_request(request_id: str) -> CurrentRequest:
    """Make a new request the one of the calling thread, in place of the one before."""
    request = CurrentRequest(request_id)
    _current.set(request)
    return request


def end_request() -> None:
    """Note that the calling thread answers no request any more."""
    _current.set(None)
