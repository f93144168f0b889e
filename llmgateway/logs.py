"""Logging to standard error, with secrets hidden."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable

from .accounts.keys import PREFIX
from .current import current_request

_HIDDEN = "[hidden]"

# Generated keys, bearer tokens, and user and password in a URL.
_KEYS = re.compile(
    rf"{PREFIX}[\w-]+|(?<=bearer )[^\s'\"]+|(?<=://)[^\s/@]+(?=@)",
    re.IGNORECASE,
)
# Keys after the name of their header, in a header line or in the repr of a dict.
_NAMED_KEYS = re.compile(
    r"((?:adminkey|api-key|ocp-apim-subscription-key)['\"]?: ?['\"]?)[^\s'\"]+",
    re.IGNORECASE,
)

# What a terminal obeys, or what changes the direction of text: clients choose some of the texts in a log.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s%(request)s"


class RequestFilter(logging.Filter):
    """Adds the request that the thread answers to each record: ``request_id``, ``key_id``, ``admin``, and a text.

    The text has all of them. It is empty for threads that answer none.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        current = current_request()
        record.request_id = None if current is None else current.id
        record.key_id = None if current is None else current.key_id
        record.admin = None if current is None else current.admin
        record.request = ""
        if current is not None:
            key = f" key={current.key_id}" if current.key_id else ""
            admin = f" admin={current.admin}" if current.admin else ""
            record.request = f" [request={current.id}{key}{admin}]"
        return True


class RedactingFormatter(logging.Formatter):
    """Formats a log record with its traceback, and replaces secrets by ``[hidden]`` and control characters by escapes.

    Args:
        secrets: Values to hide wherever they appear.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__(_FORMAT, "%Y-%m-%dT%H:%M:%S", defaults={"request": ""})
        self.converter = time.gmtime
        # Replace the longest first, because one secret may be a part of another.
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        text = _NAMED_KEYS.sub(rf"\1{_HIDDEN}", _KEYS.sub(_HIDDEN, text))
        return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def configure_logging(level: str, secrets: Iterable[str]) -> None:
    """Make all loggers of this process write to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter(secrets))
    handler.addFilter(RequestFilter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # urllib3 warns about each connection that Azure has closed, which is normal.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    # azure-identity warns of each attempt that fails, and quotes answers. azure/credentials.py logs one line a minute.
    for name in ("azure", "msal"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # At DEBUG, pymongo logs every command with its values: prompts, users, and keys that somebody sent
    # instead of their id.
    logging.getLogger("pymongo").setLevel(logging.INFO)
