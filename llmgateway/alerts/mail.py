"""Sends alerts by e-mail."""

from __future__ import annotations

import os
import smtplib
import ssl
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from ..records import Alert
from .addresses import FORBIDDEN, SMTPServer, is_forbidden, is_loopback, read_smtp, split_sender
from .outcome import DELIVERED, TIMEOUT_SECONDS, Outcome, failed, of_connection
from .settings import Mailbox

LONGEST_SUBJECT = 120

_SAME_MACHINE = " A server on this machine may do without: add ?starttls=no to smtp_url."


def message_of(alert: Alert, *, sender: str, recipient: str) -> EmailMessage:
    """Return *alert* as an e-mail of plain text. Its ``Message-ID`` is the same if it is sent again."""
    name, address = split_sender(sender)
    domain = address.rpartition("@")[2]
    first = " ".join(alert.text.split("\n", 1)[0].split())
    subject = first if len(first) <= LONGEST_SUBJECT else f"{first[: LONGEST_SUBJECT - 1]}…"
    message = EmailMessage(policy=SMTP)
    message["From"] = Address(display_name=name, addr_spec=address)
    message["To"] = Address(addr_spec=recipient)
    message["Subject"] = f"[LLMGateway] {subject}"
    message["Date"] = format_datetime(alert.at)
    message["Message-ID"] = f"<{alert.id}.{Mailbox(address=recipient).id}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's out-of-office note answers
    lines = [alert.text, "", f"Event: {alert.event}", f"About: {alert.scope}", f"At: {alert.at:%Y-%m-%d %H:%M:%S} UTC"]
    message.set_content("\n".join(lines) + "\n", charset="utf-8")
    return message


def send(alert: Alert, recipient: str, *, smtp_url: str | None, sender: str | None) -> Outcome:
    """Send *alert* once to one address."""
    if smtp_url is None or sender is None:
        return failed(
            "There is no readable smtp_url and from: SECRET_KEY may have changed.", "Set smtp_url and from again."
        )
    server = read_smtp(smtp_url)
    message = message_of(alert, sender=sender, recipient=recipient)
    try:
        with _connected(server) as connection:
            problem = _prepare(connection, server)
            if problem is not None:
                return problem
            connection.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        code = next(iter(error.recipients.values()))[0]
        return failed(f"The server refuses the recipient ({code}).", "Look at the address.", status=code)
    except smtplib.SMTPSenderRefused as error:
        return failed(
            f"The server refuses the sender ({error.smtp_code}).",
            "Set 'from' to an address that this user may send from.",
            status=error.smtp_code,
        )
    except smtplib.SMTPAuthenticationError as error:
        return failed(
            f"The server refuses the user and the password ({error.smtp_code}).",
            "Set smtp_url with the right ones; write %40 for an @ in them.",
            status=error.smtp_code,
        )
    except smtplib.SMTPNotSupportedError:
        return failed("The server knows no way to log in.", "Remove the user and the password from smtp_url.")
    except smtplib.SMTPResponseException as error:
        return failed(
            f"The server answered {error.smtp_code}.", "Look at the server's log.", status=max(0, error.smtp_code)
        )
    except smtplib.SMTPServerDisconnected as error:
        return of_connection(error)
    except (OSError, ValueError) as error:  # smtplib's errors are OSErrors
        return of_connection(error)
    return DELIVERED._replace(status=250)


def _connected(server: SMTPServer) -> smtplib.SMTP:
    if server.encrypted:
        return smtplib.SMTP_SSL(server.host, server.port, timeout=TIMEOUT_SECONDS, context=_tls())
    return smtplib.SMTP(server.host, server.port, timeout=TIMEOUT_SECONDS)


def _prepare(connection: smtplib.SMTP, server: SMTPServer) -> Outcome | None:
    """Encrypt the connection and log in. Return why that is not possible, or None."""
    address = str(connection.sock.getpeername()[0]) if connection.sock is not None else ""
    if is_forbidden(address):
        return failed("The address is not allowed.", FORBIDDEN)
    same_machine = is_loopback(address)
    connection.ehlo()
    if not server.encrypted and (server.starttls or not same_machine):
        if connection.has_extn("starttls"):
            try:
                connection.starttls(context=_tls())
            except ssl.SSLError as error:
                outcome = of_connection(error)
                remedy = (outcome.remedy or "") + (_SAME_MACHINE if same_machine else "")
                return outcome._replace(remedy=remedy)
            connection.ehlo()
        elif not same_machine:
            return failed(
                "The server does not offer STARTTLS, so nothing was sent.",
                "Use smtps:// with its port for TLS (465), or have STARTTLS switched on there.",
            )
    if server.user is not None:
        connection.login(server.user, server.password or "")
    return None


def _tls() -> ssl.SSLContext:
    """Return a context that trusts what requests trusts."""
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or DEFAULT_CA_BUNDLE_PATH
    if os.path.isdir(bundle):
        return ssl.create_default_context(capath=bundle)
    return ssl.create_default_context(cafile=bundle)
