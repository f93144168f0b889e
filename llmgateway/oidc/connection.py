"""HTTP with the provider: bounded in time and size, no redirects, and nothing of what it says is passed on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import requests

from ..clock import Timer
from ..errors import GrantEnded

if TYPE_CHECKING:
    from authlib.integrations.requests_client import OAuth2Session


class Unreachable(Exception):
    """The provider does not answer, not in time, or with an error of its own.

    Attributes:
        rests: Whether it is of no use to ask again at once. An error in answer to a code says nothing about others:
            anybody can send one that a provider stumbles over.
    """

    def __init__(self, text: str, *, rests: bool = True) -> None:
        super().__init__(text)
        self.rests = rests


class Unreadable(Exception):
    """The provider's answer is not what the standards say."""


class Connection:
    """Calls to the provider, for one thread.

    Args:
        client: Authlib's, which is also a session of requests.
    """

    def __init__(self, client: OAuth2Session) -> None:
        self.client = client

    @classmethod
    @contextmanager
    def open(cls, client_id: str, client_secret: str, timer: Timer = time.monotonic) -> Iterator[Connection]:
        # Imported here: it takes a third of a second, and nobody needs it without a provider.
        from .client import BoundedClient

        with BoundedClient(client_id, client_secret, timer=timer) as client:
            yield cls(client)

    def get(self, url: str, *, bearer: str | None = None) -> Mapping[str, Any]:
        """Return the JSON object at *url*."""
        headers = {"Accept": "application/json"}
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        with _translated():
            response = self.client.request("GET", url, withhold_token=True, headers=headers)
            if response.status_code != 200:
                raise _status(response.status_code)
            return _object(response.json())

    def exchange(self, url: str, *, auth_method: str, **parameters: str) -> Mapping[str, Any]:
        """Exchange a code for tokens. Raises GrantEnded if the provider refuses it."""
        self.client.token_endpoint_auth_method = auth_method
        with _translated():
            return _tokens(self.client.fetch_token(url, grant_type="authorization_code", **parameters))

    def renew(self, url: str, token: str, *, auth_method: str) -> Mapping[str, Any]:
        """Exchange a refresh token. Raises GrantEnded if the provider refuses it."""
        self.client.token_endpoint_auth_method = auth_method
        with _translated():
            return _tokens(self.client.refresh_token(url, refresh_token=token))


@contextmanager
def _translated() -> Iterator[None]:
    """Translate what goes wrong, without what was sent and received: it goes into the log."""
    from authlib.integrations.base_client import OAuthError

    try:
        yield
    except OAuthError as error:
        code = str(error.error)[:50]
        if code == "invalid_grant":
            raise GrantEnded from None
        raise Unreadable(f"it refuses our request: {code!a}") from None
    except requests.JSONDecodeError:
        raise Unreadable("it has sent something else than JSON") from None
    except requests.HTTPError as error:
        raise _status(0 if error.response is None else error.response.status_code, rests=False) from None
    except (requests.RequestException, TimeoutError) as error:
        raise Unreachable(f"it does not answer: {type(error).__name__}") from None
    except ValueError as error:  # Authlib: what it has sent is no JSON object
        raise Unreadable(f"it has sent something else than tokens: {type(error).__name__}") from None


def _status(status: int, *, rests: bool = True) -> Unreachable | Unreadable:
    text = f"it answers with status {status}"
    return Unreachable(text, rests=rests) if status >= 500 or status == 429 else Unreadable(text)


def _object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Unreadable("it has sent no JSON object")
    return value


def _tokens(value: object) -> Mapping[str, Any]:
    answer = _object(value)
    if not isinstance(answer.get("access_token"), str):
        raise Unreadable("it has sent no tokens")
    return answer
