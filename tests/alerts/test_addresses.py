"""Which addresses are taken, and what is shown of them."""

from __future__ import annotations

import pytest

from llmgateway.alerts.addresses import (
    is_forbidden,
    problem_of_mail_address,
    problem_of_sender,
    problem_of_smtp,
    problem_of_webhook,
    read_smtp,
    shown_smtp,
    shown_webhook,
    split_sender,
)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/hook",
        "http://127.0.0.1:8000",
        "http://intranet/hook?token=1",
        "HTTPS://10.0.0.7/x",
        "https://ada:p%40ss@example.org/",
        "http://[::1]:8000/",
        "http://169.253.1.1/",
    ],
)
def test_webhooks_may_be_anywhere(url):
    """Also on the internal network: it is the admin's."""
    assert problem_of_webhook(url) is None


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.org", "ftp://example.org", "file:///etc/passwd", "gopher://x/", "https://", "https:///x"),
        *("http://example.org:0/", "http://example.org:99999/", "http://example.org:x/", "http://[::1/"),
        *(
            "http://example.org/\r\nHost: x",
            "http://example.org/a b",
            "http://example.org/\x00",
            "https://exämple.org/",
        ),
        *("http://example.org\\@evil.org/", "http://example.org/#part", "http://example.org/" + "x" * 2000),
    ],
)
def test_what_is_no_webhook_is_refused(url):
    """With the reason."""
    assert problem_of_webhook(url)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "169.254.169.254",
            "169.254.170.2",
            "[fe80::1]",
            "[fd00:ec2::254]",
            "[fd20:ce::254]",
            "100.100.100.200",
            "192.0.0.192",
            "[::]",
            "[::ffff:169.254.169.254]",
            "168.63.129.16",
        ),
        *("2852039166", "0xA9FEA9FE", "0251.0376.0251.0376", "169.254.43518", "0.0.0.0", "[::ffff:a9fe:a9fe]"),
        *("metadata.google.internal", "METADATA.google.internal.", "[64:ff9b::a9fe:a9fe]"),
    ],
)
def test_addresses_that_give_out_credentials_are_refused(host):
    """However they are written."""
    assert "credentials of the machine" in problem_of_webhook(f"http://{host}/latest/meta-data")
    assert "credentials of the machine" in problem_of_smtp(f"smtp://{host}")


def test_addresses_of_connections():
    """As the system names them."""
    assert [True, True, False, False, False] == [
        is_forbidden(address) for address in ("169.254.169.254", "fe80::1%eth0", "127.0.0.1", "::1", "no address")
    ]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.example.org", ("mail.example.org", 587, None, None, False, True)),
        ("smtps://ada:p%40s%3As@mail.example.org", ("mail.example.org", 465, "ada", "p@s:s", True, True)),
        ("smtp://localhost:25?starttls=no", ("localhost", 25, None, None, False, False)),
        ("smtp://127.0.0.1:2525/", ("127.0.0.1", 2525, None, None, False, True)),
        ("smtp://ada@[::1]", ("::1", 587, "ada", None, False, True)),
    ],
)
def test_mail_servers(url, expected):
    """With their usual ports."""
    assert problem_of_smtp(url) is None
    assert expected == read_smtp(url)


@pytest.mark.parametrize(
    "url",
    [
        *("mail.example.org", "http://mail.example.org", "smtp://", "smtp://h:0", "smtp://h:x", "smtp://h/path"),
        *("smtp://mail.example.org?starttls=no", "smtp://localhost?tls=no", "smtp://:pass@h", "smtp://h\r\nX"),
        *("smtp://a%0d%0ab:c@h", "smtp://a:b%0Ac@h", "smtp://[::1"),
    ],
)
def test_what_is_no_mail_server_is_refused(url):
    """With the reason."""
    assert problem_of_smtp(url)


@pytest.mark.parametrize("address", ["ada@example.org", "a.b+c_d@sub.example-1.org", "root@localhost"])
def test_mail_addresses(address):
    assert problem_of_mail_address(address) is None


@pytest.mark.parametrize(
    "address",
    [
        *(
            "",
            "ada",
            "@example.org",
            "ada@",
            "ada@@example.org",
            "ada@example..org",
            ".a@example.org",
            "a.@example.org",
        ),
        *("ada@-example.org", "ada@example.org\r\nBcc: eve@example.org", "ada@example.org,eve@example.org"),
        *("Ada <ada@example.org>", "ada @example.org", "ada@exämple.org", "ada\x00@example.org", "a" * 65 + "@b.org"),
    ],
)
def test_what_is_no_mail_address_is_refused(address):
    assert problem_of_mail_address(address)


def test_senders():
    """An address, with a name if somebody likes."""
    assert ("LLM Gateway", "g@example.org") == split_sender("LLM Gateway <g@example.org>")
    assert ("", "g@example.org") == split_sender("g@example.org")
    assert problem_of_sender("Büro <g@example.org>") is None
    for wrong in (
        "",
        "Gateway",
        "A <b>",
        "A\r\nBcc: x <g@example.org>",
        'A" <g@example.org>',
        "x" * 101 + " <g@e.org>",
    ):
        assert problem_of_sender(wrong), wrong


@pytest.mark.parametrize(
    ("url", "hides_path", "shown"),
    [
        ("https://example.org/hook", False, "https://example.org/hook"),
        ("http://127.0.0.1:8000", False, "http://127.0.0.1:8000"),
        ("https://ada:secret@example.org/a/b?token=secret", False, "https://***@example.org/a/b?***"),
        (
            "https://discord.com/api/webhooks/1/abcdefghijklmnopqrstuvwxyz",
            False,
            "https://discord.com/api/webhooks/1/***",
        ),
        ("https://hooks.slack.com/services/T0/B0/secret", True, "https://hooks.slack.com/services/***"),
        ("https://h.org:443/workflows/x/triggers/m?sig=secret", True, "https://h.org:443/workflows/***?***"),
    ],
)
def test_what_may_be_secret_is_not_shown(url, hides_path, shown):
    """The URL itself is a password for some servers."""
    assert shown == shown_webhook(url, hides_path=hides_path)


def test_passwords_of_mail_servers_are_not_shown():
    """The user and the options are."""
    assert "smtp://a%40b@localhost:25?starttls=no" == shown_smtp("smtp://a%40b:secret@localhost:25?starttls=no")
    assert "smtps://h" == shown_smtp("smtps://h")
