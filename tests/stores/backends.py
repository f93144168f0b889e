"""The four combinations of stores, each seen from two processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmgateway.interfaces import AdminStore, KeyStore, OrganisationStore, UsageLog
from llmgateway.stores.cached_admins import CachedAdmins
from llmgateway.stores.mongo.admins import MongoAdmins
from llmgateway.stores.mongo.database import MongoDatabase
from llmgateway.stores.mongo.keys import MongoKeys
from llmgateway.stores.mongo.organisation import MongoOrganisation
from llmgateway.stores.mongo.usage import MongoUsageLog
from llmgateway.stores.recent_version import RecentVersion
from llmgateway.stores.redis.admins import RedisAdmins
from llmgateway.stores.redis.cache import RedisCache
from llmgateway.stores.redis.entries import EntrySigner
from llmgateway.stores.redis.keys import RedisKeys
from llmgateway.stores.redis.organisation import RedisOrganisation
from llmgateway.stores.sqlite import SQLiteAdmins, SQLiteDatabase, SQLiteKeys, SQLiteOrganisation, SQLiteUsageLog

COMBINATIONS = ("sqlite", "redis+sqlite", "mongo", "redis+mongo")
SIGNER = EntrySigner(b"a secret of these tests")


@dataclass(frozen=True, kw_only=True)
class Backend:
    """The stores of one process."""

    admins: AdminStore
    durable_admins: AdminStore
    keys: KeyStore
    organisation: OrganisationStore
    usage_log: UsageLog


Opened = Callable[[], Backend]


def backends(request: Any, combination: str, tmp_path: Path) -> Iterator[Opened]:
    """Yield a function that opens the stores as another process would."""
    servers = {
        name: request.getfixturevalue(f"{name}_server").url for name in ("redis", "mongo") if name in combination
    }
    names = {name: request.getfixturevalue(name) for name in ("database_name", "namespace")}
    with ExitStack() as stack:

        def opened() -> Backend:
            if "mongo" in servers:
                mongo = stack.enter_context(closing(MongoDatabase(servers["mongo"], database=names["database_name"])))
                return _in_front(
                    MongoKeys(mongo), MongoOrganisation(mongo), MongoAdmins(mongo), MongoUsageLog(mongo), None
                )
            sqlite = stack.enter_context(closing(SQLiteDatabase(tmp_path / "gateway.sqlite")))
            keys = SQLiteKeys(sqlite)
            return _in_front(
                keys, SQLiteOrganisation(sqlite), SQLiteAdmins(sqlite), SQLiteUsageLog(sqlite), keys.version
            )

        def _in_front(keys: Any, organisation: Any, admins: Any, usage_log: Any, version: Any) -> Backend:
            durable = admins
            if "redis" in servers:
                cache = stack.enter_context(
                    closing(RedisCache(servers["redis"], signer=SIGNER, namespace=names["namespace"]))
                )
                keys, organisation = RedisKeys(cache, keys), RedisOrganisation(cache, organisation)
                admins, version = RedisAdmins(cache, admins), keys.version
            return Backend(
                admins=CachedAdmins(admins, circuit=None, version=None if version is None else RecentVersion(version)),
                durable_admins=durable,
                keys=keys,
                organisation=organisation,
                usage_log=usage_log,
            )

        yield opened
