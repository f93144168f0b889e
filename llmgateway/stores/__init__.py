"""The stores of keys, settings, usage and counters: SQLite or MongoDB, optionally with Redis in front."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..clock import Clock
from ..errors import StoreUnavailable
from ..interfaces import (
    AdminStore,
    AlertStore,
    AuditLog,
    Cooldowns,
    CounterStore,
    Erasures,
    IdentityStore,
    KeyStore,
    OrganisationStore,
    PersonStore,
    Pingable,
    RefusalLog,
    Scrubbing,
    SessionStore,
    Spending,
    UsageLog,
)
from ..local_time import SETTINGS, TimeZones
from ..ratelimit.memory import MemoryCounters
from .alerts import FallbackAlerts
from .cached_admins import CachedAdmins
from .cached_keys import CachedKeys
from .circuit import Circuit
from .cooldowns import MemoryCooldowns
from .fallback import FallbackCounters
from .folder_lock import FolderLock
from .host_lock import HostLock
from .recent_version import RecentVersion
from .spending import LoggedSpending
from .stored import FoundStored, SharedOwners

if TYPE_CHECKING:
    from ..settings import Settings  # which reads URLs with redis/url.py
    from .redis.cache import RedisCache

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
"""After a failure, a store is not asked again for this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """The store for each purpose."""

    keys: KeyStore
    admins: AdminStore
    organisation: OrganisationStore
    persons: PersonStore
    identities: IdentityStore
    sessions: SessionStore
    usage_log: UsageLog
    spending: Spending
    counters: CounterStore
    audit_log: AuditLog
    erasures: Erasures
    alerts: AlertStore
    refusals: RefusalLog
    cooldowns: Cooldowns
    stored: FoundStored
    """Whose the responses are that Azure stores."""
    backends: tuple[Pingable, ...]
    scrubbing: Scrubbing | None = None
    """The file of the embedded store, if keys and records are in one."""
    version: RecentVersion | None = None
    """Version of the keys and the organisation. None if the store has no version, so each request asks the store."""

    def wait_until_noticed(self) -> None:
        """Return when every process has noticed all changes that are stored now."""
        if self.version is not None:
            self.version.wait_until_noticed()


def open_stores(settings: Settings, *, clock: Clock, serves_alone: bool = False) -> Stores:
    """Choose and open the stores. A driver is imported only if it is used.

    This does not connect to MongoDB or Redis, so the gateway starts even if they are unavailable.

    Args:
        serves_alone: Whether this is the only serving process, and calls ``counters.flush()`` when it stops. Then
            limits are counted in its memory, unless another process uses the counters in the same folder.

    Raises:
        ConfigurationError: a newer version wrote an SQLite file, or MONGO_URL is not valid.
        StoreUnavailable: an SQLite file cannot be opened.
    """
    cache = _redis(settings.redis_url, settings, clock) if settings.redis_url else None
    counters = _counters(cache, settings, clock, serves_alone=serves_alone)
    owners = None if cache is None else _owners(cache, clock)
    if settings.mongo_url:
        stores = _mongo(settings.mongo_url, settings, clock, counters, owners)
    else:
        stores = _sqlite(settings, clock, counters, owners)
    if cache is not None:
        stores = _with_redis_in_front(stores, cache, clock)
        return _with_caches(stores, circuit=None)
    return _with_caches(stores, circuit=Circuit("the durable store", retry_after=RETRY_SECONDS, clock=clock))


def _with_caches(stores: Stores, *, circuit: Circuit | None) -> Stores:
    return replace(
        stores,
        keys=CachedKeys(stores.keys, circuit=circuit, version=stores.version),
        admins=CachedAdmins(stores.admins, circuit=circuit, version=stores.version),
    )


def _sqlite(settings: Settings, clock: Clock, counters: CounterStore, owners: SharedOwners | None) -> Stores:
    from .sqlite import (
        SQLiteAdmins,
        SQLiteAlerts,
        SQLiteAuditLog,
        SQLiteDatabase,
        SQLiteErasures,
        SQLiteIdentities,
        SQLiteKeys,
        SQLiteOrganisation,
        SQLitePersons,
        SQLiteRefusalLog,
        SQLiteSessions,
        SQLiteUsageLog,
    )

    database = SQLiteDatabase(settings.instance / "gateway.sqlite")
    keys = SQLiteKeys(database)
    organisation = SQLiteOrganisation(database)
    usage_log = SQLiteUsageLog(database, zones=_zones(organisation, settings))
    return Stores(
        keys=keys,
        admins=SQLiteAdmins(database),
        organisation=organisation,
        persons=SQLitePersons(database),
        identities=SQLiteIdentities(database),
        sessions=SQLiteSessions(database),
        usage_log=usage_log,
        spending=_spending(usage_log, clock),
        stored=_stored(usage_log, clock, owners),
        audit_log=SQLiteAuditLog(database),
        erasures=SQLiteErasures(database),
        scrubbing=database,
        alerts=_alerts(SQLiteAlerts(database), settings, clock),
        refusals=SQLiteRefusalLog(database),
        cooldowns=MemoryCooldowns(clock=clock),
        counters=counters,
        backends=(database,),
        version=RecentVersion(keys.version),
    )


def _mongo(url: str, settings: Settings, clock: Clock, counters: CounterStore, owners: SharedOwners | None) -> Stores:
    from .mongo.admins import MongoAdmins
    from .mongo.alerts import MongoAlerts
    from .mongo.audit import MongoAuditLog
    from .mongo.database import MongoDatabase, check_url
    from .mongo.erasures import MongoErasures
    from .mongo.identities import MongoIdentities, MongoSessions
    from .mongo.keys import MongoKeys
    from .mongo.organisation import MongoOrganisation
    from .mongo.persons import MongoPersons
    from .mongo.refusals import MongoRefusalLog
    from .mongo.usage import MongoUsageLog

    check_url(url)
    database = MongoDatabase(url, timeout=settings.store_timeout)
    organisation = MongoOrganisation(database, clock=clock)
    usage_log = MongoUsageLog(
        database,
        clock=clock,
        zones=_zones(organisation, settings),
        secret=settings.secret_key or settings.admin_key,
    )
    return Stores(
        keys=MongoKeys(database, clock=clock),
        admins=MongoAdmins(database),
        organisation=organisation,
        persons=MongoPersons(database, begin_version=organisation.begin_version),
        identities=MongoIdentities(database),
        sessions=MongoSessions(database),
        usage_log=usage_log,
        spending=_spending(usage_log, clock),
        stored=_stored(usage_log, clock, owners),
        audit_log=MongoAuditLog(database),
        erasures=MongoErasures(database),
        alerts=_alerts(MongoAlerts(database), settings, clock),
        refusals=MongoRefusalLog(database),
        cooldowns=MemoryCooldowns(clock=clock),
        counters=counters,
        backends=(database,),
    )


def _zones(organisation: OrganisationStore, settings: Settings) -> Callable[[], TimeZones]:
    """Return what reads the time zones from the store: each time, so that all processes count with the same ones."""
    return lambda: TimeZones.from_document(organisation.document(SETTINGS), default=settings.timezone)


def _alerts(shared: AlertStore, settings: Settings, clock: Clock) -> AlertStore:
    return FallbackAlerts(shared, speaks=HostLock(settings.instance / "alerts.lock").hold, clock=clock)


def _spending(usage_log: UsageLog, clock: Clock) -> Spending:
    return LoggedSpending(usage_log, circuit=Circuit("the usage log", retry_after=RETRY_SECONDS, clock=clock))


def _stored(usage_log: UsageLog, clock: Clock, owners: SharedOwners | None) -> FoundStored:
    circuit = Circuit("the usage log", retry_after=RETRY_SECONDS, clock=clock)
    return FoundStored(usage_log, circuit=circuit, shared=owners)


def _redis(url: str, settings: Settings, clock: Clock) -> RedisCache:
    from .redis.cache import RedisCache
    from .redis.entries import EntrySigner

    signer = EntrySigner.from_secret(settings.secret_key or settings.admin_key)
    return RedisCache(url, signer=signer, timeout=settings.store_timeout, clock=clock)


def _owners(cache: RedisCache, clock: Clock) -> SharedOwners:
    from .redis.owners import RedisOwners

    return RedisOwners(cache.connection, cache.signer, clock=clock)


def _with_redis_in_front(durable: Stores, cache: RedisCache, clock: Clock) -> Stores:
    from .redis.admins import RedisAdmins
    from .redis.cooldowns import RedisCooldowns
    from .redis.keys import RedisKeys
    from .redis.organisation import RedisOrganisation
    from .redis.persons import RedisPersons

    keys = RedisKeys(cache, durable.keys)
    return replace(
        durable,
        keys=keys,
        admins=RedisAdmins(cache, durable.admins),
        organisation=RedisOrganisation(cache, durable.organisation),
        persons=RedisPersons(cache, durable.persons),
        cooldowns=RedisCooldowns(cache.connection, clock=clock),
        backends=(cache, *durable.backends),
        version=RecentVersion(keys.version),
    )


def _counters(cache: RedisCache | None, settings: Settings, clock: Clock, *, serves_alone: bool) -> CounterStore:
    """Return the counters in Redis for all hosts, or else those of this host.

    Unless the process counts in memory anyway, it does so while these are unavailable.
    """
    if cache is not None:
        from .redis.counters import RedisCounters

        return FallbackCounters(RedisCounters(cache.connection), MemoryCounters(clock=clock), circuit=None)
    from .sqlite import COUNTERS, SQLiteCounters, SQLiteDatabase

    database = SQLiteDatabase(
        settings.instance / "counters.sqlite",
        timeout=settings.store_timeout,
        migrations=COUNTERS,
        durable=False,
    )
    lock = FolderLock(settings.instance)
    shared = SQLiteCounters(database, clock=clock, lock=lock)
    if serves_alone and lock.acquire():
        with suppress(StoreUnavailable):  # for example on a full disk: use the file below, with its fallback
            return MemoryCounters(clock=clock, stored=shared)
    elif serves_alone:
        log.warning(
            "Another process counts limits in %s, too. So this process uses the file there, which is slower.",
            settings.instance,
        )
    circuit = Circuit("the counters' file", retry_after=RETRY_SECONDS, clock=clock)
    return FallbackCounters(shared, MemoryCounters(clock=clock), circuit=circuit)
