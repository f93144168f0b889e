"""Fills the stores of a gateway that does not run yet: admins act through the admin API, at times that have passed."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from ..app import create_app
from ..records import Alert, Batch, Delivery, DeliveryState, Identity, KeyQuery, UsageRecord, moment
from ..services import Services
from ..settings import Settings
from ..stores import Stores, open_stores
from ..web.context import EXTENSION
from .organisation import ADMINS, ALONE, GROUPS, LAW_PROMPT, MODELS, PROMPTS, REGIONS, Group, address_of, people
from .traffic import Asker, Traffic

DAYS = 92
_BATCH = 1000
_REFUSALS = 9
"""On a usual day."""
_ADDRESS = "10.20.30.4"
"""Of the admins."""


@dataclass(kw_only=True)
class Filled:
    """What was made."""

    keys: int = 0
    records: int = 0
    refusals: int = 0
    admin_keys: dict[str, str] = field(default_factory=dict, repr=False)
    """The keys of the named admins, by name."""


class _Time:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def fill(settings: Settings, *, now: float, requests: int = 420, days: int = DAYS, seed: int = 15) -> Filled:
    """Make up an organisation and its traffic, from *days* ago until *now*.

    No gateway may use the same stores meanwhile. They should be empty.

    Args:
        requests: The number on a usual Monday.
    """
    time = _Time()
    history = _History(settings, time, now=now, days=days, seed=seed)
    try:
        history.found()
        history.term()
        history.recent()
    finally:
        history.close()
    history.use(requests)
    return history.filled


class _History:
    def __init__(self, settings: Settings, time: _Time, *, now: float, days: int, seed: int) -> None:
        self._settings = settings
        self._time = time
        self._now = now
        self._days = days
        self._random = random.Random(seed)  # noqa: S311 - nothing to be secret about
        self._seed = seed
        self._app = create_app(settings, clock=time)
        self._client = self._app.test_client()
        self._people = list(people(self._random))
        self._keys: dict[str, dict[str, Any]] = {}
        self._blocked: dict[str, datetime] = {}
        self.filled = Filled()

    @property
    def _services(self) -> Services:
        services: Services = self._app.extensions[EXTENSION]
        return services

    def close(self) -> None:
        self._services.journal.close()
        self._services.refusals.close()

    def found(self) -> None:
        """On the first day, the owner sets everything up."""
        self._at(self._days)
        self._call("POST", "/admin/setprompt", {"prompt": PROMPTS[0]})
        budget = {"amount": 1000, "unit": "usd", "period": "month"}
        self._call("PUT", "/admin/limits", {"tokens_per_minute": 2_000_000, "budget": budget})
        self._register()
        for group in GROUPS:
            self._call("PUT", f"/admin/groups/{group.name}", group.settings)
        for admin in ADMINS:
            self.filled.admin_keys[str(admin["name"])] = self._call("POST", "/admin/admins", dict(admin))["key"]
        self._hand_out()

    def _register(self) -> None:
        """Register one model at two places, which are the same simulated resource."""
        url = self._settings.base_url
        if url is None or self._settings.endpoint is None:
            return
        deployments = [
            {"name": name, "base_url": url, "deployment": MODELS[0], "priority": number}
            for number, name in enumerate(REGIONS, 1)
        ]
        self._call("PUT", f"/admin/models/{MODELS[0]}", {"deployments": deployments})

    def _hand_out(self) -> None:
        """Import a list of each group; some people get a second key."""
        for group in (*GROUPS, ALONE):
            members = [person for each, person in self._people if each is group]
            admin = _admin_of(group.name)
            self._call("POST", "/admin/keys/import", body=_class_list(group, members), admin=admin)
            for person in members:
                if len(group.key_names) > 1 and self._random.random() < 0.45:
                    key = {"user": person, "name": group.key_names[1], "email": address_of(person), **group.key}
                    self._call("POST", "/admin/keys", key | {"group": group.name or None}, admin=admin)
        self._keys = {key.id: {"user": key.user, "group": key.group} for key in self._services.keys.list(KeyQuery())}
        self.filled.keys = len(self._keys)

    def term(self) -> None:
        """In the weeks after it, people change this and that."""
        ids = list(self._keys)
        self._random.shuffle(ids)
        self._at(self._days * 0.8)
        self._call("PUT", "/admin/prompt?group=law-lab", {"prompt": LAW_PROMPT}, admin="Grace Lindqvist")
        self._call("PUT", "/admin/currency", {"code": "EUR", "rates": self._rates()})
        self._at(self._days * 0.6)
        self._call("POST", "/admin/setprompt", {"prompt": PROMPTS[1]}, admin="Grace Lindqvist")
        for key_id in ids[:2]:
            self._block(key_id, "Was found in a public repository.")
        self._at(self._days * 0.45)
        for key_id in ids[2:6]:
            self._call("POST", f"/admin/keys/{key_id}/rotate", {"overlap_seconds": 86_400}, admin="Grace Lindqvist")
        student = next(key_id for key_id in ids if self._keys[key_id]["group"] == "ml-2026")
        self._call("PATCH", f"/admin/keys/{student}", {"note": "Writes the tutorial."}, admin="Tomás Weber")
        self._at(self._days * 0.3)
        limits = {"limits": {"budget": {"amount": 330, "unit": "usd", "period": "month"}}}
        self._call("PATCH", "/admin/groups/physics", limits, admin="Grace Lindqvist")

    def recent(self) -> None:
        """In the last days, something is going on, too."""
        ids = [key_id for key_id in self._keys if key_id not in self._blocked]
        self._random.shuffle(ids)
        self._at(6)
        self._call("POST", "/admin/setprompt", {"prompt": PROMPTS[2]}, admin="Grace Lindqvist")
        self._block(ids[0], "Left the university.")
        self._at(2)
        for key_id in ids[1:3]:
            self._call("PATCH", f"/admin/keys/{key_id}", {"expires_at": self._day(-5)}, admin="Grace Lindqvist")
        raised = {"limits": {"budget": {"amount": 60, "unit": "usd", "period": "month"}}, "until": self._day(-2)}
        self._call("POST", f"/admin/keys/{ids[3]}/raise", raised, admin="Grace Lindqvist")
        person = {"limits": {"budget": {"amount": 25, "unit": "usd", "period": "month"}}}
        self._call("PUT", f"/admin/users/{self._keys[ids[4]]['user']}", person, admin="Grace Lindqvist")
        self._at(0.1)
        new = {"user": "Rosalind Franklin", "name": "thesis", "group": "physics", "starts_at": self._day(-3)}
        self._call("POST", "/admin/keys", new, admin="Grace Lindqvist")

    def use(self, requests: int) -> None:
        """Store what everybody has asked for, and what admins were warned of."""
        stores = open_stores(self._settings, clock=self._time)
        self._time.now = self._now
        services = self._services
        zones = services.policy.time_zones(services.policy.stored())
        traffic = Traffic(self._askers(), seed=self._seed, zones=zones, price=services.policy.priced)
        today = zones.day(moment(self._now))
        self._store_records(stores, self._records(traffic, requests))
        for days in range(min(self._days, self._settings.refusal_days)):
            refusals = list(traffic.refusals(today - timedelta(days=days), count=_REFUSALS, until=moment(self._now)))
            stores.refusals.append(refusals)
            self.filled.refusals += len(refusals)
        for alert in self._alerts():
            stores.alerts.add(alert)
        for identity in self._identities():
            stores.identities.change(identity.id, lambda _, made=identity: made)  # type: ignore[misc]

    def _records(self, traffic: Traffic, requests: int) -> Iterator[UsageRecord]:
        zones = self._services.policy.time_zones()
        today = zones.day(moment(self._now))
        for days in range(self._days - 1, -1, -1):
            busy = requests * (1.25 - 0.5 * days / self._days)
            versions = (0.6 * self._days, 6)
            version = 1 + sum(days < each for each in versions)
            for record in traffic.records(today - timedelta(days=days), busy=busy, until=moment(self._now)):
                yield replace(record, prompt_version=version)

    def _store_records(self, stores: Stores, records: Iterator[UsageRecord]) -> None:
        waiting: list[UsageRecord] = []
        number = 0

        def ship() -> None:
            nonlocal number
            stores.usage_log.append(waiting, batch=Batch("demo", number := number + 1))
            self.filled.records += len(waiting)
            waiting.clear()

        for record in records:
            waiting.append(record)
            if len(waiting) == _BATCH:
                ship()
        if waiting:
            ship()

    def _askers(self) -> list[Asker]:
        groups = {group.name: group for group in (*GROUPS, ALONE)}
        wanted = {
            key_id: groups[key["group"] or ""].weight * self._random.lognormvariate(0, 0.9)
            for key_id, key in self._keys.items()
        }
        all_of_them = sum(wanted.values())
        start = moment(self._now - self._days * 86_400)
        return [
            Asker(
                key_id=key_id,
                user=key["user"],
                group=groups[key["group"] or ""],
                activity=wanted[key_id] / all_of_them,
                address=f"10.20.{self._random.randint(31, 60)}.{self._random.randint(2, 250)}",
                since=start + timedelta(days=self._random.choice((0, 0, 0, 5, 12, 30))),
                until=self._blocked.get(key_id),
            )
            for key_id, key in self._keys.items()
        ]

    def _alerts(self) -> Iterator[Alert]:
        def alert(days: float, event: str, scope: str, text: str, **fields: Any) -> Alert:
            at = moment(self._now - days * 86_400)
            delivered = Delivery(target="mail", state=DeliveryState.DELIVERED, attempts=1, tried_at=at, status=250)
            return Alert(
                id=f"demo-{event}-{days:g}",
                at=at,
                event=event,
                scope=scope,
                text=text,
                deliveries=(delivered,),
                **fields,
            )

        budget = {"used": 20.1, "limit": 40.0}
        yield alert(
            3,
            "budget",
            "group:library",
            "The group library has spent 50 % of its budget of 40 USD.",
            threshold=50,
            **budget,
        )
        yield alert(11, "quota", "gpt-4o/sweden", "Azure has lowered the quota of the deployment sweden of gpt-4o.")
        yield alert(25, "store", "sqlite", "The store sqlite did not answer. It is back.")
        yield alert(
            33,
            "budget",
            "organisation",
            "The organisation has spent 80 % of its budget.",
            threshold=80,
            used=803.7,
            limit=1000.0,
        )

    def _identities(self) -> Iterator[Identity]:
        """One account that is a person's, and one that waits until an admin says whose it is."""
        issuer = "https://login.northfield.example"
        names = [person for group, person in self._people if group.name in ("physics", "library")]
        for number, user in enumerate((names[1], names[-1])):
            yield Identity(
                id=Identity.id_of(issuer, f"subject-{number}"),
                issuer=issuer,
                subject=f"subject-{number}",
                claimed=user,
                email=address_of(user),
                user=user if number == 0 else None,
                first_at=moment(self._now - 20 * 86_400),
                signed_in_at=moment(self._now - number * 3600),
            )

    def _block(self, key_id: str, note: str) -> None:
        self._call("PATCH", f"/admin/keys/{key_id}", {"active": False, "note": note}, admin="Grace Lindqvist")
        self._blocked[key_id] = moment(self._time.now)

    def _at(self, days: float) -> None:
        """Let it be this many days ago."""
        self._time.now = self._now - days * 86_400

    def _day(self, days_ago: float) -> str:
        return moment(self._now - days_ago * 86_400).date().isoformat()

    def _rates(self) -> dict[str, float]:
        months = {self._day(days)[:7] for days in range(0, self._days + 1, 20)}
        return {month: 0.9 + number / 100 for number, month in enumerate(sorted(months))}

    def _call(
        self,
        method: str,
        path: str,
        json: dict[str, Any] | None = None,
        *,
        admin: str | None = None,
        body: str | None = None,
    ) -> Any:
        """Call the admin API as a named admin; as the owner if none is named."""
        key = self._settings.admin_key if admin is None else self.filled.admin_keys[admin]
        self._time.now += self._random.uniform(20, 300)
        arguments: dict[str, Any] = {"json": json} if body is None else {"data": body, "content_type": "text/csv"}
        answer = self._client.open(
            path, method=method, headers={"AdminKey": key}, environ_base={"REMOTE_ADDR": _ADDRESS}, **arguments
        )
        if answer.status_code >= 400:
            raise RuntimeError(f"{method} {path}: {answer.text}")
        return answer.json if answer.is_json else answer.text


def _class_list(group: Group, members: Iterable[str]) -> str:
    limits = dict(group.key.get("limits", {}))
    budget = {f"budget_{name}": value for name, value in limits.pop("budget", {}).items()}
    common = {"name": group.key_names[0], "group": group.name, **limits, **budget}
    table = io.StringIO()
    writer = csv.DictWriter(table, ["user", "email", *common])
    writer.writeheader()
    for person in members:
        writer.writerow({"user": person, "email": address_of(person), **common})
    return table.getvalue()


def _admin_of(group: str) -> str:
    return "Tomás Weber" if group == "ml-2026" else "Grace Lindqvist"
