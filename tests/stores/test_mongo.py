"""MongoDB: the contracts on a server with login, its indexes, and what happens while it is away."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import traceback
from contextlib import closing
from dataclasses import fields, replace
from datetime import date, timedelta
from functools import partial
from urllib.parse import quote

import pymongo
import pytest

from llmgateway.accounts.credential import CredentialCipher
from llmgateway.accounts.keys import Keys
from llmgateway.accounts.policy import OrganisationPolicy
from llmgateway.errors import ConfigurationError, InvalidKey, StoreUnavailable
from llmgateway.records import (
    UNLIMITED,
    AuditQuery,
    KeyQuery,
    ModelSettings,
    Outcome,
    Prices,
    Prompt,
    RecordQuery,
    ReportQuery,
    UsageRecord,
    UsageSource,
)
from llmgateway.stores.cached_keys import CachedKeys
from llmgateway.stores.circuit import Circuit
from llmgateway.stores.mongo.audit import MongoAuditLog
from llmgateway.stores.mongo.database import MongoDatabase, check_url
from llmgateway.stores.mongo.erasures import MongoErasures
from llmgateway.stores.mongo.keys import MongoKeys
from llmgateway.stores.mongo.organisation import MongoOrganisation
from llmgateway.stores.mongo.refusals import MongoRefusalLog
from llmgateway.stores.mongo.usage import MongoUsageLog
from llmgateway.stores.sums import SUMS
from tests.servers import PASSWORD, USER, free_port, wait_until
from tests.stores.contract import (
    LIMITS,
    NEW_YEAR,
    AuditLogContract,
    ErasuresContract,
    KeyStoreContract,
    OrganisationStoreContract,
    UsageLogContract,
    append,
    at_once,
    audit,
    erasure,
    group,
    key,
    unavailable,
    usage,
)


@pytest.fixture
def database(mongo_server, database_name):
    with closing(MongoDatabase(mongo_server.url, database=database_name)) as database:
        yield database


@pytest.fixture
def other_database(mongo_server, database_name):
    with closing(MongoDatabase(mongo_server.url, database=database_name)) as database:
        yield database


@pytest.fixture
def collections(mongo_server, database_name):
    """The database as any other program sees it."""
    with pymongo.MongoClient(mongo_server.url, tz_aware=True) as client:
        yield client[database_name]


class TestMongoKeys(KeyStoreContract):
    @pytest.fixture
    def keys(self, database):
        return MongoKeys(database)

    @pytest.fixture
    def elsewhere(self, other_database):
        return MongoKeys(other_database)

    @pytest.fixture
    def organisation(self, database):
        return MongoOrganisation(database)

    def test_looks_up_by_the_index(self, keys, collections):
        """A look-up reads one document, however many there are."""
        for number in range(20):
            keys.add(key(number))

        plan = collections["keys"].find({"digest": key(7).digest}).explain()

        assert plan["queryPlanner"]["winningPlan"]["inputStage"]["keyPattern"] == {"digest": 1}
        assert plan["executionStats"]["totalDocsExamined"] == 1

    def test_reads_what_an_older_program_wrote(self, keys, collections):
        """A field that came later has its default in a document that lacks it; an unknown one is no harm."""
        keys.add(key(1))
        later = ("models", "note", "limits", "prompt", "retiring_digest", "retires_at", "digests")
        collections["keys"].update_one({"_id": key(1).id}, {"$unset": dict.fromkeys(later, ""), "$set": {"extra": 1}})

        assert keys.find(key(1).digest).record == key(1)
        assert not keys.add(key(2, digest=key(1).digest))
        assert {key(1).digest} == keys.add_all([key(2, digest=key(1).digest)])
        rotated = keys.rotate(key(1).id, "f" * 64, retires_at=NEW_YEAR)
        assert rotated == keys.find(key(1).digest).record == keys.find("f" * 64).record

    def test_looks_up_retiring_keys_by_the_index(self, keys, collections):
        """So does the look-up of a key that is being replaced."""
        for number in range(20):
            keys.add(key(number))

        plan = collections["keys"].find({"digests": key(7).digest}).explain()

        assert plan["queryPlanner"]["winningPlan"]["inputStage"]["keyPattern"] == {"digests": 1}
        assert plan["executionStats"]["totalDocsExamined"] == 1


class TestMongoOrganisation(OrganisationStoreContract):
    @pytest.fixture
    def organisation(self, database):
        return MongoOrganisation(database)

    @pytest.fixture
    def elsewhere(self, other_database):
        return MongoOrganisation(other_database)

    @pytest.fixture
    def keys(self, database):
        return MongoKeys(database)

    def test_a_death_between_two_steps_loses_no_version(self, organisation, collections):
        """A process that dies after a version got its number, and before it is in force, has set nothing."""
        one = organisation.set_prompt("one", NEW_YEAR)
        collections["prompts"].insert_one({"_id": 2, "text": "two", "set_at": NEW_YEAR, "scope": ""})

        assert one == organisation.load().prompt
        three = organisation.set_prompt("three", NEW_YEAR)

        assert (3, three) == (three.version, organisation.load().prompt)
        assert ["three", "two", "one"] == [prompt.text for prompt in organisation.prompt_versions()]

    def test_of_two_prompts_at_once_the_higher_one_stays(self, organisation, elsewhere, monkeypatch):
        """One that got its number first, and is put in force last, takes nobody's place."""
        document = MongoOrganisation._document
        others = iter([lambda: None, lambda: elsewhere.set_prompt("two", NEW_YEAR)])

        def _document(self):
            if self is organisation:
                next(others, lambda: None)()
            return document(self)

        monkeypatch.setattr(MongoOrganisation, "_document", _document)

        assert 1 == organisation.set_prompt("one", NEW_YEAR).version

        assert "two" == organisation.load().prompt.text
        assert [2, 1] == [prompt.version for prompt in elsewhere.prompt_versions()]

    def test_reads_the_prompts_that_an_older_program_wrote(self, organisation, collections):
        """It kept the one in force in one place, those before it in another, and knew no scope."""
        older = [{"version": number, "text": str(number), "set_at": NEW_YEAR} for number in (1, 2)]
        collections["prompts"].insert_one({"_id": 1, "text": "1", "set_at": NEW_YEAR})
        collections["organisation"].insert_one({"_id": "organisation", "prompt": older[1], "generation": "g"})
        one, two = (Prompt(**document) for document in older)

        assert two == organisation.load().prompt
        assert [two, one] == organisation.prompt_versions() == organisation.prompt_versions(scope="")
        group = organisation.add_prompt("3", NEW_YEAR, scope="group:physics")
        four = organisation.set_prompt("4", NEW_YEAR)

        assert (3, 4) == (group.version, four.version)
        assert [four, two, one] == organisation.prompt_versions(scope="")
        assert [four, group, two, one] == organisation.prompt_versions()

    def test_reads_the_prices_that_an_older_program_wrote(self, organisation, elsewhere, collections):
        """It kept a list of prices. The first change makes settings of them, and loses none."""
        prices = {"prompt": 1.0, "cached": 0.5, "completion": 2.0}
        older = [{"model": name, **prices} for name in ("gpt-4.1", "team.a")]
        collections["organisation"].insert_one({"_id": "organisation", "prices": older, "generation": "g"})
        settings = ModelSettings(prices=Prices(**prices))

        assert {"gpt-4.1": settings, "team.a": settings} == organisation.load().models
        organisation.set_model("gpt-4.1", {"reasoning": True})
        assert {"gpt-4.1": replace(settings, reasoning=True), "team.a": settings} == elsewhere.load().models
        organisation.set_model("team.a", None)
        assert ["gpt-4.1"] == [*elsewhere.load().models]


class TestMongoAuditLog(AuditLogContract):
    @pytest.fixture
    def erasures(self, database):
        return MongoErasures(database)

    @pytest.fixture
    def log(self, database):
        return MongoAuditLog(database)

    @pytest.fixture
    def elsewhere(self, other_database):
        return MongoAuditLog(other_database)


class TestMongoErasures(ErasuresContract):
    @pytest.fixture
    def erasures(self, database):
        return MongoErasures(database)


class TestMongoUsageLog(UsageLogContract):
    @pytest.fixture
    def erasures(self, other_database):
        return MongoErasures(other_database)

    @pytest.fixture
    def log(self, database):
        return MongoUsageLog(database)

    @pytest.fixture
    def zoned(self, other_database):
        return lambda zones: MongoUsageLog(other_database, zones=lambda: zones)

    @pytest.fixture
    def elsewhere(self, other_database):
        return MongoUsageLog(other_database)

    @pytest.fixture
    def spoil(self, collections):
        def spoil():
            of_nothing = dict.fromkeys(SUMS, 7) | {"day": "2026-04-01", "model": "m", "group": None}
            for name, more in (("usage_daily", {"key_id": "k", "user": "u"}), ("usage_days", {"whole": True})):
                collections[name].update_many({}, {"$inc": {"requests": 1, "spread.h0": 77}})
                collections[name].insert_one(of_nothing | more)

        return spoil

    def test_counts_what_an_older_program_stored(self, log, elsewhere, collections, caplog):
        """The first process that appends computes the missing sums from older records, and logs it."""
        append(log, [usage(1, total_tokens=1)])
        collections["logs"].update_many({}, {"$unset": {"batch": ""}})
        for name in ("usage_daily", "usage_sources", "usage_state"):
            collections.drop_collection(name)

        append(elsewhere, [usage(1, total_tokens=1), usage(2, total_tokens=10)])

        assert [(2, 11)] == [(row.requests, row.total_tokens) for row in elsewhere.report()]
        assert "sums of usage are missing" in caplog.text

    def test_completes_the_sums_of_an_older_program(self, log, elsewhere, collections, caplog):
        """They do not say what had no price, or was estimated or bound. They are computed again, once."""
        bound, estimated = UsageSource.BOUND, UsageSource.ESTIMATED
        unpriced = usage(1, total_tokens=1, cost_usd=None, usage_source=bound)
        append(log, [unpriced, usage(2, total_tokens=10, cost_usd=0.5, usage_source=estimated)])
        newer = ("unpriced_requests", "estimated_tokens", "bound_tokens")
        collections["usage_daily"].update_many({}, {"$unset": dict.fromkeys(newer, "")})
        collections["usage_state"].update_many({}, {"$unset": {"version": ""}})
        (row,) = elsewhere.report()
        assert (2, 11, 0, 0, 0) == (row.requests, row.total_tokens, *(getattr(row, name) for name in newer))

        append(elsewhere, [usage(3, total_tokens=100, cost_usd=None, usage_source=bound)])

        (row,) = elsewhere.report()
        assert (3, 111, 2, 10, 101) == (row.requests, row.total_tokens, *(getattr(row, name) for name in newer))
        assert "of an older version" in caplog.text

    def test_no_name_can_be_found_from_the_sums(self, database, elsewhere, collections):
        """Of an erased person not even a hash of the name stays: without the secret, nobody can try names."""
        log = MongoUsageLog(database, secret="the operator's own")
        for number, each in enumerate((log, elsewhere)):
            append(each, [usage(number, user="quixote")])
            each.erase(erasure("key_0001"))

        of_quixote = {document["_id"] for document in collections["usage_daily"].find({"user": "erased-1"})}
        assert 2 == len(of_quixote)

    def test_older_sums_lose_the_names_that_can_be_found(self, log, elsewhere, collections):
        """Also those of days whose records were deleted; no number changes, however often it is begun."""
        old, recent = usage(1, total_tokens=1), usage(2, timestamp=NEW_YEAR + timedelta(days=40), total_tokens=10)
        append(log, [old, recent])
        daily = collections["usage_daily"]
        for number, document in enumerate([*daily.find()]):
            daily.delete_one({"_id": document["_id"]})
            daily.insert_one(document | {"_id": f"{number:032x}"})
        collections["usage_state"].update_many({}, {"$set": {"version": 2}})
        assert 1 == log.purge(date(2026, 2, 1), limit=10)

        append(elsewhere, [replace(recent, id="req_000003", total_tokens=100)])
        for _ in elsewhere.rebuild():
            pass

        assert [1, 110] == [row.total_tokens for row in elsewhere.report(ReportQuery(by=["day"]))]
        assert 2 == daily.count_documents({})
        assert not [document["_id"] for document in daily.find() if len(document["_id"]) == 32]

    def test_sums_of_a_program_without_deployments_stay(self, log, elsewhere, collections):
        """They are of no deployment until they are rebuilt, and newer sums are added beside them."""
        append(log, [usage(1, total_tokens=1)])
        (older,) = collections["usage_daily"].find()
        collections["usage_daily"].delete_one({"_id": older["_id"]})
        del older["deployment"]
        collections["usage_daily"].insert_one(older | {"_id": "older"})

        append(elsewhere, [usage(2, total_tokens=10)])

        by = ReportQuery(by=["deployment", "user"])
        assert [(None, 1), ("gpt-4o-eu", 10)] == [(row.by["deployment"], row.total_tokens) for row in log.report(by)]
        for _ in log.rebuild():
            pass
        assert [("gpt-4o-eu", 11)] == [(row.by["deployment"], row.total_tokens) for row in log.report(by)]

    def test_a_rebuild_that_died_blocks_shipping_only_for_a_while(self, database, log, collections, clock):
        """Shipping is blocked until the lease of the rebuild ends. If the rebuild then continues, it fails."""
        log = MongoUsageLog(database, clock=clock)
        append(log, [usage(1)])
        dead = log.rebuild()
        next(dead)

        with pytest.raises(StoreUnavailable, match="being rebuilt"):
            append(log, [usage(2)])
        with pytest.raises(StoreUnavailable, match="being rebuilt"):
            log.purge(date(2026, 2, 1), limit=10)
        with pytest.raises(StoreUnavailable, match="being rebuilt"):
            next(log.rebuild())
        clock.advance(120)
        append(log, [usage(2)])

        with pytest.raises(StoreUnavailable, match="Start the rebuild again"):
            next(dead)
        assert 2 == next(iter(log.report())).requests

    def test_stores_every_field_under_its_name(self, log, collections):
        """Documents have the fields of the contract, all of them, in types that others can query."""
        append(log, [usage(1, outcome=Outcome.CLIENT_CLOSED, content_filter=("hate",), cost_usd=0.5, status=200)])

        document = collections["logs"].find_one()

        names = {field.name for field in fields(UsageRecord)} - {"id"} | {"_id", "batch"}
        assert set(document) == names
        assert document["_id"] == "req_000001"
        assert document["timestamp"] == NEW_YEAR
        assert document["outcome"] == "client_closed"
        assert document["content_filter"] == ["hate"]
        assert document["stream"] is False
        assert document["group"] is None

    def test_a_record_that_cannot_be_stored_is_not_taken_for_a_duplicate(self, log, collections):
        """Any refusal but "is there already" is an error, also among duplicates; the rest is stored."""
        collections["logs"].create_index("user", unique=True, partialFilterExpression={"user": "eve"})
        append(log, [usage(1)])
        # The same code as for a duplicate, for another reason than the identifier.
        with pytest.raises(StoreUnavailable):
            append(log, [usage(1), usage(2, user="eve"), usage(3, user="eve"), usage(4)])

    @pytest.mark.parametrize(
        ("wanted", "index"),
        [
            ({"timestamp": {"$lt": NEW_YEAR}}, "timestamp_1__id_1"),
            ({"key_id": "key_0001", "timestamp": {"$gte": NEW_YEAR}}, "key_id_1_timestamp_1__id_1"),
            ({"user": "ada"}, "user_1_timestamp_1__id_1"),
            ({"outcome": "broken"}, "outcome_1_timestamp_1__id_1"),
            ({"usage_source": "bound"}, "usage_source_1_timestamp_1__id_1"),
        ],
    )
    def test_pages_by_the_index(self, log, collections, wanted, index):
        """A page of one key, user or outcome is found without reading the others' records."""
        append(log, [usage(number, key_id=f"key_{number % 7:04}") for number in range(50)])

        plan = collections["logs"].find(wanted, sort=[("timestamp", -1), ("_id", -1)]).explain()

        assert index in str(plan["queryPlanner"]["winningPlan"])

    @pytest.mark.parametrize(
        ("wanted", "index"),
        [({"day": {"$gte": "2026-01-01"}}, "day_1"), ({"key_id": "key_0001", "day": "2026-01-01"}, "key_id_1_day_1")],
    )
    def test_reports_by_the_index(self, log, collections, wanted, index):
        """A month, and a key, are summed without reading the other months' and keys' sums."""
        append(log, [usage(number, key_id=f"key_{number % 7:04}") for number in range(50)])

        plan = collections["usage_daily"].find(wanted).explain()

        assert plan["queryPlanner"]["winningPlan"]["inputStage"]["indexName"] == index


class TestLogin:
    def test_a_wrong_password_is_told_without_the_password(self, mongo_server, caplog):
        """A login that is refused is the store's trouble, and nothing repeats the password."""
        if not hasattr(mongo_server, "folder"):
            pytest.skip("needs a server with a login that the test knows")
        caplog.set_level(logging.DEBUG, "llmgateway")
        url = f"mongodb://{USER}:{quote('wrong' + PASSWORD, safe='')}@127.0.0.1:{mongo_server.port}/"
        with closing(MongoDatabase(url)) as database, pytest.raises(StoreUnavailable) as caught:
            MongoKeys(database).find(key().digest)

        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(database) + caplog.text
        assert PASSWORD not in shown
        assert quote(PASSWORD, safe="") not in shown


def serves(database):
    """Whether the driver, which looks only every half a second, has seen that the server is there."""
    try:
        database.ping()
    except StoreUnavailable:
        return False
    return True


class TestAway:
    def everything(self, database):
        keys, organisation, log = MongoKeys(database), MongoOrganisation(database), MongoUsageLog(database)
        audit_log = MongoAuditLog(database)
        return [
            lambda: keys.find(key().digest),
            lambda: keys.add(key()),
            lambda: keys.get(key().id),
            keys.list,
            lambda: keys.update(key().id, {"name": "x"}),
            lambda: keys.remove(key().id),
            lambda: keys.add_all([key()]),
            lambda: keys.rotate(key().id, "f" * 64, retires_at=None),
            lambda: keys.revoke_group("physics"),
            lambda: organisation.add_prompt("x", NEW_YEAR, scope="group:physics"),
            lambda: organisation.set_limits(LIMITS),
            lambda: organisation.set_group(group()),
            lambda: organisation.remove_group("physics"),
            lambda: audit_log.append(audit()),
            lambda: audit_log.entries(AuditQuery(limit=1)),
            organisation.load,
            lambda: organisation.set_prompt("x", NEW_YEAR),
            organisation.prompt_versions,
            lambda: organisation.set_credential(b"x"),
            lambda: append(log, [usage()]),
            lambda: list(log.report()),
        ]

    def test_a_server_that_was_never_there(self):
        """A store can be made while its server is away; each question then fails."""
        with closing(MongoDatabase(f"mongodb://127.0.0.1:{free_port()}/", timeout=0.1, report_timeout=0.1)) as database:
            at_once(*[partial(unavailable, database, question) for question in self.everything(database)])

    def test_a_server_that_hangs(self):
        """A server that takes connections and says nothing costs the time-out and no more."""
        with (
            socket.create_server(("127.0.0.1", 0)) as silent,
            closing(MongoDatabase(f"mongodb://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.2)) as database,
        ):
            started = time.monotonic()
            unavailable(database)

            assert time.monotonic() - started < 5

    def test_nobody_waits_longer_for_a_server_that_is_away(self):
        """Neither for a report, nor for all keys of a class: only an answer may take that long."""
        with closing(MongoDatabase(f"mongodb://127.0.0.1:{free_port()}/", timeout=0.2)) as database:
            keys, log, refusals = MongoKeys(database), MongoUsageLog(database), MongoRefusalLog(database)
            questions = (
                lambda: keys.list(KeyQuery()),
                lambda: keys.list(KeyQuery(group="course", limit=None)),
                lambda: keys.add_all([key()]),
                lambda: keys.of_users(["ada"]),
                lambda: keys.get_all(["key_0001"]),
                lambda: keys.users(),
                lambda: keys.revoke_group("course"),
                lambda: keys.remove_all(["key_0001"]),
                lambda: log.records(RecordQuery(limit=10)),
                lambda: log.report(),
                lambda: log.last_used(["key_0001"]),
                lambda: log.filter_counts(),
                lambda: log.kept_of("ada"),
                lambda: [*log.rebuild()],
                lambda: refusals.kept_of("ada"),
                lambda: MongoAuditLog(database).about("ada", []),
            )
            for number, question in enumerate(questions):
                started = time.monotonic()
                unavailable(database, question)
                assert time.monotonic() - started < 3, number

    def test_a_server_that_goes_and_comes_back(self, own_mongo, database_name):
        """Its going is noticed soon; what was stored is there again when it is, through the same object."""
        with closing(MongoDatabase(own_mongo.url, database=database_name, timeout=0.3, report_timeout=0.3)) as database:
            keys, log = MongoKeys(database), MongoUsageLog(database)
            keys.add(key())
            append(log, [usage()])

            own_mongo.kill()
            started = time.monotonic()
            unavailable(database, lambda: keys.find(key().digest), lambda: append(log, [usage()]))
            assert time.monotonic() - started < 5, "a batch may take ten seconds, but only where somebody takes it"

            own_mongo.start()
            wait_until(lambda: serves(database), what="the server's return")
            assert keys.find(key().digest).record == key()
            assert next(iter(log.report())).requests == 1

    def test_a_server_that_goes_after_a_change(self, own_mongo, database_name, clock):
        """The process that made it knows it, although no request has looked anything up since."""
        with closing(MongoDatabase(own_mongo.url, database=database_name, timeout=0.5)) as database:
            wait_until(lambda: serves(database), what="the server")
            organisation = MongoOrganisation(database, clock=clock)
            policy = OrganisationPolicy(organisation, CredentialCipher("x"), fallback=None, clock=clock)
            circuit = Circuit("MongoDB", retry_after=1, clock=clock)
            keys = Keys(CachedKeys(MongoKeys(database, clock=clock), circuit=circuit), policy, clock=clock)
            assert UNLIMITED == policy.stored().limits
            policy.set_group(group("physics"))
            made = {name: keys.create(user=name, name="x") for name in ("changed", "blocked", "removed")}
            ids = {name: record.id for name, (record, _) in made.items()}
            keys.update(ids["changed"], {"group": "physics"}, limits={"parallel_requests": 1})
            keys.update(ids["blocked"], {"active": False})
            keys.remove(ids["removed"])
            policy.update_group("physics", {}, limits={"budget": LIMITS.budget})
            policy.set_credential("azure-key")

            own_mongo.kill()

            known = keys.authenticate(made["changed"][1])
            assert (1, LIMITS.budget) == (known.key.limits.parallel_requests, known.group.limits.budget)
            assert "azure-key" == policy.credential(known.organisation)
            for name, reason in (("blocked", "revoked"), ("removed", "not known")):
                with pytest.raises(InvalidKey, match=reason):
                    keys.authenticate(made[name][1])

    def test_a_whole_list_may_take_longer_than_a_page(self, own_mongo, database_name):
        """A group of thousands is read before it is revoked: a server that takes its time does not stop that."""
        with closing(MongoDatabase(own_mongo.url, database=database_name, timeout=0.5)) as database:
            keys = MongoKeys(database)
            wait_until(lambda: serves(database), what="the server")
            keys.add(key())
            own_mongo.pause()
            later = threading.Timer(2, own_mongo.resume)
            later.start()
            try:
                assert [key()] == keys.list()
            finally:
                later.join()

    def test_a_server_that_comes_late(self, own_mongo, database_name):
        """Indexes are made when the server is there at last: no digest is stored twice even then."""
        own_mongo.kill()
        with closing(MongoDatabase(own_mongo.url, database=database_name, timeout=0.3)) as database:
            keys = MongoKeys(database)
            unavailable(database, lambda: keys.add(key(1)))

            own_mongo.start()
            wait_until(lambda: serves(database), what="the server's coming")

            assert keys.add(key(1))
            assert not keys.add(replace(key(2), digest=key(1).digest))


class TestForks:
    def test_child_and_parent_go_on(self, database):
        """A store that was used before a fork works on both sides, each on connections of its own."""
        keys = MongoKeys(database)
        keys.add(key(1))

        child = os.fork()
        if child == 0:
            status = 1
            try:
                if keys.find(key(1).digest).record == key(1) and keys.add(key(2)):
                    status = 0
                database.close()
            finally:
                os._exit(status)

        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert keys.list() == [key(1), key(2)]

    def test_child_has_a_client_of_its_own(self, database):
        """The driver's threads do not survive a fork; its client is made anew in the child."""
        with database.collection("keys") as keys:
            before = id(keys.database.client)

        child = os.fork()
        if child == 0:
            status = 1
            try:
                with database.collection("keys") as keys:
                    status = int(id(keys.database.client) == before)
                database.close()
            finally:
                os._exit(status)

        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_takes_a_client_that_is_ready(mongo_server, database_name):
    """A client with any options can be passed instead of a URL."""
    with pymongo.MongoClient(mongo_server.url) as client:
        keys = MongoKeys(MongoDatabase(client, database=database_name))

        assert keys.add(key())
        assert keys.find(key().digest).record == key()


@pytest.mark.parametrize(
    "url", ["mongodb://u:hidden@word@h:27017/", "mongodb://h:port/", "mongodb://h:99999/", "mongodb://"]
)
def test_a_url_that_cannot_be_read_is_refused(url):
    """At the start and with the remedy, instead of failing every request; nothing of it is repeated."""
    with pytest.raises(ConfigurationError, match="MONGO_URL") as refused:
        check_url(url)

    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["mongodb://h/", "mongodb://u:p%40@h:1,[::1]:2/?replicaSet=r", "mongodb+srv://no.such.host/"]
)
def test_a_url_that_can_be_read_is_not_tried(url):
    """The server need not be there yet."""
    check_url(url)
