"""One request from its sending to Azure to its one usage record."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from ..azure.cancellation import CancellationToken
from ..clock import Timer
from ..interfaces import UsageRecorder
from ..ratelimit.limiter import Admission
from ..records import Outcome, Prices, Usage, UsageRecord, UsageSource
from ..usage.pricing import cost_usd

log = logging.getLogger(__name__)


class UpstreamCall:
    """What is known so far of a request that goes to Azure; ends exactly once, whoever ends it.

    Args:
        draft: The record to leave if nothing more were ever known: ``interrupted``, with the
            prompt's estimated tokens.
        arrived: The timer's reading when the request arrived.
        prices: The organisation's own, by model.
        transmission: How it travels; can be cut while the exchange goes on.
        admission: What was claimed for it, settled before its end is written down.
        on_model: Told the name that Azure gave the model, which may not be the deployment's.
        on_end: Called after the one ending, however it came.
    """

    def __init__(
        self,
        draft: UsageRecord,
        books: UsageRecorder,
        *,
        cancellation: CancellationToken,
        admission: Admission,
        prices: Mapping[str, Prices],
        timer: Timer,
        arrived: float,
        on_end: Callable[[], None],
        on_model: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.cancellation = cancellation
        self._admission = admission
        self._draft = draft
        self._books = books
        self._prices = prices
        self._timer = timer
        self._arrived = arrived
        self._on_end = on_end
        self._on_model = on_model
        self._lock = threading.Lock()
        self._ended = False
        self._committed = False
        self._ttft_ms: float | None = None
        self._status: int | None = None
        self._region: str | None = None
        self._upstream_request_id: str | None = None
        books.begin(draft)

    @property
    def id(self) -> str:
        return self._draft.id

    def answered(self, *, status: int, region: str | None, upstream_request_id: str | None) -> None:
        """Take note of the head of Azure's answer."""
        self._status = status
        self._region = region
        self._upstream_request_id = upstream_request_id

    def first_text(self) -> None:
        """Take note that the first text of a stream has come; later calls change nothing."""
        if self._ttft_ms is None:
            self._ttft_ms = self._elapsed_ms()

    def commit(self, *, usage: Usage | None, estimated_completion_tokens: int = 0, model: str | None = None) -> None:
        """Settle what was claimed for it, as all that it used is known; its end may still take a while.

        Before its last bytes leave: a client that asks again as soon as it has them must not be refused
        for a request that is over.
        """
        if self._committed or not self._admission.has_counter_requests:
            return  # before a record is made for nothing
        counted, source = self._count(Outcome.OK, usage, estimated_completion_tokens)
        self._commit(self._record(Outcome.OK, counted, source, model))

    def finish(
        self,
        outcome: Outcome,
        *,
        usage: Usage | None = None,
        estimated_completion_tokens: int = 0,
        model: str | None = None,
        content_filter: Iterable[str] = (),
    ) -> None:
        """End it, once; a second call changes nothing.

        Args:
            usage: Azure's own count. Without one, the tokens are estimated, unless Azure
                answered with an error: that costs nothing.
            estimated_completion_tokens: Used where Azure did not count.
            model: The name Azure gave the model; it decides the price.
        """
        if not self._take_end():
            return
        try:
            counted, source = self._count(outcome, usage, estimated_completion_tokens)
            self._end(self._record(outcome, counted, source, model, content_filter))
        finally:
            self._on_end()

    def cancel(self) -> None:
        """End it without a record: nothing was sent."""
        if self._take_end():
            try:
                self._admission.refund()
            finally:
                try:
                    self._books.cancel(self._draft.id)
                finally:
                    self._on_end()

    def _record(
        self,
        outcome: Outcome,
        counted: Usage,
        source: UsageSource,
        model: str | None,
        content_filter: Iterable[str] = (),
    ) -> UsageRecord:
        if model is not None:
            self._on_model(model)
        cost = cost_usd(counted, model, self._draft.deployment, self._draft.model, own=self._prices)
        if cost is None and counted.total_tokens:
            _say_that_no_price_is_known(self._draft.deployment)
        draft = self._draft
        return UsageRecord(  # not replace(), which takes half as long again
            id=draft.id,
            timestamp=draft.timestamp,
            key_id=draft.key_id,
            user=draft.user,
            group=draft.group,
            model=draft.model,
            deployment=draft.deployment,
            endpoint=draft.endpoint,
            stream=draft.stream,
            status=self._status,
            outcome=outcome,
            prompt_tokens=counted.prompt_tokens,
            completion_tokens=counted.completion_tokens,
            total_tokens=counted.total_tokens,
            cached_tokens=counted.cached_tokens,
            reasoning_tokens=counted.reasoning_tokens,
            usage_source=source,
            cost_usd=cost,
            prompt_version=draft.prompt_version,
            content_filter=tuple(sorted(content_filter)),
            ttft_ms=self._ttft_ms,
            duration_ms=self._elapsed_ms(),
            upstream_request_id=self._upstream_request_id,
            region=self._region,
            client_address=draft.client_address,
        )

    def _end(self, record: UsageRecord) -> None:
        # In this order: what the usage log has must be in the counters, or a budget that is counted from the
        # log anew would count it twice.
        try:
            self._commit(record)
        finally:
            self._books.end(record)

    def _commit(self, record: UsageRecord) -> None:
        if not self._committed:
            self._committed = True
            self._admission.commit(record)

    def _take_end(self) -> bool:
        with self._lock:
            first, self._ended = not self._ended, True
        return first

    def _count(self, outcome: Outcome, usage: Usage | None, completion_tokens: int) -> tuple[Usage, UsageSource]:
        if usage is not None:
            return usage, UsageSource.UPSTREAM
        if outcome is Outcome.UPSTREAM_ERROR:
            return Usage(), UsageSource.NONE
        prompt_tokens = self._draft.prompt_tokens
        estimate = Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
        )
        return estimate, UsageSource.ESTIMATED

    def _elapsed_ms(self) -> float:
        return round((self._timer() - self._arrived) * 1000, 3)


@lru_cache(maxsize=1000)
def _say_that_no_price_is_known(deployment: str) -> None:
    # Once: what keeps this from happening again is up to the admin.
    log.warning(
        "No price is known for %r: it costs nothing in reports and of budgets in dollars. Set one with "
        "PUT /admin/models/{name} or llmgateway models set.",
        deployment,
    )
