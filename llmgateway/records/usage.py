"""Requests that were sent to Azure, and what they have used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one completion, as Azure bills them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    """Part of ``prompt_tokens``: tokens that Azure had in its cache."""
    reasoning_tokens: int = 0
    """Part of ``completion_tokens``: tokens that the model used for reasoning. They are not in the answer."""
    audio_prompt_tokens: int = 0
    """Part of ``prompt_tokens``."""
    audio_completion_tokens: int = 0
    """Part of ``completion_tokens``."""
    image_prompt_tokens: int = 0
    """Part of ``prompt_tokens``."""
    audio_seconds: float = 0.0
    """The length of a recording that was written down. It is a way to count it beside its tokens, as are the next."""
    characters: int = 0
    """The length of a text that was spoken."""
    images: int = 0
    """The number of images that were made."""


class Outcome(StrEnum):
    """How a request that was sent to Azure ended."""

    OK = "ok"
    UPSTREAM_ERROR = "upstream_error"
    CLIENT_CLOSED = "client_closed"
    BROKEN = "broken"
    TIMEOUT = "timeout"
    REVOKED = "revoked"
    """The key was revoked meanwhile."""
    INTERRUPTED = "interrupted"


class UsageSource(StrEnum):
    """The source of the token counts of a record."""

    UPSTREAM = "upstream"
    """Azure counted."""
    ESTIMATED = "estimated"
    """Azure did not count. The tokens are those that the gateway saw, and those that can have been on their way."""
    BOUND = "bound"
    """Azure did not count, and the model worked unseen. The tokens are the most that it can have produced."""
    NONE = "none"
    """The request cost nothing."""


UNKNOWN_MODEL = "unknown"
"""The name under which all models that do not exist are counted, so that nobody can fill the reports with names."""


LONGEST_RECORDED_MODEL = 100


class Quota(NamedTuple):
    """What Azure's headers say about the limits of a deployment. ``None``: nothing."""

    limit_requests: int | None = None
    """Requests per minute."""
    remaining_requests: int | None = None
    limit_tokens: int | None = None
    """Tokens per minute."""
    remaining_tokens: int | None = None

    def is_lower_than(self, before: Quota) -> bool:
        """Return whether a limit is smaller than it was before."""
        return _is_less(self.limit_requests, before.limit_requests) or _is_less(self.limit_tokens, before.limit_tokens)


def _is_less(limit: int | None, before: int | None) -> bool:
    return limit is not None and before is not None and limit < before


UNKNOWN_QUOTA = Quota()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request to Azure for a request of a client, which may need several."""

    deployment: str
    """The name under which an admin has registered it."""
    status: int | None = None
    """HTTP status of the answer; ``None`` if there was none."""
    upstream_request_id: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    error_code: str | None = None
    azure_deployment: str | None = None
    """Its name at Azure; ``None`` in records of older versions."""
    resource: str | None = None
    """The address of its resource at Azure; ``None`` for that of ``LLM_BASE_URL``, and in records of older versions."""
    sent_ms: float | None = None
    """When it was sent: milliseconds after the arrival of the request; ``None`` in records of older versions."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Attempt:
        """Convert the output of ``dataclasses.asdict``. Fields of a newer version are ignored."""
        return cls(**{name: document[name] for name in _ATTEMPT_FIELDS if name in document})


_ATTEMPT_FIELDS = tuple(field.name for field in fields(Attempt))


# Without slots, because orjson then needs a third of the time, and it serialises two records per request.
@dataclass(frozen=True, kw_only=True)
class UsageRecord:
    """One request that was sent to Azure, and how it ended. Contains no text of the prompt or the answer."""

    id: str
    """Identifier of the request, sent to Azure as ``x-ms-client-request-id``; ``_id`` in MongoDB."""
    timestamp: datetime
    """When the request arrived."""
    key_id: str
    user: str
    group: str | None = None
    model: str
    """Name of the model in the client's request; its first :data:`LONGEST_RECORDED_MODEL` characters."""
    model_known: bool = True
    """Whether Azure, or an admin, knows the model. If not, the sums count it as :data:`UNKNOWN_MODEL`."""
    deployment: str
    endpoint: str
    stream: bool
    status: int | None = None
    """HTTP status of Azure's answer; ``None`` if there was no answer."""
    outcome: Outcome
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    usage_source: UsageSource
    cost_usd: float | None = None
    """``None`` if the price is not known of the model, of the service tier, or of a kind of token."""
    prompt_version: int = 0
    content_filter: tuple[str, ...] = ()
    """Categories of Azure's content filter that flagged the prompt or the answer."""
    filter_severities: tuple[str, ...] = ()
    """What the filter found, also where it let it pass: ``category:severity``, with ``low``, ``medium`` or ``high``;
    ``found`` for categories without severities."""
    ttft_ms: float | None = None
    """Time to first token: from the arrival of the request to the first event that contains text. Streams only."""
    duration_ms: float
    upstream_request_id: str | None = None
    region: str | None = None
    client_address: str | None = None
    attempts: tuple[Attempt, ...] = ()
    """What was sent to registered deployments, in order. Tokens and cost of the record are the sums. Empty for
    requests to ``LLM_BASE_URL``."""
    response_id: str | None = None
    """The identifier of a response that Azure stores; it belongs to the user of this record."""
    stored_ids: tuple[str, ...] = ()
    """What else Azure stores with the response, and what later requests can name: its items, and its containers."""
    stored_at: str | None = None
    """Address of the resource that has the response; ``None`` for that of ``LLM_BASE_URL``."""
    service_tier: str | None = None
    """The tier that served the request, as Azure named it."""
    spilled_over: bool = False
    """Whether a provisioned deployment had no capacity, so that another one answered, which bills by token."""
    error_code: str | None = None
    """The code in Azure's error, or the gateway's own."""
    tool_uses: Mapping[str, int] = field(default_factory=dict)
    """How often Azure ran its own tools that it bills by use, such as ``web_search``."""
    admitted_ms: float | None = None
    """From the arrival of the request until all its limits allowed it. This field and the two below are not known of
    requests during which the process died, nor in records of older versions."""
    sent_ms: float | None = None
    """From the arrival of the request until it was sent to Azure for the first time."""
    limits: tuple[str, ...] = ()
    """The limits that it was checked against: names as in the header ``x-llmgateway-limit``."""

    @property
    def counted_model(self) -> str:
        """The name under which the sums count this record."""
        return self.model if self.model_known else UNKNOWN_MODEL

    @property
    def counted_deployment(self) -> str:
        """The deployment under which the sums count this record. If the client named it, it is counted as the model."""
        is_clients = self.deployment[:LONGEST_RECORDED_MODEL] == self.model
        return UNKNOWN_MODEL if is_clients and not self.model_known else self.deployment

    @property
    def attempts_elsewhere(self) -> tuple[Attempt, ...]:
        """The attempts at other deployments than the one that was asked last. The sums count each at its deployment."""
        return self.attempts and tuple(
            each for each in self.attempts if each.azure_deployment not in (None, self.deployment)
        )


class Owned(NamedTuple):
    """Whose a stored response is, and where Azure keeps it. Each of its items has the same."""

    user: str
    response_id: str
    model: str
    """The name that the client sent."""
    deployment: str
    target: str
    """Address of the resource; empty for the one of ``LLM_BASE_URL``."""
    prompt_tokens: int
    """Of the request that made it. A request that continues the response has these in its prompt, too."""
    completion_tokens: int
    at: float
    """When its record was written, in seconds since the epoch: at the end of the answer, if that has come."""
    key_id: str = ""
    """The key that made it; empty if an older version of this program has noted it."""

    @classmethod
    def of(cls, record: UsageRecord) -> Owned:
        return cls(
            user=record.user,
            response_id=record.response_id or "",
            model=record.model,
            deployment=record.deployment,
            target=record.stored_at or "",
            prompt_tokens=record.prompt_tokens,
            completion_tokens=record.completion_tokens,
            at=record.timestamp.timestamp() + record.duration_ms / 1000,
            key_id=record.key_id,
        )


@dataclass(frozen=True, kw_only=True)
class Bound:
    """How much the model can write for one request, all choices together."""

    most_tokens: int
    """The most completion tokens: the client's limit or that of the model."""
    tokens_per_second: float
    """How fast they can be written."""


class Batch(NamedTuple):
    """Identifies records that are shipped together. The content of a batch never changes."""

    source: str
    """Identifies the sender; never used again. A sender ships one batch at a time, in ascending order. Consists of
    letters, digits and hyphens."""
    number: int
    """Less than 2**63."""
