"""Where keys, settings and usage live: embedded SQLite, or MongoDB; Redis in front of either."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..clock import Clock
from ..interfaces import AuditLog, KeyStore, OrganisationStore, Pingable, UsageLog
from ..settings import Settings
from .circuit import Circuit
from .remembered import RememberedKeys

RETRY_SECONDS = 1.0
"""How long look-ups do not ask a store that has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Which store serves what."""

    keys: KeyStore
    organisation: OrganisationStore
    usage_log: UsageLog
    audit_log: AuditLog
    backends: tuple[Pingable, ...]


def open_stores(settings: Settings, *, clock: Clock) -> Stores:
    """Choose and open the stores; a driver is imported only where it is used.

    Neither MongoDB nor Redis is asked anything yet: the gateway starts while they are away.

    Raises:
        ConfigurationError: a newer program wrote the embedded database, or MONGO_URL cannot be read.
        StoreUnavailable: the embedded database cannot be opened.
    """
    stores = _mongo(settings.mongo_url, settings, clock) if settings.mongo_url else _sqlite(settings)
    if settings.redis_url:
        stores = _with_redis_in_front(stores, settings.redis_url, settings, clock)
        return replace(stores, keys=RememberedKeys(stores.keys, circuit=None))
    circuit = Circuit("the durable store", retry_after=RETRY_SECONDS, clock=clock)
    return replace(stores, keys=RememberedKeys(stores.keys, circuit=circuit))


def _sqlite(settings: Settings) -> Stores:
    from .sqlite import SQLiteAuditLog, SQLiteDatabase, SQLiteKeys, SQLiteOrganisation, SQLiteUsageLog

    database = SQLiteDatabase(settings.instance / "gateway.sqlite")
    return Stores(
        keys=SQLiteKeys(database),
        organisation=SQLiteOrganisation(database),
        usage_log=SQLiteUsageLog(database),
        audit_log=SQLiteAuditLog(database),
        backends=(database,),
    )


def _mongo(url: str, settings: Settings, clock: Clock) -> Stores:
    from .mongo import MongoDatabase, check_url
    from .mongo_audit import MongoAuditLog
    from .mongo_keys import MongoKeys
    from .mongo_organisation import MongoOrganisation
    from .mongo_usage import MongoUsageLog

    check_url(url)
    database = MongoDatabase(url, timeout=settings.store_timeout)
    return Stores(
        keys=MongoKeys(database, clock=clock),
        organisation=MongoOrganisation(database),
        usage_log=MongoUsageLog(database, clock=clock),
        audit_log=MongoAuditLog(database),
        backends=(database,),
    )


def _with_redis_in_front(durable: Stores, url: str, settings: Settings, clock: Clock) -> Stores:
    from .redis import RedisCache, RedisKeys, RedisOrganisation

    cache = RedisCache(url, timeout=settings.store_timeout, clock=clock)
    return Stores(
        keys=RedisKeys(cache, durable.keys),
        organisation=RedisOrganisation(cache, durable.organisation),
        usage_log=durable.usage_log,
        audit_log=durable.audit_log,
        backends=(cache, *durable.backends),
    )
