"""The limits of the organisation."""

from __future__ import annotations

from typing import Any

from ...ratelimit.scopes import Scope
from ...records import Limits
from .. import examples
from ..context import services
from ..schemas.limits import LimitsInForceSchema, LimitsWithAllowancesSchema, OrganisationLimitsSchema
from . import etags
from .allowances import remaining_of
from .audit_helpers import Replaced, write_down
from .blueprint import blp

_schema = LimitsInForceSchema()


@blp.route("/limits", methods=["GET"])
@blp.operation(
    "Read the organisation's limits",
    description="They apply to all keys together. `remaining` is what is used and left of each, and when it renews.",
)
@blp.response(
    200,
    LimitsWithAllowancesSchema,
    description="In force.",
    example={**examples.ORGANISATION_LIMITS, "remaining": examples.ORGANISATION_REMAINING},
)
def get_limits() -> dict[str, Any]:
    organisation = services().policy.stored()
    limits = _schema.dump(organisation.limits)
    etags.show(limits)
    (remaining,) = remaining_of([Scope.of_organisation(organisation)])
    return {**limits, "remaining": remaining}


@blp.route("/limits", methods=["PUT"])
@blp.operation(
    "Set the organisation's limits",
    description=(
        "All of them are replaced: a part that is not sent is no limit afterwards, so `{}` lifts all of them. When the "
        "tokens per minute run short, keys that have used less than an equal share of them are let in first. The "
        "example is refused until you have put your own values in: Azure's quota, for example, and a budget."
    ),
)
@blp.arguments(OrganisationLimitsSchema, template=examples.LIMITS_REQUEST)
@blp.response(200, LimitsInForceSchema, description="In force.", example=examples.ORGANISATION_LIMITS)
def set_limits(parts: dict[str, Any]) -> Limits:
    policy, limits = services().policy, Limits(**parts)
    replaced = Replaced(_check)
    policy.set_limits(limits, check=replaced)
    write_down("limits.set", "", before=_schema.dump(replaced.state), after=_schema.dump(limits))
    etags.show(_schema.dump(limits))
    return limits


@blp.route("/limits", methods=["PATCH"])
@blp.operation(
    "Change some of the organisation's limits",
    description=(
        "Limits that are sent are set; `null` removes a limit; the others do not change. The example changes nothing. "
        "In short:\n\n"
        '* `{"budget": {"amount": 2000, "unit": "usd", "period": "month"}}` sets the budget\n'
        '* `{"parallel_requests": null}` lifts one limit\n'
    ),
)
@blp.arguments(OrganisationLimitsSchema, example={})
@blp.response(200, LimitsInForceSchema, description="In force.", example=examples.ORGANISATION_LIMITS)
def update_limits(parts: dict[str, Any]) -> Limits:
    replaced = Replaced(_check)
    after = services().policy.update_limits(parts, check=replaced)
    write_down("limits.set", "", before=_schema.dump(replaced.state), after=_schema.dump(after))
    etags.show(_schema.dump(after))
    return after


def _check(before: Limits) -> None:
    """Check that the limits to change are as the client knows them."""
    etags.check(_schema.dump, before)
