"""What is known about one request to Azure and its attempts, and the usage record that follows from it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from ..azure.deployments import Target
from ..clock import Timer
from ..records import Attempt, Bound, ModelSettings, Outcome, Usage, UsageRecord, UsageSource
from ..usage.booking import Asked, Times, book, bound_of
from ..usage.models import ModelFacts, model_facts
from ..usage.observed import ObservedDeployments
from ..usage.pricing import added, highest_cost_usd
from ..usage.seen import Seen

log = logging.getLogger(__name__)


class RequestAccounting:
    """Collects what the usage record of one request needs, and makes the record.

    The thread of the request writes. Another thread, which ends the call or notices that its client has left, may read.

    Args:
        observed: Says what is known about the deployment, and learns from the answer.
    """

    def __init__(self, *, observed: ObservedDeployments, timer: Timer) -> None:
        self.seen = Seen()
        """What was read of the answer so far."""
        self.model_known: bool | None = None
        """Whether Azure knows the model; None if there is no answer that says so. Then the draft of the record says
        what was known before."""
        self.error_code: str | None = None
        """The code of the error in the answer, or of the gateway's own, if there is one."""
        self.draft: UsageRecord | None = None
        """The record as it was before anything was sent; None before :meth:`begin`."""
        self._observed = observed
        self._timer = timer
        self._arrived = self._sent = timer()
        self._admitted: float | None = None
        self._first_sent: float | None = None
        self._asked_at: float | None = None
        self._limits: tuple[str, ...] = ()
        self._head: float | None = None
        self._first_text: float | None = None
        self._last_text: float | None = None
        self._models: Mapping[str, ModelSettings] = {}
        self._asked = Asked()
        self._booked: tuple[Usage, UsageSource] | None = None  # by the first record that was made
        self._target: Target | None = None
        self._failed: list[_FailedAttempt] = []
        self._status: int | None = None
        self._region: str | None = None
        self._upstream_request_id: str | None = None
        self._spilled_to: str | None = None

    def begin(
        self, draft: UsageRecord, models: Mapping[str, ModelSettings], asked: Asked, *, limits: tuple[str, ...] = ()
    ) -> None:
        """Take over the *draft* of the record; the rest is as for :meth:`UpstreamCall.begin`.

        Args:
            limits: The names of the limits that have just admitted the request.
        """
        self._admitted = self._timer()
        self._limits = limits
        self._models = models
        self._asked = asked
        self.draft = draft

    def sends(self) -> None:
        """Note that the request is sent from now on."""
        self._sent = self._timer()

    @property
    def prompt_tokens(self) -> int:
        """The estimated tokens of the prompt; 0 before :meth:`begin`."""
        return 0 if self.draft is None else self.draft.prompt_tokens

    @property
    def age(self) -> float:
        """Seconds since the request arrived."""
        return self._timer() - self._arrived

    @property
    def has_attempts(self) -> bool:
        """Whether Azure has received an attempt that failed."""
        return bool(self._failed)

    def ask(self, target: Target) -> int:
        """Note that *target* is asked from now on, and return which attempt this is, from 1."""
        draft = self._begun()
        if target.deployment != draft.deployment:
            self.draft = replace(draft, deployment=target.deployment)
        self._target = target
        self._asked_at = self._timer()
        if self._first_sent is None:
            self._first_sent = self._asked_at
        return len(self._failed) + 1

    def attempt_failed(self, *, sent: bool, ended: bool) -> None:
        """As :meth:`UpstreamCall.attempt_failed`.

        Args:
            sent: Whether Azure may have received the attempt.
        """
        draft = self._begun()
        if self._target is None:
            raise RuntimeError("ask() was not called, so nothing has failed")
        if sent:
            usage, source = self._book(draft, sent=True, ended=ended, billed_error=False)
            attempt = self._attempt(draft, usage, self._cost(draft, usage, source))
            self._failed.append(_FailedAttempt(usage, source, attempt))
        self.seen = Seen()
        self._sent = self._timer()
        self._head = self._status = self._region = self._upstream_request_id = None
        self.error_code = self._spilled_to = None

    def answered(
        self,
        *,
        status: int,
        region: str | None,
        upstream_request_id: str | None,
        spilled_to: str | None = None,
    ) -> None:
        """Store what the record needs from the head of Azure's answer.

        Args:
            spilled_to: The deployment that has answered in place of a provisioned one; it is the one that is billed.
        """
        self._head = self._timer()
        self._spilled_to = spilled_to
        self._status = status
        self._region = region
        self._upstream_request_id = upstream_request_id

    def text_arrived(self) -> None:
        """Store the time at which text of a stream arrived."""
        self._last_text = self._timer()
        if self._first_text is None:
            self._first_text = self._last_text

    def bound(self) -> Bound:
        """Return how much the model can write for this request at most."""
        draft = self._begun()
        return self._bound(draft, self._facts(draft))

    def works_unseen(self) -> bool:
        """Return whether the model may work for a while before the client gets anything."""
        return self._works_unseen(self._facts(self._begun()))

    def naming_response(self) -> UsageRecord:
        """Return the draft with the names of what Azure stores of the answer so far."""
        return self._naming_response(self._begun())

    def with_response(self) -> UsageRecord:
        """Return :meth:`naming_response` with the tokens of the answer so far, and the time that it took."""
        draft, seen = self._begun(), self.seen
        usage = seen.usage or Usage(prompt_tokens=draft.prompt_tokens, completion_tokens=seen.completion_tokens)
        return replace(
            self._naming_response(draft),
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            duration_ms=_milliseconds(self.age),
        )

    def record(self, outcome: Outcome, *, sent: bool, ended: bool, billed_error: bool = False) -> UsageRecord:
        """Return the usage record. Once tokens were booked that Azure did not count, they stay the same.

        Args:
            sent: Whether Azure may have received the last attempt.
            ended: Whether the answer was read to its own end.
            billed_error: Whether the answer is an error whose prompt Azure bills.
        """
        draft, seen = self._begun(), self.seen
        if self._booked is None or seen.usage is not None:
            # What was committed is recorded, too: an estimate from the time would be a little higher now.
            self._booked = self._book(draft, sent=sent, ended=ended, billed_error=billed_error)
        counted, source = self._booked
        cost = self._cost(draft, counted, source)
        attempts: tuple[Attempt, ...] = ()
        if self._failed:
            attempts = tuple(each.attempt for each in self._failed)
            if sent:
                attempts = (*attempts, self._attempt(draft, counted, cost))
            counted, source = _sum(counted, source, self._failed)
            cost = added([each.cost_usd for each in attempts])
        elif self._target is not None and self._target.is_registered:
            attempts = (self._attempt(draft, counted, cost),)
        known = draft.model_known if self.model_known is None else self.model_known
        if cost is None and known:  # clients can make up any number of other names
            _warn_about_missing_price(draft.deployment)
        return replace(
            draft if seen.response_id is None else self._naming_response(draft),
            model_known=known,
            status=self._status,
            outcome=outcome,
            prompt_tokens=counted.prompt_tokens,
            completion_tokens=counted.completion_tokens,
            total_tokens=counted.total_tokens,
            cached_tokens=counted.cached_tokens,
            reasoning_tokens=counted.reasoning_tokens,
            usage_source=source,
            cost_usd=cost,
            content_filter=tuple(sorted(seen.content_filter)),
            filter_severities=tuple(f"{name}:{found}" for name, found in sorted(seen.filter_severities.items())),
            ttft_ms=self._since_arrival(self._first_text),
            duration_ms=_milliseconds(self.age),
            upstream_request_id=self._upstream_request_id,
            region=self._region,
            attempts=attempts,
            service_tier=seen.service_tier,
            spilled_over=self._spilled_to is not None,
            error_code=self.error_code or seen.error_code,
            tool_uses=seen.tool_uses,
            admitted_ms=self._since_arrival(self._admitted),
            sent_ms=self._since_arrival(self._first_sent),
            limits=self._limits,
        )

    def interrupted(self) -> UsageRecord:
        """Return the record that is kept if this process dies now, with all attempts so far in it."""
        draft = self._begun()
        usage, source = _sum(
            Usage(prompt_tokens=draft.prompt_tokens, total_tokens=draft.total_tokens),
            draft.usage_source,
            self._failed,
        )
        running = self._attempt(draft, Usage(prompt_tokens=draft.prompt_tokens), None)
        return replace(
            draft,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.total_tokens,
            usage_source=source,
            attempts=(*(each.attempt for each in self._failed), running),
            admitted_ms=self._since_arrival(self._admitted),
            sent_ms=self._since_arrival(self._first_sent),
            limits=self._limits,
        )

    def learn(self) -> None:
        """Let :class:`ObservedDeployments` learn from the answer."""
        draft, seen = self._begun(), self.seen
        if draft.stream:
            began, ended = self._head, self._last_text  # not the end of the call, which a slow client delays
        else:
            began, ended = self._sent, self._timer()
        # What cannot think has no limit that a client sets. The gateway knows about how long the answers are.
        asked = self._asked if self._asked.may_think else self._asked._replace(most_tokens=None)
        self._observed.learn(
            draft.deployment,
            model=seen.model,
            usage=seen.usage,
            seconds=None if began is None or ended is None else ended - began,
            asked=asked,
        )

    def _begun(self) -> UsageRecord:
        if self.draft is None:
            raise RuntimeError("begin() was not called, so nothing may be sent, and there is no record")
        return self.draft

    def _since_arrival(self, then: float | None) -> float | None:
        return None if then is None else _milliseconds(then - self._arrived)

    def _naming_response(self, record: UsageRecord) -> UsageRecord:
        seen = self.seen
        place = None if self._target is None else self._target.place
        return replace(record, response_id=seen.response_id, stored_ids=seen.stored_ids, stored_at=place)

    def _attempt(self, draft: UsageRecord, usage: Usage, cost: float | None) -> Attempt:
        target = self._target
        return Attempt(
            deployment=draft.deployment if target is None else target.name or target.deployment,
            status=self._status,
            upstream_request_id=self._upstream_request_id,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cost_usd=cost,
            error_code=self.error_code,
            azure_deployment=draft.deployment if target is None else target.deployment,
            resource=None if target is None else target.place,
            sent_ms=self._since_arrival(self._asked_at),
        )

    def _book(self, draft: UsageRecord, *, sent: bool, ended: bool, billed_error: bool) -> tuple[Usage, UsageSource]:
        if self.seen.usage is not None:
            return self.seen.usage, UsageSource.UPSTREAM
        if self._failed and not sent:
            return Usage(), UsageSource.NONE  # the last deployment could not be reached
        now = self._timer()
        facts = self._facts(draft)
        return book(
            self.seen,
            Times(
                sent=now - self._sent,
                head=None if self._head is None else now - self._head,
                text=None if self._last_text is None else now - self._last_text,
            ),
            self._bound(draft, facts),
            prompt_tokens=draft.prompt_tokens,
            status=self._status,
            stream=draft.stream,
            thinks=self._works_unseen(facts),
            ended=ended,
            predicted_tokens=self._asked.predicted_tokens,
            billed_error=billed_error,
        )

    def _cost(self, draft: UsageRecord, counted: Usage, source: UsageSource) -> float | None:
        seen, asked = self.seen, self._asked
        usage = counted if source is UsageSource.UPSTREAM else asked.with_audio(counted)
        if asked.has_units and source is not UsageSource.NONE and (self._status or 0) < 400:
            usage = asked.with_units(usage, audio_seconds=seen.audio_seconds)
        names = [seen.model, self._observed.model(draft.deployment), self._registered, draft.deployment, draft.model]
        if self._spilled_to is not None:
            # Not the price of the provisioned deployment, whose tokens cost nothing.
            names = [self._spilled_to, seen.model, draft.model]
        # What the client asked for counts until the answer says which tier served it.
        tiers = {None, asked.service_tier} if seen.service_tier is None else {seen.service_tier}
        return highest_cost_usd(usage, *names, own=self._models, service_tiers=tiers, tool_uses=seen.tool_uses)

    def _facts(self, draft: UsageRecord) -> ModelFacts:
        deployment, observed = draft.deployment, self._observed
        # Not the client's name for the model: where Azure's URL contains the deployment, clients can send any name.
        names = (self.seen.model, observed.model(deployment), self._registered, deployment)
        return model_facts(*names, own=self._models, thinks=observed.thinks(deployment))

    @property
    def _registered(self) -> str | None:
        """The name under which an admin has registered the model; None if nobody has."""
        return self._target.model or None if self._target is not None else None

    def _works_unseen(self, facts: ModelFacts) -> bool:
        return (facts.reasoning and self._asked.may_think) or self._asked.predicted_tokens > 0

    def _bound(self, draft: UsageRecord, facts: ModelFacts) -> Bound:
        asked = self._asked
        if self._observed.ignores_limits(draft.deployment):
            asked = asked._replace(most_tokens=None)
        return bound_of(asked, facts, tokens_per_second=self._observed.tokens_per_second(draft.deployment))


class _FailedAttempt(NamedTuple):
    """An attempt that has failed, and what Azure bills of it."""

    usage: Usage
    source: UsageSource
    attempt: Attempt


_LEAST_RELIABLE = (UsageSource.BOUND, UsageSource.ESTIMATED, UsageSource.UPSTREAM, UsageSource.NONE)


def _sum(usage: Usage, source: UsageSource, failed: Sequence[_FailedAttempt]) -> tuple[Usage, UsageSource]:
    """Return the tokens of all attempts, and the least reliable of their sources."""
    prompt = usage.prompt_tokens + sum(each.usage.prompt_tokens for each in failed)
    completion = usage.completion_tokens + sum(each.usage.completion_tokens for each in failed)
    summed = replace(usage, prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)
    return summed, min((source, *(each.source for each in failed)), key=_LEAST_RELIABLE.index)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


@lru_cache(maxsize=1000)
def _warn_about_missing_price(deployment: str) -> None:
    # The cache makes this warn once for each deployment, not for each request.
    log.warning(
        "The price of %r is not known, at least for this service tier or kind of token: its requests cost nothing of "
        "budgets in dollars, and reports count them as unpriced_requests. Set it with PUT /admin/models/{name} or "
        "llmgateway models set.",
        deployment,
    )
