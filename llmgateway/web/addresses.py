"""Finds the endpoint that a misspelt address means, and explains addresses that mean none.

People set ``base_url`` to the address without ``/v1``, with ``/v1`` twice, to the whole address of an endpoint, or with
a query, a blank or a quote. Each client then adds the path of an endpoint. No redirect corrects that: clients would
lose the body or the method.

Only the endpoints of users, below ``/v1/`` and ``/openai/``, are found like this. The others have one spelling each: a
proxy in front may refuse ``/admin`` or ``/metrics``, and another spelling must not pass it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import Map, MapAdapter, RequestRedirect

HOME = "/"
_USERS = "/v1/"
_AZURE = "/openai/"
_DEPLOYMENTS = "deployments"
"""The word before the name of a deployment."""

_PREFIXES = frozenset(("v1", "openai", "api", "docs"))
"""What may stand before the path of an endpoint, besides other endpoints."""

_SKIPPED = _PREFIXES | {_DEPLOYMENTS}

_AROUND = " \t\r\n\xa0\u200b\ufeff\"'`\u00b4\u2018\u2019\u201c\u201d\u201e\u2026\u00ab\u00bb<>()[]{},;.:!*|&\\"
"""Characters that get into an address when it is copied from a text or from a file of settings."""

_MOST_SEGMENTS = 16
"""Of a path that is looked at: each is tried as the beginning of an endpoint."""


class ForgivingAdapter(MapAdapter):
    """werkzeug's adapter, which also finds the endpoints of users for addresses that people misspell.

    An address that is right is found as before, and takes no longer.
    """

    @classmethod
    def of(cls, bound: MapAdapter) -> ForgivingAdapter:
        """Return an adapter for the same request as *bound*."""
        return cls(
            bound.map,
            bound.server_name,
            bound.script_name,
            bound.subdomain or "",
            bound.url_scheme,
            bound.path_info,
            bound.default_method,
            bound.query_args,
        )

    def match(self, *args: Any, **kwargs: Any) -> Any:
        path = self.path_info
        # werkzeug would take '//metrics' as '/metrics', and '/' with '?api-version=1/chat/completions' as '/'.
        if not path or path == HOME or path[1] == "/":
            found = self._meant(*args, **kwargs)
            if found is None and path:
                raise NotFound
            return super().match(*args, **kwargs) if found is None else found
        try:
            return super().match(*args, **kwargs)
        except (NotFound, MethodNotAllowed, RequestRedirect):
            found = self._meant(*args, **kwargs)
            if found is None:
                raise
            return found

    def _meant(self, path_info: str | None = None, method: str | None = None, *args: Any, **kwargs: Any) -> Any:
        """Return what :meth:`match` returns for the endpoint that the address means; None if it means none."""
        path = self.path_info if path_info is None else path_info
        refused = None
        for address in _spellings(path, self.query_args, self.map):
            try:
                return super().match(address, method, *args, **kwargs)
            except MethodNotAllowed as error:
                if address != HOME:  # which is for browsers only
                    refused = refused or error
            except (NotFound, RequestRedirect):
                continue
        if refused is not None:
            raise refused
        return None


def _spellings(path: str, query: object, rules: Map) -> Iterator[str]:
    """Yield the right spellings of what *path* can mean, the longest first."""
    words = _words(rules)
    if not {".", ".."}.isdisjoint(path.split("/")):
        return
    segments = _segments(path, words)
    added = _added(query, rules) if isinstance(query, str) and words.issuperset(_unnamed(segments)) else None
    if added is not None:
        segments += _segments(added, words)
    elif set(segments) <= {"v1", "openai"}:
        if path:
            yield HOME
        return
    if len(segments) > _MOST_SEGMENTS:
        return
    for start, segment in enumerate(segments):
        rest = "/".join(segments[start:])
        yield _USERS + rest
        if segment == "openai":
            yield f"/{rest}"
        elif segment == _DEPLOYMENTS:
            yield _AZURE + rest
        if segment not in words and segments[start - 1 : start] != [_DEPLOYMENTS]:
            return


def _unnamed(segments: list[str]) -> list[str]:
    """Return *segments* without the names of deployments, which can be any word."""
    return [segment for before, segment in pairwise(["", *segments]) if before != _DEPLOYMENTS]


def _added(query: str, rules: Map) -> str | None:
    """Return the path that a client has added to the query of ``base_url``, as in '…/v1?api-version=1'.

    OpenAI's client for Python adds it as it is, the one for JavaScript escapes its slashes, and others begin with one.
    """
    paths = {path.removeprefix(_USERS).partition("/<")[0] for path in _paths(rules) if path.startswith(_USERS)}
    names = "|".join(sorted(map(re.escape, paths), reverse=True))
    found = re.search(rf"(?:/|(?<=[0-9])|(?<=preview)|(?<=latest))((?:{names})(?:/[^&]*)?)(?:&|\Z)", unquote(query))
    return None if found is None else found[1]


def _segments(path: str, words: frozenset[str]) -> list[str]:
    stripped = [segment for segment in (segment.strip(_AROUND) for segment in path.split("/")) if segment]
    # Not the names of models, which have upper and lower case.
    return [
        segment.lower() if segment.lower() in words and before.lower() != _DEPLOYMENTS else segment
        for before, segment in pairwise(["", *stripped])
    ]


def _words(rules: Map) -> frozenset[str]:
    """Return the words of which the addresses of users' endpoints consist."""
    return _PREFIXES.union(word for path in _paths(rules) for word in path.split("/") if word and "<" not in word)


def _paths(rules: Map) -> list[str]:
    return [rule.rule for rule in rules.iter_rules() if rule.rule.startswith((_USERS, _AZURE))]


def endpoints(rules: Map) -> list[str]:
    """Return the endpoints of users, such as ``POST /v1/chat/completions``."""
    return [
        f"{method} {rule.rule.replace('<path:', '{').replace('<', '{').replace('>', '}')}"
        for rule in rules.iter_rules()
        if rule.rule.startswith(_USERS)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
    ]


_CHAT = "Use chat completions, POST /v1/chat/completions"
_AT_AZURE = "Ask the admin for another way to it"
_NOT_SERVED = {
    "chat": ("stored chat completions", "Keep the answers yourself: POST /v1/chat/completions returns each one whole"),
    "videos": ("video API", _AT_AZURE),
    "realtime": ("Realtime API", f"{_CHAT}, with 'stream': true"),
    "moderations": ("moderations", "Azure's content filter checks every chat completion"),
    "files": ("files", "Put the text, or the file as a part of a message, into 'messages'"),
    "uploads": ("uploads", "Put the text, or the file as a part of a message, into 'messages'"),
    "vector_stores": ("vector stores", f"Search on your own machine, and put what you find into 'messages'. {_CHAT}"),
    "assistants": ("Assistants API", f"{_CHAT}, and send the whole conversation each time"),
    "threads": ("Assistants API", f"{_CHAT}, and send the whole conversation each time"),
    "conversations": ("Conversations API", f"{_CHAT}, and send the whole conversation each time"),
    "chatkit": ("ChatKit", _CHAT),
    "containers": ("containers", f"Run code on your own machine, with tools. {_CHAT}"),
    "batches": ("batches", "Send the requests one after the other to POST /v1/chat/completions"),
    "batch": ("batches", "Send the requests one after the other to POST /v1/chat/completions"),
    "fine_tuning": ("fine-tuning", "Ask the admin, who can do this in Azure's portal"),
    "fine-tunes": ("fine-tuning", "Ask the admin, who can do this in Azure's portal"),
    "skills": ("skills", f"Put the instructions into 'messages'. {_CHAT}"),
    "evals": ("evals", f"Compare the answers on your own machine. {_CHAT}"),
    "engines": ("engines API", f"GET /v1/models lists the models. {_CHAT}"),
    "edits": ("edits", _CHAT),
    "organization": ("administration API", "GET /v1/me shows what you have used; ask the admin for more"),
    "dashboard": ("billing pages", "GET /v1/me shows what you have used"),
}
"""What OpenAI's API has, and this gateway has not: the first word of its path, its name, and what to do instead."""

_PARTS_NOT_SERVED = {
    "responses/compact": ("compaction", "Send 'context_management' to POST /v1/responses, or summarise with a request"),
    "responses/input_tokens": ("count of tokens", "Every answer of POST /v1/responses has 'usage'"),
    "images/variations": ("variations", "Use POST /v1/images/edits"),
    "audio/voices": ("voices of your own", "Use POST /v1/audio/speech with one of the model's voices"),
    "audio/voice_consents": ("voices of your own", "Use POST /v1/audio/speech with one of the model's voices"),
}
"""The same for parts of what it has: the first two words."""

_OTHERS = {
    "messages": ("Anthropic's API", "Set your program to an OpenAI-compatible provider"),
    "v1beta": ("Google's API", "Set your program to an OpenAI-compatible provider"),
    "generate": ("Ollama's API", "Set your program to an OpenAI-compatible provider"),
    "tags": ("Ollama's API", "Set your program to an OpenAI-compatible provider"),
}
"""The same for the APIs of others, which programs try."""


def explain(method: str, path: str, *, base_url: str, rules: Map) -> str:
    """Say what was asked for, why there is nothing, and what there is.

    Args:
        base_url: What the clients of this gateway have to set.
    """
    asked = _shown(f"{method[:20]} {without_secrets(path)[:200]}")
    served = ", ".join(endpoints(rules))
    right = f"Set base_url to {_shown(base_url[:200])}"
    reason = _reason(path)
    if reason is not None:
        return f"{reason[0]} (you asked for {asked}). {reason[1]}. {right}. It serves {served}; GET /docs shows more."
    return f"There is nothing at {asked}. {right}; clients add the rest. It serves {served}; GET /docs shows more."


def explain_method(method: str, path: str, *, base_url: str, allowed: str) -> str:
    """Say which methods an address takes, and what clients have to set if *path* is none of theirs."""
    part = _part_not_served(path)
    if part is not None:
        return f"This gateway does not serve OpenAI's {part[0]}. {part[1]}. GET /docs shows what it serves."
    hint = (
        ""
        if path.startswith((_USERS, _AZURE, "/admin/"))
        else f" Set base_url of OpenAI's clients to {_shown(base_url[:200])}."
    )
    return f"This address takes {allowed}, not {method[:20]}.{hint} GET /docs shows more."


def _reason(path: str) -> tuple[str, str] | None:
    words = _asked_words(path)
    if not words or "admin" in words:
        return None
    part = _part_not_served(path)
    if part is not None:
        return f"This gateway does not serve OpenAI's {part[0]}", part[1]
    if words[0] in _OTHERS:
        name, advice = _OTHERS[words[0]]
        return f"This gateway does not serve {name}", advice
    if words[:2] == ["chat", "completions"] and words[2:3] and words[2] in _NOT_SERVED:
        words = words[2:]
    if words[0] not in _NOT_SERVED:
        return None
    name, advice = _NOT_SERVED[words[0]]
    return f"This gateway does not serve OpenAI's {name}", advice


def _part_not_served(path: str) -> tuple[str, str] | None:
    return _PARTS_NOT_SERVED.get("/".join(_asked_words(path)[:2]))


def _asked_words(path: str) -> list[str]:
    segments = [segment.strip(_AROUND).lower() for segment in path.split("/")]
    return [word for word in _unnamed([segment for segment in segments if segment]) if word not in _SKIPPED]


def without_secrets(path: str) -> str:
    """Replace what may be a key: people also put it into the address, and messages get into logs and tickets."""
    return "/".join(
        "\u2026" if len(segment) > 12 and (len(segment) > 24 or any(map(str.isdigit, segment))) else segment
        for segment in path.split("/")
    )


def _shown(text: str) -> str:
    return "".join(char if char.isprintable() else "\ufffd" for char in text)
