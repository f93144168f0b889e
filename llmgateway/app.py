"""Creates the application: connects the settings, the stores, the client for Azure and the web layer."""

from __future__ import annotations

import logging
import os
import time
from datetime import timedelta

from flask import Flask

from .accounts.admins import Admins
from .accounts.attempts import WrongKeys
from .accounts.audit import Audit
from .accounts.bulk import Bulk
from .accounts.closing import Closings
from .accounts.credential import CredentialCipher
from .accounts.erasure import PersonalData
from .accounts.groups import Groups
from .accounts.holders import (
    AlertsHolder,
    AuditHolder,
    IdentitiesHolder,
    KeysHolder,
    PersonsHolder,
    PromptsHolder,
    RefusalsHolder,
    StoredResponsesHolder,
    UsageHolder,
)
from .accounts.identities import Identities
from .accounts.keys import Keys
from .accounts.leavers import Leavers
from .accounts.persons import Persons
from .accounts.policy import OrganisationPolicy
from .accounts.prompts import Prompts
from .accounts.self_service import SelfService
from .accounts.sessions import Sessions
from .accounts.sign_in_rules import SignInRules
from .alerts.outages import Sources
from .alerts.settings import Event
from .alerts.watcher import Alerts
from .azure.client import AzureClient
from .azure.credentials import EntraToken
from .clock import Clock, Timer
from .env_file import with_env_file
from .oidc.provider import OpenIDProvider
from .proxy.concurrency import ConcurrencyLimit
from .proxy.default_upstream import UpstreamSettings
from .proxy.deployment_states import DeploymentStates
from .proxy.disconnects import DisconnectWatcher
from .proxy.doctor import Doctor
from .proxy.failover import Failover
from .proxy.pipeline import Gateway
from .proxy.preparing import PreparationLimit
from .proxy.read_on import ReadOn
from .proxy.revocations import RevocationWatcher
from .proxy.routing import Routing
from .ratelimit.budget_watch import BudgetWatch, read_budgets
from .ratelimit.limiter import Limiter
from .ratelimit.running import RunningReservations
from .records import Organisation, moment
from .services import Services
from .settings import Settings
from .stores import Stores, open_stores
from .stores.health import StoreHealth
from .usage.answered_models import AnsweredModels
from .usage.journal import Backlog, Journal
from .usage.metrics import MeteredUsageRecorder, Metrics
from .usage.refusals import Refusals
from .usage.unpriced import UnpricedModels, still_without_price, used_without_price
from .web import admin, azure_paths, dashboard, docs, health, openai
from .web import metrics as metrics_view
from .web.application import Application
from .web.context import EXTENSION, IdentifiedRequests
from .web.cors import AllowedOrigins
from .web.errors import register_error_handlers
from .web.forwarded import ForwardedHeaders
from .web.guard import AdminGuard
from .web.schemas.names import problem_of_user

log = logging.getLogger(__name__)

RESERVED_THREADS = 4
"""The threads of a process that never relay completions, so that health and admin requests are answered under full
load."""

_PUT_INTO_FORCE = "llmgateway-put-into-force"


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
    if settings is None:
        # requests reads proxies and certificates from the environment. They may be in the file, too.
        os.environ.update(with_env_file(os.environ))
        settings = Settings.from_env(os.environ)
    settings.make_instance_folder()
    upstream = _azure_client(settings)
    services = _wire(settings, upstream, clock, timer, serves_alone=serves_alone)
    app = Application("llmgateway", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions[EXTENSION] = services
    wrong_keys = WrongKeys(settings.instance / "wrong-admin-keys", clock=clock)
    guard = AdminGuard([settings.admin_key], admins=services.admins, wrong_keys=wrong_keys, clock=clock)
    app.extensions[admin.GUARD] = guard
    docs.register(app, (openai.blp, admin.blp, health.blp, metrics_view.blp, azure_paths.blp))
    dashboard.register(app, secret=settings.secret_key or settings.admin_key)
    register_error_handlers(app)
    origins = AllowedOrigins(app, settings.cors_origins)
    forwarded = ForwardedHeaders(app.wsgi_app, trusted_proxy=settings.trusted_proxy)
    app.wsgi_app = IdentifiedRequests(forwarded, clock=clock)  # type: ignore[method-assign]

    def put_into_force(new: Settings) -> None:
        if new.models != services.settings.models:
            services.gateway.offer(new.models)
        if new.admin_key != services.settings.admin_key:
            guard.replace_keys([new.admin_key])
        services.settings = new
        services.limiter.shows_shared = new.show_shared == "on"
        upstream.set_timeouts(
            connect=new.connect_timeout,
            first_byte=new.first_byte_timeout,
            between_bytes=new.between_bytes_timeout,
        )
        origins.allow(new.cors_origins)
        forwarded.trusted_proxy = new.trusted_proxy

    app.extensions[_PUT_INTO_FORCE] = put_into_force
    return app


def local_doctor(settings: Settings) -> Doctor:
    """Return what examines the deployments of *settings*, and those in its store, without a running gateway.

    Raises:
        ConfigurationError: the proxy or the certificates that the environment names cannot be used.
        StoreUnavailable: the store cannot be opened.
    """
    upstream = _azure_client(settings)
    stores = open_stores(settings, clock=time.time)
    cipher = CredentialCipher(settings.secret_key or settings.admin_key)
    policy = OrganisationPolicy(stores.organisation, cipher, fallback=settings.api_key, clock=time.time)
    answered = AnsweredModels(stores.usage_log.report, clock=time.time)
    routing = Routing(
        _upstream_settings(settings),
        policy=policy,
        offered=settings.models,
        answered=answered,
        identity=_entra_token(settings, time.time, time.monotonic),
    )
    return Doctor(upstream, routing, policy, answered=answered.names)


def put_into_force(app: Flask, settings: Settings) -> None:
    """Let the running application use these settings from now on. Any thread may call this.

    Args:
        settings: What :meth:`Settings.reloaded` has returned: they differ from those in force in nothing that needs a
            restart.
    """
    app.extensions[_PUT_INTO_FORCE](settings)


def _azure_client(settings: Settings) -> AzureClient:
    client = AzureClient(
        connect_timeout=settings.connect_timeout,
        first_byte_timeout=settings.first_byte_timeout,
        between_bytes_timeout=settings.between_bytes_timeout,
        connections=settings.threads,
    )
    if settings.endpoint is not None:
        client.check(settings.endpoint)
    return client


def _upstream_settings(settings: Settings) -> UpstreamSettings:
    return UpstreamSettings(
        base_url=settings.base_url, api_version=settings.api_version, key_header=settings.key_header
    )


def _entra_token(settings: Settings, clock: Clock, timer: Timer) -> EntraToken | None:
    identity = settings.identity
    if identity is None:
        return None
    identity.check_installed()
    return EntraToken(identity.fetch, clock=clock, timer=timer)


def _wire(settings: Settings, upstream: AzureClient, clock: Clock, timer: Timer, *, serves_alone: bool) -> Services:
    stores = open_stores(settings, clock=clock, serves_alone=serves_alone)
    cipher = CredentialCipher(settings.secret_key or settings.admin_key)
    policy = OrganisationPolicy(
        stores.organisation,
        cipher,
        fallback=settings.api_key,
        clock=clock,
        timezone=settings.timezone,
        wait_until_noticed=stores.wait_until_noticed,
    )
    keys = Keys(stores.keys, policy, clock=clock)
    admins = Admins(stores.admins, clock=clock)
    rules = SignInRules(policy)

    def forget_group(name: str) -> None:
        admins.forget_group(name)
        rules.forget_group(name)

    groups = Groups(policy, clock=clock, on_removed=forget_group)
    metrics = Metrics()
    limiter = Limiter(
        stores.counters,
        stores.spending,
        running=RunningReservations(stores.counters),
        ship=lambda: journal.flush_soon(),
        clock=clock,
        shows_shared=settings.show_shared == "on",
        zones=policy.time_zones,
    )
    refusals = Refusals(
        stores.refusals,
        clock=clock,
        days=settings.refusal_days,
        most=settings.most_refusals,
        on_dropped=metrics.refusals_dropped,
    )

    def on_turn(backlog: Backlog) -> None:
        metrics.waiting(backlog)
        refusals.look_after()
        alerts.need()
        if leavers is not None:
            leavers.need()

    journal = Journal(
        settings.instance / "journal",
        stores.usage_log,
        clock=clock,
        price=policy.priced,
        on_left=limiter.book,
        on_ended=limiter.count_anew,
        on_turn=on_turn,
        log_days=settings.log_days,
        look_after=lambda: personal_data.look_after(),
    )
    persons = Persons(stores.persons, stores.keys, policy)
    audit = Audit(stores.audit_log, clock=clock)
    identities = Identities(
        stores.identities,
        rules,
        stores.keys,
        persons,
        stores.usage_log,
        policy,
        audit,
        user_claim=settings.oidc_user_claim,
        problem_of_name=problem_of_user,
        clock=clock,
    )
    personal_data = _personal_data(stores, keys, persons, identities, policy, journal, refusals, limiter, clock)
    stores.stored.in_journals = journal.find_stored
    concurrency = ConcurrencyLimit(settings.threads - RESERVED_THREADS, key_share=settings.key_share)
    metrics.can_hold(concurrency.capacity)
    unpriced = UnpricedModels(MeteredUsageRecorder(journal, metrics))
    read_on = _read_on(settings, places=concurrency.capacity)
    read_on.on_change = metrics.reads_on
    answered = AnsweredModels(stores.usage_log.report, clock=clock)
    gateway = Gateway(
        keys=keys,
        limiter=limiter,
        policy=policy,
        upstream=upstream,
        routing=Routing(
            _upstream_settings(settings),
            policy=policy,
            offered=settings.models,
            answered=answered,
            identity=_entra_token(settings, clock, timer),
        ),
        failover=Failover(
            stores.cooldowns, seconds=settings.failover_seconds, clock=clock, timer=timer, on_rest=metrics.rests
        ),
        recorder=unpriced,
        concurrency=concurrency,
        read_on=read_on,
        preparing=PreparationLimit(
            most_bytes=settings.preparing_bytes, most_bytes_per_key=settings.preparing_bytes_per_key
        ),
        revocations=_revocations(settings, keys, stores, timer),
        most_containers=settings.max_body_containers,
        disconnects=DisconnectWatcher(timer=timer),
        answered=answered,
        deployments=DeploymentStates(clock=clock, numbers=metrics),
        refuses_unknown_price=settings.unknown_price == "refuse",
        stored=stores.stored,
        clock=clock,
        timer=timer,
    )
    health = StoreHealth(stores.backends)

    def without_price(organisation: Organisation) -> list[str]:
        names = used_without_price(stores.usage_log, moment(clock())) | unpriced.models
        return still_without_price(names, organisation.models)

    alerts = Alerts(
        stores.alerts,
        policy,
        list_keys=stores.keys.list,
        usage_log=stores.usage_log,
        sources=Sources(
            stores=health.problems,
            credentials=gateway.credentials.known_problems,
            quotas=gateway.deployments.lowered,
            backlog=journal.backlog,
            unpriced=without_price,
        ),
        clock=clock,
    )
    provider = None if settings.oidc is None else OpenIDProvider(settings.oidc, clock=clock, timer=timer)
    leavers = None
    if provider is not None:
        leavers = Leavers(
            provider,
            identities,
            stores.identities,
            stores.keys,
            policy,
            claim=lambda name, now, until: stores.alerts.claim(name, now=now, until=until),
            announce=lambda user, text: alerts.announce(Event.LEAVER, text, user=user),
            max_days=settings.oidc_max_days,
            clock=clock,
            timer=timer,
        )
    return Services(
        settings=settings,
        gateway=gateway,
        doctor=Doctor(upstream, gateway.routing, policy, answered=answered.names, timer=timer),
        upstream=upstream,
        keys=keys,
        admins=admins,
        bulk=Bulk(
            keys,
            stores.usage_log,
            ship=journal.flush_soon,
            secret=settings.secret_key or settings.admin_key,
            clock=clock,
        ),
        groups=groups,
        self_service=SelfService(keys, policy, clock=clock),
        personal_data=personal_data,
        closings=Closings(keys, groups, clock=clock),
        persons=persons,
        identities=identities,
        sessions=Sessions(stores.sessions, longest=timedelta(hours=settings.session_hours), clock=clock),
        provider=provider,
        leavers=leavers,
        prompts=Prompts(policy, groups, keys, clock=clock),
        policy=policy,
        limiter=limiter,
        budgets=BudgetWatch(
            lambda: read_budgets(policy.stored(), limiter.allowances, moment(clock())),
            settings.instance / "budgets.json",
            clock=clock,
        ),
        audit=audit,
        usage_log=stores.usage_log,
        journal=journal,
        stores=health,
        refusals=refusals,
        metrics=metrics,
        unpriced=unpriced,
        alerts=alerts,
        clock=clock,
    )


def _personal_data(
    stores: Stores,
    keys: Keys,
    persons: Persons,
    identities: Identities,
    policy: OrganisationPolicy,
    journal: Journal,
    refusals: Refusals,
    limiter: Limiter,
    clock: Clock,
) -> PersonalData:
    def ship() -> None:
        journal.flush_soon()
        refusals.flush()

    stored = StoredResponsesHolder(stores.stored)
    return PersonalData(
        keys,
        # Everything that is kept of persons. Whoever keeps something new adds a holder.
        (
            KeysHolder(keys),
            PersonsHolder(persons, policy),
            IdentitiesHolder(identities),
            UsageHolder(stores.usage_log),
            RefusalsHolder(refusals.stored),
            AuditHolder(stores.audit_log),
            AlertsHolder(stores.alerts),
            PromptsHolder(policy, keys),
            stored,
        ),
        stores.erasures,
        remembered=stored,
        mentions=journal.mentions,
        ship=ship,
        forget_counts=limiter.forget_person,
        scrubbing=stores.scrubbing,
        clock=clock,
    )


def _revocations(settings: Settings, keys: Keys, stores: Stores, timer: Timer) -> RevocationWatcher | None:
    if settings.end_streams_on_revoke == "off":
        return None
    return RevocationWatcher(lambda key: keys.is_revoked(key.digest, key.id), version=stores.version, timer=timer)


def _read_on(settings: Settings, *, places: int) -> ReadOn:
    if settings.on_disconnect == "drain":
        return ReadOn(seconds=settings.disconnect_drain_seconds, at_once=settings.threads // 4)
    if settings.on_disconnect == "auto":
        return ReadOn(seconds=settings.read_on_seconds, at_once=max(1, places // 8), thinking_only=True)
    return ReadOn(seconds=0, at_once=0)
