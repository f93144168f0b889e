"""What webhooks and mail servers get, and what admins are told if they do not."""

from __future__ import annotations

import hashlib
import hmac
import re
import socket
import threading
from datetime import UTC, datetime

import pytest

from llmgateway.alerts.mail import send
from llmgateway.alerts.settings import Format, Webhook
from llmgateway.alerts.webhooks import post
from llmgateway.records import Alert
from tests.alerts.sinks import mail_sink, webhook_sink
from tests.certificates import make_certificate
from tests.servers import free_port

ALERT = Alert(
    id="alert_1",
    at=datetime(2026, 10, 31, 9, 12, 7, tzinfo=UTC),
    event="budget",
    scope="group:Büro",
    text="The group 'Büro <&>' has used 83 % of a budget of 150 USD: 日本.",
    threshold=80,
    used=124.5,
    limit=150.0,
)
SENDER = "LLMGateway <gateway@example.org>"
SECRET = "s3cret of a webhook"


def webhook(url, **fields):
    return Webhook(id="hook_1", url=url, **fields)


class TestWebhook:
    def test_gets_json_that_is_signed(self, sink):
        """The signature is that of the bytes; the fields are those of the contract, and no others."""
        outcome = post(ALERT, webhook(sink.url, secret=SECRET))

        (got,) = sink.posts
        assert (True, 200, None, None) == outcome
        expected = {
            "event": "budget",
            "text": ALERT.text,
            "scope": "group:Büro",
            "threshold": 80,
            "used": 124.5,
            "limit": 150.0,
            "at": "2026-10-31T09:12:07+00:00",
        }
        assert expected == got.json()
        signature = hmac.new(SECRET.encode(), got.body, hashlib.sha256).hexdigest()
        assert f"sha256={signature}" == got.headers["x-llmgateway-signature"]
        assert ("alert_1", "application/json") == (got.headers["x-llmgateway-alert"], got.headers["content-type"])

    def test_is_not_signed_without_a_secret(self, sink):
        """A signature with nothing would prove nothing."""
        post(ALERT, webhook(sink.url))

        assert "x-llmgateway-signature" not in sink.posts[0].headers

    def test_gets_what_slack_understands(self, sink):
        """One text, in which names cannot become links or mentions."""
        post(ALERT, webhook(sink.url, format=Format.SLACK))

        text = "The group 'Büro &lt;&amp;&gt;' has used 83 % of a budget of 150 USD: 日本."
        assert {"text": text} == sink.posts[0].json()

    def test_gets_what_teams_understands(self, sink):
        """One Adaptive Card in a message, whose text is not read as Markdown."""
        sink.answer = 202
        outcome = post(ALERT, webhook(sink.url, format=Format.TEAMS))

        message = sink.posts[0].json()
        (attachment,) = message["attachments"]
        assert (True, 202) == outcome[:2]
        assert "message" == message["type"]
        assert "application/vnd.microsoft.card.adaptive" == attachment["contentType"]
        assert "AdaptiveCard" == attachment["content"]["type"]
        (block,) = attachment["content"]["body"]
        assert {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": ALERT.text}]} == block

    def test_takes_a_user_and_a_password_of_its_url(self, sink, monkeypatch, tmp_path):
        """And none of ~/.netrc, which are for people."""
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login someone password private\n")
        monkeypatch.setenv("NETRC", str(netrc))

        post(ALERT, webhook(sink.url))
        post(ALERT, webhook(sink.url.replace("://", "://ada:p%40ss@")))

        assert "authorization" not in sink.posts[0].headers
        assert "Basic YWRhOnBAc3M=" == sink.posts[1].headers["authorization"]

    def test_redirects_are_not_followed(self, sink):
        """Neither to another server nor to another path; the admin is told."""
        with webhook_sink() as other:
            sink.answer, sink.location = 302, other.url
            outcome = post(ALERT, webhook(sink.url, secret=SECRET))
            assert [] == other.posts

        assert (False, 302) == outcome[:2]
        assert "redirects" in outcome.reason
        assert 1 == len(sink.posts)

    @pytest.mark.parametrize(
        ("status", "word"), [(401, "URL"), (404, "new one"), (410, "new one"), (500, "log"), (418, "format")]
    )
    def test_errors_are_told_with_a_remedy(self, sink, status, word):
        """Nothing of the answer is shown but its status."""
        sink.answer = status
        outcome = post(ALERT, webhook(sink.url))

        assert (False, status) == outcome[:2]
        assert str(status) in outcome.reason
        assert word in outcome.remedy
        assert "private" not in str(outcome)

    def test_a_server_that_is_not_there_is_told(self):
        """Without its URL, which may contain a secret."""
        outcome = post(ALERT, webhook(f"http://127.0.0.1:{free_port()}/hook/token-of-slack"))

        assert not outcome.delivered
        assert "Nothing listens there." == outcome.reason
        assert "token" not in str(outcome)

    def test_a_certificate_must_be_trusted(self, tmp_path, monkeypatch):
        """That of REQUESTS_CA_BUNDLE is; no other is let pass."""
        made = make_certificate(tmp_path)
        monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        with webhook_sink(made) as sink:
            refused = post(ALERT, webhook(sink.url))
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(made))
            taken = post(ALERT, webhook(sink.url))

        assert not refused.delivered
        assert "certificate" in refused.reason
        assert "REQUESTS_CA_BUNDLE" in refused.remedy
        assert taken.delivered
        assert 1 == len(sink.posts)

    def test_a_name_that_leads_to_a_forbidden_address_is_not_called(self, sink, monkeypatch):
        """The address is looked at after the connection is made, when no name server can change it any more."""
        monkeypatch.setattr("llmgateway.alerts.webhooks.is_forbidden", lambda address: address == "127.0.0.1")
        outcome = post(ALERT, webhook(sink.url))

        assert "The address is not allowed." == outcome.reason
        assert [] == sink.posts

    def test_uses_the_proxy_of_the_environment(self, sink, monkeypatch):
        """As the calls of Azure do."""
        monkeypatch.setenv("HTTP_PROXY", sink.url.removesuffix("/hook"))
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        assert post(ALERT, webhook("http://hook.example.org/alerts")).delivered

        assert "http://hook.example.org/alerts" == sink.posts[0].path

    def test_shows_no_secret(self):
        """Not even in a traceback."""
        assert "hidden" not in repr(webhook("https://example.org/hidden", secret="hidden"))


class TestMail:
    def test_is_plain_text_with_proper_headers(self, mails):
        """In UTF-8, to one address, and the same message if it is sent again."""
        for _ in range(2):
            assert (True, 250) == send(ALERT, "ada@example.org", smtp_url=mails.url, sender=SENDER)[:2]

        first, second = mails.mails
        message = first.message
        assert ("gateway@example.org", ["ada@example.org"]) == (first.sender, first.recipients)
        assert ("LLMGateway <gateway@example.org>", "ada@example.org") == (message["From"], message["To"])
        assert f"[LLMGateway] {ALERT.text}" == message["Subject"]
        assert ALERT.at == message["Date"].datetime
        assert re.fullmatch(r"<alert_1\.mail_[0-9a-f]{12}@example\.org>", message["Message-ID"])
        assert message["Message-ID"] == second.message["Message-ID"]
        assert ("text/plain", "utf-8") == (message.get_content_type(), message.get_content_charset())
        assert "auto-generated" == message["Auto-Submitted"]
        assert first.text.startswith(ALERT.text)

    def test_starttls_is_used_where_it_is_offered(self, certificate):
        """The password is sent after it."""
        with mail_sink(certificate=certificate, password="p@ss:w0rd") as sink:
            url = sink.url.replace("p@ss:w0rd", "p%40ss%3Aw0rd")
            outcome = send(ALERT, "ada@example.org", smtp_url=url, sender=SENDER)

        (mail,) = sink.mails
        assert outcome.delivered
        assert (True, "gateway") == (mail.encrypted, mail.user)
        assert sink.commands.index("STARTTLS") < next(
            index for index, line in enumerate(sink.commands) if line.startswith("AUTH")
        )

    def test_smtps_is_encrypted_from_the_beginning(self, certificate):
        """On its own port."""
        with mail_sink(certificate=certificate, tls_first=True, password="pass") as sink:
            outcome = send(ALERT, "ada@example.org", smtp_url=sink.url, sender=SENDER)

        assert outcome.delivered
        assert sink.mails[0].encrypted

    @pytest.mark.parametrize("tls_first", [False, True])
    def test_a_certificate_must_be_trusted(self, tmp_path, monkeypatch, tls_first):
        """No password goes to a server that cannot prove who it is."""
        monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        with mail_sink(certificate=make_certificate(tmp_path), tls_first=tls_first, password="pass") as sink:
            outcome = send(ALERT, "ada@example.org", smtp_url=sink.url, sender=SENDER)

        assert not outcome.delivered
        assert "certificate" in outcome.reason
        assert "REQUESTS_CA_BUNDLE" in outcome.remedy
        assert [] == sink.mails
        assert not any(line.startswith("AUTH") for line in sink.commands)

    def test_a_server_on_this_machine_may_do_without_starttls(self, tmp_path, monkeypatch):
        """If the admin says so: its certificate is often made for nobody."""
        monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        with mail_sink(certificate=make_certificate(tmp_path)) as sink:
            refused = send(ALERT, "ada@example.org", smtp_url=sink.url, sender=SENDER)
            assert "?starttls=no" in refused.remedy
            assert send(ALERT, "ada@example.org", smtp_url=f"{sink.url}?starttls=no", sender=SENDER).delivered

        assert not sink.mails[0].encrypted

    def test_another_machine_must_offer_starttls(self, mails, monkeypatch):
        """Else anybody on the way could take it out, and read along."""
        monkeypatch.setattr("llmgateway.alerts.mail.is_loopback", lambda _: False)
        outcome = send(ALERT, "ada@example.org", smtp_url=f"{mails.url}?starttls=no", sender=SENDER)

        assert "STARTTLS" in outcome.reason
        assert "smtps://" in outcome.remedy
        assert [] == mails.mails

    def test_refusals_are_told_with_their_code(self, certificate):
        """Of the password, of the recipient; without the server's words."""
        with mail_sink(certificate=certificate, password="right", refuses={"no@example.org"}) as sink:
            wrong = send(ALERT, "ada@example.org", smtp_url=sink.url.replace("right", "wr0ng"), sender=SENDER)
            unknown = send(ALERT, "no@example.org", smtp_url=sink.url, sender=SENDER)

        assert [(False, 535), (False, 550)] == [wrong[:2], unknown[:2]]
        assert "password" in wrong.reason
        assert "recipient" in unknown.reason
        assert "private" not in f"{wrong}{unknown}"
        assert "wr0ng" not in f"{wrong}{unknown}"

    def test_a_server_that_is_not_there_is_told(self):
        """And one that speaks something else."""
        outcome = send(ALERT, "ada@example.org", smtp_url=f"smtp://127.0.0.1:{free_port()}", sender=SENDER)
        assert "Nothing listens there." == outcome.reason

        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(10)
            port = listener.getsockname()[1]

            def hang_up():
                client, _ = listener.accept()
                client.close()

            thread = threading.Thread(target=hang_up)
            thread.start()
            outcome = send(ALERT, "ada@example.org", smtp_url=f"smtp://127.0.0.1:{port}", sender=SENDER)
            thread.join(10)
        assert not outcome.delivered
        assert outcome.remedy

    def test_no_text_breaks_the_headers(self, mails):
        """Line breaks in a name become blanks."""
        alert = Alert(
            id="alert_2", at=ALERT.at, event="price", scope="x", text="A\r\nBcc: eve@example.org\n" + "x" * 500
        )
        assert send(alert, "ada@example.org", smtp_url=mails.url, sender=SENDER).delivered

        (mail,) = mails.mails
        assert mail.message["Bcc"] is None
        assert ["ada@example.org"] == mail.recipients
        assert len(mail.message["Subject"]) < 150
