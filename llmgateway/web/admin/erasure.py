"""The data of a person: exported, and erased."""

from __future__ import annotations

from typing import Any

from flask import Response

from .. import examples
from ..context import services
from ..schemas.erasure import ErasedSchema, ErasureSchema
from .audit_helpers import write_down
from .blueprint import blp
from .users import USER_IN_PATH


# With a path, because the names of older users may contain a slash.
@blp.route("/users/<path:user>/export", methods=["GET"], parameters=[USER_IN_PATH])
@blp.operation(
    "Export everything that is kept of a person",
    "UnknownPerson",
    description=(
        "A JSON object with a list of each kind: `person` (limits), `keys` (without what opens anything), `sums` by "
        "day, `records`, `refusals`, `audit`, `alerts`, `prompts`, `stored_responses`."
    ),
    responses={
        200: {
            "description": "Everything, as a file.",
            "content": {"application/json": {"schema": {"type": "object"}, "example": examples.EXPORT}},
        }
    },
)
def export_person(user: str) -> Response:
    export = services().personal_data.export(user)
    headers = {"Content-Disposition": "attachment; filename=person.json"}
    return Response(export, mimetype="application/json", headers=headers)


@blp.route("/users/<path:user>/erase", methods=["POST"], parameters=[USER_IN_PATH])
@blp.operation(
    "Erase a person's data",
    "UnknownPerson",
    description=(
        "Their keys are removed, and running answers end. In records, sums and the audit, a made-up name stands for "
        "name, e-mail, note and address from then on, also in what other hosts ship later; groups, tokens and costs "
        "stay. It goes by the keys: somebody who gets the same name later is not concerned. It cannot be undone. "
        "After an error, repeat it. With `dry_run` it counts, and changes nothing."
    ),
)
@blp.arguments(ErasureSchema, example={"dry_run": True})
@blp.response(
    200,
    ErasedSchema,
    description="What was erased, or would be.",
    examples={
        "erased": {"summary": "Erased", "value": examples.ERASED},
        "preview": {"summary": "With dry_run", "value": examples.ERASURE_PREVIEW},
    },
)
def erase_person(sent: dict[str, Any], user: str) -> dict[str, Any]:
    data = services().personal_data
    erased = data.preview(user) if sent["dry_run"] else data.erase(user)
    if erased.pseudonym is not None:
        # Without the name, which nothing may bring back.
        write_down("user.erase", erased.pseudonym, after={"keys": [*erased.key_ids], **erased.counts})
    return {
        "erased_as": erased.pseudonym,
        "keys": erased.key_ids,
        "counts": erased.counts,
        "complete": erased.pseudonym is not None and not erased.pending,
        "pending": erased.pending,
        "dry_run": erased.pseudonym is None,
    }
