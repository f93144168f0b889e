"""The lifecycle of one request: it takes a slot, reserves tokens, is sent to Azure, and leaves one usage record."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from ..azure.cancellation import CancellationToken
from ..azure.deployments import Target
from ..clock import Timer
from ..current import current_request
from ..errors import ClientGone, GatewayError, GatewayStopping, KeyRevoked, UpstreamBroken, UpstreamTimeout
from ..interfaces import StoredResponses, UsageRecorder
from ..ratelimit.limiter import Admission
from ..records import ModelSettings, Outcome, UsageRecord
from ..usage.booking import Asked
from ..usage.observed import ObservedDeployments
from ..usage.seen import Seen
from .accounting import RequestAccounting
from .concurrency import ConcurrencyLimit
from .disconnects import DisconnectWatcher
from .read_on import ReadOn
from .revocations import RevocationWatcher, RunningKey

log = logging.getLogger(__name__)

_OUTCOMES: tuple[tuple[type[BaseException], Outcome], ...] = (
    (ClientGone, Outcome.CLIENT_CLOSED),
    (KeyRevoked, Outcome.REVOKED),
    (GatewayStopping, Outcome.INTERRUPTED),
    (UpstreamTimeout, Outcome.TIMEOUT),
    (UpstreamBroken, Outcome.BROKEN),
    (GatewayError, Outcome.UPSTREAM_ERROR),
    (BaseException, Outcome.BROKEN),  # a bug in the gateway; Azure may still bill the request
)


def outcome_of(error: BaseException) -> Outcome:
    """Return the outcome of a request that ended with *error*."""
    return next(outcome for kind, outcome in _OUTCOMES if isinstance(error, kind))


_ENDS_WITHOUT_CLIENT = (Outcome.OK, Outcome.BROKEN, Outcome.TIMEOUT)
"""How an answer can end that is read on although its client has disconnected."""


class UpstreamCall:
    """Owns the resources of one request: its slot, its reservation, its cancellation token and its usage record.

    A call must be ended by one of three methods. They release all resources.

    * :meth:`finish`: Azure may have received the request. The call leaves a usage record.
    * :meth:`close`: Azure did not receive the request. The call leaves no record.
    * :meth:`fail`: an error occurred. It chooses one of the other two.

    Only the first of these calls has an effect. Any thread may end the call.

    If its client disconnects, either the watcher notices it or the server, which then closes the stream. Both ask
    :meth:`goes_on_without_client`.

    Args:
        concurrency: The limit from which the call takes a slot.
        disconnects: Cancels the request when its client has disconnected.
        read_on: Permits the answer to be read on without its client.
        observed: Says what is known about the deployment, and learns from the answer.
        revocations: Cancels the request when its key is revoked; None to let it go on.
        stored: Is told whose a response is that Azure stores.

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
        read_on: ReadOn,
        observed: ObservedDeployments,
        timer: Timer,
        revocations: RevocationWatcher | None = None,
        stored: StoredResponses | None = None,
    ) -> None:
        concurrency.take()
        self.id = request_id
        self.cancellation = CancellationToken()
        self.headers: dict[str, str] = {}
        """The ``x-ratelimit-*`` headers; empty before :meth:`begin`."""
        self.accounting = RequestAccounting(observed=observed, timer=timer)
        self._concurrency = concurrency
        self._recorder = recorder
        self._disconnects = disconnects
        self._read_on = read_on
        self._revocations = revocations
        self.key_id: str | None = None
        """The key that holds the slot; None before :meth:`assign`."""
        self._stored = stored
        self._noted = self._noted_whole = False  # whose the response is; with its items
        self._ending = threading.Lock()  # acquired when the call ends, and never released
        self._admission: Admission | None = None
        self._is_recorded = False  # by begin(), so that end() or cancel() must follow
        self._committed = False
        self._leaving = threading.Lock()  # protects the two below
        self._client_left = False
        self._reads_on = False

    def assign(self, key_id: str) -> None:
        """Count the slot of this call for a key.

        Raises:
            Overloaded: the key holds its share of the slots already.
        """
        self._concurrency.assign(key_id)
        self.key_id = key_id

    def begin(
        self,
        draft: UsageRecord,
        admission: Admission,
        *,
        models: Mapping[str, ModelSettings],
        asked: Asked,
        client_gone: Callable[[], bool] | None = None,
        running_key: RunningKey | None = None,
    ) -> None:
        """Take over *admission*, record that the request is about to be sent, and start to watch the client.

        Args:
            draft: The record that is kept if this process dies: outcome ``interrupted``, with the
                estimated tokens of the prompt.
            admission: The reservation. From now on the call commits or refunds it.
            models: The organisation's own settings, by model or deployment.
            asked: What the client has asked for.
            client_gone: Returns whether the client has closed its connection; None if the server cannot tell.
            running_key: The key that may be revoked meanwhile.
        """
        self._admission = admission
        self.headers = admission.headers
        accounting = self.accounting
        accounting.begin(draft, models, asked, limits=admission.limit_names)
        self._recorder.begin(draft, accounting.bound())
        self._is_recorded = True
        accounting.sends()
        self._watch(client_gone, running_key)

    def _watch(self, client_gone: Callable[[], bool] | None, running_key: RunningKey | None) -> None:
        if client_gone is not None:
            self._disconnects.add(self.cancellation, client_gone, self.goes_on_without_client)
        if self._revocations is not None and running_key is not None:
            self._revocations.add(self.cancellation, running_key)

    def begin_unrecorded(
        self,
        admission: Admission,
        *,
        client_gone: Callable[[], bool] | None = None,
        running_key: RunningKey | None = None,
    ) -> None:
        """Like :meth:`begin`, for a request that costs nothing: it leaves no usage record, however it ends."""
        self._admission = admission
        self.headers = admission.headers
        self._watch(client_gone, running_key)

    def ask(self, target: Target) -> str:
        """Note that the request is about to be sent to *target*, and return the identifier that it has there.

        It is ``x-ms-client-request-id``: that of the record, then the same with ``-2`` and so on.
        """
        number = self.accounting.ask(target)
        if number == 1:
            return self.id
        # If this process dies now, the record that is left must contain what was billed before.
        self._recorder.amend(self.accounting.interrupted(), self.accounting.bound())
        return f"{self.id}-{number}"

    def attempt_failed(self, *, ended: bool) -> None:
        """Book what Azure bills of the last attempt, because the request is sent once more.

        An attempt that Azure did not receive leaves no trace.

        Args:
            ended: Whether there was an answer, and it can say no more.
        """
        self.accounting.attempt_failed(sent=self.cancellation.sent, ended=ended)
        self.cancellation.recall()

    @property
    def is_wanted(self) -> bool:
        """Whether anybody still waits for the answer, so that it is worth asking once more."""
        return not self._client_left and not self.cancellation.was_cut

    def note(self, seen: Seen, *, complete: bool) -> None:
        """Note whose the response is that *seen* names, and its items.

        Call this before the first byte with an identifier goes to the client, which may then send it back to any
        process. The items are noted when the answer is complete.
        """
        if not self._is_recorded or self._noted_whole or (self._noted and not complete):
            return
        self._noted, self._noted_whole = True, complete
        accounting = self.accounting
        accounting.seen = seen
        self._recorder.amend(accounting.naming_response(), accounting.bound())
        self._remember(accounting.with_response())

    def _remember(self, record: UsageRecord) -> None:
        if self._stored is not None:
            self._stored.remember(record)

    def goes_on_without_client(self) -> bool:
        """Return whether the answer is read on although its client has disconnected. It is cut when its time is over.

        Call this when the client has disconnected. The first call decides.
        """
        with self._leaving:
            if not self._client_left:
                self._client_left = True
                self._reads_on = self._may_read_on()
                if self._reads_on:
                    self._forget_key()  # nobody gets the rest, and only the end tells the count
                    self._disconnects.cut_after(self.cancellation, self._read_on.seconds)
            return self._reads_on

    def _forget_key(self) -> None:
        if self._revocations is not None:
            self._revocations.remove(self.cancellation)

    def _may_read_on(self) -> bool:
        if not self._is_recorded or self.accounting.seen.usage is not None:
            return False  # Azure's count has already arrived: the rest tells nothing
        return self._read_on.take(thinks=self.accounting.works_unseen())

    def commit(self, seen: Seen) -> None:
        """Commit the reservation before the call ends.

        Call this when the usage is known, and before the last bytes go to the client. The client may send its
        next request as soon as it has them, and the reservation of this one must not be the reason to refuse it.
        """
        admission = self._admission
        if self._committed or admission is None or not admission.has_counter_requests or not self._is_recorded:
            return  # no need to compute a record
        self.accounting.seen = seen
        self._commit(self.accounting.record(Outcome.OK, sent=self.cancellation.sent, ended=True))

    def finish(
        self, outcome: Outcome, seen: Seen | None = None, *, ended: bool = False, billed_error: bool = False
    ) -> None:
        """End the call and write its usage record. :mod:`~llmgateway.usage.booking` decides which tokens it has.

        Args:
            seen: What was read of the answer.
            ended: Whether the answer was read to its own end.
            billed_error: Whether the answer is an error whose prompt Azure bills.
        """
        if not self._ending.acquire(blocking=False):
            return
        if not self._is_recorded:
            self._leave()
            return
        accounting = self.accounting
        try:
            accounting.seen = seen or accounting.seen
            if self._client_left and outcome in _ENDS_WITHOUT_CLIENT:
                outcome = Outcome.CLIENT_CLOSED
            record = accounting.record(outcome, sent=self.cancellation.sent, ended=ended, billed_error=billed_error)
            accounting.learn()
            # The counters come first. A budget can be counted again from the usage log. A record that is in the log
            # but not yet in the counters would then be counted twice.
            try:
                self._commit(record)
            finally:
                self._recorder.end(record)
                if record.response_id is not None and not self._noted_whole:
                    self._remember(record)  # it was not streamed, or broke off
        finally:
            self._release()

    def _leave(self) -> None:
        """End a call that leaves no record."""
        try:
            if self._admission is None:
                raise RuntimeError("begin() was not called, so there is no record")
            self._admission.leave()
        finally:
            self._release()

    def fail(self, error: BaseException) -> None:
        """End the call because of *error*; write a usage record if Azure may have received the request."""
        if isinstance(error, GatewayError) and self.accounting.error_code is None:
            self.accounting.error_code = error.code
        if self.cancellation.sent or self.accounting.has_attempts:
            if self._is_recorded and (request := current_request()) is not None:
                request.is_recorded = True
            self.finish(outcome_of(error))
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
                if self._is_recorded:
                    self._recorder.cancel(self.id)
            finally:
                self._release()

    def _release(self) -> None:
        with self._leaving:
            self._client_left = True  # too late to be read on
            self._disconnects.remove(self.cancellation)
            self._forget_key()
            if self._reads_on:
                self._reads_on = False
                self._read_on.free()
        self._concurrency.free(self.key_id)

    def _commit(self, record: UsageRecord) -> None:
        if not self._committed and self._admission is not None:
            self._committed = True
            self._admission.commit(record)
