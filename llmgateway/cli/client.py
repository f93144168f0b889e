"""A client for the admin API of a gateway, for programs and the command line."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from typing import IO, Any
from urllib.parse import quote, urlsplit

import requests

TIMEOUT_SECONDS = 60.0
"""The longest call, an import of 10,000 keys, takes less."""

PAGE = 1000
"""The most items of one call of a list."""


class CallFailed(Exception):
    """The gateway could not be reached, or refused the call; the text says what to do.

    Args:
        errors: What is wrong, by field or line, if the gateway said so.
        status: The status of the answer; None if there was no answer.
        code: The code of the error.
    """

    def __init__(
        self,
        message: str,
        *,
        errors: Mapping[str, Any] | None = None,
        status: int | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.errors = dict(errors or {})
        self.status = status


class Client:
    """Calls one gateway with the admin key. Not thread-safe.

    Args:
        url: Address of the gateway. The path of its API or of its pages may follow, as people paste it. Without a
            scheme it is https, or http on this machine.
        seconds: How long an answer may take.

    Raises:
        CallFailed: the address or the key cannot be used.
    """

    def __init__(self, url: str, admin_key: str, *, seconds: float = TIMEOUT_SECONDS) -> None:
        self.url = _with_scheme(url.strip()).rstrip("/").removesuffix("/v1").removesuffix("/docs")
        if not re.match(r"https?://[^/]", self.url, re.IGNORECASE):
            raise CallFailed(
                f"{self.url} is no address of a gateway: write it like http://127.0.0.1:8080.", code="invalid_url"
            )
        if not re.fullmatch(r"[\x20-\x7e\xa0-\xff]+", admin_key):  # and requests would quote it in its error
            raise CallFailed(
                "ADMIN_KEY has characters that a header cannot carry: it is not the gateway's. Copy it again.",
                code="invalid_admin_key",
            )
        self._seconds = seconds
        self._session = requests.Session()
        self._session.headers["AdminKey"] = admin_key

    @property
    def is_in_the_clear(self) -> bool:
        """Whether everybody on the way to the gateway can read the admin key."""
        return self.url.lower().startswith("http:") and not _is_here(urlsplit(self.url).hostname or "")

    def call(self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """Call ``/admin`` + *path*, and return the JSON of the answer; None if the answer is empty.

        Args:
            query: Items that are None are left out.

        Raises:
            CallFailed: there was no answer, or a refusal.
        """
        answer = self._send(method, path, params=dict(query or {}), json=body)
        return _json(answer) if answer.content else None

    def table(self, method: str, path: str, **arguments: Any) -> bytes:
        """Call as :meth:`call` does, and return the answer's bytes, which are CSV."""
        return self._send(method, path, **arguments).content

    def stream(self, method: str, path: str) -> Iterator[bytes]:
        """Call as :meth:`call` does, and yield the bytes of the answer as they arrive.

        Raises:
            CallFailed: also if the answer breaks off.
        """
        answer = self._send(method, path, stream=True)
        return self._pieces(answer)

    def _pieces(self, answer: requests.Response) -> Iterator[bytes]:
        try:
            yield from answer.iter_content(1 << 20)
        except requests.RequestException as error:
            raise CallFailed(f"The answer of {self.url} broke off. Call again.") from error

    def upload(
        self, path: str, table: IO[bytes], *, query: Mapping[str, Any] | None = None
    ) -> tuple[bytes, Mapping[str, Any]]:
        """Send a table, and return the answer's bytes and what its header says was done."""
        answer = self._send("POST", path, params=dict(query or {}), data=table, headers={"Content-Type": "text/csv"})
        return answer.content, json.loads(answer.headers.get("X-LLMGateway-Import", "{}"))

    def pages(self, path: str, *, query: Mapping[str, Any] | None = None, most: int | None = None) -> Iterator[Any]:
        """Yield the items of all pages of a list, *most* of them if it is given."""
        cursor, left = None, most
        while left is None or left > 0:
            limit = PAGE if left is None else min(left, PAGE)
            page = self.call("GET", path, query={**(query or {}), "limit": limit, "cursor": cursor})
            yield from page["items"]
            cursor, left = page["next"], None if left is None else left - len(page["items"])
            if cursor is None:
                return

    def csv_pages(self, path: str, *, query: Mapping[str, Any], most: int | None = None) -> Iterator[bytes]:
        """Yield the CSV file of each page of a list, or the only one of a report.

        Args:
            most: The most lines; None for all, also of reports, which have no pages.
        """
        cursor, left = None, most
        while True:
            limits = {} if left is None else {"limit": min(left, PAGE), "cursor": cursor}
            answer = self._send("GET", path, params={**query, **limits})
            yield answer.content
            cursor = answer.headers.get("x-next-cursor")
            if left is not None:
                left -= max(0, answer.content.count(b"\r\n") - 1)  # a page may have fewer lines than its limit
            if cursor is None or left is None or left <= 0:
                return

    def _send(self, method: str, path: str, **arguments: Any) -> requests.Response:
        try:
            # Followed, a redirect would take the header with the admin key to another server.
            answer = self._session.request(
                method, f"{self.url}/admin{path}", timeout=self._seconds, allow_redirects=False, **arguments
            )
        except requests.Timeout as error:
            raise CallFailed(f"The gateway at {self.url} did not answer within {self._seconds:g} s.") from error
        except requests.exceptions.SSLError as error:
            raise CallFailed(f"The certificate of {self.url} cannot be verified: {error}") from error
        except requests.ConnectionError as error:
            raise CallFailed(f"There is no gateway at {self.url}. Start one, or name another with --url.") from error
        except (requests.RequestException, UnicodeError) as error:
            raise CallFailed(f"{self.url} cannot be called: {error}") from error
        if answer.is_redirect:
            raise CallFailed(f"{self.url} has moved to {answer.headers['Location']}. Use that address with --url.")
        if not answer.ok:
            raise _failure(answer)
        return answer


def _with_scheme(url: str) -> str:
    if "://" in url or not re.match(r"[\w\[]", url):
        return url
    return f"http://{url}" if _is_here(urlsplit(f"//{url}").hostname or "") else f"https://{url}"


def _is_here(host: str) -> bool:
    """Whether *host* is this machine, so that nothing travels over a network."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761 section 6.3


def part(name: str) -> str:
    """Escape *name* for use as one part of a path."""
    return quote(name, safe="")


def _json(answer: requests.Response) -> Any:
    try:
        return answer.json()
    except requests.exceptions.JSONDecodeError as error:
        raise CallFailed(f"The server at {answer.url} is not an LLMGateway. Name one with --url.") from error


def _failure(answer: requests.Response) -> CallFailed:
    try:
        error = answer.json()["error"]
        # Other servers have errors of this shape, too, but ours always have all four fields.
        message, _, _, code = (error[name] for name in ("message", "type", "param", "code"))
        return CallFailed(message, errors=error.get("errors"), status=answer.status_code, code=code)
    except (requests.exceptions.JSONDecodeError, KeyError, TypeError):
        return CallFailed(
            f"The server at {answer.url} is not an LLMGateway (status {answer.status_code}). Name one with --url.",
            status=answer.status_code,
        )
