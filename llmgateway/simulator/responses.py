"""The Responses API: answers a request, and stores what it has answered.

``POST /openai/v1/responses``, or the classic ``POST /openai/responses?api-version=…`` without a deployment in its path
(opencode#42147), since 2025-03-01-preview (Microsoft's page on the versions of the API, 2026).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from ..records import Usage
from .operations import Asked, Made, Operation, parse_json, prompt_usage
from .production import Work
from .response_events import Answer, write_events, write_whole
from .response_output import Ids, Outputs, put_out, sealed, tools_used
from .response_request import Wanted, characters, count, items_of, prompt_tokens, read
from .response_store import Item, Stored
from .scripts import Script
from .writing import Event

SINCE = "2025-03-01-preview"
_STREAM = "text/event-stream; charset=utf-8"


def _answer(asked: Asked) -> Made:
    deployment, script = asked.deployment, asked.script
    wanted = read(asked.document, deployment=deployment, store=asked.responses, strict=asked.strict)
    ids = Ids(asked.created)
    outputs = put_out(wanted, deployment=deployment, script=script, ids=ids)
    work = _work(wanted, outputs, script)
    answer = Answer(
        id=ids.new("resp"),
        created=asked.created,
        # Recorded answers name models without their dates; whether it is the deployment's name is open.
        model=script.model or deployment.family,
        wanted=wanted,
        outputs=outputs,
        usage=work.whole,
        tier=script.service_tier or asked.tier or "default",
        script=script,
    )
    events = write_events(answer) if wanted.stream else []
    if wanted.store:
        asked.responses.add(_stored(answer, events, ids))
    return _made(answer, events, work)


def _made(answer: Answer, events: Sequence[Event], work: Work) -> Made:
    wanted, script = answer.wanted, answer.script
    units: dict[str, Any] = {"stream": wanted.stream, "tier": answer.tier}
    if script.failed == "rate_limit_exceeded":
        billed = None  # as if it were a 429
    elif script.failed is not None or (wanted.stream and script.error_event_after is not None):
        billed = replace(work, until=events[-1].position if events else 0)
    else:
        billed = work
        units["tool_uses"] = work.tools_at(work.length)
    if wanted.stream:
        parts, positions = [data for data, _ in events], [position for _, position in events]
    elif wanted.background and script.failed is None:
        parts, positions = [orjson.dumps(answer.begun("queued"))], [work.length]
    else:
        parts, positions = [write_whole(answer)], [work.length]
    return Made(
        parts=parts,
        content_type=_STREAM if wanted.stream else "application/json",
        stream=wanted.stream,
        work=billed,
        positions=positions,
        model=script.model,
        units=units,
    )


def _work(wanted: Wanted, outputs: Outputs, script: Script) -> Work:
    return Work(
        prompt=prompt_usage(wanted.prompt_tokens, script),
        reasoning=outputs.reasoning,
        written=(outputs.written,),
        rate=script.tokens_per_second,
        scripted=_told(script.usage) if isinstance(script.usage, Mapping) else None,
        tools=tuple(tools_used(outputs.items)),
    )


def _told(usage: Mapping[str, Any]) -> Usage | None:
    """Return what a made-up ``usage`` object bills; ``None`` if it does not count the output."""
    numbers = {name: value for name, value in usage.items() if isinstance(value, int)}
    if not numbers.get("output_tokens"):
        return None
    prompt, completion = numbers.get("input_tokens", 0), numbers["output_tokens"]
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        cached_tokens=int((usage.get("input_tokens_details") or {}).get("cached_tokens", 0)),
        reasoning_tokens=int((usage.get("output_tokens_details") or {}).get("reasoning_tokens", 0)),
    )


def _stored(answer: Answer, events: Sequence[Event], ids: Ids) -> Stored:
    wanted = answer.wanted
    document = answer.ended()
    own: list[Item] = [item if "id" in item else {"id": ids.new("msg"), **item} for item in wanted.input]
    return Stored(
        id=answer.id,
        document=document,
        input=own,
        history=[*wanted.history, *own, *document["output"]],
        events=[event.data for event in events],
        created=answer.created,
        looks_left=answer.script.background_looks if wanted.background else 0,
    )


RESPONSES = Operation(
    path="responses",
    name="Responses_Create",
    verb="responses",
    ability="chat",
    parse=parse_json,
    characters=characters,
    prompt_tokens=prompt_tokens,
    answer=_answer,
    limits_output=True,
    in_body=True,
    since=SINCE,
)


def _compact(asked: Asked) -> Made:
    """Shorten a conversation (Microsoft's page on the Responses API, 2026; fields: openai 3.57.0).

    What the user said remains, everything else becomes one item that only Azure can read. Nothing is stored.
    """
    document = asked.document
    ids = Ids(asked.created)
    previous = asked.responses.find(str(document.get("previous_response_id")))
    items = [*(previous.history if previous is not None else ()), *items_of(document.get("input"))]
    counted = count(document, items)
    said = [item for item in items if item.get("role") == "user"]
    summary = f"A conversation of {len(items)} items."
    item = {"id": ids.new("cmp"), "type": "compaction", "encrypted_content": sealed(summary)}
    work = Work(prompt=prompt_usage(counted, asked.script), written=(5,), rate=asked.script.tokens_per_second)
    usage = work.whole
    answer = {
        "id": ids.new("resp"),
        "object": "response.compaction",
        "created_at": asked.created,
        "output": [*said, item],
        "usage": {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.total_tokens,
        },
    }
    return Made(parts=[orjson.dumps(answer)], work=work, positions=[work.length])


COMPACT = replace(RESPONSES, path="responses/compact", name="Responses_Compact", answer=_compact)
