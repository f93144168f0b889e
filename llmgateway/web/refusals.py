"""Hands what the gateway refuses over to those that keep it, for the admin who looks for somebody's error."""

from __future__ import annotations

import re
from functools import lru_cache

from flask import request

from ..accounts.attempts import source_of
from ..accounts.keys import PREFIX
from ..current import CurrentRequest, current_request
from ..errors import AdminThrottled, ClientGone, GatewayError, InvalidAdminKey
from ..records import LONGEST_RECORDED_MODEL, Refusal, moment, new_request_id
from ..usage.refusals import Refusals
from .addresses import without_secrets
from .context import services

LONGEST_MESSAGE = 1000
LONGEST_ENDPOINT = 200

_HIDDEN = "[hidden]"
_GENERATED = re.compile(rf"{PREFIX}[\w-]+", re.IGNORECASE)
_KEY_HEADERS = ("Authorization", "api-key", "AdminKey")
_BLUEPRINTS_OF_USERS = (None, "users", "azure")
"""None is for addresses that do not exist: users with a wrong base_url end there."""
_ADMINS = re.compile(r"/+admin(?:/|\Z)")
_OF_ADMINS = (InvalidAdminKey, AdminThrottled)
"""What is kept of the admin API. Its other errors are answers to admins, who read them."""


def keep_refusal(error: GatewayError) -> None:
    """Keep the current request, which is answered with *error*, unless it leaves a usage record."""
    current = current_request()
    if current is None or current.is_recorded or isinstance(error, ClientGone):
        return
    if not isinstance(error, _OF_ADMINS) and not _is_of_user():
        return
    used, address = services(), request.remote_addr or ""
    used.refusals.add(_refusal(current, error, address), source=source_of(address))


def keep_unreadable(refusals: Refusals | None, error: GatewayError, address: str, *, now: float) -> str:
    """Keep a request whose head or length the server refuses, and return its identifier.

    Nothing is known of it but where it comes from: its headers were not read, or cannot be believed.
    """
    address = address.removeprefix("::ffff:")
    refusal = Refusal(
        id=new_request_id(now),
        timestamp=moment(now),
        status=error.status,
        code=error.code,
        address=address[:64] or None,
        message=error.message[:LONGEST_MESSAGE],
    )
    if refusals is not None:
        refusals.add(refusal, source=source_of(address))
    return refusal.id


def _is_of_user() -> bool:
    return request.blueprint in _BLUEPRINTS_OF_USERS and not _ADMINS.match(request.path)


def _refusal(current: CurrentRequest, error: GatewayError, address: str) -> Refusal:
    sent = _sent_keys()
    return Refusal(
        id=current.id,
        timestamp=moment(services().clock()),
        status=error.status,
        code=error.code,
        limit=error.headers.get("x-llmgateway-limit"),
        key_id=current.key_id,
        user=current.user,
        group=current.group,
        endpoint=_endpoint(sent),
        model=None if current.model is None else _safe(current.model, sent)[:LONGEST_RECORDED_MODEL],
        address=address[:64] or None,
        message=_safe(error.message, sent)[:LONGEST_MESSAGE],
    )


def _sent_keys() -> list[str]:
    """Return the secrets in the headers of the current request, the longest first."""
    values = [value for name in _KEY_HEADERS if (value := request.headers.get(name))]
    words = [word for value in values for word in (value, value.partition(" ")[2].strip())]
    # A short word is no key, and may be a part of any other word.
    return sorted((word for word in words if len(word) >= 8), key=len, reverse=True)


def _endpoint(sent: list[str]) -> str:
    if request.url_rule is not None:
        return _as_documented(request.url_rule.rule)
    return _safe(without_secrets(request.path), sent)[:LONGEST_ENDPOINT]


@lru_cache(maxsize=256)
def _as_documented(rule: str) -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


def _safe(text: str, sent: list[str]) -> str:
    """Return *text* without keys, and without what stores do not take (lone surrogates) and terminals obey."""
    for key in sent:
        text = text.replace(key, _HIDDEN)
    return "".join(char if char.isprintable() else "\ufffd" for char in _GENERATED.sub(_HIDDEN, text))
