"""What the web layer is given to work with."""

from __future__ import annotations

from dataclasses import dataclass

from .clock import Clock
from .gateway import Gateway
from .interfaces import UsageLog
from .journal import Journal
from .keys import Keys
from .ladder import Ladder
from .metrics import Metrics
from .organisation import OrganisationPolicy
from .settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts of one gateway, wired."""

    settings: Settings
    gateway: Gateway
    keys: Keys
    policy: OrganisationPolicy
    usage_log: UsageLog
    journal: Journal
    ladder: Ladder
    metrics: Metrics
    clock: Clock
