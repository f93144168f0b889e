"""The data that is stored, counted and passed along: frozen dataclasses, standard library only.

Times are aware UTC datetimes with millisecond precision, because no store must keep more than that.
"""

from __future__ import annotations

from .admins import FIRST_OWNER, AdminRecord, AuditEntry, AuditQuery, Role
from .alerts import Alert, Delivery, DeliveryState, Outage
from .erasures import NOTHING_KEPT, Erasure, Kept, NameDigest
from .identities import Claim, Identity
from .ids import moment, new_id, new_request_id
from .keys import ALL_KEYS, Group, Imported, KeyChange, KeyQuery, KeyRecord, Lookup, Person, Prompt, SelfService, User
from .limits import (
    LIMIT_PARTS,
    UNIT_NAMES,
    UNLIMITED,
    Budget,
    BudgetState,
    Limits,
    Period,
    Raise,
    Unit,
    in_force,
    is_higher,
)
from .models import MODEL_FIELDS, PRICE_KINDS, TOKEN_KINDS, UNIT_KINDS, Deployment, ModelSettings, Prices
from .organisation import Organisation
from .refusals import Refusal, RefusalCount, RefusalQuery, RefusedAgain
from .reports import ALL_USAGE, FILTER_GROUPINGS, GROUPINGS, FilterCount, Rebuilding, RecordQuery, ReportQuery, UsageRow
from .spread import PERCENTILE_ERROR, DaySpread, Spread, bucket_of, percentile
from .usage import (
    LONGEST_RECORDED_MODEL,
    UNKNOWN_MODEL,
    UNKNOWN_QUOTA,
    Attempt,
    Batch,
    Bound,
    Outcome,
    Owned,
    Quota,
    Usage,
    UsageRecord,
    UsageSource,
)

__all__ = [
    "ALL_KEYS",
    "ALL_USAGE",
    "FILTER_GROUPINGS",
    "FIRST_OWNER",
    "GROUPINGS",
    "LIMIT_PARTS",
    "LONGEST_RECORDED_MODEL",
    "MODEL_FIELDS",
    "NOTHING_KEPT",
    "PERCENTILE_ERROR",
    "PRICE_KINDS",
    "TOKEN_KINDS",
    "UNIT_KINDS",
    "UNIT_NAMES",
    "UNKNOWN_MODEL",
    "UNKNOWN_QUOTA",
    "UNLIMITED",
    "AdminRecord",
    "Alert",
    "Attempt",
    "AuditEntry",
    "AuditQuery",
    "Batch",
    "Bound",
    "Budget",
    "BudgetState",
    "Claim",
    "DaySpread",
    "Delivery",
    "DeliveryState",
    "Deployment",
    "Erasure",
    "FilterCount",
    "Group",
    "Identity",
    "Imported",
    "Kept",
    "KeyChange",
    "KeyQuery",
    "KeyRecord",
    "Limits",
    "Lookup",
    "ModelSettings",
    "NameDigest",
    "Organisation",
    "Outage",
    "Outcome",
    "Owned",
    "Period",
    "Person",
    "Prices",
    "Prompt",
    "Quota",
    "Raise",
    "Rebuilding",
    "RecordQuery",
    "Refusal",
    "RefusalCount",
    "RefusalQuery",
    "RefusedAgain",
    "ReportQuery",
    "Role",
    "SelfService",
    "Spread",
    "Unit",
    "Usage",
    "UsageRecord",
    "UsageRow",
    "UsageSource",
    "User",
    "bucket_of",
    "in_force",
    "is_higher",
    "moment",
    "new_id",
    "new_request_id",
    "percentile",
]
