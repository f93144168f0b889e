"""One row of the table of operations: what the gateway has to know about one kind of request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...errors import GatewayError
from ...usage.booking import Asked
from ...usage.meter import Meter
from ...usage.seen import Seen
from ..dialect import Dialect
from ..forms import FormFormat
from ..parsing import BodyFormat
from ..passing import AnswerReader
from .fields import is_streamed

Document = dict[str, Any]
"""The body of a request or an answer, parsed."""


class Reference(NamedTuple):
    """Something that Azure stores, and that a body names."""

    id: str
    kind: str
    """``response``, ``item``, ``container`` or ``audio``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One kind of request, such as chat completions. The relay does the rest in the same way for all of them."""

    name: str
    """The end of the path at the gateway and at Azure, such as ``chat/completions``."""
    body_format: BodyFormat
    """The names that the gateway reads in a body."""
    check: Callable[[Document], None]
    """Checks what the gateway needs of a body, besides the model. Azure checks the rest. Raises InvalidRequest."""
    asked: Callable[[Document, bytes], Asked]
    """Reads how much a request asks for. Takes the body parsed and as it was sent. Raises InvalidRequest."""
    with_prompt: Callable[[Document, str], Document] | None
    """Returns the fields that change if a system prompt, which is not empty, is put in front. Raises InvalidRequest.
    None: the system prompt does not go into this kind of request."""
    prompt_tokens: Callable[[Document, str, Sequence[str | None]], int]
    """Estimates the tokens of the prompt: of the body, with a system prompt or "", for a model with these names."""
    may_add_usage: Callable[[Document], bool]
    """Whether the gateway may ask Azure for the usage of a stream with ``stream_options``."""
    meter: Callable[[Dialect, bool, Asked], Meter]
    """Returns what reads a stream. The second argument says whether to withhold the usage event from the client."""
    see: Callable[[Document, bytes], Seen]
    """Reads a whole answer that is not a stream, or an error: parsed, and as it was sent."""
    error_event: Callable[[GatewayError, Seen], bytes]
    """Returns the event that tells a client why its stream has broken off, with its blank line. The second argument is
    what was read of the stream."""
    references: Callable[[Document], Sequence[Reference]] | None = None
    """Returns what the body names of that Azure stores. It must belong to the user. None if bodies name nothing."""
    in_path: bool = True
    """Whether the classic form of Azure's URL names the deployment for this operation."""
    form: FormFormat | None = None
    """What to read of a body that is a form; None if bodies are JSON. The fields of a form are its document."""
    check_prompt: Callable[[Document], None] | None = None
    """Checks that a system prompt can be put in front; None if it always can. Raises InvalidRequest."""
    is_streamed: Callable[[Document], bool] = is_streamed
    """Returns whether the client asks for a stream of events. Raises InvalidRequest."""
    accept: str | None = None
    """The header ``Accept`` for Azure; None for JSON and streams of events."""
    reader: Callable[[Asked], AnswerReader] | None = None
    """Returns what reads a good answer that is no stream of events, so that a large one is passed on as it comes. None:
    each is read whole, with :attr:`see`."""
    held_bytes: int = 1024 * 1024
    """If there is a :attr:`reader`, an answer of no more bytes is passed on when it is complete, so that the client
    gets an error if it breaks off. 0: every answer is passed on as it comes."""
