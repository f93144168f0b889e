"""The codes of Azure's errors, for usage records: short, and without any text of the prompt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..records import Quota

RATE_LIMIT_REQUESTS = "rate_limit_requests"
"""A 429: the deployment has had too many requests in this minute, or within one or ten seconds of it."""

RATE_LIMIT_TOKENS = "rate_limit_tokens"
"""A 429: the deployment has used up its tokens per minute."""

RATE_LIMIT_LOWERED = "rate_limit_lowered"
"""A 429: Azure has lowered the limit of the deployment for some hours."""

RATE_LIMIT_ESTIMATE = "rate_limit_estimate"
"""A 429: there are tokens left, but fewer than the prompt and ``max_tokens`` of this request together."""

CAPACITY = "capacity"
"""A 429: Azure itself, or a provisioned deployment, has no capacity left, whatever the quota says."""

RATE_LIMIT = "rate_limit"
"""A 429 that does not say which it is."""

REMEDIES = {
    RATE_LIMIT_REQUESTS: "Azure counts requests within 1 or 10 seconds, too: spread them, add another deployment, or "
    "raise its limit.",
    RATE_LIMIT_TOKENS: "Add another deployment, or ask for more at https://aka.ms/oai/quotaincrease.",
    RATE_LIMIT_LOWERED: "Azure lowers limits for some hours. Add a deployment in another region meanwhile.",
    RATE_LIMIT_ESTIMATE: "Azure counts max_tokens before it answers: let clients ask for shorter answers.",
    CAPACITY: "It is not your quota. Add a deployment in another region, or provisioned throughput.",
    RATE_LIMIT: "Azure does not say why. Look at the deployment's limits in the portal.",
}
"""What an admin can do about each kind of 429."""

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_. -]{0,59}\Z")
_SPACES = re.compile(r"\s+")
_NO_CAPACITY = re.compile(r"high demand|peak load|capacity", re.IGNORECASE)
_REQUESTS = re.compile(r"\bcall rate limit|\brequest(s)? (rate )?limit|requests per", re.IGNORECASE)
_TOKENS = re.compile(r"\btoken(s)? rate limit|tokens per|\btoken limit", re.IGNORECASE)


def error_code(document: Any) -> str | None:
    """Return the code of the error in *document*, Azure's JSON; None if it has none.

    A number says no more than the status. Then it is the code of the inner error, or the type.
    """
    candidates = [*_values(document, "code"), *_values(document, "type")]
    return next((each for each in candidates if _CODE.match(each) and each.lower() != "error"), None)


def error_message(document: Any) -> str:
    """Return the message of the error in *document*, in one line and cut; "" if it has none."""
    message = next(iter(_values(document, "message")), "")
    return _SPACES.sub(" ", message)[:500]


def kind_of_limit(
    message: str, quota: Quota, *, prompt_tokens: int, most_tokens: int, usual: Quota | None = None
) -> str:
    """Return which kind of 429 an answer is: one of the constants above.

    Azure tells them apart in its messages and headers only (recorded 2024 to 2026).

    Args:
        message: The message of the error; "" if it is not known.
        quota: What the headers of the answer say.
        prompt_tokens: The estimate of the prompt.
        most_tokens: The tokens that the request allows for its answer.
        usual: The limits of this deployment before; None if they are not known.
    """
    if _NO_CAPACITY.search(message):
        return CAPACITY
    if usual is not None and quota.is_lower_than(usual):
        return RATE_LIMIT_LOWERED
    left = quota.remaining_tokens
    if most_tokens and left is not None and 0 < left < prompt_tokens + most_tokens and not _REQUESTS.search(message):
        return RATE_LIMIT_ESTIMATE
    if _REQUESTS.search(message) or (quota.remaining_requests == 0 and not _TOKENS.search(message)):
        return RATE_LIMIT_REQUESTS
    if _TOKENS.search(message) or left == 0:
        return RATE_LIMIT_TOKENS
    return RATE_LIMIT


def _values(document: Any, wanted: str) -> Iterator[str]:
    """Yield the texts under the name *wanted* of an error, and of the errors within it, the outermost first."""
    level = [document]
    while level:
        inner: list[Any] = []
        for value in level:
            if not isinstance(value, dict):
                continue
            text = value.get(wanted)
            if isinstance(text, str) and text:
                yield text
            inner += [value[name] for name in ("error", "response", "innererror", "inner_error") if name in value]
        level = inner
