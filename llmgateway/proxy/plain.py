"""Reads answers that are not streamed, and recognises those that are."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable
from typing import Any

from ..errors import UpstreamBroken
from ..interfaces import Answer
from ..records import Outcome
from ..usage.answers import choices_of, is_blocked, name_of, parse_object, said_tokens
from ..usage.azure_errors import AzureError
from ..usage.booking import NO_CONTENT
from ..usage.counts import is_whole, parse_usage, usage_in_choices
from ..usage.events import begins_like_events, end_of_events
from ..usage.seen import Seen
from .call import UpstreamCall

LARGEST_PLAIN_ANSWER = 64 * 1024 * 1024
"""The most bytes of an answer that is not streamed."""

See = Callable[[dict[str, Any], bytes], Seen]
"""Reads a whole answer: parsed, and as it was sent."""

_LONGEST_FIRST_EVENT = 64 * 1024
"""The most bytes of a first event that are waited for. An error takes less."""

_DOCUMENTS = (b"{", b"[", b"<")
"""How JSON and HTML begin."""


def read_beginning(answer: Answer) -> tuple[bool, bytes]:
    """Read *answer* until it is clear whether it is a stream of events.

    The body decides, and not the ``Content-Type``. Some providers, and proxies on the way to them, send streams as
    ``text/plain`` or without a type, and errors as ``text/event-stream``.

    Returns:
        Whether it is a stream, and what was read.

    Raises:
        GatewayError: as for :meth:`Answer.read`. The answer is closed then.
    """
    beginning = b""
    try:
        while (is_stream := begins_like_events(beginning)) is None:
            chunk = answer.read()
            if not chunk:
                return answer.is_event_stream, beginning
            beginning += chunk
    except BaseException:
        answer.close()
        raise
    if answer.is_event_stream and not is_stream:
        # A stream may begin with fields that the standard does not name. They are ignored.
        is_stream = not beginning.removeprefix(BOM_UTF8).lstrip().startswith(_DOCUMENTS)
    return is_stream, beginning


def read_first_event(answer: Answer, beginning: bytes) -> tuple[bool, bytes]:
    """Read *answer* until its first event is complete; otherwise as :func:`read_beginning`.

    Args:
        beginning: What was read of it before.

    Raises:
        UpstreamBroken: the body ended before its first event. The answer is closed, as for any other error.
    """
    if not beginning:
        is_stream, beginning = read_beginning(answer)
        if not is_stream:
            return False, beginning
    try:
        while not end_of_events(beginning) and len(beginning) < _LONGEST_FIRST_EVENT:
            chunk = answer.read()
            if not chunk and not beginning:
                raise UpstreamBroken("The model's provider broke off its answer.")
            if not chunk:
                break
            beginning += chunk
    except BaseException:
        answer.close()
        raise
    return True, beginning


def status_of_first_event(beginning: bytes) -> int:
    """Return the status that the first event of a stream stands for: 429 or 500 if it says that the deployment cannot
    answer now, else 200.

    Azure has begun with status 200 in any case, but an event with such an error is all that follows.
    """
    first = beginning[: end_of_events(beginning)]
    return AzureError(200, first).failure or 200 if b"error" in first else 200


def read_plain(answer: Answer, beginning: bytes = b"") -> bytes:
    """Read the whole body of an answer that is not streamed, and close the answer.

    Nothing goes to the client before the body is complete. So if the connection breaks, the client gets an error.

    Args:
        beginning: What was read of it before.

    Raises:
        UpstreamTimeout: Azure was silent for too long.
        UpstreamBroken: the connection broke, or the body has more than :data:`LARGEST_PLAIN_ANSWER` bytes.
    """
    chunks = [beginning]
    size = len(beginning)
    try:
        while chunk := answer.read():
            chunks.append(chunk)
            size += len(chunk)
            if size > LARGEST_PLAIN_ANSWER:
                raise UpstreamBroken("The answer of the model's provider is too large.")
    finally:
        answer.close()
    return b"".join(chunks)


def finish_plain(call: UpstreamCall, status: int, body: bytes, see: See) -> None:
    """End *call* with what *body*, an answer that is not streamed, says about itself.

    Args:
        see: Reads the object in the body.
    """
    if status < 400:
        answered = see_plain(body, see)
        failed = status in NO_CONTENT or answered.error_code is not None
        call.finish(Outcome.UPSTREAM_ERROR if failed else Outcome.OK, answered, ended=True)
        return
    error = AzureError(status, body)
    if error.says_unknown_model:
        call.accounting.model_known = False
    call.accounting.error_code = call.accounting.error_code or error.code
    seen = Seen() if error.document is None else see(error.document, body)
    call.finish(Outcome.UPSTREAM_ERROR, seen, ended=True, billed_error=error.is_billed)


def see_plain(body: bytes, see: See) -> Seen:
    """Read *body*, the whole of an answer, with *see* if it is a JSON object."""
    document = parse_object(body)
    return Seen() if document is None else see(document, body)


def see_completion(document: dict[str, Any], body: bytes) -> Seen:
    """Read a completion: its count, or an estimate of its tokens if it has none."""
    seen = Seen(model=name_of(document, "model"), service_tier=name_of(document, "service_tier"))
    seen.see_filters(document, body)
    seen.see_audio(document, body)
    usage = parse_usage(document) or usage_in_choices(document)
    if usage is not None and usage.prompt_tokens and usage.completion_tokens:
        seen.usage = usage  # nearly always; so nothing has to be estimated
        return seen
    choices = choices_of(document)
    seen.completion_tokens = sum(map(said_tokens, choices))
    seen.blocked = any(map(is_blocked, choices))
    if usage is not None:
        if is_whole(usage, said_something=seen.completion_tokens > 0):
            seen.usage = usage
        else:
            seen.prompt_tokens = usage.prompt_tokens or None
            seen.completion_tokens = max(seen.completion_tokens, usage.completion_tokens)
    return seen
