"""Sends a request to Azure, asks another deployment if one cannot answer, and makes the reply from the answer."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..azure.deployments import Target
from ..clock import Clock, Timer
from ..errors import UpstreamBroken, UpstreamCredentials, UpstreamMoved, UpstreamTimeout, UpstreamUnreachable
from ..interfaces import Answer, Upstream
from ..records import Outcome, Owned
from ..usage.answered_models import AnsweredModels
from ..usage.azure_errors import AzureError
from ..usage.booking import Asked
from ..usage.error_codes import kind_of_limit
from ..usage.known_models import KnownModels
from .call import UpstreamCall
from .coalescing import ReadCoalescing
from .credentials import AzureCredentials
from .deployment_states import DeploymentStates
from .dialect import Dialect
from .failover import LIMITED, Failover, with_retry_after
from .operations.responses import RESPONSES
from .ownership import FRESH_SECONDS, SETTLING_SECONDS, StoredRequest
from .passing import AnswerReader, PassedAnswer, read_up_to
from .plain import finish_plain, read_beginning, read_first_event, read_plain, status_of_first_event
from .request import CompletionRequest, UpstreamRequest
from .stream import EventStream
from .usage_options import UsageOptions, may_be_refusal

log = logging.getLogger(__name__)

_BEGINNING = 1024
"""The bytes of a body by which conversations are told apart. A conversation that goes on begins as before."""

_NOT_FOUND = re.compile(rb"with id '[^']{1,200}' not found|previous_response_not_found")
"""What Azure says of responses and items that it does not find (recorded in 2025 and 2026)."""


@dataclass(slots=True)
class _Attempt:
    """One deployment that is asked for one request."""

    target: Target
    seconds: float
    """The most seconds until its answer begins."""
    others: bool
    """Whether there is another deployment that could be asked after this one."""
    has_failed: bool = False
    """Whether its answer says that it cannot answer now."""


class _Begun(NamedTuple):
    """An answer of which so much was read that it is clear how it goes on."""

    answer: Answer
    beginning: bytes | None
    """What was read; None if nothing had to be."""
    is_stream: bool
    is_live: bool
    """Whether it goes to the client while it arrives; if not, it is read whole first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What goes back to the client."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes | EventStream | PassedAnswer


class Relay:
    """Sends requests that are checked and admitted, and returns what goes to the client. Thread-safe.

    Args:
        failover: Chooses among the deployments of a model.
        credentials: Learns which credentials Azure refuses.
        deployments: Learns what Azure says about its deployments.
        answered: Learns which models Azure has answered.
        coalescing: Makes streams wait between two reads if there are many.
        clock: Gives points in time.
        timer: Measures how long a refusal of ``stream_options`` is remembered.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        failover: Failover,
        credentials: AzureCredentials,
        deployments: DeploymentStates,
        answered: AnsweredModels,
        coalescing: ReadCoalescing,
        clock: Clock,
        timer: Timer,
    ) -> None:
        self._upstream = upstream
        self._failover = failover
        self._credentials = credentials
        self._deployments = deployments
        self._answered = answered
        self._coalescing = coalescing
        self._clock = clock
        self._usage_options = UsageOptions(timer=timer)
        self.known_models = KnownModels([])
        """The models of which it is known that Azure has them."""

    def send(
        self,
        request: CompletionRequest,
        call: UpstreamCall,
        upstream: UpstreamRequest,
        targets: list[Target],
    ) -> Reply:
        """Send *upstream* to the first of *targets* that answers, and return its answer.

        The call ends here, or at the end of the stream if there is one. Nothing has gone to the client before, so
        another deployment can be asked.
        """
        if len(targets) == 1:
            order = targets
        else:
            order = self._failover.order(targets, sticky=_sticky(call.key_id or "", upstream))
        for number, target in enumerate(order, 1):
            seconds = self._failover.seconds_for(call.accounting.age, others=number < len(order), is_first=number == 1)
            attempt = _Attempt(target, seconds=seconds, others=number < len(order))
            try:
                reply = self._ask(request, call, upstream, attempt)
            except (UpstreamUnreachable, UpstreamTimeout, UpstreamBroken) as error:
                if not call.is_wanted:  # that nobody waits any more is not the deployment's failure
                    self._failover.end_test(target)
                    raise
                self._failover.failed(target)
                self._deployments.failed(target, status=None, code=error.code)
                call.accounting.error_code = error.code
                if not self._may_ask_others(call, attempt):
                    raise
                call.attempt_failed(ended=False)
            except BaseException:
                self._failover.end_test(target)
                raise
            else:
                if reply is not None:
                    return self._with_earliest(reply, targets)
                call.attempt_failed(ended=True)
        raise AssertionError("the last deployment may not fail without an error or an answer")

    def _may_ask_others(self, call: UpstreamCall, attempt: _Attempt) -> bool:
        return attempt.others and call.is_wanted and self._failover.has_time(call.accounting.age)

    def _with_earliest(self, reply: Reply, targets: list[Target]) -> Reply:
        """Let a client that is over Azure's limits come back when the first of *targets* can answer again."""
        if reply.status != LIMITED or len(targets) == 1:
            return reply
        seconds = self._failover.earliest(targets)
        return reply if seconds is None else replace(reply, headers=with_retry_after(reply.headers, seconds))

    def _ask(
        self, request: CompletionRequest, call: UpstreamCall, upstream: UpstreamRequest, attempt: _Attempt
    ) -> Reply | None:
        """Ask a deployment and return its answer; None if it cannot answer now, and another one can.

        The same deployment is asked once more without the ``stream_options`` that the gateway added, if Azure may have
        refused them, and once more if it does not find yet what the request continues.
        """
        resource = attempt.target.resource if attempt.target.is_registered else None
        asks_for_usage = upstream.withhold_usage and self._usage_options.may_add(upstream, resource)
        usage_refused = settled = False
        while True:
            answer = self._exchange(call, upstream, attempt, include_usage=asks_for_usage)
            begun = None if answer is None else self._begin(call, upstream, attempt, answer)
            if begun is None:
                return None
            if usage_refused and begun.answer.status < 400:
                self._usage_options.remember(upstream, resource)
            if begun.is_live:
                return self._live_reply(request, call, upstream, attempt, begun)
            body = read_plain(begun.answer, begun.beginning or b"")
            self._answered_by(attempt)
            status = begun.answer.status
            if asks_for_usage and may_be_refusal(upstream, AzureError(status, body)):
                if attempt.target.is_registered:  # its attempts are all that it has received
                    call.attempt_failed(ended=True)
                asks_for_usage, usage_refused = False, True
            elif not settled and self._is_early(upstream.continues, status, body):
                call.attempt_failed(ended=True)
                call.cancellation.rest(SETTLING_SECONDS)
                settled = True
            else:
                return self._whole_reply(call, upstream, attempt, begun.answer, body)

    def _exchange(
        self, call: UpstreamCall, upstream: UpstreamRequest, attempt: _Attempt, *, include_usage: bool
    ) -> Answer | None:
        """Send the request, and learn from the head of the answer. None if another deployment is to be asked."""
        target, operation = attempt.target, upstream.operation
        answer = self._upstream.send(
            upstream.body(target, include_usage=include_usage),
            target=target,
            operation=operation.name,
            in_path=operation.in_path,
            accept=operation.accept,
            request_id=call.ask(target),
            cancellation=call.cancellation,
            seconds=attempt.seconds,
        )
        call.accounting.answered(
            status=answer.status,
            region=answer.region,
            upstream_request_id=answer.upstream_request_id,
            spilled_to=answer.spilled_to,
        )
        self._deployments.answered(target, answer)
        attempt.has_failed = self._failover.learn(target, answer.status, answer.headers)
        if attempt.has_failed and self._may_ask_others(call, attempt):
            # The body says which limit it was. If it did not come with the head, nobody waits for it.
            self._learn_error(call, upstream, target, answer, answer.arrived())
            answer.close()
            return None
        self._check_address(answer, target)
        self._check_credential(answer, target)
        if answer.status < 400 and self.known_models.learn(upstream.model):
            call.accounting.model_known = True
            self._answered.answered(upstream.model)
        return answer

    def _begin(self, call: UpstreamCall, upstream: UpstreamRequest, attempt: _Attempt, answer: Answer) -> _Begun | None:
        """Read so much of the answer that it is clear how it goes on. None if another deployment is to be asked."""
        is_stream, beginning = answer.is_event_stream and answer.status < 400, None  # an error is read whole
        if not is_stream and upstream.stream and answer.status == 200:  # the type may be wrong
            is_stream, beginning = read_beginning(answer)
        if is_stream and attempt.others:
            # Nothing has gone to the client, so another deployment can answer if this one breaks off now.
            is_stream, beginning = read_first_event(answer, beginning or b"")
            if is_stream:
                status = status_of_first_event(beginning)
                attempt.has_failed = self._failover.learn(attempt.target, status, answer.headers)
            if attempt.has_failed and self._may_ask_others(call, attempt):
                answer.close()
                return None
        passes = upstream.operation.reader is not None and answer.status == 200
        return _Begun(answer, beginning, is_stream=is_stream, is_live=is_stream or passes)

    def _answered_by(self, attempt: _Attempt) -> None:
        if not attempt.has_failed:
            self._failover.answered(attempt.target)

    def _live_reply(
        self,
        request: CompletionRequest,
        call: UpstreamCall,
        upstream: UpstreamRequest,
        attempt: _Attempt,
        begun: _Begun,
    ) -> Reply:
        """Return a reply whose body is read from Azure while the client takes it."""
        self._answered_by(attempt)
        answer, operation = begun.answer, upstream.operation
        headers = [*answer.headers, *call.headers.items()]
        if operation.reader is not None and not begun.is_stream:
            body = self._pass_on(answer, call, upstream, operation.reader, begun.beginning or b"")
            return Reply(status=answer.status, headers=headers, body=body)
        stream = EventStream(
            answer,
            call,
            meter=operation.meter(request.dialect, upstream.withhold_usage, upstream.asked),
            see=operation.see,
            error_event=operation.error_event,
            coalescing=self._coalescing,
            beginning=begun.beginning,
            send_head=request.send_head,
        )
        return Reply(status=answer.status, headers=_as_event_stream(headers, answer), body=stream)

    def _whole_reply(
        self, call: UpstreamCall, upstream: UpstreamRequest, attempt: _Attempt, answer: Answer, body: bytes
    ) -> Reply:
        if answer.status >= 400:
            self._learn_error(call, upstream, attempt.target, answer, body)
        finish_plain(call, answer.status, body, upstream.operation.see)
        if call.accounting.model_known is False:
            self._answered.refused(upstream.model)
        return Reply(status=answer.status, headers=[*answer.headers, *call.headers.items()], body=body)

    def fetch(
        self, request: StoredRequest, call: UpstreamCall, owned: Owned, target: Target, *, settled: bool = False
    ) -> Reply:
        """Send *request* and return Azure's answer; the rest is as for :meth:`send`."""
        answer = self._upstream.fetch(
            request.method,
            f"responses/{request.response_id}{request.part}",
            query=request.query,
            target=target,
            request_id=call.id,
            cancellation=call.cancellation,
        )
        self._check_address(answer, target)
        self._check_credential(answer, target)
        headers = [*answer.headers, *call.headers.items()]
        if answer.is_event_stream and answer.status < 400:
            stream = EventStream(
                answer,
                call,
                meter=RESPONSES.meter(Dialect.AZURE, False, Asked()),
                see=RESPONSES.see,
                error_event=RESPONSES.error_event,
                coalescing=self._coalescing,
                send_head=request.send_head,
            )
            return Reply(status=answer.status, headers=headers, body=stream)
        body = read_plain(answer)
        if not settled and self._is_early(owned, answer.status, body):
            call.cancellation.rest(SETTLING_SECONDS)
            return self.fetch(request, call, owned, target, settled=True)
        call.finish(Outcome.OK)
        return Reply(status=answer.status, headers=headers, body=body)

    def _is_early(self, owned: Owned | None, status: int, body: bytes) -> bool:
        """Return whether Azure does not find what has just been made, and may find it in a moment."""
        return (
            owned is not None
            and status in (400, 404)
            and self._clock() - owned.at < FRESH_SECONDS
            and _NOT_FOUND.search(body) is not None
        )

    def _pass_on(
        self,
        answer: Answer,
        call: UpstreamCall,
        upstream: UpstreamRequest,
        new_reader: Callable[[Asked], AnswerReader],
        beginning: bytes,
    ) -> bytes | PassedAnswer:
        """Return the body of a good answer that is no stream of events: whole if it is short."""
        reader = new_reader(upstream.asked)
        call.accounting.seen = reader.seen
        beginning, is_whole = read_up_to(answer, beginning, upstream.operation.held_bytes)
        if not is_whole:
            return PassedAnswer(answer, call, reader, beginning)
        reader.feed(beginning)
        reader.end()
        call.finish(Outcome.OK, reader.seen, ended=True)
        return beginning

    def _learn_error(
        self, call: UpstreamCall, upstream: UpstreamRequest, target: Target, answer: Answer, body: bytes
    ) -> None:
        """Note which error *answer* is, for the record and for admins."""
        error = AzureError(answer.status, body)
        if answer.status == LIMITED:
            asked, lowered = upstream.asked, self._deployments.lowered_from(target)
            call.accounting.error_code = kind_of_limit(
                error.message,
                answer.quota,
                prompt_tokens=call.accounting.prompt_tokens,
                most_tokens=(asked.most_tokens or 0) * asked.choices,
                usual=lowered,
            )
        else:
            call.accounting.error_code = error.code
        self._deployments.failed(target, status=answer.status, code=call.accounting.error_code)

    def _check_credential(self, answer: Answer, target: Target) -> None:
        try:
            self._credentials.check(answer, target)
        except UpstreamCredentials as error:
            self._deployments.failed(target, status=answer.status, code=error.code)
            raise

    def _check_address(self, answer: Answer, target: Target) -> None:
        # No redirect is followed: Azure sends none, and its key must not go to another host.
        if 300 <= answer.status < 400:
            answer.close()
            log.error(
                "Azure answered with status %d%s: users get 502 upstream_moved. %s is not right any more. "
                "Set it to the address that the Azure portal shows%s.",
                answer.status,
                f" and points to {answer.location[:500]!r}" if answer.location else "",
                f"The base_url of the deployment {target.label}" if target.is_registered else "LLM_BASE_URL",
                "" if target.is_registered else ", and restart the gateway",
            )
            raise UpstreamMoved(
                "The model's provider has moved, and the gateway's setting of its address is not right any more: tell "
                "the admin. Nothing was charged."
            )


def _sticky(key_id: str, upstream: UpstreamRequest) -> bytes:
    """Return the same bytes for requests whose beginnings Azure may have in its cache.

    It caches the first 1,024 tokens and more (Microsoft, "Prompt caching", 2026).
    """
    original = upstream.original
    beginning = original[:_BEGINNING] if isinstance(original, bytes) else b""  # files have no beginning in common
    return hashlib.blake2b(beginning, key=key_id.encode()[:64], digest_size=16).digest()


def _as_event_stream(headers: list[tuple[str, str]], answer: Answer) -> list[tuple[str, str]]:
    """Return *headers* with the type of an event stream: clients and proxies rely on it (HTML standard, 9.2.1)."""
    if answer.is_event_stream:
        return headers
    others = [(name, value) for name, value in headers if name != "content-type"]
    return [*others, ("content-type", "text/event-stream; charset=utf-8")]
