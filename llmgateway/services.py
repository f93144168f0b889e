"""What the web layer is given to work with."""

from __future__ import annotations

from dataclasses import dataclass

from .audit import Audit
from .clock import Clock
from .gateway import Gateway
from .groups import Groups
from .interfaces import UsageLog
from .journal import Journal
from .keys import Keys
from .ladder import Ladder
from .limits import Limiter
from .metrics import Metrics
from .organisation import OrganisationPolicy
from .prompts import Prompts
from .settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts of one gateway, wired."""

    settings: Settings
    gateway: Gateway
    keys: Keys
    groups: Groups
    prompts: Prompts
    policy: OrganisationPolicy
    limiter: Limiter
    audit: Audit
    usage_log: UsageLog
    journal: Journal
    ladder: Ladder
    metrics: Metrics
    clock: Clock
