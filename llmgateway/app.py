"""Creates the application: connects the settings, the stores, the client for Azure and the web layer."""

from __future__ import annotations

import logging
import os
import time

from flask import Flask
from flask_cors import CORS
from waitress.proxy_headers import proxy_headers_middleware

from .accounts.audit import Audit
from .accounts.credential import CredentialCipher
from .accounts.groups import Groups
from .accounts.keys import Keys
from .accounts.policy import OrganisationPolicy
from .accounts.prompts import Prompts
from .azure.client import AzureClient
from .clock import Clock, Timer
from .proxy.concurrency import ConcurrencyLimit
from .proxy.disconnects import DisconnectWatcher
from .proxy.pipeline import Gateway
from .proxy.stream import ReadToEnd
from .ratelimit.limiter import Limiter
from .ratelimit.running import RunningReservations
from .services import Services
from .settings import Settings
from .stores import open_stores
from .stores.health import StoreHealth
from .usage.journal import Journal
from .usage.metrics import MeteredUsageRecorder, Metrics
from .web import admin, docs, health, openai
from .web import metrics as metrics_view
from .web.application import Application
from .web.context import EXTENSION
from .web.errors import register_error_handlers
from .web.guard import AdminGuard

log = logging.getLogger(__name__)

RESERVED_THREADS = 4
"""The threads of a process that never relay completions, so that health and admin requests are answered under full
load."""


def create_app(
    settings: Settings | None = None,
    *,
    clock: Clock = time.time,
    timer: Timer = time.monotonic,
    serves_alone: bool = False,
) -> Flask:
    """Create the WSGI application.

    This starts no thread and connects to no server. So the application may be created before a fork.

    Args:
        settings: The settings; None to read them from the environment.
        clock: Gives points in time.
        timer: Measures durations.
        serves_alone: Whether this process is the only one with these settings, and calls ``limiter.close()``
            when it stops. Then the counters of limits may be kept in its memory.

    Raises:
        ConfigurationError: the settings have errors. It contains all of them.
        StoreUnavailable: the embedded database cannot be opened.
    """
    settings = settings or Settings.from_env(os.environ)
    settings.make_instance_folder()
    services = _wire(settings, clock, timer, serves_alone=serves_alone)
    app = Application("llmgateway", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions[EXTENSION] = services
    app.extensions[admin.GUARD] = AdminGuard(settings.admin_key, clock=clock)
    api = docs.create_api(app)
    for blueprint in (openai.blp, admin.blp, health.blp, metrics_view.blp):
        api.register_blueprint(blueprint)
    register_error_handlers(app)
    if settings.cors_origins:
        CORS(app, origins=list(settings.cors_origins), expose_headers="*", max_age=600, always_send=False)
    if settings.trusted_proxy:
        app.wsgi_app = proxy_headers_middleware(  # type: ignore[method-assign, assignment]
            app.wsgi_app,
            trusted_proxy=settings.trusted_proxy,
            trusted_proxy_headers={"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"},
            log_untrusted=False,
        )
    return app


def _wire(settings: Settings, clock: Clock, timer: Timer, *, serves_alone: bool) -> Services:
    stores = open_stores(settings, clock=clock, serves_alone=serves_alone)
    cipher = CredentialCipher(settings.secret_key or settings.admin_key)
    policy = OrganisationPolicy(
        stores.organisation,
        cipher,
        fallback=settings.api_key,
        clock=clock,
        wait_until_noticed=stores.wait_until_noticed,
    )
    keys = Keys(stores.keys, policy, clock=clock)
    groups = Groups(policy, clock=clock)
    metrics = Metrics()
    limiter = Limiter(
        stores.counters,
        stores.spending,
        running=RunningReservations(stores.counters),
        ship=lambda: journal.flush_soon(),
        clock=clock,
    )
    journal = Journal(
        settings.instance / "journal",
        stores.usage_log,
        clock=clock,
        price=policy.priced,
        on_left=limiter.book,
        on_ended=limiter.count_anew,
        on_turn=metrics.waiting,
        log_days=settings.log_days,
    )
    endpoint = settings.endpoint
    upstream = AzureClient(
        endpoint,
        key_header=settings.key_header,
        connect_timeout=settings.connect_timeout,
        first_byte_timeout=settings.first_byte_timeout,
        between_bytes_timeout=settings.between_bytes_timeout,
        connections=settings.threads,
    )
    concurrency = ConcurrencyLimit(settings.threads - RESERVED_THREADS)
    metrics.can_hold(concurrency.capacity)
    reads_to_end = settings.on_disconnect == "drain"
    gateway = Gateway(
        keys=keys,
        limiter=limiter,
        policy=policy,
        upstream=upstream,
        endpoint=endpoint,
        recorder=MeteredUsageRecorder(journal, metrics),
        concurrency=concurrency,
        read_to_end=ReadToEnd(
            seconds=settings.disconnect_drain_seconds,
            at_once=settings.threads // 4 if reads_to_end else 0,
            timer=timer,
        ),
        disconnects=DisconnectWatcher(grace=settings.disconnect_drain_seconds if reads_to_end else 0, timer=timer),
        offered=settings.models,
        clock=clock,
        timer=timer,
    )
    return Services(
        settings=settings,
        gateway=gateway,
        keys=keys,
        groups=groups,
        prompts=Prompts(policy, groups, keys, clock=clock),
        policy=policy,
        limiter=limiter,
        audit=Audit(stores.audit_log, admin_key=settings.admin_key, clock=clock),
        usage_log=stores.usage_log,
        journal=journal,
        stores=StoreHealth(stores.backends),
        metrics=metrics,
        clock=clock,
    )
