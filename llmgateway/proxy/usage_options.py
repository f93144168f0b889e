"""Remembers where Azure refuses ``stream_options``, so that the gateway adds them only where they are accepted.

Old api-versions and some partner models refuse the option with 400 or 422. Then the request is sent once more without
it, and its tokens are estimated. A refusal may be caused by something else in the same request. So it is remembered
only if the request succeeded without the option, only for the same kind of request, and only for some minutes.
"""

from __future__ import annotations

import logging
import re
import threading
from typing import Any

from ..clock import Timer
from ..usage.azure_errors import AzureError
from .request import UpstreamRequest

log = logging.getLogger(__name__)

FORGET_SECONDS = 600.0
"""After this time the option is tried again: a deployment may have got a new model, and a refusal costs one request."""

MOST_KINDS = 1000
"""The most kinds of requests that are remembered, of all deployments together. The oldest is forgotten first."""

# Every recorded error names the field, in whatever shape. Servers in .NET and Java may write it in another case.
_NAMES_OPTION = re.compile(rb"stream_?options|include_?usage", re.IGNORECASE)

# Fields that decide how an answer is written, and are known to be accepted beside stream_options. They are no part of
# the kind. Otherwise each combination of them would be refused once.
_ORDINARY = frozenset(
    (
        *("model", "messages", "stream", "stream_options", "temperature", "top_p", "max_tokens"),
        *("max_completion_tokens", "stop", "seed", "user", "metadata", "presence_penalty", "frequency_penalty"),
        "logit_bias",
    )
)
_MOST_FEATURES, _LONGEST_FEATURE = 20, 64
_KNOWN_PARTS = ("text", "image_url", "input_audio", "file", "refusal")

Kind = frozenset[str]
"""What may make Azure refuse the option: the unusual fields of the body, and the types of the messages' parts."""


class UsageOptions:
    """Remembers by deployment and kind of request where ``stream_options`` are refused. Thread-safe.

    Args:
        timer: Measures how long a refusal is remembered.
    """

    def __init__(self, *, timer: Timer) -> None:
        self._timer = timer
        self._lock = threading.Lock()
        self._refused: dict[tuple[str, Kind], float] = {}  # when it was refused, oldest first

    def may_add(self, request: UpstreamRequest, resource: str | None = None) -> bool:
        """Return whether to add the option to *request*, if the client has not sent it.

        Args:
            resource: What identifies the deployment that is asked, if it is not that of the request.
        """
        if not self._refused:
            return True  # as almost always
        name, kind = (resource or request.deployment).lower(), _kind(request.document)
        if kind is None:
            return True
        with self._lock:
            since = self._refused.get((name, kind))
            if since is None:
                return True
            if self._timer() - since < FORGET_SECONDS:
                return False
            del self._refused[name, kind]
        return True

    def remember(self, request: UpstreamRequest, resource: str | None = None) -> None:
        """Remember that *request* was refused with the option, and accepted without it."""
        name, kind = (resource or request.deployment).lower(), _kind(request.document)
        if kind is None:
            return
        log.info(
            "The deployment %s does not accept stream_options in requests with %s; their tokens are estimated.",
            resource or request.deployment,
            ", ".join(sorted(kind)) or "nothing unusual",
        )
        with self._lock:
            self._refused.pop((name, kind), None)  # to the end
            self._refused[name, kind] = self._timer()
            if len(self._refused) > MOST_KINDS:
                del self._refused[next(iter(self._refused))]


def may_be_refusal(request: UpstreamRequest, error: AzureError) -> bool:
    """Return whether *error* may say that Azure refuses the ``stream_options`` that the gateway added to *request*.

    It is not proof: errors may also quote what the client sent. A client that sent the field itself gets the error.
    """
    return (
        error.status in (400, 422)
        and request.document.get("stream_options") is None
        and not error.is_billed
        and _NAMES_OPTION.search(error.body) is not None
    )


def _kind(document: dict[str, Any]) -> Kind | None:
    """Return the kind of a request; None if it has too many unusual fields to be remembered."""
    features = {name for name, value in document.items() if name not in _ORDINARY and value is not None}
    if len(features) > _MOST_FEATURES or any(len(name) > _LONGEST_FEATURE for name in features):
        return None
    messages = document.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            features.add(f"messages: {kind if kind in _KNOWN_PARTS else 'other'}")
    return frozenset(features - {"messages: text"})
