"""What people may make themselves outside of all groups. What they may make in a group is set with the group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ...accounts.self_service import DOCUMENT
from ...records import Group, SelfService
from .. import examples
from ..context import services
from ..errors import invalid_fields
from ..schemas.self_service import WithoutGroupInForceSchema, WithoutGroupSchema
from . import etags, reach
from .audit_helpers import Replaced, write_down
from .blueprint import blp

_schema = WithoutGroupInForceSchema()


@blp.route("/self-service", methods=["GET"])
@blp.operation(
    "Read what people may make themselves",
    description="Outside of all groups. `GET /admin/groups/{name}` has what the members of a group may make in it.",
)
@blp.response(200, WithoutGroupInForceSchema, description="In force.", example=examples.WITHOUT_GROUP)
def get_self_service() -> dict[str, Any]:
    shown = _shown(services().policy.stored().documents.get(DOCUMENT, {}))
    etags.show(shown)
    return shown


@blp.route("/self-service", methods=["PUT"])
@blp.operation(
    "Set what people may make themselves",
    description=(
        "Keys without a group, by everybody who signs in to the dashboard with an account of the organisation. "
        '`{"without_group": null}` ends it; the keys that were made stay. For keys in a group, set `self_service` of '
        "the group."
    ),
)
@blp.arguments(WithoutGroupSchema, template=examples.WITHOUT_GROUP_REQUEST)
@blp.response(200, WithoutGroupInForceSchema, description="In force.", example=examples.WITHOUT_GROUP)
def put_self_service(sent: dict[str, SelfService | None]) -> dict[str, Any]:
    offered = sent["without_group"]
    replaced = Replaced[Mapping[str, Any]](lambda before: etags.check(_shown, before))

    def changed(before: Mapping[str, Any]) -> Mapping[str, Any]:
        replaced(before)
        return {} if offered is None else {"without_group": asdict(offered)}

    after = _shown(services().policy.update_document(DOCUMENT, changed))
    write_down("self_service.set", "", before=_shown(replaced.state), after=after)
    etags.show(after)
    return after


def check_offered(offered: SelfService | None, group: Group) -> None:
    """Check that a group's members may make no key that has more than the group. Raises InvalidFields."""
    if offered is None:
        return
    problems = reach.limit_problems(offered.limits, group)
    if offered.models is not None and group.models is not None and not {*offered.models} <= {*group.models}:
        problems["models"] = [f"The group has only these: {', '.join(group.models)}."]
    if problems:
        raise invalid_fields({"self_service": problems})


def _shown(document: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = _schema.dump({"without_group": SelfService.from_json(document.get("without_group"))})
    return shown
