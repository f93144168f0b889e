"""oidc-provider-mock, which somebody else has written, as a process of its own; and a browser without script."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import requests

from tests.servers import Server


class MockProvider(Server):
    """An OpenID Connect provider whose people sign in with one click.

    Args:
        people: The claims of each, with ``sub``.
    """

    def __init__(self, people: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}"
        self._people = people

    def _command(self) -> list[str]:
        people = [part for each in self._people for part in ("--user-claims", json.dumps(each))]
        return [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(self.port), *people]

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/jwks", timeout=1).ok
        except requests.ConnectionError:
            return False

    def consent(self, address: str, sub: str) -> str:
        """Sign in at its page at *address*, and return the path and the query to which the browser is sent back."""
        answer = requests.post(address, data={"sub": sub}, allow_redirects=False, timeout=10)
        assert 302 == answer.status_code, answer.text
        back = urlsplit(answer.headers["Location"])
        return f"{back.path}?{back.query}"

    def forget_refresh_tokens(self, sub: str) -> None:
        """End everything that *sub* has been given, as when an account is removed."""
        answer = requests.post(f"{self.url}/users/{sub}/revoke-tokens", timeout=10)
        assert answer.ok, answer.text
