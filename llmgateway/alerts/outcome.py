"""What happened when an alert was sent to one target."""

from __future__ import annotations

import socket
import ssl
from typing import NamedTuple

TIMEOUT_SECONDS = 10.0
"""For each of: connecting, and an answer."""

CERTIFICATES = (
    "Its certificate is not trusted here. Give the gateway those of your certification authority with "
    "REQUESTS_CA_BUNDLE, and use the host's name that the certificate has."
)


class Outcome(NamedTuple):
    """The result of one attempt. Contains no text that a server has sent, and no secret."""

    delivered: bool
    status: int | None = None
    """The status of HTTP, or the code of SMTP; None if there was no answer."""
    reason: str | None = None
    remedy: str | None = None


DELIVERED = Outcome(delivered=True)


def failed(reason: str, remedy: str, *, status: int | None = None) -> Outcome:
    return Outcome(delivered=False, status=status, reason=reason, remedy=remedy)


TOO_SLOW = failed(
    "There was no complete answer in time.", "Look whether the server works, and whether a firewall keeps it away."
)


def of_connection(error: BaseException) -> Outcome:
    """Return why a connection has failed, without the text of the error, which can contain a URL."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return failed("The server's certificate is not trusted.", CERTIFICATES)
        if isinstance(cause, ssl.SSLError):
            return failed(
                "TLS failed.", "Look whether the port speaks TLS: 465 is that of smtps://, 587 and 25 of smtp://."
            )
        if isinstance(cause, socket.gaierror):
            return failed("The name of the server is not known.", "Look at its spelling, and at the name servers here.")
        if isinstance(cause, ConnectionRefusedError):
            return failed("Nothing listens there.", "Look at the host and the port, and whether the server runs.")
        if isinstance(cause, TimeoutError):
            return TOO_SLOW
    return failed("The connection failed.", "Look whether the server works, and whether a firewall keeps it away.")


def _causes(error: BaseException) -> list[BaseException]:
    """Return *error* with everything that has caused it; urllib3 puts causes into ``args`` and ``reason``."""
    found: list[BaseException] = []
    left: list[object] = [error]
    while left and len(found) < 20:
        cause = left.pop(0)
        if isinstance(cause, BaseException) and cause not in found:
            found.append(cause)
            left += [*cause.args, getattr(cause, "reason", None), cause.__cause__, cause.__context__]
    return found
