"""Pages of keys: searched, filtered, and sorted by what keys say or by what was used with them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ...records import KEY_ORDERS, KeyQuery, KeyRecord, KeyState, moment
from ..context import services
from . import reach
from .lists import Order, by_spending, offset_of, place

_NEVER = datetime.min.replace(tzinfo=UTC)


class KeyPage(NamedTuple):
    """A page of a list of keys."""

    keys: Sequence[KeyRecord]
    place: dict[str, Any]
    """The fields of the answer that say where the page is."""


def key_page(query: Mapping[str, Any]) -> KeyPage:
    """Return the page of keys that *query* asks for. Only keys that exist for this admin are on it.

    Raises:
        InvalidFields: the cursor belongs to a list in another order.
        NotFound: there is no such group for this admin.
    """
    reach.check_filter(query.get("group"))
    state = query.get("state") or None
    wanted = KeyQuery(
        text=query.get("q") or None,
        state=None if state is None else KeyState(state),
        now=moment(services().clock()),
        groups=reach.reach(),
        **{name: query[name] for name in ("user", "group", "active") if name in query},
    )
    if not query.get("sort"):
        return _by_id(wanted, query)
    order = Order.of(query, "")
    if order.name in KEY_ORDERS:
        return _numbered(replace(wanted, order=order.name, descending=order.descending), query)
    return _of(_by_usage(services().keys.ids(wanted), order), query)


def _by_id(wanted: KeyQuery, query: Mapping[str, Any]) -> KeyPage:
    """Return a page in the order of the identifiers, whose cursor is the last identifier of the page before.

    So no key is missed or seen twice, whatever is added or removed in between.
    """
    limit, cursor = query["limit"], query.get("cursor") or ""
    if wanted.text is None:
        total = services().keys.count(wanted)
        offset = 0 if cursor else offset_of(query)
        found = services().keys.list(replace(wanted, after=cursor, offset=offset, limit=limit + 1))
        more = len(found) > limit
    else:
        # Looking for a text takes long, so it is done once: for the page and for the total.
        ids = services().keys.ids(wanted)
        total, offset = len(ids), bisect_right(ids, cursor) if cursor else offset_of(query)
        found = _in_order(ids[offset : offset + limit])
        more = offset + limit < total
    page = found[:limit]
    return KeyPage(page, {"total": total, "next": page[-1].id if more and page else None})


def _numbered(wanted: KeyQuery, query: Mapping[str, Any]) -> KeyPage:
    if wanted.text is not None:
        return _of(services().keys.ids(wanted), query)
    offset, limit = offset_of(query), query["limit"]
    page = services().keys.list(replace(wanted, offset=offset, limit=limit))
    return KeyPage(page, place(offset + limit, total=services().keys.count(wanted)))


def _of(ids: Sequence[str], query: Mapping[str, Any]) -> KeyPage:
    offset, limit = offset_of(query), query["limit"]
    return KeyPage(_in_order(ids[offset : offset + limit]), place(offset + limit, total=len(ids)))


def _in_order(ids: Sequence[str]) -> list[KeyRecord]:
    """Return those of these keys that still exist, in this order."""
    found = {record.id: record for record in services().keys.get_all(ids)} if ids else {}
    return [found[key_id] for key_id in ids if key_id in found]


def _by_usage(ids: Sequence[str], order: Order) -> Sequence[str]:
    if order.name == "spent":
        return by_spending(ids, "key", descending=order.descending)
    last_used = services().usage_log.last_used(ids)
    return sorted(ids, key=lambda key_id: last_used.get(key_id, _NEVER), reverse=order.descending)
