"""What Azure stores belongs to the user who made it.

All users share the key of Azure's resource, and with it everybody could read, continue and delete what Azure has stored
for another one. So the gateway knows whose each identifier is. To anybody else, an identifier does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ..accounts.principal import Principal
from ..errors import StoredNotFound
from ..interfaces import StoredResponses
from ..records import Owned
from .operations.operation import Reference
from .request import UpstreamRequest

FRESH_SECONDS = 60.0
"""Azure may not find a response for some time after its end (dotnet/extensions#7704, 2026-08). Within this time, the
gateway asks it once more."""

SETTLING_SECONDS = 0.3
"""The pause before that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRequest:
    """What a client asks about a response that Azure stores."""

    id: str
    key: str | None = field(repr=False)
    method: str
    response_id: str
    part: str = ""
    """The rest of the path, such as ``/cancel``."""
    query: Sequence[tuple[str, str]] = ()
    client_gone: Callable[[], bool] | None = None
    send_head: Callable[[], None] | None = None
    """As for :class:`~llmgateway.proxy.request.CompletionRequest`."""


def owned_by(principal: Principal, reference: Reference, stored: StoredResponses, *, param: str | None = None) -> Owned:
    """Return where Azure has what *reference* names.

    Raises:
        StoredNotFound: it does not belong to the user of *principal*.
        StoreUnavailable: whether it does is not known.
    """
    owned = stored.find(reference.id)
    if owned is not None and owned.at < principal.key.created_at.timestamp():
        # Perhaps its user was erased, and this is a namesake with a new key. A process may not know that yet.
        owned = stored.find(reference.id, anew=True)
    if owned is None or owned.user != principal.key.user:
        raise StoredNotFound(reference.id, kind=reference.kind, param=param)
    return owned


def with_stored(upstream: UpstreamRequest, principal: Principal, stored: StoredResponses) -> UpstreamRequest:
    """Check that everything that *upstream* names belongs to its user, and note what it continues.

    Raises:
        StoredNotFound, StoreUnavailable: as for :func:`owned_by`.
    """
    find = upstream.operation.references
    references = () if find is None else find(upstream.document)
    if not references:
        return upstream
    found = [(each, owned_by(principal, each, stored, param=_param(each))) for each in references]
    # A response brings its whole history into the prompt. An item brings itself; how long it is is not known.
    tokens = sum(owned.prompt_tokens + owned.completion_tokens for each, owned in found if each.kind == "response")
    items = {owned.response_id: owned.completion_tokens for each, owned in found if each.kind == "item"}
    return replace(upstream, continues=found[0][1], continued_tokens=tokens + sum(items.values()))


def _param(reference: Reference) -> str:
    return {"response": "previous_response_id", "item": "input", "container": "tools", "audio": "messages"}[
        reference.kind
    ]
