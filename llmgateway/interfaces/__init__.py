"""The interfaces between the gateway and its backends. ``stores/``, ``azure/`` and ``usage/`` implement them.

Every method may be called from any thread. Every method raises
:class:`~llmgateway.errors.StoreUnavailable` when its backend fails or does not answer within the timeout.
The exceptions of a driver are translated and never leave the implementation.
"""

from __future__ import annotations

from .accounts import AdminStore, AuditLog, KeyStore, OrganisationStore, PersonStore
from .alerts import AlertStore
from .azure import Answer, Cooldown, Cooldowns, Upload, Upstream
from .counters import CounterStore
from .erasures import Erasures, Scrubbing
from .health import Pingable
from .identities import IdentityStore, SessionStore
from .usage import RefusalLog, Spending, StoredResponses, UsageLog, UsageRecorder

__all__ = [
    "AdminStore",
    "AlertStore",
    "Answer",
    "AuditLog",
    "Cooldown",
    "Cooldowns",
    "CounterStore",
    "Erasures",
    "IdentityStore",
    "KeyStore",
    "OrganisationStore",
    "PersonStore",
    "Pingable",
    "RefusalLog",
    "Scrubbing",
    "SessionStore",
    "Spending",
    "StoredResponses",
    "Upload",
    "Upstream",
    "UsageLog",
    "UsageRecorder",
]
