"""What an answer has said about itself: the input of the usage record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..records import Usage
from .answers import audio_ids, filter_results, higher, may_have_filter_results, name_of


@dataclass(slots=True, kw_only=True)
class Seen:
    """What the gateway has read of one answer so far. One thread at a time may use it."""

    usage: Usage | None = None
    """Azure's own count of the whole answer; None if it has not come, or if it was no count."""
    model: str | None = None
    """The name of the model in the answer. It decides the price, and may differ from the deployment's name."""
    service_tier: str | None = None
    """The tier that served the request; None if the answer does not say."""
    prompt_tokens: int | None = None
    """Azure's count of the prompt, if it counted the prompt and not (yet) the answer."""
    completion_tokens: int = 0
    """The estimated tokens of the text, the refusals and the arguments in the answer. At least as many as Azure has
    counted so far."""
    audio_seconds: float | None = None
    """The length of the recording that was written down; None if the answer does not say."""
    content_filter: set[str] = field(default_factory=set)
    """The content filter categories that found something."""
    filter_severities: dict[str, str] = field(default_factory=dict)
    """By category what the filter found, see :func:`~.answers.filter_results`."""
    error_code: str | None = None
    """The code of an error that came in the middle of the answer."""
    blocked: bool = False
    """Whether the content filter ended a choice. Azure bills its whole text, and has kept a part of it back."""
    response_id: str | None = None
    """The identifier of the answer, if later requests can name it."""
    stored_ids: tuple[str, ...] = ()
    """Those of its items and containers. :attr:`response_id` comes before them."""
    tool_uses: dict[str, int] = field(default_factory=dict)
    """How often Azure ran its own tools that it bills by use."""
    refused: bool = False
    """Whether that error says that Azure did no work, as its status 429 does. Then nothing is billed."""
    events: int = 0
    """How many events the stream has had, where the next one has to be numbered."""

    def see_audio(self, document: dict[str, Any], data: bytes) -> None:
        """Remember the spoken answers in *document*, a completion or an event of one, which was parsed from *data*.

        Azure keeps them for later requests of the conversation, and anybody who knows the identifier could name them.
        """
        if b'"audio"' not in data or not (found := audio_ids(document)):
            return
        self.response_id = self.response_id or name_of(document, "id") or found[0]
        self.stored_ids = tuple(dict.fromkeys((*self.stored_ids, *found)))

    def see_filters(self, document: dict[str, Any], data: bytes) -> bool:
        """Remember what content filters say in *document*, which was parsed from *data*; return whether one fired."""
        return may_have_filter_results(data) and self.add_filters(document)

    def add_filters(self, results: Any) -> bool:
        """Remember what content filters say in *results*, anywhere in them; return whether one fired."""
        fired, severities = filter_results(results)
        self.content_filter |= fired
        for category, severity in severities.items():
            higher(self.filter_severities, category, severity)
        return bool(fired)
