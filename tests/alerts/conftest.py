"""Sinks for alerts."""

from __future__ import annotations

import pytest

from tests.alerts.sinks import mail_sink, webhook_sink
from tests.certificates import make_certificate


@pytest.fixture
def sink():
    with webhook_sink() as sink:
        yield sink


@pytest.fixture
def certificate(tmp_path, monkeypatch):
    """One that is trusted."""
    made = make_certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(made))
    return made


@pytest.fixture
def mails():
    with mail_sink() as sink:
        yield sink
