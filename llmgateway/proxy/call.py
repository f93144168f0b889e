"""One request from the place that it takes to its one usage record."""

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
    (BaseException, Outcome.BROKEN),  # a bug of ours; what was sent may have been billed all the same
)


class UpstreamCall:
    """Owns all that one request takes: its place, its reservation, its cancellation token and its record.

    Whatever happens, one ending gives everything back, exactly once: :meth:`finish` if Azure may have had the request,
    so that it leaves a record, :meth:`close` if not; :meth:`fail` chooses between them. Later ones change nothing, and
    any thread may end it.

    Args:
        concurrency: Where it takes its place.
        disconnects: Cuts it when its client has gone.

    Raises:
        Overloaded: there is no place for it.
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
        """``x-ratelimit-*``, once it has begun."""
        self._concurrency = concurrency
        self._recorder = recorder
        self._disconnects = disconnects
        self._timer = timer
        self._arrived = timer()
        self._ending = threading.Lock()  # held from the ending on
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
        """Own *admission*, write down that it is about to be sent, and have its client watched.

        Args:
            draft: The record to leave if nothing more were ever known: ``interrupted``, with the
                prompt's estimated tokens.
            admission: What was reserved for it, which is the call's from now on.
            prices: The organisation's own, by model.
            on_model: Told the name that Azure gave the model, which may not be the deployment's.
            client_gone: Whether the client has closed its connection, where the server can tell.
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
        """Take note of the head of Azure's answer."""
        self._status = status
        self._region = region
        self._upstream_request_id = upstream_request_id

    def first_text(self) -> None:
        """Take note that the first text of a stream has come; later calls change nothing."""
        if self._ttft_ms is None:
            self._ttft_ms = self._elapsed_ms()

    def commit(self, *, usage: Usage | None, estimated_completion_tokens: int = 0, model: str | None = None) -> None:
        """Commit what was reserved for it, as all that it used is known; its end may still take a while.

        Before its last bytes leave: a client that asks again as soon as it has them must not be refused
        for a request that is over.
        """
        if self._committed or self._admission is None or not self._admission.has_counter_requests:
            return  # before a record is made for nothing
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
        """End it with its record.

        Args:
            usage: Azure's own count. Without one, the tokens are estimated, unless Azure
                answered with an error: that costs nothing.
            estimated_completion_tokens: Used where Azure did not count.
            model: The name Azure gave the model; it decides the price.
        """
        if not self._ending.acquire(blocking=False):
            return
        try:
            record = self._record(outcome, usage, estimated_completion_tokens, model, content_filter)
            # In this order: what the usage log has must be in the counters, or a budget that is counted from the
            # log anew would count it twice.
            try:
                self._commit(record)
            finally:
                self._recorder.end(record)
        finally:
            self._release()

    def fail(self, error: BaseException) -> None:
        """End it because of *error*: with a record if Azure may have had the request."""
        if self.cancellation.sent:
            self.finish(next(outcome for kind, outcome in _OUTCOMES if isinstance(error, kind)))
        else:
            self.close()

    def close(self) -> None:
        """End it without a record: nothing was sent. What was reserved goes back."""
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
            raise RuntimeError("a call that has not begun has no record")
        counted, source = _count(outcome, usage, draft.prompt_tokens, estimated_completion_tokens)
        if model is not None:
            self._on_model(model)
        cost = cost_usd(counted, model, draft.deployment, draft.model, own=self._prices)
        if cost is None and counted.total_tokens:
            _say_that_no_price_is_known(draft.deployment)
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
def _say_that_no_price_is_known(deployment: str) -> None:
    # Once: what keeps this from happening again is up to the admin.
    log.warning(
        "No price is known for %r: it costs nothing in reports and of budgets in dollars. Set one with "
        "PUT /admin/models/{name} or llmgateway models set.",
        deployment,
    )
