"""Reads Azure's errors: which of them Azure bills, and which say that there is no such model."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from .answers import parse_object
from .booking import REQUEST_TIMEOUT
from .error_codes import error_code, error_message
from .events import LINE_ENDS, read_fields, split_events

# In lower case and without separators, as the codes below are compared.
_FILTERED = frozenset(("contentfilter", "contentfiltered", "responsibleaipolicyviolation", "contentpolicyviolation"))
_UNKNOWN_MODEL = frozenset(
    ("deploymentnotfound", "modelnotfound", "unknownmodel", "deploymentmissing", "nosuchdeployment", "unavailablemodel")
)
_LIMITED = frozenset(("429", "ratelimitexceeded", "ratelimiterror", "toomanyrequests", "ratelimitreached"))
_FAILED = frozenset(
    (
        *("500", "502", "503", "504", "servererror", "internalservererror", "internalerror", "internalfailure"),
        *("serviceunavailable", "serverbusy", "engineoverloaded", "overloaded", "badgateway", "gatewaytimeout"),
        *("timeout", "noanswer"),
    )
)


class AzureError:
    """An answer of Azure that is an error, read to its end."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body

    @cached_property
    def document(self) -> dict[str, Any] | None:
        """The object in the body, also if it was sent as an event; None if there is none."""
        document = parse_object(self.body)
        if document is not None:
            return document
        events = split_events(self.body.removeprefix(BOM_UTF8))[0]
        found = (parse_object(read_fields(event.lstrip(LINE_ENDS))[1]) for event in events)
        return next((each for each in found if each is not None), None)

    @property
    def code(self) -> str:
        """A short name for the error: Azure's code if it has one that is a word, else the status."""
        if not _FILTERED.isdisjoint(self._codes):
            return "content_filter"
        return error_code(self.document) or str(self.status)

    @property
    def message(self) -> str:
        """What Azure says, in one line and cut; "" if it says nothing. May quote the client: not for the log."""
        return error_message(self.document)

    @property
    def is_billed(self) -> bool:
        """Whether Azure bills the prompt: 408, and 400 by the content filter, which evaluates the prompt.

        Microsoft documents it for these only ("Manage costs for Azure OpenAI", 2024 and 2026).
        """
        if self.status == REQUEST_TIMEOUT:
            return True
        return self.status == 400 and not _FILTERED.isdisjoint(self._codes)

    @property
    def says_unknown_model(self) -> bool:
        """Whether Azure says that it has no such deployment or model."""
        return self.status == 404 or (self.status == 400 and not _UNKNOWN_MODEL.isdisjoint(self._codes))

    @property
    def failure(self) -> int | None:
        """429 or 500 if the error's codes say that the deployment cannot answer now; None if they say anything else."""
        codes = self._codes
        if not _LIMITED.isdisjoint(codes):
            return 429
        return None if _FAILED.isdisjoint(codes) else 500

    @cached_property
    def _codes(self) -> frozenset[str]:
        return frozenset(_plain(code) for code in _codes(self.document))


def _codes(document: Any) -> Iterator[str]:
    """Yield the codes of the error and of the errors within it, however they are nested."""
    unvisited = [document]
    while unvisited:
        value = unvisited.pop()
        if not isinstance(value, dict):
            continue
        for name, child in value.items():
            if name.lower() in ("code", "type", "status") and isinstance(child, str | int):
                yield str(child)
            elif name.lower() in ("error", "innererror", "inner_error"):
                unvisited.append(child)
            elif name.lower() == "details" and isinstance(child, list):
                unvisited.extend(child)


def _plain(code: str) -> str:
    return code.lower().replace("_", "").replace("-", "").replace(" ", "")
