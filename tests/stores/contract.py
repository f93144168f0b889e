"""What every store must do, whatever it is made of; a test module subclasses these and brings the fixtures.

``elsewhere`` is a second object on the same backend: what another process or host would have.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from llmgateway.errors import Conflict, GroupInUse, NoSuchGroup, StoreUnavailable
from llmgateway.interfaces import AlertStore, AuditLog, Erasures, KeyStore, OrganisationStore, Pingable, UsageLog
from llmgateway.local_time import TimeZones
from llmgateway.records import (
    UNLIMITED,
    Alert,
    Attempt,
    AuditEntry,
    AuditQuery,
    Batch,
    Budget,
    Delivery,
    DeliveryState,
    Erasure,
    Group,
    GroupSize,
    Imported,
    Kept,
    KeyChange,
    KeyQuery,
    KeyRecord,
    KeyState,
    Limits,
    ModelSettings,
    NameDigest,
    Outage,
    Outcome,
    Period,
    Prices,
    Prompt,
    RecordQuery,
    ReportQuery,
    SelfService,
    Unit,
    UsageRecord,
    UsageRow,
    UsageSource,
    bucket_of,
)

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 1, 8, 12, 0, 0, 7000, UTC)
LIMITS = Limits(
    requests_per_minute=60,
    tokens_per_minute=0,
    parallel_requests=3,
    budget=Budget(amount=12.5, unit=Unit.USD, period=Period.MONTH),
)
EVERY_PRICE = Prices(
    prompt=0.15,
    cached=0.075,
    completion=0.6,
    cache_write=0.1875,
    audio_prompt=10,
    audio_completion=20,
    image=0.2,
    tools={"web_search": 10},
    above=272_000,
    long_context=Prices(prompt=0.3, completion=0.9),
    tiers={
        "priority": Prices(prompt=0.25, cached=0.125, completion=1),
        "flex": Prices(prompt=0.1, completion=0.3, above=272_000, long_context=Prices(prompt=0.2, completion=0.6)),
    },
)
BERLIN = TimeZones(("Europe/Berlin",))
FAILED_OVER: dict[str, Any] = {
    "deployment": "gpt-4o-fr",
    "outcome": Outcome.BROKEN,
    "prompt_tokens": 300,
    "completion_tokens": 50,
    "total_tokens": 350,
    "cached_tokens": 7,
    "cost_usd": 0.5,
    "usage_source": UsageSource.ESTIMATED,
    "attempts": (
        Attempt(
            deployment="sweden",
            prompt_tokens=100,
            completion_tokens=30,
            cost_usd=0.25,
            azure_deployment="gpt-4o-se",
            resource="https://se.openai.azure.com",
        ),
        Attempt(deployment="norway", prompt_tokens=100, cost_usd=0.125, azure_deployment="gpt-4o-no"),
        Attempt(
            deployment="france", prompt_tokens=100, completion_tokens=20, cost_usd=0.125, azure_deployment="gpt-4o-fr"
        ),
    ),
}
"""Fields of a record whose answer came from the third deployment."""
PROMPT = Prompt(version=7, text='Für "Ada" \\ 🎓\n', set_at=LATER, scope="key:key_0001")


def key(number: int = 1, **fields: object) -> KeyRecord:
    record = KeyRecord(
        id=f"key_{number:04}", digest=f"{number:064x}", user="ada", name=f"laptop {number}", created_at=NEW_YEAR
    )
    return replace(record, **fields)


def usage(number: int = 1, **fields: object) -> UsageRecord:
    record = UsageRecord(
        id=f"req_{number:06}",
        timestamp=NEW_YEAR,
        key_id="key_0001",
        user="ada",
        model="gpt-4o",
        deployment="gpt-4o-eu",
        endpoint="/v1/chat/completions",
        stream=False,
        outcome=Outcome.OK,
        usage_source=UsageSource.UPSTREAM,
        cost_usd=0.0,
        duration_ms=12.5,
    )
    return replace(record, **fields)


def group(name: str = "physics", **fields: object) -> Group:
    return replace(Group(name=name, created_at=NEW_YEAR), **fields)


def audit(number: int = 1, **fields: object) -> AuditEntry:
    entry = AuditEntry(
        id=f"audit_{number:06}",
        timestamp=NEW_YEAR,
        address="127.0.0.1",
        admin_key_id="a1b2c3d4",
        action="key.create",
        target="key_0001",
        before=None,
        after={"user": "ada"},
    )
    return replace(entry, **fields)


def append(log: UsageLog, records: Sequence[UsageRecord], batch: Batch | None = None) -> None:
    """Ship *records*, by default as a new batch."""
    log.append(records, batch=batch or Batch(f"test-{secrets.token_hex(8)}", 1))


def at_once(*actions: Callable[[], object]) -> list[object]:
    """Do every action in a thread of its own, all beginning together; their results in order."""
    barrier = threading.Barrier(len(actions))

    def begin(action: Callable[[], object]) -> object:
        barrier.wait(10)
        return action()

    with ThreadPoolExecutor(len(actions)) as threads:
        return list(threads.map(begin, actions))


def refused(action: Callable[[], object]) -> bool:
    """Whether *action* is refused for the sake of a group."""
    try:
        action()
    except (GroupInUse, NoSuchGroup):
        return True
    return False


class KeyStoreContract:
    @pytest.fixture
    def keys(self) -> KeyStore:
        raise NotImplementedError

    @pytest.fixture
    def elsewhere(self) -> KeyStore:
        raise NotImplementedError

    @pytest.fixture
    def organisation(self) -> OrganisationStore:
        """The groups beside ``keys``."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _groups(self, organisation) -> None:
        for name in ("physics", "chemistry"):
            organisation.set_group(group(name))

    def test_finds_what_was_added(self, keys, elsewhere):
        """Every field of a key comes back as it went in, from everywhere and by every way."""
        full = key(
            1,
            group="physics",
            email="ada@example.org",
            note='Büro 3: "für Ada" \\ 日本',
            active=False,
            starts_at=datetime(2026, 1, 1, 8, 0, 0, 1000, UTC),
            expires_at=datetime(2026, 12, 31, 23, 59, 59, 999000, UTC),
            models=("gpt-4o", "o3-mini"),
            limits=LIMITS,
            prompt=PROMPT,
            retiring_digest="e" * 64,
            retires_at=LATER,
        )

        assert keys.add(full)

        assert full == keys.find(full.digest).record
        assert full == elsewhere.find(full.digest).record
        assert full == elsewhere.find(full.digest).record  # by now from a cache, if there is one
        assert full == elsewhere.get(full.id)
        assert [full] == elsewhere.list()
        assert elsewhere.get(full.id).created_at.tzinfo == UTC
        assert elsewhere.get(full.id).limits.budget.unit is Unit.USD

    def test_tells_no_models_from_every_model(self, keys):
        """A key that may use no model at all does not become one that may use all of them."""
        keys.add(key(1, models=()))
        keys.add(key(2, models=None))

        for _ in range(2):
            assert keys.find(key(1).digest).record.models == ()
            assert keys.find(key(2).digest).record.models is None

    def test_keeps_every_millisecond(self, keys):
        """Times come back to the millisecond, also those that no binary fraction hits."""
        times = [datetime(2026, 5, 17, 11, 23, second, ms * 1000, UTC) for second, ms in ((1, 123), (2, 1), (3, 999))]
        for number, time in enumerate(times):
            keys.add(key(number, created_at=time))

        assert times == [record.created_at for record in keys.list()]

    def test_finds_nothing_for_an_unknown_digest(self, keys):
        """A digest that nobody has is no error; the version comes all the same."""
        keys.add(key(1))

        found = keys.find(key(2).digest)

        assert found.record is None
        assert found.version == keys.find(key(1).digest).version
        assert keys.get("key_0002") is None

    def test_finds_what_was_added_after_a_miss(self, keys, elsewhere):
        """That a key was unknown a moment ago does not stick."""
        assert elsewhere.find(key().digest).record is None

        keys.add(key())

        assert key() == elsewhere.find(key().digest).record

    def test_refuses_the_digest_of_another_key(self, keys):
        """A key that exists is not added again under another identifier, and stays as it was."""
        assert keys.add(key(1))

        assert not keys.add(key(2, digest=key(1).digest))

        assert key(1) == keys.find(key(1).digest).record
        assert [key(1)] == keys.list()

    def test_refuses_the_identifier_of_another_key(self, keys):
        """An identifier is given once, and its key stays as it was."""
        assert keys.add(key(1))

        assert not keys.add(key(2, id=key(1).id))

        assert key(1) == keys.get(key(1).id)
        assert keys.find(key(2).digest).record is None

    def test_adds_once_when_many_try(self, keys, elsewhere):
        """If many threads add the same key at once, exactly one call returns True."""
        attempts = [
            lambda store=store, number=number: store.add(key(number, digest="d" * 64))
            for number, store in enumerate([keys, elsewhere] * 4)
        ]

        assert sum(at_once(*attempts)) == 1
        assert len(keys.list()) == 1

    def test_update_is_seen_by_the_next_find_everywhere(self, keys, elsewhere):
        """A revoked key is revoked for the next request of every process."""
        keys.add(key())
        assert elsewhere.find(key().digest).record.active
        assert elsewhere.find(key().digest).record.active

        keys.update(key().id, {"active": False})

        assert not elsewhere.find(key().digest).record.active
        assert not keys.find(key().digest).record.active

    def test_update_returns_the_whole_key(self, keys):
        """An update answers with the key as it is now, the other fields untouched."""
        keys.add(key(1, note="old", group="physics"))
        changes = {
            "note": None,
            "group": "chemistry",
            "name": "desk",
            "expires_at": datetime(2027, 1, 1, 0, 0, 0, 5000, UTC),
            "models": ("gpt-4o",),
            "limits": replace(LIMITS, budget=None),
            "prompt": PROMPT,
            "retires_at": LATER,
        }

        updated = keys.update(key().id, changes)

        assert key(1, **changes) == updated
        assert updated == keys.get(key().id)

    def test_limits_and_a_prompt_can_be_taken_away(self, keys, elsewhere):
        """An update to no limits and no prompt leaves neither."""
        keys.add(key(1, limits=LIMITS, prompt=PROMPT))
        assert LIMITS == elsewhere.find(key().digest).record.limits

        keys.update(key().id, {"limits": UNLIMITED, "prompt": None})

        assert key() == elsewhere.find(key().digest).record

    def test_tells_a_limit_of_nothing_from_none(self, keys):
        """Whoever may have nothing does not become one who may have everything."""
        nothing = Limits(requests_per_minute=0, budget=Budget(amount=0, unit=Unit.TOKENS, period=Period.TOTAL))
        keys.add(key(1, limits=nothing))

        for _ in range(2):
            assert nothing == keys.find(key().digest).record.limits

    def test_update_of_nothing_changes_nothing(self, keys):
        """No changes: the key as it is."""
        keys.add(key())

        assert key() == keys.update(key().id, {})

    def test_update_of_an_unknown_key(self, keys):
        """An update makes no key."""
        assert keys.update("key_0009", {"name": "x"}) is None
        assert keys.update("key_0009", {}) is None
        assert keys.list() == []

    @pytest.mark.parametrize("field", ["id", "digest", "retiring_digest", "nonsense", 'name" = 1 --', "$where"])
    def test_update_of_other_fields_is_a_mistake(self, keys, field):
        """What identifies a key does not change, and no name from outside gets into a statement."""
        keys.add(key())

        with pytest.raises(ValueError, match="can be changed"):
            keys.update(key().id, {field: "x"})

        assert key() == keys.get(key().id)

    def test_updates_of_different_fields_both_hold(self, keys, elsewhere):
        """Two admins who change different fields at once do not undo each other's change."""
        for number in range(20):
            keys.add(key(number))
            at_once(
                lambda number=number: keys.update(key(number).id, {"name": "new"}),
                lambda number=number: elsewhere.update(key(number).id, {"active": False}),
            )

            assert key(number, name="new", active=False) == keys.get(key(number).id)
            assert key(number, name="new", active=False) == keys.find(key(number).digest).record

    def test_updates_of_different_limits_both_hold(self, keys, elsewhere):
        """Two admins who change different limits of a key at once do not undo each other's change."""
        tokens = Budget(amount=1000, unit=Unit.TOKENS, period=Period.DAY)
        for number in range(20):
            keys.add(key(number, limits=Limits(parallel_requests=3)))
            at_once(
                lambda number=number: keys.update(key(number).id, {}, limits={"requests_per_minute": 5}),
                lambda number=number: elsewhere.update(key(number).id, {"name": "new"}, limits={"budget": tokens}),
            )

            expected = Limits(requests_per_minute=5, parallel_requests=3, budget=tokens)
            assert key(number, name="new", limits=expected) == keys.get(key(number).id)
            assert expected == keys.find(key(number).digest).record.limits

    def test_a_limit_can_be_lifted(self, keys, elsewhere):
        """Null removes one limit and leaves the others; a key without limits can get one."""
        keys.add(key(1, limits=LIMITS))
        keys.add(key(2))
        assert LIMITS == elsewhere.find(key().digest).record.limits

        lifted = keys.update(key().id, {}, limits={"budget": None, "parallel_requests": None})

        assert Limits(requests_per_minute=60, tokens_per_minute=0) == lifted.limits
        assert lifted == elsewhere.find(key().digest).record
        assert LIMITS.budget == keys.update(key(2).id, {}, limits={"budget": LIMITS.budget}).limits.budget
        assert keys.update("key_0009", {}, limits={"budget": None}) is None

    def test_no_key_gets_into_a_group_that_is_not_there(self, keys, elsewhere):
        """Neither alone, nor with others, nor later; what was refused leaves nothing that is in the way."""
        keys.add(key(1, group="physics"))

        for action in (
            lambda: keys.add(key(2, group="nobody's")),
            lambda: keys.add_all([key(2), key(3, group="physics"), key(4, group="nobody's")]),
            lambda: keys.update(key().id, {"group": "nobody's", "name": "new"}),
        ):
            assert refused(action)

        assert [key(1, group="physics")] == elsewhere.list()
        assert elsewhere.find(key(2).digest).record is None
        assert keys.update("key_0009", {"group": "nobody's"}) is None
        assert set() == keys.add_all([key(2), key(3), key(4)])

    def test_a_key_that_stays_in_its_group_may_be_changed(self, keys):
        """Whoever sends the group back as it was read changes the rest."""
        keys.add(key(1, group="physics"))

        assert key(1, group="physics", name="new") == keys.update(key().id, {"group": "physics", "name": "new"})

    @pytest.mark.parametrize(
        "join",
        [
            lambda keys, number, name: keys.add(key(number, group=name)),
            lambda keys, number, name: keys.add_all([key(number, group=name), key(number + 500, group="physics")]),
            lambda keys, number, name: keys.update(key(number).id, {"group": name}),
            lambda keys, number, name: keys.update_all([key(number).id], {"group": name}),
        ],
        ids=["add", "add_all", "update", "update_all"],
    )
    def test_no_key_is_in_a_group_that_is_removed_at_the_same_moment(
        self, keys, elsewhere, organisation, join, request
    ):
        """Either the group is still there or the key's call was refused, whoever was faster."""
        for number in range(12):
            name = f"group {number}"
            organisation.set_group(group(name, limits=LIMITS))
            if "update" in request.node.name:
                keys.add(key(number))

            actions = [partial(join, elsewhere, number, name), partial(organisation.remove_group, name)]
            turn = -1 if number % 2 else 1
            was_refused, stays = at_once(*[partial(refused, action) for action in actions[::turn]])[::turn]

            assert stays == (name in organisation.load().groups)
            assert was_refused or stays
            record = elsewhere.get(key(number).id)
            assert (None if was_refused else name) == (record and record.group)
            assert record == keys.find(key(number).digest).record
            if stays and was_refused:
                assert organisation.remove_group(name)

    def test_many_keys_change_in_one_call(self, keys, elsewhere):
        """All of them are changed for the next request of every process; unknown identifiers do no harm."""
        for number in range(1, 201):
            keys.add(key(number, note="kept", limits=LIMITS))
        assert elsewhere.find(key(7).digest).record.active
        some = [key(number).id for number in range(200, 0, -2)] + ["key_9999"]

        changed = keys.update_all(some, {"active": False, "expires_at": LATER})

        assert [key(number).id for number in range(2, 201, 2)] == [one.id for one in changed]
        assert key(8, note="kept", limits=LIMITS, active=False, expires_at=LATER) == changed[3]
        assert changed == elsewhere.get_all(some)
        assert not elsewhere.find(key(8).digest).record.active
        assert elsewhere.find(key(7).digest).record.active
        assert not keys.update_all([], {"active": False})
        assert not keys.get_all(["key_9999"])

    def test_many_keys_join_a_group_that_exists(self, keys, elsewhere, organisation):
        """And none joins one that does not; the group cannot be removed then."""
        for number in range(1, 31):
            keys.add(key(number, group="chemistry" if number % 2 else None))
        every = [key(number).id for number in range(1, 31)]

        assert refused(lambda: keys.update_all(every, {"group": "nobody's"}))
        assert 15 == len(keys.list(KeyQuery(group="chemistry")))

        assert {"physics"} == {one.group for one in keys.update_all(every, {"group": "physics", "note": "moved"})}
        assert ["moved"] * 30 == [one.note for one in elsewhere.list(KeyQuery(group="physics"))]
        assert refused(lambda: organisation.remove_group("physics"))
        assert organisation.remove_group("chemistry")

    def test_many_keys_leave_in_one_call(self, keys, elsewhere):
        """They are unknown for the next request of every process; a repetition finds none."""
        for number in range(1, 41):
            keys.add(key(number))
        assert elsewhere.find(key(5).digest).record
        some = [key(number).id for number in range(30, 0, -1)] + ["key_9999"]

        assert [key(number) for number in range(1, 31)] == [*keys.remove_all(some)]

        assert elsewhere.find(key(5).digest).record is None
        assert [key(number) for number in range(31, 41)] == elsewhere.list()
        assert not elsewhere.remove_all(some)

    @pytest.mark.parametrize(
        ("where", "left"),
        [
            (KeyQuery(group="physics"), 1),
            (KeyQuery(groups=("physics", "maths")), 1),
            (KeyQuery(groups=()), 4),
            (KeyQuery(active=True), 1),
            (KeyQuery(user="ada"), 1),
            (KeyQuery(user="ada", group="physics", active=True), 3),
        ],
    )
    def test_many_keys_change_while_they_match(self, keys, elsewhere, organisation, where, left):
        """A key that somebody else has changed since it was selected stays as it is, and is not in the answer."""
        made = [
            key(1, group="chemistry", user="ada"),
            key(2, group="physics", user="ada", active=False),
            key(3, group="physics", user="ada"),
            key(4, group="physics", user="alan"),
        ]
        for one in made:
            keys.add(one)
        ids = [one.id for one in made]
        wanted = [one.id for one in keys.list(where)]
        assert left == len(ids) - len(wanted)

        assert wanted == [one.id for one in keys.update_all(ids, {"note": "changed"}, where=where)]
        assert wanted == [one.id for one in elsewhere.get_all(ids) if one.note == "changed"]
        assert refused(lambda: keys.update_all(ids, {"group": "history"}, where=where))
        organisation.set_group(group("history"))
        moved = keys.update_all(ids, {"group": "history", "note": "moved"}, where=where)
        assert wanted == [one.id for one in moved] == [one.id for one in elsewhere.list(KeyQuery(group="history"))]
        for one in moved:
            keys.update(one.id, {"group": "physics"})
        wanted = [one.id for one in keys.list(where)]
        assert wanted == [one.id for one in keys.remove_all(ids, where=where)]
        assert [name for name in ids if name not in wanted] == [one.id for one in elsewhere.list()]

    @pytest.mark.parametrize("field", ["id", "digest", "nonsense", 'name" = 1 --'])
    def test_many_keys_keep_what_identifies_them(self, keys, field):
        """The same fields may be changed as of one key."""
        keys.add(key())

        with pytest.raises(ValueError, match="can be changed"):
            keys.update_all([key().id], {field: "x"})

    def test_a_group_goes_when_its_keys_have_gone(self, keys, elsewhere, organisation):
        """While one is in it, active or not, it stays."""
        keys.add(key(1, group="physics", active=False))
        keys.add(key(2, group="physics"))

        for leave in (
            lambda: elsewhere.update(key(1).id, {"group": "chemistry"}),
            lambda: elsewhere.remove(key(2).id),
        ):
            with pytest.raises(GroupInUse):
                organisation.remove_group("physics")
            leave()

        assert group("physics") == organisation.remove_group("physics")
        assert organisation.remove_group("physics") is None
        assert ["chemistry"] == [*organisation.load().groups]

    def test_both_keys_are_found_while_one_retires(self, keys, elsewhere):
        """The old key and the new one are one record, everywhere, and the record says which retires when."""
        keys.add(key(1, note="stays"))
        assert elsewhere.find(key().digest).record is not None

        rotated = keys.rotate(key().id, "f" * 64, retires_at=LATER)

        expected = key(1, note="stays", digest="f" * 64, retiring_digest=key().digest, retires_at=LATER)
        assert expected == rotated
        for _ in range(2):
            assert expected == elsewhere.find("f" * 64).record
            assert expected == elsewhere.find(key().digest).record
        assert expected == elsewhere.get(key().id)

    def test_an_old_key_can_go_at_once(self, keys, elsewhere):
        """Without an overlap the old key is unknown to the next request of every process."""
        keys.add(key())
        assert elsewhere.find(key().digest).record is not None

        rotated = keys.rotate(key().id, "f" * 64, retires_at=None)

        assert key(1, digest="f" * 64) == rotated
        assert elsewhere.find(key().digest).record is None
        assert rotated == elsewhere.find("f" * 64).record

    @pytest.mark.parametrize("retires_at", [None, LATER])
    def test_at_most_one_key_retires(self, keys, elsewhere, retires_at):
        """The one that was retiring goes when the next one begins to."""
        keys.add(key())
        keys.rotate(key().id, "e" * 64, retires_at=LATER)
        assert elsewhere.find(key().digest).record is not None

        rotated = keys.rotate(key().id, "f" * 64, retires_at=retires_at)

        assert elsewhere.find(key().digest).record is None
        assert rotated == elsewhere.find("f" * 64).record
        assert (rotated if retires_at else None) == elsewhere.find("e" * 64).record

    def test_a_retiring_key_can_come_back(self, keys, elsewhere):
        """Who rotated by mistake rotates back: the two change places."""
        keys.add(key())
        keys.rotate(key().id, "f" * 64, retires_at=LATER)

        rotated = elsewhere.rotate(key().id, key().digest, retires_at=LATER)

        assert key(1, retiring_digest="f" * 64, retires_at=LATER) == rotated
        assert rotated == keys.find("f" * 64).record == keys.find(key().digest).record

    def test_no_unknown_key_is_rotated(self, keys):
        """A rotation makes no key."""
        assert keys.rotate("key_0009", "f" * 64, retires_at=LATER) is None
        assert keys.find("f" * 64).record is None

    def test_a_key_takes_no_other_keys_place(self, keys):
        """Neither another's digest, nor another's retiring one, nor its own; all stay as they were."""
        keys.add(key(1))
        keys.add(key(2))
        other = keys.rotate(key(2).id, "f" * 64, retires_at=LATER)

        for taken in (key(1).digest, key(2).digest, "f" * 64):
            with pytest.raises(Conflict):
                keys.rotate(key(1).id, taken, retires_at=LATER)

        assert [key(1), other] == keys.list()
        assert other == keys.find(key(2).digest).record

    def test_refuses_a_retiring_digest(self, keys):
        """Nobody gets a key that still opens somebody else's door, nor lets one in by somebody else's."""
        keys.add(key(1))
        rotated = keys.rotate(key(1).id, "f" * 64, retires_at=LATER)

        assert not keys.add(key(2, digest=key(1).digest))
        assert not keys.add(key(2, retiring_digest="f" * 64, retires_at=LATER))

        assert [rotated] == keys.list()

    def test_a_digest_is_free_once_it_is_nobodys(self, keys):
        """What was rotated away for good can be added again."""
        keys.add(key(1))
        keys.rotate(key(1).id, "f" * 64, retires_at=None)

        assert keys.add(key(2, digest=key(1).digest))

        assert key(2).id == keys.find(key(1).digest).record.id

    def test_changes_are_seen_through_a_retiring_key(self, keys, elsewhere):
        """Whoever still comes with the old key is revoked, and removed, with the new one."""
        keys.add(key())
        keys.rotate(key().id, "f" * 64, retires_at=LATER)
        assert elsewhere.find(key().digest).record.active

        keys.update(key().id, {"active": False})
        assert not elsewhere.find(key().digest).record.active

        keys.remove(key().id)
        assert elsewhere.find(key().digest).record is None
        assert elsewhere.find("f" * 64).record is None

    def test_rotations_at_once_leave_two_keys(self, keys, elsewhere):
        """Of many who rotate one key at once the last one's opens, and that of the one before retires."""
        keys.add(key())
        digests = [f"{number:064x}" for number in range(100, 108)]
        rotations = [
            lambda store=store, digest=digest: store.rotate(key().id, digest, retires_at=LATER)
            for digest, store in zip(digests, [keys, elsewhere] * 4, strict=True)
        ]

        rotated = at_once(*rotations)

        present = keys.get(key().id)
        assert present in rotated
        assert {*digests, key().digest} - {present.digest} == {record.retiring_digest for record in rotated}
        for digest in (key().digest, *digests):
            found = present if digest in (present.digest, present.retiring_digest) else None
            assert found == elsewhere.find(digest).record == keys.find(digest).record

    def test_a_rotation_and_an_update_both_hold(self, keys, elsewhere):
        """An admin who revokes a key that another one rotates revokes the new one, and the old one."""
        for number in range(20):
            keys.add(key(number))
            at_once(
                lambda number=number: keys.rotate(key(number).id, f"{number + 100:064x}", retires_at=LATER),
                lambda number=number: elsewhere.update(key(number).id, {"active": False}),
            )

            for digest in (key(number).digest, f"{number + 100:064x}"):
                assert not keys.find(digest).record.active

    def test_adds_many(self, keys, elsewhere):
        """Every one is there, everywhere, as it went in."""
        records = [key(number, group="physics", limits=LIMITS, models=("gpt-4o",)) for number in range(1, 30)]

        assert set() == keys.add_all(records)

        assert records == elsewhere.list()
        assert all(record == elsewhere.find(record.digest).record for record in records)
        assert elsewhere.update(records[3].id, {"name": "new"}).name == "new"
        assert elsewhere.remove(records[4].id)

    def test_adds_none_of_many(self, keys):
        """An empty list is no mistake."""
        assert set() == keys.add_all([])
        assert [] == keys.list()

    def test_adds_all_or_none(self, keys, elsewhere):
        """If a digest or an identifier exists already, the conflicts are returned, and nothing is stored."""
        keys.add(key(1))
        keys.add(key(2))
        keys.rotate(key(2).id, "f" * 64, retires_at=LATER)
        before = keys.list()
        taken = [key(11, digest=key(1).digest), key(12, digest=key(2).digest), key(13, digest="f" * 64)]
        taken.append(key(14, id=key(1).id))

        assert {record.digest for record in taken} == keys.add_all([key(3), *taken, key(4)])

        assert before == elsewhere.list()
        assert elsewhere.find(key(3).digest).record is None
        assert keys.get(key(4).id) is None
        assert set() == keys.add_all([key(3), key(4)])

    def test_adds_no_two_that_are_one(self, keys):
        """The same digest, or identifier, twice in one call: nothing is stored."""
        assert {key(1).digest} == keys.add_all([key(1), key(2), key(3, digest=key(1).digest)])
        assert {key(4).digest} == keys.add_all([key(1), key(2), key(4, id=key(1).id)])

        assert [] == keys.list()
        assert set() == keys.add_all([key(1), key(2)])

    def test_of_imports_at_once_each_is_whole(self, keys, elsewhere):
        """Of imports that share keys, in whatever order, one gets them, and of each all keys are there, or none."""
        for attempt in range(5):
            shared = [f"{9000 + attempt * 10 + number:064x}" for number in range(3)]
            imports = []
            for number in range(4):
                records = [key(attempt * 1000 + number * 10 + step) for step in range(8)]
                for step, digest in enumerate(shared if number % 2 else shared[::-1]):
                    records[step * 3] = replace(records[step * 3], digest=digest)
                imports.append(records)

            refused = at_once(
                *[
                    lambda store=store, records=records: store.add_all(records)
                    for store, records in zip([keys, elsewhere] * 2, imports, strict=True)
                ]
            )

            there = {record.id for record in keys.list()}
            for records, why in zip(imports, refused, strict=True):
                assert why <= {*shared}
                assert len(there & {record.id for record in records}) == (0 if why else 8)
            assert 1 == refused.count(set())

    def test_imports_new_keys_and_changes_in_one_step(self, keys, elsewhere):
        """New keys are there and changes are made, everywhere; fields and limits that are not named stay."""
        keys.add(key(1, user="ada", email="old@example.org", limits=LIMITS))
        before = elsewhere.find(key(1).digest).record
        changes = [
            KeyChange(before=before, fields={"email": "new@example.org"}, limits={"parallel_requests": 7}),
            KeyChange(before=key(99), fields={"email": "nobody@example.org"}, limits={}),
        ]

        new = [key(2, group="physics"), key(3, user="bob")]
        imported = keys.import_all(new, changes, alone=True)

        after = replace(before, email="new@example.org", limits=replace(LIMITS, parallel_requests=7))
        assert Imported(changed=[after]) == imported._replace(changed=[*imported.changed])
        assert after == elsewhere.find(key(1).digest).record == keys.find(key(1).digest).record
        assert [after, *new] == elsewhere.list()
        assert Imported() == keys.import_all([], [], alone=True)._replace(changed=())

    def test_imports_nobody_who_is_there(self, keys, elsewhere):
        """The same user in the same group: nothing is stored, and nothing is changed. Elsewhere is somebody else."""
        keys.add_all([key(1, user="ada", group="physics"), key(2, user="bob")])
        before = keys.list()
        change = KeyChange(before=before[1], fields={"name": "changed"}, limits={})
        new = [key(3, user="ada", group="physics"), key(4, user="bob"), key(5, user="ada"), key(6, user="Ada")]

        imported = keys.import_all(new, [change], alone=True)

        assert (set(), {("ada", "physics"), ("bob", None)}) == (imported.taken, imported.present)
        assert before == elsewhere.list()
        assert keys.import_all(new[2:], [], alone=True).present == set()
        assert keys.import_all(new[:2], [], alone=False).present == set()
        assert 6 == len(elsewhere.list())

    def test_imports_nothing_if_a_digest_or_a_group_is_in_the_way(self, keys, elsewhere):
        """Neither new keys nor changes."""
        keys.add(key(1, user="ada"))
        change = KeyChange(before=key(1, user="ada"), fields={"name": "changed"}, limits={})

        new = key(2, user="bob")
        taken = keys.import_all([new, key(3, user="eve", digest=key(1).digest)], [change], alone=True).taken
        with pytest.raises(NoSuchGroup):
            keys.import_all([new, key(3, group="nobody's")], [change], alone=True)

        assert {key(1).digest} == taken
        assert [key(1, user="ada")] == elsewhere.list()
        assert Imported() == keys.import_all([new], [change], alone=True)._replace(changed=())

    def test_of_the_same_list_twice_at_once_one_is_imported(self, keys, elsewhere):
        """Whoever comes second finds the keys of the first, so nobody gets two."""
        for attempt in range(4):
            people = [f"user-{attempt}-{number}" for number in range(12)]
            lists = [
                [key(attempt * 1000 + copy * 100 + place, user=user) for place, user in enumerate(people)]
                for copy in range(4)
            ]

            imported = at_once(
                *[
                    lambda store=store, records=records: store.import_all(records, [], alone=True)
                    for store, records in zip([keys, elsewhere] * 2, lists, strict=True)
                ]
            )

            assert [0, 12, 12, 12] == sorted(len(each.present) for each in imported)
            assert sorted(people) == sorted(record.user for record in elsewhere.of_users(people))

    def test_adds_a_key_that_its_check_allows(self, keys, elsewhere):
        """The check gets all keys of the user, and no others."""
        keys.add_all([key(1, user="ada"), key(2, user="Ada"), key(3, user="ada", active=False, self_made=True)])
        seen = []

        assert keys.add_checked(key(4, user="ada", self_made=True), seen.append)
        assert not elsewhere.add_checked(key(5, user="ada", digest=key(4).digest), seen.append)

        assert [key(1).id, key(3).id] == [record.id for record in seen[0]]
        assert key(4, user="ada", self_made=True) == elsewhere.find(key(4).digest).record
        assert 4 == len(elsewhere.list())

    def test_adds_no_key_that_its_check_refuses(self, keys, elsewhere):
        """Nothing is left of it, whatever the check raises; a later one is not in its way."""

        def refuse(_):
            raise Conflict("refused by this test")

        with pytest.raises(Conflict, match="refused by this test"):
            keys.add_checked(key(1), refuse)
        with pytest.raises(NoSuchGroup):
            keys.add_checked(key(2, group="nobody's"), lambda _: None)

        assert [] == elsewhere.list()
        assert elsewhere.add_checked(key(1), lambda _: None)

    def test_of_checked_keys_at_once_none_is_too_many(self, keys, elsewhere):
        """However many try at the same moment, each sees those before it."""

        def at_most_two(present):
            if len(present) >= 2:
                raise Conflict("two are there")

        def added(store, number):
            try:
                return store.add_checked(key(number, user=f"user-{number % 2}"), at_most_two)
            except Conflict:
                return False

        tried = at_once(*[partial(added, store, number) for number, store in enumerate([keys, elsewhere] * 4, start=1)])

        assert 4 == sum(map(bool, tried))
        assert ["user-0", "user-0", "user-1", "user-1"] == sorted(record.user for record in elsewhere.list())

    def test_finds_the_keys_of_users(self, keys):
        """All of them, also blocked ones; names are compared exactly."""
        keys.add_all([key(1, user="ada"), key(2, user="ada", active=False), key(3, user="Ada"), key(4, user="émile")])

        assert [key(1, user="ada"), key(2, user="ada", active=False), key(4, user="émile")] == keys.of_users(
            {"ada", "émile", "nobody", "a' OR 1"}
        )
        assert [] == keys.of_users([])

    def test_revokes_a_group(self, keys, elsewhere):
        """Every active key of the group is inactive for the next request everywhere, and no other is."""
        keys.add_all([key(1, group="physics"), key(2, group="physics"), key(3, group="physics", active=False)])
        keys.add_all([key(4, group="chemistry"), key(5)])
        keys.rotate(key(2).id, "f" * 64, retires_at=LATER)
        digests = [key(1).digest, key(2).digest, "f" * 64]
        for _ in range(2):
            assert all(elsewhere.find(digest).record.active for digest in digests)

        revoked = keys.revoke_group("physics")

        assert [(key(1).id, False), (key(2).id, False)] == sorted((record.id, record.active) for record in revoked)
        assert not any(elsewhere.find(digest).record.active for digest in digests)
        assert [key(4).id, key(5).id] == [record.id for record in elsewhere.list(KeyQuery(active=True))]
        assert [] == keys.revoke_group("physics")
        assert [] == keys.revoke_group("nobody's")

    def test_removes_a_key_everywhere(self, keys, elsewhere):
        """A removed key is unknown to the next request of every process, and can be removed only once."""
        keys.add(key())
        assert elsewhere.find(key().digest).record is not None

        assert keys.remove(key().id)

        assert elsewhere.find(key().digest).record is None
        assert elsewhere.get(key().id) is None
        assert not elsewhere.remove(key().id)

    def test_a_removed_key_can_be_added_again(self, keys, elsewhere):
        """What was removed leaves no trace that would refuse it."""
        keys.add(key(1))
        elsewhere.find(key(1).digest)
        keys.remove(key(1).id)
        elsewhere.find(key(1).digest)

        assert keys.add(key(2, digest=key(1).digest))

        assert key(2).id == elsewhere.find(key(1).digest).record.id

    def test_lists_by_identifier(self, keys):
        """Whatever the order of adding, the oldest identifier comes first."""
        for number in (3, 1, 2):
            keys.add(key(number))

        assert [key(1), key(2), key(3)] == keys.list()

    def test_lists_page_by_page(self, keys):
        """Pages of any size, each behind the last identifier of the one before, make up the whole."""
        for number in range(7):
            keys.add(key(number))

        first = keys.list(KeyQuery(limit=3))
        second = keys.list(KeyQuery(limit=3, after=first[-1].id))
        third = keys.list(KeyQuery(limit=3, after=second[-1].id))

        assert [len(first), len(second), len(third)] == [3, 3, 1]
        assert keys.list() == [*first, *second, *third]
        assert keys.list(KeyQuery(after=third[-1].id)) == []
        assert keys.list(KeyQuery(limit=0)) == []

    def test_lists_what_matches_every_filter(self, keys):
        """Filters narrow each other down, and so does the page."""
        keys.add(key(1, user="ada", group="physics"))
        keys.add(key(2, user="ada", group="physics", active=False))
        keys.add(key(3, user="ada", group=None))
        keys.add(key(4, user="bob", group="physics"))

        def numbers(**filters: object) -> list[int]:
            return [int(record.id[-4:]) for record in keys.list(KeyQuery(**filters))]

        assert numbers(user="ada") == [1, 2, 3]
        assert numbers(group="physics") == [1, 2, 4]
        assert numbers(active=False) == [2]
        assert numbers(active=True) == [1, 3, 4]
        assert numbers(user="ada", group="physics", active=True) == [1]
        assert numbers(user="ada", group="physics", after="key_0001") == [2]
        assert numbers(user="ada", limit=1) == [1]
        assert numbers(user="eve") == []
        assert numbers(group="' OR 1 --") == []

    def test_finds_a_text_in_any_case(self, keys):
        """In any of the fields that people know of a key, and nothing of it is a pattern."""
        keys.add(key(1, user="ada.lovelace", name="Thesis"))
        keys.add(key(2, user="bob", email="Bob.Müller@example.org", note="100% of_it"))
        keys.add(key(3, user="eve", group="physics", note="Ω [x]*"))
        keys.add(key(4, user="eve", active=False, note=None))

        def numbers(text: str, **filters: object) -> list[int]:
            query = KeyQuery(text=text, **filters)
            found = keys.list(query)
            assert [one.id for one in found] == keys.ids(query)
            assert keys.count(query) == len(found)
            return [int(record.id[-4:]) for record in found]

        found = {text: numbers(text) for text in ("LOVE", "bob.mÜLLER@", "0% OF_", "PHYS", "ω [X]*", "_0004", "%")}
        assert [*found.values()] == [[1], [2], [2], [3], [3], [4], [2]]
        for text in (".*", "b_b", "' OR 1 --", "nobody"):
            assert numbers(text) == []
        assert numbers("eve") == [3, 4]
        assert numbers("eve", active=True) == [3]
        assert numbers("e", groups=("physics",)) == [3]
        assert numbers("E", user="eve", state=KeyState.BLOCKED, now=NEW_YEAR) == [4]

    def test_lists_in_every_order(self, keys):
        """Forwards and backwards, page by page; equal keys by identifier."""
        keys.add(key(1, user="bob", name="b", group="physics", created_at=NEW_YEAR + timedelta(days=2)))
        keys.add(key(2, user="Ada", name="a", expires_at=NEW_YEAR + timedelta(days=9), created_at=NEW_YEAR))
        keys.add(key(3, user="ada", name="C", group="chemistry", created_at=NEW_YEAR))
        keys.add(key(4, user="carl", name="a", group="physics", expires_at=NEW_YEAR + timedelta(days=3)))

        def numbers(**query: object) -> list[int]:
            found = keys.list(KeyQuery(**query))
            assert [one.id for one in found] == keys.ids(KeyQuery(**query))
            return [int(record.id[-4:]) for record in found]

        orders = {
            "user": [2, 3, 1, 4],
            "name": [2, 4, 1, 3],
            "group": [2, 3, 1, 4],
            "expires_at": [4, 2, 1, 3],
        }
        assert orders == {order: numbers(order=order) for order in orders}
        assert numbers(order="created_at")[-1] == 1
        for order, wanted in orders.items():
            assert numbers(order=order, descending=True) == wanted[::-1]
            assert numbers(order=order, offset=1, limit=2) == wanted[1:3]
        assert numbers(offset=3) == [4]
        assert numbers(order="user", offset=4, limit=2) == numbers(order="user", limit=0) == []

    def test_selects_by_state(self, keys):
        """As the state of each key says; those that expire soon are active, too."""
        days = {
            1: (None, None),
            2: (-1, 30),
            3: (None, 14),
            4: (1, 30),
            5: (-9, 0),
            6: (1, 0),
            7: (0, None),
        }
        ends = {
            number: {
                name: None if ahead is None else NEW_YEAR + timedelta(days=ahead)
                for name, ahead in zip(("starts_at", "expires_at"), dates, strict=True)
            }
            for number, dates in days.items()
        }
        for number, dates in ends.items():
            keys.add(key(number, **dates))
            keys.add(key(number + 10, active=False, **dates))

        found = {
            state: [int(one.id[-4:]) for one in keys.list(KeyQuery(state=state, now=NEW_YEAR))] for state in KeyState
        }
        assert found == {
            KeyState.ACTIVE: [1, 2, 3, 7],
            KeyState.EXPIRING: [3],
            KeyState.NOT_YET_VALID: [4],
            KeyState.EXPIRED: [5, 6],
            KeyState.BLOCKED: [11, 12, 13, 14, 15, 16, 17],
        }
        for one in keys.list():
            state = KeyState.of(one, NEW_YEAR)
            assert int(one.id[-4:]) in found[state]
        assert keys.count(KeyQuery(state=KeyState.ACTIVE, now=NEW_YEAR, active=False)) == 0
        assert keys.count(KeyQuery(limit=1, after="key_0007")) == 14

    def test_counts_keys_and_people_of_groups(self, keys):
        """Of those that have keys."""
        keys.add(key(1, user="ada", group="physics"))
        keys.add(key(2, user="ada", group="physics", active=False))
        keys.add(key(3, user="bob", group="physics"))
        keys.add(key(4, user="bob", group="chemistry"))
        keys.add(key(5, user="bob"))

        assert {"physics": GroupSize(3, 2), "chemistry": GroupSize(1, 1)} == keys.group_sizes()

    def test_shows_no_digest(self, keys):
        """What goes by a digest may be logged whole."""
        keys.add(key(0xABCDEF))

        assert "abcdef" not in repr(keys.find(key(0xABCDEF).digest))

    def test_serves_many_threads(self, keys, elsewhere):
        """Threads that add, change, remove and look up at once get in nobody's way."""

        def work(number: int) -> None:
            store, other = (keys, elsewhere) if number % 2 else (elsewhere, keys)
            for step in range(10):
                mine = key(number * 100 + step)
                assert store.add(mine)
                assert mine == other.find(mine.digest).record
                store.update(mine.id, {"name": "new"})
                assert other.find(mine.digest).record.name == "new"
                assert other.remove(mine.id)
                assert store.find(mine.digest).record is None

        at_once(*[lambda number=number: work(number) for number in range(8)])

        assert keys.list() == []


class OrganisationStoreContract:
    @pytest.fixture
    def organisation(self) -> OrganisationStore:
        raise NotImplementedError

    @pytest.fixture
    def elsewhere(self) -> OrganisationStore:
        raise NotImplementedError

    @pytest.fixture
    def keys(self) -> KeyStore:
        """The key store beside ``organisation``, whose look-ups tell the version."""
        raise NotImplementedError

    def test_begins_empty(self, organisation):
        """Where nothing was ever set there is version 0 of the prompt, no credential, limit, group or history."""
        loaded = organisation.load()

        assert Prompt() == loaded.prompt
        assert loaded.credential is None
        assert UNLIMITED == loaded.limits
        assert {} == loaded.groups
        assert organisation.prompt_versions() == []

    def test_prompt_is_in_force_everywhere(self, organisation, elsewhere):
        """A prompt that was set is the next one that anybody loads, with its number and time."""
        text = "Antworte höflich. $name {x} %s 'x' \"y\" \\ 🎓\n"

        prompt = organisation.set_prompt(text, NEW_YEAR)

        assert Prompt(version=1, text=text, set_at=NEW_YEAR) == prompt
        assert prompt == organisation.load().prompt
        assert prompt == elsewhere.load().prompt

    def test_versions_count_up(self, organisation, elsewhere):
        """Each prompt is one above the highest so far, the empty one too; all stay readable, newest first."""
        prompts = [
            organisation.set_prompt("one", NEW_YEAR),
            elsewhere.set_prompt("", NEW_YEAR),
            organisation.set_prompt("three", NEW_YEAR),
        ]

        assert [prompt.version for prompt in prompts] == [1, 2, 3]
        assert prompts[::-1] == organisation.prompt_versions()
        assert prompts[2] == elsewhere.load().prompt

    def test_the_same_text_is_a_version_too(self, organisation):
        """Who sets what is set already still finds it in the history."""
        organisation.set_prompt("one", NEW_YEAR)
        organisation.set_prompt("one", NEW_YEAR)

        assert [prompt.version for prompt in organisation.prompt_versions()] == [2, 1]

    def test_settings_are_kept_by_model(self, organisation, elsewhere, keys):
        """Settings are in force everywhere for their model, others stay, None removes them; the version is new."""
        mini, large = ModelSettings(prices=EVERY_PRICE), ModelSettings(prices=Prices(prompt=2.5, cached=0))
        before = keys.find("0" * 64).version

        organisation.set_model("gpt-4.1-mini", {"prices": large.prices})
        elsewhere.set_model("gpt-4o", {"prices": large.prices})
        organisation.set_model("gpt-4.1-mini", {"prices": mini.prices})

        assert {"gpt-4.1-mini": mini, "gpt-4o": large} == elsewhere.load().models
        assert before != keys.find("0" * 64).version
        assert ModelSettings() == elsewhere.set_model("gpt-4o", None) == elsewhere.set_model("never-set", None)
        assert {"gpt-4.1-mini": mini} == organisation.load().models

    def test_only_the_named_settings_of_a_model_change(self, organisation, elsewhere):
        """Two admins can set different settings of one model; a model without any is forgotten."""
        parts = {"max_output_tokens": 4096, "tokens_per_second": 80.5, "reasoning": False}

        organisation.set_model("team/gpt 4.1", {"prices": EVERY_PRICE})
        for name, value in parts.items():
            elsewhere.set_model("team/gpt 4.1", {name: value})

        expected = ModelSettings(prices=EVERY_PRICE, max_output_tokens=4096, tokens_per_second=80.5, reasoning=False)
        assert expected == organisation.load().models["team/gpt 4.1"]
        assert replace(expected, prices=None) == organisation.set_model("team/gpt 4.1", {"prices": None})
        organisation.set_model("team/gpt 4.1", dict.fromkeys(parts))
        assert {} == elsewhere.load().models

    def test_a_change_that_its_check_refuses_is_not_made(self, organisation, elsewhere):
        """The check sees the models of all admins, as they are before the change; its error is what the caller gets."""
        elsewhere.set_model("gpt-4o", {"reasoning": True})
        seen: list[str] = []

        def check(models: Mapping[str, ModelSettings]) -> None:
            seen.extend(models)
            raise ValueError("refused")

        with pytest.raises(ValueError, match="refused"):
            organisation.set_model("o1", {"reasoning": True}, check=check)
        assert ["gpt-4o"] == seen == [*elsewhere.load().models]

        organisation.set_model("o1", {"reasoning": True}, check=seen.extend)
        assert ["gpt-4o", "gpt-4o"] == seen

    def test_documents_are_kept_by_name(self, organisation, elsewhere, keys):
        """Each change gets the document before it; others stay; an empty one is gone; the version is new."""
        before = keys.find("0" * 64).version
        documents = {"settings": {"zone.of $us": ["Europe/Berlin", {"since": 1.5}]}, "a.b": {"ü": None}}
        for name, document in documents.items():
            assert document == organisation.update_document(name, lambda old, new=document: {**old, **new})

        assert documents == elsewhere.load().documents
        assert before != keys.find("0" * 64).version
        assert {} == elsewhere.update_document("a.b", lambda old: {} if old == documents["a.b"] else old)
        assert {"settings": documents["settings"]} == organisation.load().documents

    def test_one_document_can_be_read_alone(self, organisation, elsewhere):
        """One that is not there is empty, as for a change."""
        assert {} == elsewhere.document("settings")
        organisation.update_document("settings", lambda _: {"a.b": [1, None]})
        organisation.update_document("other", lambda _: {"x": 1})

        assert {"a.b": [1, None]} == elsewhere.document("settings")
        assert {} == elsewhere.document("nothing")

    def test_a_document_whose_change_is_refused_stays(self, organisation, elsewhere):
        elsewhere.update_document("settings", lambda _: {"zone": "UTC"})

        def refuse(document: Mapping[str, Any]) -> Mapping[str, Any]:
            raise ValueError(document["zone"])

        with pytest.raises(ValueError, match="UTC"):
            organisation.update_document("settings", refuse)
        assert {"settings": {"zone": "UTC"}} == organisation.load().documents

    def test_changes_of_a_document_at_once_are_all_kept(self, organisation, elsewhere):
        def add(store: OrganisationStore, name: str) -> Mapping[str, Any]:
            return store.update_document("raises", lambda document: {**document, name: 1})

        names = [f"ada {number}" for number in range(8)]
        at_once(
            *[
                lambda store=store, name=name: add(store, name)
                for store, name in zip([organisation, elsewhere] * 4, names, strict=True)
            ]
        )

        assert names == sorted(organisation.load().documents["raises"])

    def test_prompts_at_once_are_all_kept(self, organisation, elsewhere):
        """Of prompts that are set at once none is lost, none shares a number, and the highest is in force."""

        def work(store: OrganisationStore, number: int) -> list[Prompt]:
            return [store.set_prompt(f"{number}.{step}", NEW_YEAR) for step in range(5)]

        workers = [
            lambda store=store, number=number: work(store, number)
            for number, store in enumerate([organisation, elsewhere] * 3)
        ]
        prompts = sorted((prompt for part in at_once(*workers) for prompt in part), key=lambda prompt: prompt.version)

        assert list(range(1, 31)) == [prompt.version for prompt in prompts]
        assert prompts[::-1] == elsewhere.prompt_versions()
        assert prompts[-1] == organisation.load().prompt

    def test_prompts_of_all_scopes_count_together(self, organisation, elsewhere):
        """A version names one text, whosever it is; each scope has its own history, the organisation's too."""
        prompts = [
            organisation.set_prompt("all", NEW_YEAR),
            organisation.add_prompt("physics", LATER, scope="group:physics"),
            elsewhere.add_prompt("", NEW_YEAR, scope="key:key_0001"),
            elsewhere.set_prompt("all again", NEW_YEAR),
            elsewhere.add_prompt("physics again", LATER, scope="group:physics"),
        ]

        assert [1, 2, 3, 4, 5] == [prompt.version for prompt in prompts]
        assert Prompt(version=2, text="physics", set_at=LATER, scope="group:physics") == prompts[1]
        assert prompts[::-1] == elsewhere.prompt_versions()
        assert [prompts[3], prompts[0]] == organisation.prompt_versions(scope="")
        assert [prompts[4], prompts[1]] == organisation.prompt_versions(scope="group:physics")
        assert [] == organisation.prompt_versions(scope="group:chemistry")

    def test_a_prompt_of_a_group_is_not_everybodys(self, organisation, elsewhere, keys):
        """It is kept and no more: what is in force stays, and no process loads anything again."""
        assert Prompt() == organisation.load().prompt
        organisation.add_prompt("before", NEW_YEAR, scope="group:physics")
        assert Prompt() == organisation.load().prompt
        prompt = organisation.set_prompt("all", NEW_YEAR)
        version = organisation.load().version

        elsewhere.add_prompt("physics", NEW_YEAR, scope="group:physics")

        assert prompt == elsewhere.load().prompt
        assert version == keys.find("0" * 64).version == elsewhere.load().version

    def test_a_prompt_needs_a_scope(self, organisation):
        """Without one it would be the organisation's, and in force without a new version."""
        with pytest.raises(ValueError, match="scope"):
            organisation.add_prompt("all", NEW_YEAR, scope="")

        assert [] == organisation.prompt_versions()

    def test_prompts_of_all_scopes_at_once_are_all_kept(self, organisation, elsewhere):
        """None is lost, none shares a number, and the highest of the organisation's is in force."""

        def work(store: OrganisationStore, number: int) -> list[Prompt]:
            if number % 3:
                return [store.set_prompt(f"{number}.{step}", NEW_YEAR) for step in range(5)]
            return [store.add_prompt(f"{number}.{step}", NEW_YEAR, scope="group:physics") for step in range(5)]

        workers = [
            lambda store=store, number=number: work(store, number)
            for number, store in enumerate([organisation, elsewhere] * 3)
        ]
        prompts = sorted((prompt for part in at_once(*workers) for prompt in part), key=lambda prompt: prompt.version)

        assert list(range(1, 31)) == [prompt.version for prompt in prompts]
        assert prompts[::-1] == elsewhere.prompt_versions()
        assert [prompt for prompt in prompts if not prompt.scope][-1] == organisation.load().prompt

    def test_limits_are_in_force_everywhere(self, organisation, elsewhere):
        """They come back as they went in, replace those before, and can be taken away."""
        organisation.set_prompt("one", NEW_YEAR)
        organisation.set_limits(Limits(requests_per_minute=1))
        elsewhere.set_limits(LIMITS)

        for _ in range(2):
            assert LIMITS == organisation.load().limits
        assert Period.MONTH is organisation.load().limits.budget.period
        assert "one" == organisation.load().prompt.text
        organisation.set_limits(UNLIMITED)
        assert UNLIMITED == elsewhere.load().limits

    def test_groups_are_kept_by_name(self, organisation, elsewhere):
        """A group comes back whole, takes the place of the one of its name, and leaves the others."""
        name = 'Büro 3.1: $set "x" \\ 日本'
        full = group(
            name,
            cost_centre="4711 / Ä",
            self_service=SelfService(keys=2, days=180, models=("gpt-4o", "a.b $c"), limits=LIMITS),
            note="until summer",
            starts_at=datetime(2026, 1, 1, 8, 0, 0, 1000, UTC),
            expires_at=LATER,
            models=("gpt-4o", "o3-mini"),
            limits=LIMITS,
            prompt=replace(PROMPT, scope=f"group:{name}"),
        )
        organisation.set_group(group(name, note="replaced", prompt=full.prompt))
        organisation.set_group(group("physics", models=()))
        elsewhere.set_group(full)

        for _ in range(2):
            assert {name: full, "physics": group("physics", models=())} == organisation.load().groups
        assert UTC == organisation.load().groups[name].starts_at.tzinfo

    def test_a_group_can_be_removed_once(self, organisation, elsewhere):
        """It is gone everywhere, and others stay."""
        organisation.set_group(group("physics", note="old"))
        organisation.set_group(group("chemistry"))

        assert group("physics", note="old") == elsewhere.remove_group("physics")
        assert organisation.remove_group("physics") is None

        assert ["chemistry"] == [*organisation.load().groups]

    def test_a_group_that_is_replaced_keeps_its_prompt(self, organisation, elsewhere):
        """Its prompt and the time of its making are no part of what is replaced."""
        prompt = replace(PROMPT, scope="group:physics")
        organisation.set_group(group(note="old", limits=LIMITS, prompt=prompt))

        after = elsewhere.set_group(group(created_at=LATER, models=("gpt-4o",)))

        assert group(models=("gpt-4o",), prompt=prompt) == after == organisation.load().groups["physics"]

    def test_a_group_can_be_changed_in_parts(self, organisation, elsewhere):
        """Fields and limits that are not named stay; a group that is not there is not made."""
        organisation.set_group(group(note="old", expires_at=LATER, limits=LIMITS))

        after = elsewhere.update_group("physics", {"note": None, "prompt": PROMPT}, limits={"tokens_per_minute": None})

        expected = group(expires_at=LATER, prompt=PROMPT, limits=replace(LIMITS, tokens_per_minute=None))
        assert expected == after == organisation.load().groups["physics"]
        assert organisation.update_group("nobody's", {"note": "x"}) is None
        assert ["physics"] == [*organisation.load().groups]

    def test_changes_of_one_group_at_once_all_hold(self, organisation, elsewhere):
        """Admins who change different fields, limits and the prompt of a group undo nothing of each other's."""
        prompt = replace(PROMPT, scope="group:physics")
        for number in range(10):
            name = f"group {number}"
            organisation.set_group(group(name, limits=Limits(parallel_requests=3)))

            at_once(
                lambda name=name: organisation.update_group(name, {}, limits={"requests_per_minute": 5}),
                lambda name=name: elsewhere.update_group(name, {}, limits={"budget": LIMITS.budget}),
                lambda name=name: organisation.update_group(name, {"note": "new"}),
                lambda name=name: elsewhere.update_group(name, {"prompt": prompt}),
            )

            limits = Limits(requests_per_minute=5, parallel_requests=3, budget=LIMITS.budget)
            assert group(name, note="new", limits=limits, prompt=prompt) == organisation.load().groups[name]

    def test_changes_of_different_limits_both_hold(self, organisation, elsewhere):
        """Admins who change different limits of everybody at once do not undo each other's change."""
        for _ in range(10):
            organisation.set_limits(Limits(parallel_requests=3))

            at_once(
                lambda: organisation.update_limits({"requests_per_minute": 5}),
                lambda: elsewhere.update_limits({"budget": LIMITS.budget, "parallel_requests": None}),
            )

            assert Limits(requests_per_minute=5, budget=LIMITS.budget) == organisation.load().limits
        assert Limits(requests_per_minute=5) == elsewhere.update_limits({"budget": None})
        assert Limits(requests_per_minute=5) == organisation.load().limits

    def test_groups_at_once_all_hold(self, organisation, elsewhere):
        """Admins who set different groups, limits and prices at once undo nothing of each other's."""
        names = [f"group {number}" for number in range(8)]

        at_once(
            *[
                lambda store=store, name=name: store.set_group(group(name, note=name))
                for store, name in zip([organisation, elsewhere] * 4, names, strict=True)
            ],
            lambda: organisation.set_limits(LIMITS),
            lambda: elsewhere.set_model("gpt-4o", {"reasoning": True}),
        )

        loaded = organisation.load()
        assert names == sorted(loaded.groups)
        assert (LIMITS, ["gpt-4o"]) == (loaded.limits, [*loaded.models])

    def test_credential_is_kept_as_it_came(self, organisation, elsewhere):
        """Any bytes come back, and the latest replaces those before; the prompt is another matter."""
        organisation.set_prompt("one", NEW_YEAR)
        organisation.set_credential(b"first")
        organisation.set_credential(bytes(range(256)))

        assert bytes(range(256)) == elsewhere.load().credential
        assert elsewhere.load().prompt.text == "one"

    def test_a_prompt_leaves_the_credential(self, organisation, elsewhere):
        """Setting a prompt does not take the credential away, also before there was any prompt."""
        organisation.set_credential(b"secret")
        organisation.set_prompt("one", NEW_YEAR)

        assert elsewhere.load().credential == b"secret"
        assert "secret" not in repr(elsewhere.load())

    def test_changes_of_different_things_both_hold(self, organisation, elsewhere):
        """A prompt and a credential that are set at once both hold, on an empty store as well."""
        at_once(
            lambda: organisation.set_prompt("one", NEW_YEAR),
            lambda: elsewhere.set_credential(b"secret"),
            lambda: elsewhere.set_prompt("two", NEW_YEAR),
        )

        loaded = organisation.load()
        assert loaded.credential == b"secret"
        assert loaded.prompt.version == 2

    def test_version_stays_while_nothing_changes(self, organisation, elsewhere, keys):
        """Look-ups and loads agree on the version, and neither makes a new one."""
        organisation.set_prompt("one", NEW_YEAR)

        version = organisation.load().version

        assert version
        assert version == elsewhere.load().version
        assert version == keys.find("0" * 64).version
        assert version == organisation.load().version

    def test_every_change_makes_a_new_version(self, organisation, elsewhere, keys):
        """After each change the next look-up tells a version that was never there before."""
        seen = {organisation.load().version}
        changes = [
            lambda: organisation.set_prompt("one", NEW_YEAR),
            lambda: elsewhere.set_prompt("one", NEW_YEAR),
            lambda: organisation.set_credential(b"secret"),
            lambda: elsewhere.set_credential(b"secret"),
            lambda: organisation.set_limits(LIMITS),
            lambda: elsewhere.set_limits(LIMITS),
            lambda: elsewhere.update_limits({"budget": None}),
            lambda: organisation.set_group(group()),
            lambda: elsewhere.set_group(group()),
            lambda: elsewhere.update_group("physics", {"note": "new"}),
            lambda: organisation.remove_group("physics"),
        ]
        for change in changes:
            change()

            version = keys.find("0" * 64).version
            assert version not in seen
            assert version == elsewhere.load().version
            seen.add(version)

    def test_a_key_makes_no_new_version(self, organisation, keys):
        """Handing out keys makes no process load the organisation again."""
        organisation.set_prompt("one", NEW_YEAR)
        organisation.set_group(group())
        version = organisation.load().version

        keys.add(key())
        keys.update(key().id, {"active": False})
        keys.rotate(key().id, "f" * 64, retires_at=LATER)
        keys.add_all([key(2, group="physics")])
        keys.revoke_group("physics")
        keys.remove(key().id)

        assert version == keys.find(key().digest).version


def erasure(*key_ids: str, **fields: object) -> Erasure:
    return replace(Erasure(pseudonym="erased-1", erased_at=LATER, key_ids=key_ids or ("key_0001",)), **fields)


class ErasuresContract:
    """What stands for erased persons; every store that keeps names asks it."""

    @pytest.fixture
    def erasures(self) -> Erasures:
        raise NotImplementedError

    def test_comes_back_as_it_went_in(self, erasures):
        """By its keys, by its time, and as unfinished until it is finished."""
        name = NameDigest.of("ada")
        full = erasure("key_1", "key_2", shared=("key_2",), name=name)
        other = erasure("key_3", pseudonym="erased-2", erased_at=LATER + timedelta(hours=1))
        erasures.begin(other)
        erasures.begin(full)

        assert [full] == [*erasures.of(["key_2", "key_9"])]
        assert [] == [*erasures.of(["key_9"])] == [*erasures.of([])]
        assert [full, other] == [*erasures.unfinished()] == [*erasures.since(LATER)]
        assert [other] == [*erasures.since(LATER + timedelta(seconds=1))]
        assert full.name.is_of("ada")
        assert not full.name.is_of("Ada")

    def test_gets_more_keys(self, erasures):
        """The repetition of an erasure that died in between may have found others."""
        first = erasure("key_1", name=NameDigest.of("ada"))
        erasures.begin(first)

        erasures.begin(erasure("key_2", shared=("key_2",), name=NameDigest.of("ada")))
        erasures.begin(first)

        [found] = erasures.unfinished()
        assert replace(first, key_ids=("key_1", "key_2"), shared=("key_2",)) == found

    def test_keeps_no_trace_of_the_name_when_it_is_finished(self, erasures):
        """Unless somebody else has one of the keys, too: the digest tells then whose a record is."""
        alone, shared = (
            erasure("key_1", name=NameDigest.of("ada")),
            erasure("key_2", pseudonym="erased-2", shared=("key_2",), name=NameDigest.of("ada")),
        )
        for one in (alone, shared):
            erasures.begin(one)
            erasures.finish(one.pseudonym)
            erasures.finish(one.pseudonym)

        assert [] == [*erasures.unfinished()]
        assert [replace(alone, name=None), shared] == [*erasures.of(["key_1", "key_2"])]


class UsageLogContract:
    @pytest.fixture
    def log(self) -> UsageLog:
        raise NotImplementedError

    @pytest.fixture
    def erasures(self) -> Erasures:
        """The erasures beside ``log``."""
        raise NotImplementedError

    def test_knows_what_it_keeps_of_a_person(self, log, elsewhere):
        """The keys under which there is usage, each with all names; exactly this name, and nobody else's."""
        append(log, [usage(1), usage(2, key_id="key_2"), usage(3, key_id="key_2", user="bob")])
        append(log, [usage(4, user="Ada", key_id="key_3"), usage(5, user="ada ", key_id="key_4")])

        assert Kept({"key_0001": {"ada"}, "key_2": {"ada", "bob"}}, 2) == elsewhere.kept_of("ada")
        assert Kept({}, 0) == elsewhere.kept_of("nobody")

    def test_a_purged_person_is_still_in_the_sums(self, log):
        append(log, [usage(1)])
        log.purge(date(2026, 2, 1), limit=10)

        assert Kept({"key_0001": {"ada"}}, 0) == log.kept_of("ada")

    def test_erases_a_person_and_nothing_else(self, log, elsewhere, erasures):
        """Name and address go from records and sums; group, tokens and costs stay to the cent; so do all others."""
        costs = [0.1, 0.2, 0.3, 1e-9, 12.345678901]
        records = [
            usage(
                number,
                cost_usd=cost,
                total_tokens=number,
                group="ml" if number % 2 else None,
                timestamp=NEW_YEAR + timedelta(days=number % 3),
                client_address="192.0.2.7" if number else None,
            )
            for number, cost in enumerate(costs)
        ]
        namesake = usage(50, key_id="key_0002", cost_usd=0.7, client_address="192.0.2.8")
        append(log, [*records, namesake])
        everything = ["day", "key", "group", "model", "deployment"]
        before = list(elsewhere.report(ReportQuery(by=everything)))

        erasures.begin(erasure())
        for _ in range(2):
            log.erase(erasure())

        assert before == list(elsewhere.report(ReportQuery(by=everything)))
        users = {row.by["user"]: row.requests for row in elsewhere.report(ReportQuery(by=["user"]))}
        assert {"erased-1": 5, "ada": 1} == users
        found = {one.id: one for one in elsewhere.records(RecordQuery(limit=100))}
        assert namesake == found.pop(namesake.id)
        for one in records:
            address = one.client_address and "erased-1"
            assert replace(one, user="erased-1", client_address=address) == found.pop(one.id)
        assert {} == found
        assert [] == log.records(RecordQuery(limit=100, user="ada", key_id="key_0001"))

    def test_an_erasure_holds_for_what_comes_later(self, log, elsewhere, erasures):
        """Also for a batch that is repeated; it is counted once, and never under the name."""
        batch = Batch("here", 1)
        append(log, [usage(1, cost_usd=0.5)], batch)
        erasures.begin(erasure())
        log.erase(erasure())

        for _ in range(2):
            append(log, [usage(1, cost_usd=0.5)], batch)
            append(elsewhere, [usage(2, cost_usd=0.25), usage(3, key_id="key_2", cost_usd=1)], Batch("there", 1))

        rows = {row.by["user"]: (row.requests, row.cost_usd) for row in log.report(ReportQuery(by=["user"]))}
        assert {"erased-1": (2, 0.75), "ada": (1, 1.0)} == rows
        assert ["erased-1", "erased-1"] == [one.user for one in log.records(RecordQuery(limit=9, key_id="key_0001"))]

    def test_of_a_shared_key_only_the_persons_part_goes(self, log, erasures):
        """A key that was handed on keeps what belongs to the other one, before the erasure and after."""
        append(log, [usage(1), usage(2, user="bob")])
        shared = erasure(shared=("key_0001",), name=NameDigest.of("ada"))
        erasures.begin(shared)
        log.erase(shared)
        append(log, [usage(3), usage(4, user="bob"), usage(5, user="cleo")])

        users = {row.by["user"]: row.requests for row in log.report(ReportQuery(by=["user"]))}
        assert {"erased-1": 2, "bob": 2, "cleo": 1} == users
        names = {one.id: one.user for one in log.records(RecordQuery(limit=9))}
        assert ["erased-1", "bob", "erased-1", "bob", "cleo"] == [names[usage(number).id] for number in range(1, 6)]

    def test_records_of_the_same_moment_are_erased(self, log, elsewhere, erasures):
        """While another process ships, the erasure begins: nothing is left under the name, and all is counted once."""
        one, other = "erased-1", "key_0001"
        erased = erasure()

        def ship() -> None:
            for number in range(1, 31):
                append(elsewhere, [usage(number, cost_usd=1), usage(100 + number)], Batch("busy", number))

        def erase() -> None:
            erasures.begin(erased)
            log.erase(erased)

        at_once(ship, erase)

        assert {one: 60} == {row.by["user"]: row.requests for row in log.report(ReportQuery(by=["user"]))}
        assert {one} == {record.user for record in log.records(RecordQuery(limit=100, key_id=other))}

    def test_a_rebuild_after_an_erasure_brings_no_name_back(self, log, elsewhere, erasures):
        append(log, [usage(1, cost_usd=0.5), usage(2, key_id="key_2", user="bob")])
        steps = elsewhere.rebuild()
        next(steps)
        erasures.begin(erasure())
        log.erase(erasure())

        list(steps)
        list(log.rebuild())

        assert {"erased-1": 1, "bob": 1} == {
            row.by["user"]: row.requests for row in log.report(ReportQuery(by=["user"]))
        }

    @pytest.fixture
    def elsewhere(self) -> UsageLog:
        raise NotImplementedError

    @pytest.fixture
    def spoil(self) -> Callable[[], object]:
        """Makes every sum in the store wrong, and adds one of a day without records."""
        raise NotImplementedError

    @pytest.fixture
    def zoned(self) -> Callable[[TimeZones], UsageLog]:
        """Makes a further object on the same backend, for an organisation with these time zones."""
        raise NotImplementedError

    def test_an_empty_log_sums_to_zero(self, log):
        """Without groupings there is one row of zeros; with them there is none."""
        assert [UsageRow(by={})] == list(log.report())
        assert list(log.report(ReportQuery(by=["day", "user"]))) == []
        assert isinstance(next(iter(log.report())).cost_usd, float)

    def test_sums_every_field(self, log, elsewhere):
        """All counts add up; a record without a price costs nothing; whatever is not ok is an error."""
        counts = {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "total_tokens": 120,
            "cached_tokens": 64,
            "reasoning_tokens": 8,
        }
        append(log, [usage(1, cost_usd=0.25, **counts), usage(2, cost_usd=None, **counts)])
        append(log, [usage(10 + number, outcome=outcome, cost_usd=0.5) for number, outcome in enumerate(Outcome)])

        expected = UsageRow(
            by={},
            requests=2 + len(Outcome),
            prompt_tokens=200,
            completion_tokens=40,
            total_tokens=240,
            cached_tokens=128,
            reasoning_tokens=16,
            cost_usd=0.25 + 0.5 * len(Outcome),
            errors=len(Outcome) - 1,
            unpriced_requests=1,
        )
        assert [expected] == list(elsewhere.report())

    def test_sums_without_any_price(self, log):
        """Where no price is known the cost is zero, not missing."""
        append(log, [usage(1, cost_usd=None)])

        assert [UsageRow(by={"user": "ada"}, requests=1, cost_usd=0.0)] == list(log.report(ReportQuery(by=["user"])))

    def test_knows_when_a_key_was_last_used(self, log, elsewhere):
        """By its last record; when that is purged, by the last day in its sums; of an unused key it knows nothing."""
        for number in range(1, 5):
            append(
                log, [usage(number, timestamp=NEW_YEAR + timedelta(days=number, hours=3), key_id=f"key_{number % 2}")]
            )
        asked = ["key_0", "key_1", "key_9"]

        used = {"key_1": NEW_YEAR + timedelta(days=3, hours=3), "key_0": NEW_YEAR + timedelta(days=4, hours=3)}
        assert used == elsewhere.last_used(asked)
        assert {"key_1": used["key_1"]} == elsewhere.last_used(["key_1"])

        log.purge(date(2026, 1, 5), limit=100)

        assert used | {"key_1": NEW_YEAR + timedelta(days=4)} == elsewhere.last_used(asked)
        assert {} == elsewhere.last_used([])

    def test_knows_when_a_key_was_last_used_in_another_time_zone(self, zoned):
        """Also if its last requests are on another day there than in UTC, and their records are gone."""
        log = zoned(BERLIN)
        at = [NEW_YEAR + timedelta(hours=hour) for hour in (12, 23, 36, 47)]
        append(log, [usage(n, timestamp=each, key_id=f"key_{n}") for n, each in enumerate(at)])
        log.purge(date(2026, 2, 1), limit=100)

        ends = [NEW_YEAR + timedelta(days=days) for days in (1, 1, 2, 2)]
        assert {f"key_{n}": end for n, end in enumerate(ends)} == log.last_used([f"key_{n}" for n in range(5)])

    def test_counts_what_content_filters_found(self, log, elsewhere):
        """Records with the same findings are one count; those without any are none; days and keys can be chosen."""
        low, high = ("violence:low",), ("hate:high", "violence:low")
        append(log, [usage(1), usage(2, filter_severities=low), usage(3, filter_severities=low)])
        fired = {"content_filter": ("hate",), "filter_severities": high}
        append(log, [usage(4, **fired, group="ml", key_id="key_2", timestamp=NEW_YEAR + timedelta(days=1))])

        today, tomorrow = NEW_YEAR.date(), NEW_YEAR.date() + timedelta(days=1)
        first, second = sorted(elsewhere.filter_counts(), key=lambda count: count.day)
        assert (today.isoformat(), "ada", None, (), low, 2) == (first[0], first[1], first[3], *first[5:])
        assert (tomorrow.isoformat(), "key_2", "ml", ("hate",), high, 1) == (second[0], *second[2:4], *second[5:])
        assert [first] == list(elsewhere.filter_counts(ReportQuery(last_day=today)))
        assert [second] == list(elsewhere.filter_counts(ReportQuery(first_day=tomorrow)))
        assert [second] == list(elsewhere.filter_counts(ReportQuery(key_id="key_2", group="ml")))
        assert [] == list(elsewhere.filter_counts(ReportQuery(group="other")))

    def test_counts_unknown_models_under_one_name(self, log, elsewhere):
        """Made-up names are one row, the record has the name, and a rebuild of the sums gives the same."""
        append(log, [usage(number, model=f"made-up-{number}", model_known=False) for number in range(5)])
        append(log, [usage(5, model="gpt-4o"), usage(6, model="made-up-6", model_known=False, total_tokens=3)])

        expected = [
            UsageRow(by={"model": "gpt-4o"}, requests=1),
            UsageRow(by={"model": "unknown"}, requests=6, total_tokens=3),
        ]
        assert expected == list(elsewhere.report(ReportQuery(by=["model"])))
        for _ in log.rebuild():
            pass
        assert expected == list(elsewhere.report(ReportQuery(by=["model"])))
        (newest,) = elsewhere.records(RecordQuery(limit=1))
        assert ("made-up-6", False) == (newest.model, newest.model_known)

    def test_sums_by_deployment(self, log, elsewhere):
        """One model at two deployments has a row for each, and a rebuild of the sums gives the same."""
        append(log, [usage(1, deployment="chat-eu", prompt_tokens=1), usage(2, deployment="chat-us", cached_tokens=2)])
        append(log, [usage(3, deployment="chat-eu", prompt_tokens=4, group="x")])
        append(log, [usage(4, model="made-up", deployment="chat-eu", model_known=False, prompt_tokens=8)])
        append(log, [usage(5, model="made-up", deployment="made-up", model_known=False)])
        append(log, [usage(6, model="y" * 100, deployment="y" * 300, model_known=False)])

        expected = [
            UsageRow(by={"deployment": "chat-eu", "model": "gpt-4o"}, requests=2, prompt_tokens=5),
            UsageRow(by={"deployment": "chat-eu", "model": "unknown"}, requests=1, prompt_tokens=8),
            UsageRow(by={"deployment": "chat-us", "model": "gpt-4o"}, requests=1, cached_tokens=2),
            UsageRow(by={"deployment": "unknown", "model": "unknown"}, requests=2),
        ]
        by = ReportQuery(by=["deployment", "model"])
        assert expected == list(elsewhere.report(by))
        for _ in log.rebuild():
            pass
        assert expected == list(elsewhere.report(by))

    def test_counts_requests_whose_price_is_not_known(self, log, elsewhere):
        """A request with tokens and without a cost is counted apart, and a rebuild of the sums gives the same."""
        append(log, [usage(number, model="house", cost_usd=None, total_tokens=10) for number in range(3)])
        append(log, [usage(3, model="house", cost_usd=0.5, total_tokens=10), usage(4, model="house", cost_usd=None)])
        append(log, [usage(5, model="other", cost_usd=0.0, total_tokens=10)])

        expected = [
            UsageRow(by={"model": "house"}, requests=5, total_tokens=40, cost_usd=0.5, unpriced_requests=3),
            UsageRow(by={"model": "other"}, requests=1, total_tokens=10),
        ]
        assert expected == list(elsewhere.report(ReportQuery(by=["model"])))
        for _ in log.rebuild():
            pass
        assert expected == list(elsewhere.report(ReportQuery(by=["model"])))

    def test_adds_up_the_tokens_that_azure_did_not_count(self, log, elsewhere):
        """Estimated and bound tokens are also summed apart, and a rebuild of the sums gives the same."""
        each = [UsageSource.UPSTREAM, UsageSource.ESTIMATED, UsageSource.BOUND, UsageSource.NONE]
        sources = [*each, *each, UsageSource.BOUND]
        append(
            log,
            [usage(number, usage_source=source, total_tokens=10**number) for number, source in enumerate(sources)],
        )
        append(log, [usage(9, usage_source=UsageSource.ESTIMATED, total_tokens=5, completion_tokens=5)])
        append(log, [usage(10, usage_source=UsageSource.UPSTREAM, total_tokens=5, user="bob")])

        upstream, estimated, bound, none = (10**number + 10 ** (number + 4) for number in range(4))
        ada = UsageRow(
            by={"user": "ada"},
            requests=10,
            completion_tokens=5,
            total_tokens=upstream + estimated + 5 + bound + 10**8 + none,
            estimated_tokens=estimated + 5,
            bound_tokens=bound + 10**8,
        )
        expected = [ada, UsageRow(by={"user": "bob"}, requests=1, total_tokens=5)]
        assert expected == list(elsewhere.report(ReportQuery(by=["user"])))
        for _ in log.rebuild():
            pass
        assert expected == list(elsewhere.report(ReportQuery(by=["user"])))

    def test_appends_every_kind_of_record(self, log):
        """A record with everything in it and one with the least are both taken."""
        append(
            log,
            [
                usage(
                    1,
                    group="physics",
                    stream=True,
                    status=200,
                    cost_usd=0.001,
                    prompt_version=3,
                    content_filter=("hate", "violence"),
                    ttft_ms=20.25,
                    upstream_request_id="0f2c",
                    region="East US 2",
                    client_address="2001:db8::1",
                ),
                usage(2),
            ],
        )

        assert next(iter(log.report())).requests == 2

    def test_leaves_a_record_that_is_there(self, log, elsewhere):
        """A record that is sent again, even with other content, is neither counted twice nor changed."""
        append(log, [usage(1, total_tokens=10)])

        append(elsewhere, [usage(0, total_tokens=1), usage(1, total_tokens=1000), usage(2, total_tokens=100)])
        append(elsewhere, [usage(1, total_tokens=1000)])

        assert [UsageRow(by={}, requests=3, total_tokens=111)] == list(log.report())

    def test_takes_a_record_once_that_is_twice_in_a_batch(self, log):
        """The same identifier twice in one call is one record."""
        append(log, [usage(1, total_tokens=10), usage(1, total_tokens=10), usage(2, total_tokens=1)])

        assert [UsageRow(by={}, requests=2, total_tokens=11)] == list(log.report())

    def test_takes_an_empty_batch(self, log):
        """Nothing to append is not an error."""
        append(log, [])

        assert [UsageRow(by={})] == list(log.report())

    def test_takes_a_thousand_at_once(self, log):
        """A batch of 1,000 goes in, and again, and counts once."""
        batch = [usage(number, total_tokens=number) for number in range(1000)]

        append(log, batch)
        append(log, batch)

        assert [UsageRow(by={}, requests=1000, total_tokens=sum(range(1000)))] == list(log.report())

    def test_loses_nothing_under_threads(self, log, elsewhere):
        """Batches that come at once, and overlap, leave each record once."""

        def work(store: UsageLog, first: int) -> None:
            for start in range(first, first + 100, 10):
                append(store, [usage(number, total_tokens=1) for number in range(start, start + 15)])

        at_once(
            *[
                lambda store=store, first=first: work(store, first)
                for store, first in zip([log, elsewhere] * 4, range(0, 800, 100), strict=True)
            ]
        )

        assert [UsageRow(by={}, requests=805, total_tokens=805)] == list(log.report())

    def test_groups_by_each_field(self, log):
        """Each grouping has its own name and values."""
        append(log, [usage(1, key_id="key_0007", user="ada", group="physics", model="gpt-4o")])

        expected = {
            "day": "2026-01-01",
            "month": "2026-01",
            "user": "ada",
            "key": "key_0007",
            "group": "physics",
            "model": "gpt-4o",
        }
        for name, value in expected.items():
            assert [{name: value}] == [row.by for row in log.report(ReportQuery(by=[name]))]
        assert [expected] == [row.by for row in log.report(ReportQuery(by=list(expected)))]
        assert list(expected) == list(next(iter(log.report(ReportQuery(by=list(expected))))).by)

    def test_days_and_months_end_at_midnight_utc(self, log):
        """The last millisecond of a month belongs to it, and the next one does not; leap days are days."""
        append(
            log,
            [
                usage(1, timestamp=datetime(2028, 2, 28, 23, 59, 59, 999000, UTC)),
                usage(2, timestamp=datetime(2028, 2, 29, 0, 0, 0, 0, UTC)),
                usage(3, timestamp=datetime(2028, 2, 29, 23, 59, 59, 999000, UTC)),
                usage(4, timestamp=datetime(2028, 3, 1, 0, 0, 0, 0, UTC)),
            ],
        )

        days = [(row.by["day"], row.requests) for row in log.report(ReportQuery(by=["day"]))]
        months = [(row.by["month"], row.requests) for row in log.report(ReportQuery(by=["month"]))]

        assert days == [("2028-02-28", 1), ("2028-02-29", 2), ("2028-03-01", 1)]
        assert months == [("2028-02", 3), ("2028-03", 1)]

    def test_sorts_by_the_groupings_as_given(self, log):
        """The first grouping counts most, whichever it is, and what is missing comes first."""
        append(
            log,
            [
                usage(1, user="bob", group="physics"),
                usage(2, user="ada", group=None),
                usage(3, user="ada", group="physics"),
                usage(4, user="bob", group="chemistry"),
                usage(5, user="Zoe", group=None),
            ],
        )

        by_group = [(row.by["group"], row.by["user"]) for row in log.report(ReportQuery(by=["group", "user"]))]
        by_user = [(row.by["user"], row.by["group"]) for row in log.report(ReportQuery(by=["user", "group"]))]

        assert by_group == [(None, "Zoe"), (None, "ada"), ("chemistry", "bob"), ("physics", "ada"), ("physics", "bob")]
        assert by_user == [("Zoe", None), ("ada", None), ("ada", "physics"), ("bob", "chemistry"), ("bob", "physics")]

    def test_sums_within_each_group(self, log):
        """A row has the sums of its own records and of no others."""
        append(log, [usage(number, user=user, total_tokens=10**number) for number, user in enumerate("abab")])

        expected = [
            UsageRow(by={"user": "a"}, requests=2, total_tokens=101),
            UsageRow(by={"user": "b"}, requests=2, total_tokens=1010),
        ]
        assert expected == list(log.report(ReportQuery(by=["user"])))

    def test_period_includes_its_first_and_its_last_day(self, log):
        """Both days count whole, whatever the time of day; adjoining periods share none."""
        moments = [datetime(2026, 1, day, 23, 59, 59, 999000, UTC) for day in range(1, 5)]
        append(log, [usage(number, timestamp=moment, total_tokens=10**number) for number, moment in enumerate(moments)])

        def total(first_day: date | None, last_day: date | None) -> int:
            return next(iter(log.report(ReportQuery(first_day=first_day, last_day=last_day)))).total_tokens

        assert total(date(2026, 1, 2), date(2026, 1, 3)) == 110
        assert total(None, date(2026, 1, 1)) == 1
        assert total(date(2026, 1, 2), None) == 1110
        assert total(date(2026, 1, 2), date(2026, 1, 2)) == 10
        assert total(date(2026, 1, 3), date(2026, 1, 2)) == 0
        assert total(None, None) == 1111

    def test_counts_one_key_alone(self, log):
        """A key's own report has its records only, within the interval."""
        append(
            log,
            [
                usage(1, key_id="key_0001", total_tokens=1),
                usage(2, key_id="key_0002", total_tokens=10),
                usage(3, key_id="key_0001", total_tokens=100, timestamp=datetime(2026, 2, 1, tzinfo=UTC)),
            ],
        )

        assert [UsageRow(by={}, requests=2, total_tokens=101)] == list(log.report(ReportQuery(key_id="key_0001")))
        january = date(2026, 1, 31)
        assert [UsageRow(by={}, requests=1, total_tokens=1)] == list(
            log.report(ReportQuery(key_id="key_0001", last_day=january))
        )
        assert [UsageRow(by={})] == list(log.report(ReportQuery(key_id="key_0003")))

    def test_counts_one_group_alone(self, log):
        """A group's own report has the records of its keys only, also with a key and a period."""
        append(
            log,
            [
                usage(1, group="physics", total_tokens=1),
                usage(2, group="chemistry", total_tokens=10),
                usage(3, group=None, total_tokens=100),
                usage(4, group="physics", key_id="key_0002", total_tokens=1000),
                usage(5, group="physics", total_tokens=10000, timestamp=datetime(2026, 2, 1, tzinfo=UTC)),
            ],
        )

        def total(**filters: object) -> int:
            return next(iter(log.report(ReportQuery(group="physics", **filters)))).total_tokens

        assert 11001 == total()
        assert 10001 == total(key_id="key_0001")
        assert 1001 == total(last_day=date(2026, 1, 31))
        assert 0 == total(key_id="key_0003")
        by_key = [(row.by["key"], row.total_tokens) for row in log.report(ReportQuery(group="physics", by=["key"]))]
        assert [("key_0001", 10001), ("key_0002", 1000)] == by_key
        assert [UsageRow(by={})] == list(log.report(ReportQuery(group="nobody's")))

    def test_counts_several_names_in_one_report(self, log, elsewhere):
        """A page of keys needs one report, and so do several groups; names are compared exactly."""
        append(
            log,
            [
                usage(1, key_id="key_0001", total_tokens=1, group="ml"),
                usage(2, key_id="key_0002", total_tokens=10, group="ML"),
                usage(3, key_id="key_0003", total_tokens=100, group="ml", user="alan"),
                usage(4, key_id="key_0001", total_tokens=1000, timestamp=datetime(2026, 2, 1, tzinfo=UTC)),
            ],
        )

        def tokens(*by: str, **query: object) -> dict[tuple[str | None, ...], int]:
            rows = elsewhere.report(ReportQuery(by=by, **query))
            return {tuple(row.by.values()): row.total_tokens for row in rows}

        two = {"key": ["key_0001", "key_0002", "key_0009"]}
        assert {("key_0001",): 1001, ("key_0002",): 10} == tokens("key", among=two)
        assert {("key_0001",): 1, ("key_0002",): 10} == tokens("key", among=two, last_day=date(2026, 1, 31))
        assert {("ml",): 101} == tokens("group", among={"group": ["ml", "Ml"]})
        both = {"group": ["ml", "ML"], "user": ["ada"]}
        assert {("ML", "ada"): 10, ("ml", "ada"): 1} == tokens("group", "user", among=both)
        assert {("key_0002",): 10} == tokens("key", among=two, group="ML")
        assert {} == tokens("key", among={"key": []})
        many = [f"key_{number:04}" for number in range(1500)]
        assert {("key_0001",): 1001, ("key_0002",): 10, ("key_0003",): 100} == tokens("key", among={"key": many})

    def test_counts_one_person_alone(self, log):
        """By the exact name, also within one group, one key and a period."""
        append(
            log,
            [
                usage(1, user="ada", group="physics", total_tokens=1),
                usage(2, user="ada", group="chemistry", key_id="key_0002", total_tokens=10),
                usage(3, user="Ada", group="physics", key_id="key_0003", total_tokens=100),
                usage(4, user="ada", group="physics", total_tokens=1000, timestamp=datetime(2026, 2, 1, tzinfo=UTC)),
                usage(5, user="a\u0308da ", group=None, key_id="key_0004", total_tokens=10000),
            ],
        )

        def total(user: str, **filters: object) -> int:
            return next(iter(log.report(ReportQuery(user=user, **filters)))).total_tokens

        assert (1011, 100, 10000) == (total("ada"), total("Ada"), total("a\u0308da "))
        assert (1001, 10) == (total("ada", group="physics"), total("ada", group="chemistry"))
        assert (11, 1000) == (total("ada", last_day=date(2026, 1, 31)), total("ada", first_day=date(2026, 2, 1)))
        assert (10, 0) == (total("ada", key_id="key_0002"), total("ada", key_id="key_0003"))
        assert (0, 0) == (total("ADA"), total("äda "))

    def test_reports_the_highest_alone(self, log):
        """By cost; those that cost the same in the order of their names."""
        costs = {"ada": 1.0, "bob": 3.0, "cleo": 2.0, "dan": 2.0}
        for number, (user, cost) in enumerate(costs.items()):
            append(log, [usage(number, user=user, key_id=f"key_{user}", group=f"group of {user}", cost_usd=cost)])

        january, day = {"first_day": date(2026, 1, 1)}, {"first_day": date(2025, 12, 30)}
        for period in ({}, january, day):
            rows = log.report(ReportQuery(by=["user"], top=3, **period))
            assert [("bob", 3.0), ("cleo", 2.0), ("dan", 2.0)] == [(row.by["user"], row.cost_usd) for row in rows]
            rows = log.report(ReportQuery(by=["day", "group"], top=1, **period))
            assert ["group of bob"] == [row.by["group"] for row in rows]

    def test_every_kind_of_sums_says_the_same(self, zoned):
        """By day or for whole months, with and without users and keys, in both kinds of days."""
        log = zoned(BERLIN)
        records = [
            usage(
                number,
                timestamp=NEW_YEAR + timedelta(hours=7 * number),
                user=f"user {number % 5}",
                key_id=f"key_{number % 7}",
                group=[None, "physics", "chemistry"][number % 3],
                model=["gpt-4o", "o3"][number % 2],
                total_tokens=number,
            )
            for number in range(200)
        ]
        append(log, [*records[:-1], replace(records[-1], **FAILED_OVER)])

        def sums(*by: str, **query: object) -> dict[tuple[str | None, ...], tuple[int, ...]]:
            # Groupings are added at the end, so that finer sums are read, and are left out here.
            found: dict[tuple[str | None, ...], tuple[int, ...]] = {}
            for row in log.report(ReportQuery(by=by, **query)):
                name = tuple(row.by[each] for each in by if each not in ("user", "key", "day"))
                counted = (row.requests, row.total_tokens, row.errors)
                found[name] = tuple(map(sum, zip(found.get(name, (0, 0, 0)), counted, strict=True)))
            return found

        months = {"first_day": date(2026, 1, 1), "last_day": date(2026, 2, 28)}
        days = {"first_day": date(2026, 1, 3), "last_day": date(2026, 2, 17)}
        narrow = ({}, {"group": "physics"}, {"groups": ("physics", "chemistry")}, {"among": {"model": ["o3"]}})
        for period in ({}, months, days):
            for query in ({**period, **each, "in_utc": in_utc} for each in narrow for in_utc in (False, True)):
                for by in ((), ("group",), ("month", "model"), ("deployment",)):
                    coarse, of_months, fine = (sums(*by, *more, **query) for more in ((), ("user",), ("day", "key")))
                    assert coarse == of_months == fine, (query, by)

    def test_says_when_requests_came_and_how_long_they_took(self, zoned):
        """By day and hour of the organisation. Durations are those of requests that ended well, and of all streams the
        time to the first token; the cost is that of all."""
        log = zoned(BERLIN)
        evening = datetime(2026, 1, 1, 22, 30, tzinfo=UTC)  # 23:30 in Berlin
        append(
            log,
            [
                usage(1, timestamp=evening, ttft_ms=250.0, duration_ms=4000.0, cost_usd=0.5),
                usage(2, timestamp=evening, ttft_ms=260.0, duration_ms=9.0, outcome=Outcome.BROKEN, cost_usd=None),
                usage(3, timestamp=evening + timedelta(hours=1), duration_ms=0.2, group="physics", model="o3"),
            ],
        )
        append(log, [usage(4, timestamp=evening, duration_ms=4100.0, cost_usd=0.25, group="physics")])

        first, second = log.spreads()
        assert ("2026-01-01", 3, "2026-01-02", 1) == (first.day, first.requests, second.day, second.requests)
        assert {23: 3} == first.spread.hours
        assert {23: 0.75} == first.spread.cost_usd
        assert {bucket_of(250.0): 2} == first.spread.first_token
        assert {bucket_of(4000.0): 2} == first.spread.duration
        assert ({0: 1}, {}, {0: 1}) == (second.spread.hours, second.spread.first_token, second.spread.duration)

        def hours(**query: object) -> list[tuple[str, int, dict[int, int]]]:
            return [(each.day, each.requests, each.spread.hours) for each in log.spreads(ReportQuery(**query))]

        both = [("2026-01-01", 1, {23: 1}), ("2026-01-02", 1, {0: 1})]
        assert both == hours(group="physics") == hours(groups=("physics", "chemistry"))
        assert [] == hours(groups=()) == hours(group="nobody's")
        assert (
            both[1:] == hours(among={"model": ["o3"]}) == hours(first_day=date(2026, 1, 2), last_day=date(2026, 1, 2))
        )

    def test_a_batch_counts_once_in_what_takes_how_long(self, log, elsewhere):
        batch = Batch("here", 1)
        for each in (log, elsewhere):
            append(each, [usage(1, duration_ms=100.0), usage(2, duration_ms=100.0)], batch)

        (day,) = log.spreads()

        assert (2, {bucket_of(100.0): 2}) == (day.requests, day.spread.duration)

    def test_rebuilds_what_takes_how_long(self, zoned, spoil):
        log = zoned(BERLIN)
        hours = [NEW_YEAR + timedelta(hours=n) for n in range(60)]
        append(log, [usage(n, timestamp=at, ttft_ms=n**2, duration_ms=n**3, group="ml") for n, at in enumerate(hours)])
        before = [*log.spreads()], [*log.spreads(ReportQuery(group="ml"))]
        assert 60 == sum(day.spread.requests for day in before[0])
        spoil()
        assert before[0] != [*log.spreads()]

        for _ in log.rebuild():
            pass

        assert before == ([*log.spreads()], [*log.spreads(ReportQuery(group="ml"))])

    def test_counts_beyond_32_bits(self, log):
        """Large sums are exact."""
        append(log, [usage(number, total_tokens=2**31 - 1) for number in range(4)])

        assert next(iter(log.report())).total_tokens == 4 * (2**31 - 1)

    def test_counts_a_batch_once_however_often_it_comes(self, log, elsewhere):
        """A batch that is known by its name is not looked at again, whoever brings it."""
        batch = Batch("42-a1b2", 7)
        append(log, [usage(1, total_tokens=1)], batch)

        append(elsewhere, [usage(1, total_tokens=1)], batch)
        append(log, [usage(2, total_tokens=10)], Batch("42-a1b2", 6))

        assert [UsageRow(by={}, requests=1, total_tokens=1)] == list(log.report())

    def test_counts_every_source_for_itself(self, log):
        """The numbers of one source say nothing about another's."""
        append(log, [usage(1, total_tokens=1)], Batch("42-a1b2", 7))
        append(log, [usage(2, total_tokens=10)], Batch("42-c3d4", 7))
        append(log, [usage(3, total_tokens=100)], Batch("42-c3d4", 8))

        assert [UsageRow(by={}, requests=3, total_tokens=111)] == list(log.report())

    def test_shows_a_record_as_it_went_in(self, log, elsewhere):
        """Every field comes back, with its type."""
        full = usage(
            1,
            timestamp=datetime(2026, 1, 1, 11, 23, 1, 123000, UTC),
            group="physics",
            stream=True,
            status=200,
            outcome=Outcome.CLIENT_CLOSED,
            usage_source=UsageSource.ESTIMATED,
            prompt_tokens=1,
            completion_tokens=2,
            total_tokens=3,
            cached_tokens=4,
            reasoning_tokens=5,
            cost_usd=0.001,
            prompt_version=3,
            content_filter=("hate", "violence"),
            filter_severities=("hate:high", "violence:medium"),
            ttft_ms=20.25,
            upstream_request_id="0f2c",
            region="East US 2",
            client_address="2001:db8::1",
            attempts=(
                Attempt(deployment="east", status=429, upstream_request_id="0f2b", cost_usd=0.0, error_code="capacity"),
                Attempt(deployment="west", prompt_tokens=1, completion_tokens=2, sent_ms=14.5),
            ),
            response_id="resp_1",
            service_tier="priority",
            spilled_over=True,
            error_code="content_filter",
            tool_uses={"web_search": 2},
            admitted_ms=1.25,
            sent_ms=1.5,
            limits=("key.requests_per_minute", "member.budget"),
        )
        append(log, [full, usage(2)])

        assert [full, usage(2)] == elsewhere.records(RecordQuery(limit=10))
        assert elsewhere.records(RecordQuery(limit=1))[0].outcome is Outcome.CLIENT_CLOSED

    def test_shows_records_page_by_page(self, log):
        """Newest first, the highest identifier first among those of one moment; pages of any size make up the whole."""
        moments = [0, 5, 5, 5, 3, 9, 9, 1]
        records = [usage(number, timestamp=NEW_YEAR + timedelta(hours=hour)) for number, hour in enumerate(moments)]
        append(log, records)

        expected = sorted(records, key=lambda record: (record.timestamp, record.id), reverse=True)
        assert expected == log.records(RecordQuery(limit=100))
        for size in (1, 3, 4):
            pages, after = [], ""
            while page := log.records(RecordQuery(limit=size, after=after)):
                pages += page
                after = page[-1].id
            assert expected == pages
        assert [] == log.records(RecordQuery(limit=5, after="never there"))

    def test_shows_records_that_match_every_filter(self, log):
        """Filters narrow each other down, and so does the page; a period ends before its end."""
        append(
            log,
            [
                usage(1, user="ada", key_id="key_1"),
                usage(2, user="ada", key_id="key_2", outcome=Outcome.BROKEN),
                usage(3, user="bob", key_id="key_3", timestamp=NEW_YEAR + timedelta(hours=1)),
                usage(4, user="bob", key_id="key_3", timestamp=NEW_YEAR + timedelta(hours=2), outcome=Outcome.BROKEN),
            ],
        )

        def numbers(**filters: object) -> list[int]:
            return [int(record.id[-6:]) for record in log.records(RecordQuery(limit=10, **filters))]

        assert [2, 1] == numbers(user="ada")
        assert [4, 3] == numbers(key_id="key_3")
        assert [4, 2] == numbers(outcome=Outcome.BROKEN)
        assert [3, 1] == numbers(outcome=Outcome.OK)
        assert [4] == numbers(outcome=Outcome.BROKEN, user="bob")
        assert [4, 3] == numbers(since=NEW_YEAR + timedelta(hours=1))
        assert [3, 2, 1] == numbers(until=NEW_YEAR + timedelta(hours=2))
        assert [3] == numbers(since=NEW_YEAR + timedelta(hours=1), until=NEW_YEAR + timedelta(hours=2))
        assert [1] == numbers(user="ada", after=usage(2).id)
        assert [2, 1] == numbers(after=usage(3).id, until=NEW_YEAR + timedelta(hours=2))
        assert [] == numbers(user="eve")

    def test_shows_records_whose_tokens_were_counted_in_one_way(self, log):
        """Each source has its records, also together with other filters and page by page."""
        records = [
            usage(number, usage_source=source, user="ada" if number < 8 else "bob")
            for number, source in enumerate([*UsageSource] * 3)
        ]
        append(log, records)

        for place, source in enumerate(UsageSource):
            newest = [records[number] for number in (place + 8, place + 4, place)]
            assert newest == log.records(RecordQuery(limit=10, usage_source=source))
            assert newest[1:] == log.records(RecordQuery(limit=10, usage_source=source, user="ada"))
            assert newest[1:2] == log.records(RecordQuery(limit=1, usage_source=source, after=newest[0].id))
            assert [] == log.records(RecordQuery(limit=10, usage_source=source, outcome=Outcome.BROKEN))

    def days(self, log: UsageLog) -> None:
        """Three records on each of three days; the first three have the lowest numbers."""
        for day in range(3):
            append(
                log,
                [
                    usage(day * 3 + n, timestamp=NEW_YEAR + timedelta(days=day, hours=n), total_tokens=1)
                    for n in range(3)
                ],
                Batch("42-a1b2", day),
            )

    def test_finds_the_record_of_what_azure_stores(self, log, elsewhere):
        """By the response, by an item and by a container; of a purged record by none of them."""
        made = usage(1, response_id="resp_1", stored_ids=("msg_1", "cntr_1"), stored_at="west")
        append(log, [made, usage(2, response_id="resp_2", user="alan"), usage(3)])

        assert [made] * 3 == [elsewhere.find_stored(each) for each in ("resp_1", "msg_1", "cntr_1")]
        assert "alan" == elsewhere.find_stored("resp_2").user
        assert [None] * 3 == [elsewhere.find_stored(each) for each in ("resp_3", "west", "")]

        assert 3 == log.purge(date(2026, 1, 2), limit=100)
        assert [None] * 3 == [elsewhere.find_stored(each) for each in ("resp_1", "msg_1", "cntr_1")]

    def test_finds_a_request_by_its_id_and_by_azures(self, log, elsewhere):
        """Also by the id that Azure gave to an attempt that failed; a namesake of nothing finds nothing."""
        attempts = tuple(
            Attempt(deployment="east", status=429, upstream_request_id=id_) for id_ in ("azure-1", None, "azure-2")
        )
        made = usage(1, upstream_request_id="azure-2", attempts=attempts)
        plain = usage(2, upstream_request_id="azure-3")
        append(log, [made, plain, usage(3)])

        assert [made] * 3 == [elsewhere.find(each) for each in (made.id, "azure-1", "azure-2")]
        assert [plain] * 2 == [elsewhere.find(each) for each in (plain.id, "azure-3")]
        assert [None] * 3 == [elsewhere.find(each) for each in ("azure-4", "", "None")]
        log.purge(date(2026, 2, 1), limit=9)
        assert log.find("azure-1") is None

    def test_shows_records_by_group_and_by_error(self, log):
        """Filters narrow each other down; a page may begin at a moment, whether a record is there or not."""
        records = [
            usage(number, group=group, error_code=code, timestamp=NEW_YEAR + timedelta(minutes=number))
            for number, (group, code) in enumerate(
                [("ml", None), ("ml", "content_filter"), (None, "content_filter"), ("ml", "content_filter")]
            )
        ]
        append(log, records)

        def numbers(**filters: object) -> list[int]:
            return [int(record.id[-6:]) for record in log.records(RecordQuery(limit=10, **filters))]

        assert [3, 1, 0] == numbers(group="ml")
        assert [3, 2, 1] == numbers(error_code="content_filter")
        assert [3, 1] == numbers(error_code="content_filter", group="ml")
        assert [1, 0] == numbers(group="ml", before=(records[3].timestamp, records[3].id))
        assert [2, 1, 0] == numbers(before=(records[3].timestamp, "req"))
        assert [] == numbers(group="ML")

    def test_shows_records_by_everything_else(self, log):
        """Alone, and narrowed down by a filter that has an index; the arrival of others decides what is newer."""
        odd = {
            "status": 429,
            "model": "o4-mini",
            "deployment": "west",
            "endpoint": "/v1/responses",
            "stream": True,
            "region": "Sweden",
            "duration_ms": 9000.5,
        }
        whose = {1: "ada", 2: "ada", 3: "bob"}
        records = [
            usage(number, user=whose.get(number, "eve"), timestamp=NEW_YEAR + timedelta(minutes=number))
            for number in range(6)
        ]
        for number in (2, 3):
            records[number] = replace(records[number], **odd)
        append(log, records)

        def numbers(**filters: object) -> list[int]:
            return [int(record.id[-6:]) for record in log.records(RecordQuery(limit=10, **filters))]

        wanted = {("min_duration_ms" if name == "duration_ms" else name): value for name, value in odd.items()}
        for name, value in wanted.items():
            assert [3, 2] == numbers(**{name: value})
            assert [2] == numbers(**{name: value}, user="ada")
            assert [2] == numbers(**{name: value}, before=(records[3].timestamp, records[3].id))
            assert [3] == numbers(**{name: value}, newer_than=(records[2].timestamp, records[2].id))
        assert [3, 2] == numbers(**wanted)
        assert [] == numbers(min_duration_ms=9001)
        assert [5, 4, 1, 0] == numbers(stream=False)
        here = records[3].timestamp
        assert [5, 4, 3] == numbers(newer_than=(here, "req"))
        assert [5, 4] == numbers(newer_than=(here, records[3].id), since=NEW_YEAR)
        assert [4] == numbers(newer_than=(here, "z"), before=(records[5].timestamp, records[5].id), until=LATER)
        assert [] == numbers(newer_than=(here, "z"), user="ada")

    def test_shows_records_of_several_groups_page_by_page(self, log):
        """In one order, as if they were of one group."""
        groups = ["ml", "physics", None, "art"]
        records = [
            usage(number, group=groups[number % 4], timestamp=NEW_YEAR + timedelta(minutes=number // 3))
            for number in range(20)
        ]
        append(log, records)
        of_both = [record for record in reversed(records) if record.group in ("ml", "art")]

        for size in (1, 3, 50):
            pages, before = [], None
            while page := log.records(RecordQuery(groups=("ml", "art"), limit=size, before=before)):
                pages += page
                before = page[-1].timestamp, page[-1].id
            assert of_both == pages
        assert [] == log.records(RecordQuery(groups=(), limit=9))
        assert [] == log.records(RecordQuery(groups=("art",), group="ml", limit=9))

    def test_bounds_how_far_back_a_page_looks(self, log):
        """Only where a filter has no index, from the record at which the page begins, in what the index gives."""
        records = [
            usage(
                number,
                user="ada" if number % 2 else "bob",
                group="ml" if number > 4 else None,
                timestamp=NEW_YEAR + timedelta(minutes=number),
            )
            for number in range(10)
        ]
        append(log, records)

        def minute(*, most: int = 3, **filters: object) -> int | None:
            at = log.horizon(RecordQuery(limit=1, **filters), most=most)
            return None if at is None else (at - NEW_YEAR) // timedelta(minutes=1)

        assert [None] * 4 == [minute(), minute(user="ada"), minute(since=NEW_YEAR), minute(groups=("ml",))]
        assert 6 == minute(region="Sweden")
        assert 3 == minute(region="Sweden", user="ada", most=75)
        assert minute(region="Sweden", user="ada", most=150) is None
        assert 6 == minute(region="Sweden", groups=("ml",), most=75)
        assert 4 < minute(region="Sweden", groups=("ml", "art"), most=100) < 9
        assert 1 == minute(region="Sweden", before=(records[5].timestamp, records[5].id))
        assert [None] * 3 == [
            minute(region="Sweden", before=(records[3].timestamp, records[3].id)),
            minute(region="Sweden", since=records[8].timestamp),
            minute(region="Sweden", newer_than=(records[8].timestamp, records[8].id)),
        ]

    def test_purges_old_records_and_keeps_their_sums(self, log, elsewhere):
        """In steps of any size, whole days; reports stay as they were."""
        self.days(log)
        before = list(log.report(ReportQuery(by=["day"])))

        assert 2 == log.purge(date(2026, 1, 3), limit=2)
        assert 4 == log.purge(date(2026, 1, 3), limit=100)
        assert 0 == log.purge(date(2026, 1, 3), limit=100)

        assert [8, 7, 6] == [int(record.id[-6:]) for record in elsewhere.records(RecordQuery(limit=10))]
        assert before == list(log.report(ReportQuery(by=["day"])))

    def test_says_when_a_key_was_used_last(self, log, elsewhere):
        """By its latest record, whenever that came, of many keys at once; if it was purged, by the day in the sums."""
        hours = {("key_0001", 0): 1, ("key_0001", 1): 30, ("key_0001", 2): 29, ("key_0002", 3): 5, ("key_0003", 4): 23}
        append(
            log,
            [
                usage(number, key_id=key_id, timestamp=NEW_YEAR + timedelta(hours=hour))
                for (key_id, number), hour in hours.items()
            ],
        )
        keys = [f"key_{number:04}" for number in range(1500)]

        times = {"key_0001": 30, "key_0002": 5, "key_0003": 23}
        expected = {key_id: NEW_YEAR + timedelta(hours=hour) for key_id, hour in times.items()}
        assert expected == elsewhere.last_used(keys)
        assert {"key_0002": expected["key_0002"]} == elsewhere.last_used(["key_0002", "key_9999"])
        assert {} == elsewhere.last_used([])

        assert 3 == log.purge(date(2026, 1, 2), limit=100)
        midnight = NEW_YEAR + timedelta(days=1)
        purged = {"key_0001": expected["key_0001"], "key_0002": midnight, "key_0003": midnight}
        assert purged == elsewhere.last_used(keys)

    def test_knows_a_batch_whose_records_were_purged(self, log):
        """Shipped again, by a host that was away for long, it is neither counted nor stored again."""
        self.days(log)
        log.purge(date(2026, 2, 1), limit=100)

        self.days(log)

        assert [UsageRow(by={}, requests=9, total_tokens=9)] == list(log.report())
        assert [] == log.records(RecordQuery(limit=10))

    def test_rebuilds_wrong_sums(self, log, spoil):
        """Counted again, they are those of the records, and no others: by day and key, by month and user, of all."""
        self.days(log)
        queries = [ReportQuery(by=by) for by in (["day", "key"], ["month", "user"], ["day"])]
        before = [list(log.report(query)) for query in queries]
        spoil()
        for query, rows in zip(queries, before, strict=True):
            assert rows != list(log.report(query))

        steps = list(log.rebuild())

        assert before == [list(log.report(query)) for query in queries]
        assert (len(steps) - 1, None) == (steps[-1].done, steps[-1].kept_before)
        assert {steps[-1].done} == {step.days for step in steps}

    def test_rebuild_keeps_days_whose_records_are_gone(self, log, spoil):
        """What nothing can tell any more stays as it is, and is said."""
        self.days(log)
        log.purge(date(2026, 1, 2), limit=1)
        spoil()
        spoilt = list(log.report(ReportQuery(last_day=date(2026, 1, 1))))

        steps = list(log.rebuild())

        assert {date(2026, 1, 2)} == {step.kept_before for step in steps}
        assert spoilt == list(log.report(ReportQuery(last_day=date(2026, 1, 1))))
        assert [UsageRow(by={}, requests=6, total_tokens=6)] == list(
            log.report(ReportQuery(first_day=date(2026, 1, 2), last_day=date(2026, 1, 3)))
        )

    def test_rebuilds_an_empty_log(self, log):
        """There is nothing to do, and that is no error."""
        assert [0] == [step.days for step in log.rebuild()]
        append(log, [usage(1)])
        assert next(iter(log.report())).requests == 1

    @pytest.mark.parametrize(
        ("first", "hours"), [("2026-03-28", {28: 24, 29: 23, 30: 24}), ("2026-10-24", {24: 24, 25: 25, 26: 24})]
    )
    def test_days_of_the_time_zone_have_23_and_25_hours(self, zoned, first, hours):
        """Of a request in each hour. In UTC every day has 24, and both kinds of days are there at the same time."""
        log = zoned(BERLIN)
        start = BERLIN.start(date.fromisoformat(first))
        append(log, [usage(n, timestamp=start + timedelta(hours=n)) for n in range(sum(hours.values()))])

        local = [(row.by["day"], row.requests) for row in log.report(ReportQuery(by=["day"]))]
        utc = [row.requests for row in log.report(ReportQuery(by=["day"], in_utc=True))]

        assert [(f"{first[:8]}{day}", number) for day, number in hours.items()] == local
        assert [24, 24] == utc[1:3]
        assert sum(utc) == sum(hours.values())

    def test_months_and_weeks_are_those_of_the_time_zone(self, zoned):
        """The last hour of October in UTC is in November, and Monday begins on Sunday evening."""
        log = zoned(BERLIN)
        halloween, sunday = datetime(2026, 10, 31, 23, 30, tzinfo=UTC), datetime(2026, 11, 8, 23, 30, tzinfo=UTC)
        append(log, [usage(1, timestamp=halloween, total_tokens=1), usage(2, timestamp=sunday, total_tokens=10)])

        def by(grouping: str, *, in_utc: bool) -> list[tuple[str | None, int]]:
            rows = log.report(ReportQuery(by=[grouping], in_utc=in_utc))
            return [(row.by[grouping], row.total_tokens) for row in rows]

        assert [("2026-11", 11)] == by("month", in_utc=False)
        assert [("2026-10", 1), ("2026-11", 10)] == by("month", in_utc=True)
        assert [("2026-W44", 1), ("2026-W46", 10)] == by("week", in_utc=False)
        assert [("2026-W44", 1), ("2026-W45", 10)] == by("week", in_utc=True)

    def test_weeks_are_those_of_iso_8601(self, log):
        """They begin on Monday, and belong to the year that has their Thursday."""
        days = [date(2020, 2, 29), date(2026, 12, 27), date(2026, 12, 28), date(2027, 1, 3), date(2027, 1, 4)]
        days += [date(2027, 12, 31) + timedelta(days=number) for number in range(3)]
        append(log, [usage(n, timestamp=datetime(*day.timetuple()[:3], 12, tzinfo=UTC)) for n, day in enumerate(days)])

        found = {row.by["day"]: row.by["week"] for row in log.report(ReportQuery(by=["day", "week"]))}
        weeks = [(row.by["week"], row.requests) for row in log.report(ReportQuery(by=["week"]))]

        named = {day.isoformat(): "{:04}-W{:02}".format(*day.isocalendar()[:2]) for day in days}
        assert named == found
        assert [("2020-W09", 1), ("2026-W52", 1), ("2026-W53", 2), ("2027-W01", 1), ("2027-W52", 3)] == weeks

    def test_a_new_time_zone_holds_from_its_next_midnight_on(self, zoned):
        """Whatever is appended later: the timestamp of a record decides, so a day that has passed never changes."""
        before = TimeZones()
        after = before.changed("America/New_York", datetime(2026, 6, 1, 12, tzinfo=UTC))
        evening = [datetime(2026, 6, day, 3, tzinfo=UTC) for day in (1, 2, 3)]  # at 23:00 in New York
        append(zoned(before), [usage(1, timestamp=evening[0])])

        append(zoned(after), [usage(2, timestamp=evening[0]), *(usage(n, timestamp=evening[n - 2]) for n in (3, 4))])

        expected = [("2026-06-01", 2), ("2026-06-02", 2)]
        rows = zoned(after).report(ReportQuery(by=["day"]))
        assert expected == [(row.by["day"], row.requests) for row in rows]
        for _ in zoned(after).rebuild():
            pass
        rows = zoned(after).report(ReportQuery(by=["day"]))
        assert expected == [(row.by["day"], row.requests) for row in rows]
        rows = zoned(after).report(ReportQuery(by=["day"], in_utc=True))
        expected = [("2026-06-01", 2), ("2026-06-02", 1), ("2026-06-03", 1)]
        assert expected == [(row.by["day"], row.requests) for row in rows]

    @pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Los_Angeles", "Pacific/Kiritimati", "Asia/Kathmandu"])
    def test_periods_have_the_days_of_the_time_zone(self, zoned, zone):
        """Of everybody, of a key and of a group; both ends are included."""
        zones = TimeZones((zone,))
        log = zoned(zones)
        hours = [NEW_YEAR + timedelta(minutes=30 + 60 * n) for n in range(24 * 5)]
        append(log, [usage(n, timestamp=at, group="physics") for n, at in enumerate(hours)])
        period = {"first_day": date(2026, 1, 2), "last_day": date(2026, 1, 3)}
        names = ["day", "key", "group"]

        for own in ({}, {"key_id": "key_0001"}, {"group": "physics"}):
            (row,) = log.report(ReportQuery(**period, **own))
            assert 48 == row.requests
            for in_utc, day_of in ((False, zones.day), (True, TimeZones().day)):
                rows = log.report(ReportQuery(by=names, in_utc=in_utc, **period, **own))
                inside = [day for at in hours if (day := day_of(at)) in (date(2026, 1, 2), date(2026, 1, 3))]
                assert {day.isoformat(): inside.count(day) for day in inside} == {
                    row.by["day"]: row.requests for row in rows
                }
        (open_end,) = log.report(ReportQuery(first_day=date(2026, 1, 2)))
        assert sum(zones.day(at) >= date(2026, 1, 2) for at in hours) == open_end.requests

    def test_rebuilds_the_days_of_the_time_zone(self, zoned, spoil):
        """Both kinds of days at once, also of requests that were failed over."""
        log = zoned(BERLIN)
        hours = [NEW_YEAR + timedelta(hours=n) for n in range(60)]
        records = [usage(n, timestamp=at, total_tokens=n, cost_usd=0.25) for n, at in enumerate(hours)]
        records[23] = replace(records[23], **FAILED_OVER)
        append(log, records)
        queries = [ReportQuery(by=["day", "deployment"], in_utc=in_utc) for in_utc in (False, True)]
        before = [[*log.report(query)] for query in queries]
        spoil()
        assert before != [[*log.report(query)] for query in queries]

        for _ in log.rebuild():
            pass

        assert before == [[*log.report(query)] for query in queries]
        assert before[0] != before[1]

    def test_rebuild_keeps_local_days_whose_records_are_gone(self, zoned):
        """Records are purged by UTC day, and so are sums kept."""
        log = zoned(BERLIN)
        append(log, [usage(n, timestamp=NEW_YEAR + timedelta(hours=n)) for n in range(72)])
        before = [*log.report(ReportQuery(by=["day"]))]
        log.purge(date(2026, 1, 2), limit=10)

        for _ in log.rebuild():
            pass

        assert before == [*log.report(ReportQuery(by=["day"]))]

    def test_counts_each_attempt_at_its_deployment(self, log, elsewhere):
        """Tokens and cost where Azure bills them; the request once, where it was answered. The total stays."""
        record = usage(1, **FAILED_OVER)
        append(log, [record, usage(2, deployment="gpt-4o-fr", prompt_tokens=1, total_tokens=1, cost_usd=0.5)])

        rows = {row.by["deployment"]: row for row in elsewhere.report(ReportQuery(by=["deployment"]))}
        (total,) = elsewhere.report()

        assert {
            "gpt-4o-se": (0, 100, 30, 130, 0, 0.25, 0, 130),
            "gpt-4o-no": (0, 100, 0, 100, 0, 0.125, 0, 100),
            "gpt-4o-fr": (2, 101, 20, 121, 7, 0.625, 1, 120),
        } == {name: _at_deployment(row) for name, row in rows.items()}
        assert (2, 301, 50, 351, 7, 1.0, 1, 350) == _at_deployment(total)

    def test_counts_nothing_at_a_deployment_that_could_not_be_reached(self, log):
        """Azure has received only the first attempt. The request is counted where it was last asked."""
        first = FAILED_OVER["attempts"][0]
        tokens = {"prompt_tokens": 100, "completion_tokens": 30, "total_tokens": 130, "cached_tokens": 0}
        append(log, [usage(1, **FAILED_OVER | tokens | {"attempts": (first,), "cost_usd": 0.25})])

        rows = {row.by["deployment"]: _at_deployment(row) for row in log.report(ReportQuery(by=["deployment"]))}

        assert {"gpt-4o-se": (0, 100, 30, 130, 0, 0.25, 0, 130), "gpt-4o-fr": (1, 0, 0, 0, 0, 0.0, 1, 0)} == rows

    def test_counts_no_cost_if_that_of_one_attempt_is_not_known(self, log):
        """As for the whole request, which is counted as one without a price."""
        attempts = tuple(replace(each, cost_usd=None) for each in FAILED_OVER["attempts"])
        append(log, [usage(1, **FAILED_OVER | {"attempts": attempts, "cost_usd": None})])

        rows = list(log.report(ReportQuery(by=["deployment"])))

        assert [0, 0, 0] == [row.cost_usd for row in rows]
        assert 1 == sum(row.unpriced_requests for row in rows)
        assert 350 == sum(row.total_tokens for row in rows)

    def test_what_filters_found_is_counted_by_day_of_the_time_zone(self, zoned):
        """A day's end is included."""
        log = zoned(BERLIN)
        late = datetime(2026, 6, 1, 22, 30, tzinfo=UTC)
        flagged = {"content_filter": ("hate",), "filter_severities": ("hate:high",)}
        append(log, [usage(n, timestamp=late + timedelta(seconds=n), **flagged) for n in range(3)])

        def days(**query: Any) -> list[tuple[str, int]]:
            return [(count.day, count.requests) for count in log.filter_counts(ReportQuery(**query))]

        assert [("2026-06-02", 3)] == days()
        assert [("2026-06-01", 3)] == days(in_utc=True)
        assert [("2026-06-02", 3)] == days(first_day=date(2026, 6, 2), last_day=date(2026, 6, 2))
        assert [] == days(last_day=date(2026, 6, 1))
        assert [] == days(first_day=date(2026, 6, 2), in_utc=True)


def _at_deployment(row: UsageRow) -> tuple[float, ...]:
    tokens = row.prompt_tokens, row.completion_tokens, row.total_tokens, row.cached_tokens
    return row.requests, *tokens, row.cost_usd, row.errors, row.estimated_tokens


class AuditLogContract:
    @pytest.fixture
    def log(self) -> AuditLog:
        raise NotImplementedError

    @pytest.fixture
    def elsewhere(self) -> AuditLog:
        raise NotImplementedError

    def test_begins_empty(self, log):
        """Where nothing was changed there is nothing to see."""
        assert [] == log.entries(AuditQuery(limit=10))

    def test_shows_an_entry_as_it_went_in(self, log, elsewhere):
        """Every field comes back, whatever names the changed things have in JSON."""
        changed = audit(
            1,
            timestamp=LATER,
            address=None,
            action="prices.set",
            target="",
            before={"gpt-4.1": {"$prompt": 0.5, "": None}, "Büro": ["日本", True, 2**70]},
            after={},
        )
        entries = [changed, audit(2, before={"user": "ada"}, after=None)]
        for entry in entries:
            log.append(entry)

        assert entries[::-1] == elsewhere.entries(AuditQuery(limit=10))

    def test_shows_entries_page_by_page(self, log):
        """Newest first; pages of any size, each behind the last entry of the one before, make up the whole."""
        entries = [audit(number) for number in range(7)]
        for entry in (*entries[4:], *entries[:4]):
            log.append(entry)

        for size in (1, 3, 7):
            pages, after = [], ""
            while page := log.entries(AuditQuery(limit=size, after=after)):
                pages += page
                assert len(page) <= size
                assert len(pages) <= len(entries)
                after = page[-1].id
            assert entries[::-1] == pages
        assert [] == log.entries(AuditQuery(limit=0))

    @pytest.fixture
    def erasures(self) -> Erasures:
        """The erasures beside ``log``."""
        raise NotImplementedError

    def test_finds_what_is_about_a_person(self, log, elsewhere):
        """By the key, by the name as the target, and by the name in a document: exactly this name, oldest first."""
        entries = [
            audit(1, target="key_0001"),
            audit(2, target="key_0002", before={"user": 'A"da \\ é'}, after=None),
            audit(3, target="key_0003", after={"user": "ADA"}),
            audit(4, target="ada", action="user.set", after=None),
            audit(5, target="", after={"rows": [{"user": "ada", "n": 1}], "note": "for ada"}),
            audit(6, target="", after={"note": "ada", "name": "ada"}),
            audit(7, target="adam", after=None),
        ]
        for entry in reversed(entries):
            log.append(entry)

        def numbers(user: str | None, *key_ids: str) -> list[int]:
            return [int(entry.id[-6:]) for entry in elsewhere.about(user, key_ids)]

        assert [1, 4, 5] == numbers("ada")
        assert [1, 3, 4, 5] == numbers("ada", "key_0003")
        assert [2] == numbers('A"da \\ é')
        assert [1, 2] == numbers(None, "key_0001", "key_0002")
        assert [] == numbers("nobody") == numbers(None)

    def test_replaces_what_is_about_a_person(self, log, elsewhere):
        """Targets and documents of these entries change, oldest first; all else stays as it was."""
        kept = audit(2, target="key_0002", after={"user": "bob"})
        for entry in (audit(1), kept, audit(3, target="ada", before={"user": "ada"}, after=None)):
            log.append(entry)
        seen = []

        def change(entry: AuditEntry) -> AuditEntry:
            seen.append(entry.id)
            return replace(entry, target="x", before=None, after={"user": "y"})

        elsewhere.replace("ada", ["key_0001"], change)

        assert [audit(1).id, audit(3).id] == seen
        changed = [audit(number, target="x", after={"user": "y"}) for number in (3, 1)]
        assert [changed[0], kept, changed[1]] == log.entries(AuditQuery(limit=10))

    def test_an_entry_about_an_erased_key_that_comes_later_names_nobody(self, log, elsewhere, erasures):
        """Whoever appends it knows nothing of the erasure; entries about other keys stay as they are."""
        erasures.begin(erasure())
        erasures.begin(erasure("key_2", pseudonym="erased-2", shared=("key_2",), name=NameDigest.of("ada")))
        fields = {"user": "ada", "name": "thesis", "email": "a@b.c", "note": "", "active": True, "group": "ml"}

        elsewhere.append(audit(1, before=fields, after={"email": None, "note": "tall"}))
        elsewhere.append(audit(2, target="key_2", before=fields | {"user": "bob"}, after=fields))
        elsewhere.append(audit(3, target="key_3", before=fields))

        gone = {"user": "erased-1", "name": "erased-1", "email": "erased-1", "note": "", "active": True, "group": "ml"}
        third, second, first = log.entries(AuditQuery(limit=10))
        assert (gone, {"email": None, "note": "erased-1"}) == (first.before, first.after)
        assert (fields | {"user": "bob"}, "erased-2") == (second.before, second.after["email"])
        assert fields == third.before

    def test_shows_what_happened_to_one_target(self, log):
        """A key's, a group's and the organisation's own history, page by page."""
        for number, target in enumerate(["key_0001", "", "key_0002", "key_0001", "key_0001"]):
            log.append(audit(number, target=target))

        def numbers(**filters: object) -> list[int]:
            return [int(entry.id[-6:]) for entry in log.entries(AuditQuery(**filters))]

        assert [4, 3, 0] == numbers(target="key_0001", limit=10)
        assert [4, 3] == numbers(target="key_0001", limit=2)
        assert [0] == numbers(target="key_0001", limit=2, after=audit(3).id)
        assert [1] == numbers(target="", limit=10)
        assert [] == numbers(target="key_0009", limit=10)

    def test_finds_what_one_admin_did(self, log):
        """By the id or the name; entries without an admin are the first owner's."""
        names = [("admin_1", "Grace"), (None, None), ("admin_2", "Alan"), ("admin_1", "Grace Hopper")]
        for number, (admin_id, name) in enumerate(names):
            log.append(audit(number, admin_id=admin_id, admin_name=name))

        def numbers(admin: str) -> list[int]:
            return [int(entry.id[-6:]) for entry in log.entries(AuditQuery(admin=admin, limit=10))]

        assert [3, 0] == numbers("admin_1")
        assert [0] == numbers("Grace")
        assert [2] == numbers("Alan")
        assert [1] == numbers("ADMIN_KEY")
        assert [] == numbers("grace")

    def test_finds_what_was_changed_in_a_period(self, log):
        """The end is not included."""
        for number in range(4):
            log.append(audit(number, timestamp=NEW_YEAR + timedelta(hours=number)))

        found = log.entries(
            AuditQuery(since=NEW_YEAR + timedelta(hours=1), until=NEW_YEAR + timedelta(hours=3), limit=10)
        )

        assert [audit(2).id, audit(1).id] == [entry.id for entry in found]

    def test_finds_what_is_about_some_groups_alone(self, log):
        """Not what is also about another group, and not what is about none."""
        about = [("physics",), None, ("chemistry",), ("chemistry", "physics"), ("physics", "maths"), ("maths",)]
        for number, groups in enumerate(about):
            log.append(audit(number, groups=groups))

        def numbers(*groups: str) -> list[int]:
            return [int(entry.id[-6:]) for entry in log.entries(AuditQuery(groups=groups, limit=10))]

        assert [0] == numbers("physics")
        assert [3, 2, 0] == numbers("physics", "chemistry")
        assert [] == numbers("art")
        assert [] == numbers()
        assert about[::-1] == [entry.groups for entry in log.entries(AuditQuery(limit=10))]

    def test_leaves_an_entry_that_is_there(self, log, elsewhere):
        """What was written stays as it is, also when it is written again."""
        log.append(audit(1))

        elsewhere.append(audit(1, action="key.remove"))

        assert [audit(1)] == log.entries(AuditQuery(limit=10))

    def test_loses_nothing_under_threads(self, log, elsewhere):
        """Every change of admins who work at once is written down."""
        at_once(
            *[
                lambda store=store, number=number: [store.append(audit(number * 10 + step)) for step in range(10)]
                for number, store in enumerate([log, elsewhere] * 3)
            ]
        )

        assert [audit(number) for number in range(59, -1, -1)] == log.entries(AuditQuery(limit=100))


def alert(number: int = 1, **fields: object) -> Alert:
    made = Alert(
        id=f"alert-{number:04}",
        at=NEW_YEAR + timedelta(seconds=number),
        event="budget",
        scope="group:physics",
        text="The group 'physics' has used 80 % of its budget.",
        deliveries=(Delivery(target="hook-1", due_at=NEW_YEAR),),
    )
    return replace(made, **fields)


MINUTE = timedelta(minutes=1)


class AlertStoreContract:
    """Each test gets ``alerts`` and, on the same backend, ``elsewhere``."""

    @pytest.fixture
    def alerts(self) -> AlertStore:
        raise NotImplementedError

    @pytest.fixture
    def elsewhere(self) -> AlertStore:
        raise NotImplementedError

    def test_begins_empty(self, alerts):
        """Nothing has happened, and nothing waits."""
        assert ([], 0, None) == (
            list(alerts.recent(limit=10)),
            alerts.waiting(),
            alerts.take(now=LATER, until=LATER + MINUTE),
        )
        assert [] == list(alerts.outages())

    def test_shows_an_alert_as_it_went_in(self, alerts, elsewhere):
        """Every field comes back, newest first, as many as were asked for."""
        delivery = Delivery(
            target="mail:1",
            state=DeliveryState.FAILED,
            attempts=3,
            tried_at=LATER,
            status=550,
            reason='No such "person" 日本',
        )
        whole = alert(
            2,
            threshold=80,
            used=121.5,
            limit=150.0,
            user="ada",
            kept_until=LATER.replace(microsecond=7000),
            deliveries=(delivery, Delivery(target="hook-2", due_at=LATER)),
        )
        assert alerts.add(alert(1))
        assert alerts.add(whole)

        assert [whole, alert(1)] == list(elsewhere.recent(limit=10))
        assert [whole] == list(elsewhere.recent(limit=1))
        assert [] == list(elsewhere.recent(limit=0))
        assert 2 == elsewhere.waiting()

    def test_goes_on_behind_an_alert(self, alerts, elsewhere):
        """Also within one millisecond, and when that alert is gone."""
        for number in (1, 2, 3):
            alerts.add(alert(number, at=NEW_YEAR))
        alerts.add(alert(4))

        assert ["alert-0002", "alert-0001"] == [
            each.id for each in elsewhere.recent(limit=9, after=(NEW_YEAR, "alert-0003"))
        ]
        assert ["alert-0003"] == [each.id for each in elsewhere.recent(limit=1, after=(NEW_YEAR, "alert-0003x"))]
        assert [] == list(elsewhere.recent(limit=9, after=(NEW_YEAR, "alert-0001")))

    def test_adds_once_when_many_try(self, alerts, elsewhere):
        """Of all processes of all hosts that see the same, one announces it; the first text stays."""
        tries = [
            lambda store=store, number=number: store.add(alert(1, text=f"text {number}"))
            for number, store in enumerate([alerts, elsewhere] * 6)
        ]
        added = at_once(*tries)

        assert 1 == added.count(True)
        assert f"text {added.index(True)}" == alerts.recent(limit=10)[0].text
        assert not elsewhere.add(alert(1))

    def test_gives_an_alert_to_one_at_a_time(self, alerts, elsewhere):
        """While one delivers it, no other does; when that has given up without a word, another one gets it."""
        alerts.add(alert(1))
        takes = [lambda store=store: store.take(now=LATER, until=LATER + MINUTE) for store in [alerts, elsewhere] * 6]
        (taken,) = [each for each in at_once(*takes) if each is not None]
        assert alert(1) == replace(taken, lease="")

        assert elsewhere.take(now=LATER + MINUTE / 2, until=LATER + MINUTE) is None
        again = elsewhere.take(now=LATER + MINUTE, until=LATER + 2 * MINUTE)
        assert again is not None
        assert taken.lease != again.lease
        assert not alerts.save(taken)
        assert elsewhere.save(again)

    def test_takes_what_is_due_longest_first(self, alerts, elsewhere):
        """Nothing is taken before it is due, and an alert is due with its first delivery."""
        due = [LATER + 2 * MINUTE, LATER, LATER + MINUTE]
        for number, at in enumerate(due):
            late = Delivery(target="hook-2", due_at=LATER + 9 * MINUTE)
            alerts.add(alert(number, deliveries=(late, Delivery(target="hook-1", due_at=at))))

        assert elsewhere.take(now=LATER - MINUTE, until=LATER) is None
        taken = [elsewhere.take(now=LATER + MINUTE, until=LATER + 5 * MINUTE) for _ in range(3)]
        assert ["alert-0001", "alert-0002", None] == [each and each.id for each in taken]

    def test_saves_what_became_of_the_deliveries(self, alerts, elsewhere):
        """What was delivered is not due again, the rest is when it was said; meanwhile the lease lasts."""
        done = Delivery(target="hook-1", state=DeliveryState.DELIVERED, attempts=1, tried_at=LATER, status=200)
        waits = Delivery(target="hook-2", due_at=LATER + 2 * MINUTE, attempts=1)
        alerts.add(alert(1, deliveries=(replace(waits, target="hook-1"), waits)))
        taken = alerts.take(now=LATER + 2 * MINUTE, until=LATER + 3 * MINUTE)

        assert alerts.save(replace(taken, deliveries=(done, waits)), held_until=LATER + 4 * MINUTE)
        assert elsewhere.take(now=LATER + 3 * MINUTE, until=LATER + 9 * MINUTE) is None
        assert (done, waits) == elsewhere.recent(limit=1)[0].deliveries
        assert alerts.save(replace(taken, deliveries=(done, waits)))
        again = elsewhere.take(now=LATER + 3 * MINUTE, until=LATER + 9 * MINUTE)
        assert (done, waits) == again.deliveries
        assert elsewhere.save(replace(again, deliveries=(done, replace(done, target="hook-2"))))

        assert alerts.take(now=LATER + 99 * MINUTE, until=LATER + 100 * MINUTE) is None
        assert 0 == alerts.waiting()
        assert not alerts.add(alert(1))

    def test_an_outage_has_one_beginning(self, alerts, elsewhere):
        """Whoever sees it, it is the same one, since it was first seen."""
        first = Outage(event="store", scope="redis", since=NEW_YEAR, over="Redis is back.")
        seen = [
            store.observe(replace(first, since=NEW_YEAR + number * MINUTE), until=LATER)
            for number, store in enumerate([alerts, elsewhere, alerts])
        ]
        other = alerts.observe(replace(first, scope="mongodb"), until=LATER)

        assert [first] * 3 == seen
        assert [other, first] == list(elsewhere.outages())

    def test_observers_at_once_agree(self, alerts, elsewhere):
        """Processes that notice it at the same moment name the same beginning."""
        first = Outage(event="store", scope="redis", since=NEW_YEAR, over="")
        seen = at_once(
            *[
                lambda store=store, number=number: store.observe(
                    replace(first, since=NEW_YEAR + number * MINUTE), until=LATER
                )
                for number, store in enumerate([alerts, elsewhere] * 4)
            ]
        )

        assert 1 == len({each.since for each in seen})

    def test_an_outage_ends_once_when_nobody_sees_it(self, alerts, elsewhere):
        """Not while one process still sees it; then one of all ends it, and the next one is another."""
        first = Outage(event="store", scope="redis", since=NEW_YEAR, over="Redis is back.")
        alerts.observe(first, until=LATER + 9 * MINUTE)
        elsewhere.clear(first.name, until=LATER)
        alerts.observe(first, until=LATER + 9 * MINUTE)
        assert alerts.end(first.name, now=LATER) is None

        elsewhere.clear(first.name, until=LATER)
        elsewhere.clear(first.name, until=LATER + 99 * MINUTE)
        assert alerts.end(first.name, now=LATER - MINUTE) is None
        ends = at_once(*[lambda store=store: store.end(first.name, now=LATER) for store in [alerts, elsewhere] * 4])
        assert [True] == [ended for ended in ends if ended is not None]

        assert [] == list(alerts.outages())
        again = replace(first, since=LATER)
        assert again == alerts.observe(again, until=LATER)
        assert elsewhere.end(first.name, now=LATER) is False
        alerts.clear("store:unknown", until=LATER)
        assert alerts.end("store:unknown", now=LATER) is None

    def test_a_claim_is_held_by_one_for_its_time(self, alerts, elsewhere):
        """Afterwards it is free for one again, and other names always are."""
        claims = [
            lambda store=store: store.claim("watch", now=LATER, until=LATER + MINUTE)
            for store in [alerts, elsewhere] * 6
        ]

        assert 1 == at_once(*claims).count(True)
        assert alerts.claim("other", now=LATER, until=LATER + MINUTE)
        assert not elsewhere.claim("watch", now=LATER + MINUTE / 2, until=LATER + MINUTE)
        assert elsewhere.claim("watch", now=LATER + MINUTE, until=LATER + 2 * MINUTE)
        assert not alerts.claim("watch", now=LATER + MINUTE, until=LATER + 2 * MINUTE)

    def test_purges_what_is_over(self, alerts, elsewhere):
        """What waits stays, and what has no end."""
        nothing_waits = {"deliveries": (Delivery(target="hook-1", state=DeliveryState.DELIVERED),)}
        alerts.add(alert(1, kept_until=LATER, **nothing_waits))
        alerts.add(alert(2, kept_until=LATER + MINUTE, **nothing_waits))
        alerts.add(alert(3, **nothing_waits))
        alerts.add(alert(4, kept_until=LATER))
        alerts.claim("watch", now=NEW_YEAR, until=LATER + MINUTE)

        elsewhere.purge(LATER)

        assert ["alert-0004", "alert-0003", "alert-0002"] == [each.id for each in alerts.recent(limit=9)]
        assert not alerts.claim("watch", now=LATER, until=LATER + MINUTE)

    def test_forgets_what_names_a_person(self, alerts, elsewhere):
        """Nothing of that is left, and everything of the others; names are compared exactly."""
        for number, user in enumerate(["ada", "Ada", None, "ada"]):
            alerts.add(alert(number, user=user))

        elsewhere.forget_person("ada")

        assert [None, "Ada"] == [each.user for each in alerts.recent(limit=9)]
        assert 2 == alerts.waiting()


def unavailable(backend: Pingable, *questions: Callable[[], object]) -> None:
    """Every question, and a ping, ends in :class:`StoreUnavailable` with time to try again."""
    for question in (backend.ping, *questions):
        with pytest.raises(StoreUnavailable) as caught:
            question()
        assert caught.value.retry_after
