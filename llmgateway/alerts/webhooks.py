"""Posts alerts to webhooks: own JSON, Slack's and Teams'."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from http.client import responses
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from ..azure.environment import NetworkEnvironment
from ..records import Alert
from .addresses import FORBIDDEN, is_forbidden
from .outcome import DELIVERED, TIMEOUT_SECONDS, Outcome, failed, of_connection
from .settings import Format, Webhook

SIGNATURE = "X-LLMGateway-Signature"
ALERT = "X-LLMGateway-Alert"
"""The header with the alert's identifier, the same if it is sent again."""

_REMEDIES = {
    401: "The server wants other credentials: look at its URL.",
    403: "The server refuses the call: look whether the webhook is still allowed.",
    404: "There is no such webhook any more: make a new one there, and set its URL here.",
    410: "The webhook was removed: make a new one there, and set its URL here.",
    429: "The server takes no more for now; it is tried again later.",
}


class _Forbidden(Exception):
    """The connection leads to an address that is never called."""


class _CheckedConnection(HTTPConnection):
    """Looks at the address after the name was looked up, so that no name leads to a forbidden one."""

    def connect(self) -> None:
        super().connect()
        _check(self)


class _CheckedTLSConnection(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _check(self)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _CheckedConnection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _CheckedTLSConnection


class _CheckedAdapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}


def _check(connection: HTTPConnection) -> None:
    address = connection.sock.getpeername() if connection.sock is not None else ()
    if address and is_forbidden(str(address[0])):
        connection.close()
        raise _Forbidden


def body_of(alert: Alert, form: Format) -> bytes:
    """Return what a webhook of this format gets."""
    if form is Format.SLACK:
        # https://docs.slack.dev/messaging/formatting-message-text: these three characters are special.
        text = alert.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return orjson.dumps({"text": text})
    if form is Format.TEAMS:
        return orjson.dumps(_card(alert.text))
    return orjson.dumps(
        {
            "event": alert.event,
            "text": alert.text,
            "scope": alert.scope,
            "threshold": alert.threshold,
            "used": alert.used,
            "limit": alert.limit,
            "at": alert.at.isoformat(),
        }
    )


def _card(text: str) -> Mapping[str, Any]:
    """Return the message that webhooks of Teams' Workflows take.

    https://learn.microsoft.com/en-us/connectors/teams/#microsoft-teams-webhook (2026-11): one attachment, an Adaptive
    Card. A text run is not read as Markdown, so names in it cannot become links.
    """
    return {
        "type": "message",
        "attachments": [
            {
                "contentType": "application/vnd.microsoft.card.adaptive",
                "contentUrl": None,
                "content": {
                    "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                    "type": "AdaptiveCard",
                    "version": "1.2",
                    "body": [{"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text}]}],
                },
            }
        ],
    }


def post(alert: Alert, webhook: Webhook) -> Outcome:
    """Send *alert* once. Redirects are not followed, and nothing of the answer but its status is read."""
    if webhook.url is None:
        return failed("Its address cannot be decrypted: SECRET_KEY has changed.", "Set the webhook again.")
    body = body_of(alert, webhook.format)
    headers = {"Content-Type": "application/json", "User-Agent": "LLMGateway", ALERT: alert.id}
    if webhook.secret is not None:
        headers[SIGNATURE] = f"sha256={hmac.new(webhook.secret.encode(), body, hashlib.sha256).hexdigest()}"
    try:
        with requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, _CheckedAdapter())
            environment = NetworkEnvironment.read(session, webhook.url)
            # Not prepared by the session, which would add a password from ~/.netrc.
            sent = requests.Request("POST", webhook.url, data=body, headers=headers, auth=_user_of(webhook.url))
            with session.send(
                sent.prepare(),
                timeout=TIMEOUT_SECONDS,
                allow_redirects=False,
                stream=True,
                verify=environment.verify,
                proxies=environment.proxies,
            ) as answer:
                return _outcome(answer.status_code)
    except _Forbidden:
        return failed("The address is not allowed.", FORBIDDEN)
    except (requests.exceptions.ProxyError, requests.exceptions.InvalidProxyURL):
        return failed("The proxy does not let it through.", "Look at HTTPS_PROXY, HTTP_PROXY and NO_PROXY.")
    except (OSError, ValueError) as error:  # requests' errors are OSErrors; its errors about URLs are ValueErrors
        return of_connection(error)


def _outcome(status: int) -> Outcome:
    if 200 <= status < 300:
        return DELIVERED._replace(status=status)
    if 300 <= status < 400:
        return failed(
            f"The server redirects ({status}), which is not followed.", "Set the URL to which it leads.", status=status
        )
    remedy = _REMEDIES.get(status) or (
        "Look at the server's log."
        if status >= 500
        else "Look whether the URL and the format are those of this server."
    )
    return failed(f"The server answered {status} ({responses.get(status, 'unknown')}).", remedy, status=status)


def _user_of(url: str) -> tuple[str, str] | None:
    parts = urlsplit(url)
    return (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
