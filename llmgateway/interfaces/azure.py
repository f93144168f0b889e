"""The way to Azure, and what is known of its deployments."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from ..azure.cancellation import CancellationToken
from ..azure.deployments import Target
from ..azure.endpoint import Endpoint
from ..azure.failures import Failure
from ..records import Quota


class Cooldown(NamedTuple):
    """A deployment is left alone."""

    until: float
    """Seconds since the epoch."""
    limited: bool
    """Whether it is at its limit; else it has failed."""


class Cooldowns(Protocol):
    """Remembers which deployments are left alone for a while. Raises nothing: it is never worth an error."""

    def current(self) -> Mapping[str, Cooldown]:
        """Return those that are left alone now. Nearly always from memory."""
        ...

    def rest(self, deployment: str, seconds: float, *, limited: bool) -> None:
        """Leave a deployment alone. Other processes that share the store notice it within a second or two."""
        ...


class Answer(Protocol):
    """Azure's answer: its status and headers, and its body as it arrives. Used by one thread at a time."""

    status: int
    headers: list[tuple[str, str]]
    """The headers for the client, with names in lower case."""
    location: str | None
    """Where a redirect points to, for the operator: without the query, which may contain a secret."""
    region: str | None
    upstream_request_id: str | None
    is_event_stream: bool
    quota: Quota
    """What Azure says about the limits of the deployment that has answered."""
    spilled_to: str | None
    """The deployment that has answered in place of a provisioned one that was full; None if it did not spill over."""

    def arrived(self) -> bytes:
        """Return the part of the body that has arrived with the head, and do not wait. It can be read again."""
        ...

    def read(self) -> bytes:
        """Wait for at least one byte and return what has arrived; empty at the end of the body.

        Raises:
            UpstreamTimeout: nothing arrived for longer than ``LLMGATEWAY_BETWEEN_BYTES_TIMEOUT``.
            UpstreamBroken: the connection ended before the body was complete.
            ClientGone: the request was cancelled.
        """
        ...

    def close(self) -> None:
        """Release the connection. It is reused if the body was read to its end, and closed otherwise."""
        ...


class Upload(Protocol):
    """A body that is not in memory, such as a form with a recording. It can be sent several times."""

    content_type: str
    """The value of the header ``Content-Type``."""

    def __len__(self) -> int:
        """Return the number of bytes."""
        ...

    def __iter__(self) -> Iterator[bytes]:
        """Yield all bytes, from the first one on."""
        ...


class Upstream(Protocol):
    """Sends requests to Azure."""

    def send(
        self,
        body: bytes | Upload,
        *,
        target: Target,
        operation: str,
        in_path: bool = True,
        accept: str | None = None,
        request_id: str,
        cancellation: CancellationToken,
        seconds: float = math.inf,
    ) -> Answer:
        """Send one request and wait for the status and headers of the answer.

        Args:
            operation: The end of the path, such as ``chat/completions``.
            in_path: Whether the classic form of the URL names the deployment for this operation.
            accept: The header ``Accept``; None for JSON and streams of events.
            request_id: Sent as ``x-ms-client-request-id``.
            cancellation: With it another thread can cancel the request, also while the answer is read.
            seconds: The most seconds until the answer begins, besides the time-out in the settings.

        Raises:
            UpstreamCredentials: there is nothing to authenticate with.
            UpstreamUnreachable: nothing was sent.
            UpstreamTimeout, UpstreamBroken: the request was sent, at least in part, and no answer arrived.
            ClientGone: the request was cancelled.
        """
        ...

    def fetch(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        target: Target,
        request_id: str,
        cancellation: CancellationToken,
    ) -> Answer:
        """Send one request without a body about something that Azure stores; otherwise like :meth:`send`.

        Args:
            path: The end of the path, such as ``responses/resp_1``.
            query: Names and values that are added to the query.
        """
        ...

    def explain(self, error: BaseException, endpoint: Endpoint) -> Failure:
        """Return why a call has raised *error*, for admins."""
        ...
