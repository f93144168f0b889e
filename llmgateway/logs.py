"""What operators read: one line for each event on standard error, without secrets."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable

from .accounts.keys import PREFIX

_HIDDEN = "[hidden]"

# Our own made-up keys and anything that travels as a credential, for whatever reason it got there.
_KEYS = re.compile(
    rf"{PREFIX}[\w-]+|(?<=bearer )[^\s'\"]+|(?<=://)[^\s/@]+(?=@)",
    re.IGNORECASE,
)
# As a header's line, and as one of a dict.
_NAMED_KEYS = re.compile(
    r"((?:adminkey|api-key|ocp-apim-subscription-key)['\"]?: ?['\"]?)[^\s'\"]+",
    re.IGNORECASE,
)


class RedactingFormatter(logging.Formatter):
    """Formats a record, traceback included, and hides what must not be read.

    Args:
        secrets: Values that are hidden wherever they turn up.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime
        # The longest first: one secret may be a part of another.
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return _NAMED_KEYS.sub(rf"\1{_HIDDEN}", _KEYS.sub(_HIDDEN, text))


def configure_logging(level: str, secrets: Iterable[str]) -> None:
    """Send every logger of this process to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter(secrets))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # It warns for every request that finds its connection closed by Azure, which is normal.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    # At DEBUG it logs every command with its values: prompts, users, and keys that were pasted
    # where an id belongs.
    logging.getLogger("pymongo").setLevel(logging.INFO)
