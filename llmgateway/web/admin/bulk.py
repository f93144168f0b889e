"""Changes of many keys at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...accounts.bulk import Action, InvalidToken, Item, Order
from ...errors import SelectionChanged
from ...records import moment
from .. import examples
from ..context import services
from ..errors import invalid_fields
from ..schemas.bulk import BulkAnswerSchema, BulkSchema
from . import reach
from .audit_helpers import NO_SUCH_GROUP, write_down
from .blueprint import blp
from .validity import validity_problems

_answer_schema = BulkAnswerSchema()


@blp.route("/keys/bulk", methods=["POST"])
@blp.operation(
    "Change many keys at once",
    "SelectionChanged",
    "GroupRemoved",
    description=(
        "Two calls. The first, without `token`, changes nothing: it answers with the keys that match the filter, what "
        "would happen to each, and a `token`. The second sends the same body with this token, and makes the change. "
        "If other keys match by then, nothing is changed, and the answer is 409 with a new preview. A filter that is "
        'empty is refused; `{"all": true}` selects every key. In short:\n\n'
        '* `{"filter": {"group": "ml-2026"}, "action": "block"}`; `unblock` lets them in again\n'
        '* `{"filter": {"group": "ml-2026"}, "action": "move", "changes": {"group": "ml-2027"}}`\n'
        '* `{"filter": {"expired": true}, "action": "extend", "changes": {"expires_at": "2027-10-01"}}`\n'
        '* `{"filter": {"unused_since": "2026-04-01"}, "action": "remove"}`\n'
    ),
)
@blp.arguments(BulkSchema, example=examples.BULK_REQUEST)
@blp.response(200, BulkAnswerSchema, description="The keys, oldest first.", example=examples.BULK_PREVIEW)
def change_many_keys(sent: dict[str, Any]) -> dict[str, Any]:
    order: Order = replace(sent["order"], filter=replace(sent["order"].filter, groups=reach.reach()))
    _check(order)
    bulk = services().bulk
    if sent["token"] is None:
        preview = bulk.preview(order)
        return _answer(preview.items, token=preview.token)
    try:
        items = bulk.execute(order, sent["token"])
    except InvalidToken as error:
        raise invalid_fields({"token": [str(error)]}) from error
    except SelectionChanged as error:
        preview = bulk.preview(order)
        raise SelectionChanged(_answer_schema.dump(_answer(preview.items, token=preview.token))) from error
    _write_down(order, items)
    return _answer(items, token=None)


def _check(order: Order) -> None:
    """Check what the schema cannot. Raises InvalidFields."""
    problems: dict[str, Any] = {}
    groups = services().policy.stored().groups
    to = order.changes.get("group")
    if "group" in order.changes and to is None:
        reach.refuse_leaving()
    if order.filter.group is not None and not (order.filter.group in groups and reach.reaches(order.filter.group)):
        problems["filter.group"] = ["There is no such group. GET /admin/groups lists those there are."]
    if to is not None and not (to in groups and reach.reaches(to)):
        problems["changes.group"] = [NO_SUCH_GROUP]
    dates = validity_problems(
        order.changes, now=moment(services().clock()), instead="To refuse the keys from now on, block them."
    )
    problems |= {f"changes.{name}": problem for name, problem in dates.items()}
    if problems:
        raise invalid_fields(problems)
    if to is not None and reach.reach() is not None:
        keys = (item.key for item in services().bulk.preview(order).items)
        reach.check_moved(keys, to, field="changes.group")


def _write_down(order: Order, items: Sequence[Item]) -> None:
    """Record the change in one entry, without names: these may have to be erased some day."""
    changed = [item.key.id for item in items if item.happens != "nothing"]
    shown = {name: value if value is None else str(value) for name, value in order.changes.items()}
    action = {Action.MOVE: "moved", Action.EXTEND: "extended"}.get(order.action, f"{order.action}ed")
    action = {Action.REMOVE: "removed"}.get(order.action, action)
    groups = {item.key.group for item in items if item.happens != "nothing"}
    groups |= {order.changes["group"]} if "group" in order.changes else set()
    write_down("key.bulk", "", groups=groups, after={action: len(changed), **shown, "ids": changed})


def _answer(items: Sequence[Item], *, token: str | None) -> dict[str, Any]:
    return {
        "count": len(items),
        "items": [
            {name: getattr(item.key, name) for name in _SHOWN} | {"last_used": item.last_used, "happens": item.happens}
            for item in items
        ],
        "token": token,
        "dry_run": token is not None,
    }


_SHOWN = ("id", "user", "name", "group", "email", "active", "expires_at")
