"""The admin API of a gateway somewhere, for programs and the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Any
from urllib.parse import quote

import requests

TIMEOUT_SECONDS = 60.0
"""Longer than a class of keys takes to be stored."""


class CallFailed(Exception):
    """The gateway could not be asked, or refused; the text says what to do.

    Args:
        errors: What is wrong, by field or line, where the gateway said so.
        status: The answer's; None where there was none.
    """

    def __init__(self, message: str, *, errors: Mapping[str, Any] | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.errors = dict(errors or {})
        self.status = status


class Client:
    """Calls one gateway with the admin key. Not thread-safe.

    Args:
        url: Of the gateway; with the path of its API behind it, as people paste it, too.
    """

    def __init__(self, url: str, admin_key: str) -> None:
        self.url = url.rstrip("/").removesuffix("/v1").removesuffix("/docs")
        self._session = requests.Session()
        self._session.headers["AdminKey"] = admin_key

    def call(self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """Call ``/admin`` + *path*, and return the JSON that it answers; None for nothing.

        Args:
            query: Items that are None are left out.

        Raises:
            CallFailed: no answer, or a refusal.
        """
        answer = self._send(method, path, params=dict(query or {}), json=body)
        return _json(answer) if answer.content else None

    def table(self, method: str, path: str, **arguments: Any) -> bytes:
        """As :meth:`call`, for CSV."""
        return self._send(method, path, **arguments).content

    def upload(self, path: str, table: IO[bytes]) -> bytes:
        """Send a CSV file, and return the one that comes back."""
        return self.table("POST", path, data=table, headers={"Content-Type": "text/csv"})

    def pages(self, path: str, *, query: Mapping[str, Any] | None = None, most: int | None = None) -> Iterator[Any]:
        """The items of all pages of a list, or *most* of them."""
        cursor, left = None, most
        while left is None or left > 0:
            limit = 1000 if left is None else min(left, 1000)
            page = self.call("GET", path, query={**(query or {}), "limit": limit, "cursor": cursor})
            yield from page["items"]
            cursor, left = page["next"], None if left is None else left - len(page["items"])
            if cursor is None:
                return

    def _send(self, method: str, path: str, **arguments: Any) -> requests.Response:
        try:
            # The header with the admin key would go along to wherever a redirect leads.
            answer = self._session.request(
                method, f"{self.url}/admin{path}", timeout=TIMEOUT_SECONDS, allow_redirects=False, **arguments
            )
        except requests.Timeout as error:
            raise CallFailed(f"The gateway at {self.url} did not answer within {TIMEOUT_SECONDS:g} s.") from error
        except requests.exceptions.SSLError as error:
            raise CallFailed(f"The certificate of {self.url} is not to be trusted: {error}") from error
        except requests.ConnectionError as error:
            raise CallFailed(f"There is no gateway at {self.url}. Start one, or name another with --url.") from error
        except (requests.RequestException, UnicodeError) as error:
            raise CallFailed(f"{self.url} cannot be called: {error}") from error
        if answer.is_redirect:
            raise CallFailed(f"{self.url} has moved to {answer.headers['Location']}. Name that with --url.")
        if not answer.ok:
            raise _failure(answer)
        return answer


def part(name: str) -> str:
    """*name* as one part of a path."""
    return quote(name, safe="")


def _json(answer: requests.Response) -> Any:
    try:
        return answer.json()
    except requests.exceptions.JSONDecodeError as error:
        raise CallFailed(f"What answers at {answer.url} is no LLMGateway. Name one with --url.") from error


def _failure(answer: requests.Response) -> CallFailed:
    try:
        error = answer.json()["error"]
        # Others have errors like these, too, but not all four of the fields that ours always have.
        message, _, _, _ = (error[name] for name in ("message", "type", "param", "code"))
        return CallFailed(message, errors=error.get("errors"), status=answer.status_code)
    except (requests.exceptions.JSONDecodeError, KeyError, TypeError):
        return CallFailed(
            f"What answers at {answer.url} is no LLMGateway (status {answer.status_code}). Name one with --url.",
            status=answer.status_code,
        )
