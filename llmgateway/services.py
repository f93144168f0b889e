"""The objects that the web layer uses."""

from __future__ import annotations

from dataclasses import dataclass

from .accounts.admins import Admins
from .accounts.audit import Audit
from .accounts.bulk import Bulk
from .accounts.closing import Closings
from .accounts.erasure import PersonalData
from .accounts.groups import Groups
from .accounts.identities import Identities
from .accounts.keys import Keys
from .accounts.leavers import Leavers
from .accounts.persons import Persons
from .accounts.policy import OrganisationPolicy
from .accounts.prompts import Prompts
from .accounts.self_service import SelfService
from .accounts.sessions import Sessions
from .alerts.watcher import Alerts
from .clock import Clock
from .interfaces import Upstream, UsageLog
from .oidc.provider import OpenIDProvider
from .proxy.doctor import Doctor
from .proxy.pipeline import Gateway
from .ratelimit.budget_watch import BudgetWatch
from .ratelimit.limiter import Limiter
from .settings import Settings
from .stores.health import StoreHealth
from .usage.journal import Journal
from .usage.metrics import Metrics
from .usage.refusals import Refusals
from .usage.unpriced import UnpricedModels


@dataclass(slots=True, kw_only=True)
class Services:
    """The objects of one gateway, connected with each other by :func:`~llmgateway.app.create_app`."""

    settings: Settings
    """Replaced when the settings are read again, see :func:`~llmgateway.app.put_into_force`."""
    gateway: Gateway
    doctor: Doctor
    upstream: Upstream
    keys: Keys
    admins: Admins
    bulk: Bulk
    groups: Groups
    self_service: SelfService
    closings: Closings
    personal_data: PersonalData
    persons: Persons
    identities: Identities
    sessions: Sessions
    provider: OpenIDProvider | None
    """The identity provider that signs people in; None without ``OIDC_ISSUER``."""
    leavers: Leavers | None
    prompts: Prompts
    policy: OrganisationPolicy
    limiter: Limiter
    budgets: BudgetWatch
    audit: Audit
    usage_log: UsageLog
    journal: Journal
    refusals: Refusals
    stores: StoreHealth
    metrics: Metrics
    unpriced: UnpricedModels
    alerts: Alerts
    clock: Clock
