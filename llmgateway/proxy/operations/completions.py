"""Legacy completions: a model goes on with a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import InvalidRequest
from ...usage.booking import MOST_CHOICES, Asked
from ...usage.meter import Meter, StreamMeter
from ...usage.tokens import LARGEST_COUNT, text_tokens
from ..dialect import Dialect, editor
from ..parsing import BodyFormat
from ..plain import see_completion
from .chat import error_event
from .embeddings import count_tokens
from .fields import whole_number
from .operation import Operation

_FORMAT = BodyFormat(
    "model prompt suffix max_tokens n best_of echo stream stream_options logprobs logit_bias stop seed user "
    "temperature top_p presence_penalty frequency_penalty",
    example="'model' and 'prompt'",
)
_KINDS = ({str}, {int}, {list})


def _check_prompts(document: dict[str, Any]) -> None:
    prompt = document.get("prompt")
    if prompt is None:
        raise InvalidRequest("'prompt' is missing: send a text, or a list of texts.", param="prompt")
    if isinstance(prompt, str):
        return
    if not isinstance(prompt, list) or set(map(type, prompt)) not in _KINDS:
        raise InvalidRequest("'prompt' must be a text, a list of texts, or a list of tokens.", param="prompt")


def _is_text(prompt: str | list[Any]) -> bool:
    return isinstance(prompt, str) or isinstance(prompt[0], str)


def _check_text(document: dict[str, Any]) -> None:
    if not _is_text(document["prompt"]):
        raise InvalidRequest(
            "The gateway puts a text of its own in front of each prompt, which it cannot do with tokens. Send 'prompt' "
            "as text.",
            param="prompt",
        )


def _with_prompt(document: dict[str, Any], prompt: str) -> dict[str, Any]:
    given = document["prompt"]
    if isinstance(given, str):
        return {"prompt": f"{prompt}\n\n{given}"}
    return {"prompt": [f"{prompt}\n\n{text}" for text in given]}


def _number_of_prompts(prompt: str | list[Any]) -> int:
    """Return how many texts are to be continued. A list of numbers is one text."""
    return 1 if isinstance(prompt, str) or isinstance(prompt[0], int) else len(prompt)


def _asked(document: dict[str, Any], _body: bytes) -> Asked:
    # Azure writes best_of answers, bills all of them, and returns the best n.
    choices = [whole_number(document, name, most=MOST_CHOICES) or 1 for name in ("n", "best_of")]
    most = document.get("max_tokens")
    return Asked(
        choices=max(choices) * _number_of_prompts(document["prompt"]),
        most_tokens=0 if most == 0 and not isinstance(most, bool) else whole_number(document, "max_tokens"),
    )


def _prompt_tokens(document: dict[str, Any], prompt: str, _models: Sequence[str | None]) -> int:
    given = document["prompt"]
    injected = text_tokens(f"{prompt}\n\n".encode("utf-8", "surrogatepass"), quickly=True) if prompt else 0
    return min(count_tokens(given) + injected * _number_of_prompts(given), LARGEST_COUNT)


def _meter(dialect: Dialect, withhold_usage: bool, asked: Asked) -> Meter:
    edit = editor(dialect, withhold_usage=withhold_usage, with_deltas=False)
    return StreamMeter(edit, choices=asked.choices)


COMPLETIONS = Operation(
    name="completions",
    body_format=_FORMAT,
    check=_check_prompts,
    asked=_asked,
    with_prompt=_with_prompt,
    check_prompt=_check_text,
    prompt_tokens=_prompt_tokens,
    may_add_usage=lambda _document: True,
    meter=_meter,
    see=see_completion,
    error_event=error_event,
)
