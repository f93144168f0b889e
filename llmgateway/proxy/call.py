"""The lifecycle of one request: it takes a slot, reserves tokens, is sent to Azure, and leaves one usage record."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

from ..azure.cancellation import CancellationToken
from ..clock import Timer
from ..errors import ClientGone, GatewayError, GatewayStopping, UpstreamBroken, UpstreamTimeout
from ..interfaces import UsageRecorder
from ..ratelimit.limiter import Admission
from ..records import Outcome, Prices, Usage, UsageRecord, UsageSource
from ..usage.pricing import cost_usd
from .concurrency import ConcurrencyLimit
from .disconnects import DisconnectWatcher

log = logging.getLogger(__name__)

_OUTCOMES: tuple[tuple[type[BaseException], Outcome], ...] = (
    (ClientGone, Outcome.CLIENT_CLOSED),
    (GatewayStopping, Outcome.INTERRUPTED),
    (UpstreamTimeout, Outcome.TIMEOUT),
    (UpstreamBroken, Outcome.BROKEN),
    (GatewayError, Outcome.UPSTREAM_ERROR),
    (BaseException, Outcome.BROKEN),  # a bug in the gateway; Azure may still bill the request
)


class UpstreamCall:
    """Owns the resources of one request: its slot, its reservation, its cancellation token and its usage record.

    A call must be ended by one of three methods. They release all resources.

    * :meth:`finish`: Azure may have received the request. The call leaves a usage record.
    * :meth:`close`: Azure did not receive the request. The call leaves no record.
    * :meth:`fail`: an error occurred. It chooses one of the other two.

    Only the first of these calls has an effect. Any thread may end the call.

    Args:
        concurrency: The limit from which the call takes a slot.
        disconnects: Cancels the request when its client has disconnected.

    Raises:
        Overloaded: no slot is free.
    """

    def __init__(
        self,
        request_id: str,
        concurrency: ConcurrencyLimit,
        *,
        recorder: UsageRecorder,
        disconnects: DisconnectWatcher,
        timer: Timer,
    ) -> None:
        concurrency.take()
        self.id = request_id
        self.cancellation = CancellationToken()
        self.headers: dict[str, str] = {}
        """The ``x-ratelimit-*`` headers; empty before :meth:`begin`."""
        self._concurrency = concurrency
        self._recorder = recorder
        self._disconnects = disconnects
        self._timer = timer
        self._arrived = timer()
        self._ending = threading.Lock()  # acquired when the call ends, and never released
        self._admission: Admission | None = None
        self._draft: UsageRecord | None = None
        self._prices: Mapping[str, Prices] = {}
        self._on_model: Callable[[str], None] = lambda _: None
        self._committed = False
        self._ttft_ms: float | None = None
        self._status: int | None = None
        self._region: str | None = None
        self._upstream_request_id: str | None = None

    def begin(
        self,
        draft: UsageRecord,
        admission: Admission,
        *,
        prices: Mapping[str, Prices],
        on_model: Callable[[str], None] = lambda _: None,
        client_gone: Callable[[], bool] | None = None,
    ) -> None:
        """Take over *admission*, record that the request is about to be sent, and start to watch the client.

        Args:
            draft: The record that is kept if this process dies: outcome ``interrupted``, with the
                estimated tokens of the prompt.
            admission: The reservation. From now on the call commits or refunds it.
            prices: The organisation's own prices, by model.
            on_model: Called with the name of the model in Azure's answer. It may differ from the deployment's name.
            client_gone: Returns whether the client has closed its connection; None if the server cannot tell.
        """
        self._admission = admission
        self.headers = admission.headers
        self._prices = prices
        self._on_model = on_model
        self._recorder.begin(draft)
        self._draft = draft
        if client_gone is not None:
            self._disconnects.add(self.cancellation, client_gone)

    def answered(self, *, status: int, region: str | None, upstream_request_id: str | None) -> None:
        """Store what the record needs from the head of Azure's answer."""
        self._status = status
        self._region = region
        self._upstream_request_id = upstream_request_id

    def first_text(self) -> None:
        """Store the time at which the first text of a stream arrived; later calls have no effect."""
        if self._ttft_ms is None:
            self._ttft_ms = self._elapsed_ms()

    def commit(self, *, usage: Usage | None, estimated_completion_tokens: int = 0, model: str | None = None) -> None:
        """Commit the reservation before the call ends.

        Call this when the usage is known, and before the last bytes go to the client. The client may send its
        next request as soon as it has them, and the reservation of this one must not be the reason to refuse it.
        """
        if self._committed or self._admission is None or not self._admission.has_counter_requests:
            return  # no need to compute a record
        self._commit(self._record(Outcome.OK, usage, estimated_completion_tokens, model))

    def finish(
        self,
        outcome: Outcome,
        *,
        usage: Usage | None = None,
        estimated_completion_tokens: int = 0,
        model: str | None = None,
        content_filter: Iterable[str] = (),
    ) -> None:
        """End the call and write its usage record.

        Args:
            usage: Azure's own count. If it is None the tokens are estimated. An error
                from Azure costs nothing, so then they are 0.
            estimated_completion_tokens: Used if *usage* is None.
            model: The name of the model in Azure's answer; it decides the price.
            content_filter: The content filter categories that found something.
        """
        if not self._ending.acquire(blocking=False):
            return
        try:
            record = self._record(outcome, usage, estimated_completion_tokens, model, content_filter)
            # The counters come first. A budget can be counted again from the usage log. A record that is in the log
            # but not yet in the counters would then be counted twice.
            try:
                self._commit(record)
            finally:
                self._recorder.end(record)
        finally:
            self._release()

    def fail(self, error: BaseException) -> None:
        """End the call because of *error*; write a usage record if Azure may have received the request."""
        if self.cancellation.sent:
            self.finish(next(outcome for kind, outcome in _OUTCOMES if isinstance(error, kind)))
        else:
            self.close()

    def close(self) -> None:
        """End the call without a usage record, because nothing was sent, and refund the reservation."""
        if not self._ending.acquire(blocking=False):
            return
        try:
            if self._admission is not None:
                self._admission.refund()
        finally:
            try:
                if self._draft is not None:
                    self._recorder.cancel(self.id)
            finally:
                self._release()

    def _release(self) -> None:
        self._disconnects.remove(self.cancellation)
        self._concurrency.free()

    def _commit(self, record: UsageRecord) -> None:
        if not self._committed and self._admission is not None:
            self._committed = True
            self._admission.commit(record)

    def _record(
        self,
        outcome: Outcome,
        usage: Usage | None,
        estimated_completion_tokens: int,
        model: str | None,
        content_filter: Iterable[str] = (),
    ) -> UsageRecord:
        draft = self._draft
        if draft is None:
            raise RuntimeError("begin() was not called, so there is no record")
        counted, source = _count(outcome, usage, draft.prompt_tokens, estimated_completion_tokens)
        if model is not None:
            self._on_model(model)
        cost = cost_usd(counted, model, draft.deployment, draft.model, own=self._prices)
        if cost is None and counted.total_tokens:
            _warn_about_missing_price(draft.deployment)
        return replace(
            draft,
            status=self._status,
            outcome=outcome,
            prompt_tokens=counted.prompt_tokens,
            completion_tokens=counted.completion_tokens,
            total_tokens=counted.total_tokens,
            cached_tokens=counted.cached_tokens,
            reasoning_tokens=counted.reasoning_tokens,
            usage_source=source,
            cost_usd=cost,
            content_filter=tuple(sorted(content_filter)),
            ttft_ms=self._ttft_ms,
            duration_ms=self._elapsed_ms(),
            upstream_request_id=self._upstream_request_id,
            region=self._region,
        )

    def _elapsed_ms(self) -> float:
        return round((self._timer() - self._arrived) * 1000, 3)


def _count(
    outcome: Outcome, usage: Usage | None, prompt_tokens: int, completion_tokens: int
) -> tuple[Usage, UsageSource]:
    if usage is not None:
        return usage, UsageSource.UPSTREAM
    if outcome is Outcome.UPSTREAM_ERROR:
        return Usage(), UsageSource.NONE
    total = prompt_tokens + completion_tokens
    estimate = Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, total_tokens=total)
    return estimate, UsageSource.ESTIMATED


@lru_cache(maxsize=1000)
def _warn_about_missing_price(deployment: str) -> None:
    # The cache makes this warn once for each deployment, not for each request.
    log.warning(
        "No price is known for %r: it costs 0 in reports and in budgets in dollars. Set one with "
        "PUT /admin/models/{name} or llmgateway models set.",
        deployment,
    )
