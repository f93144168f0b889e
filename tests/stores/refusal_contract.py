"""What every store of refusals must do, whatever it is made of; see ``contract.py``."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from llmgateway.interfaces import Erasures, RefusalLog
from llmgateway.records import Kept, NameDigest, Refusal, RefusalQuery, RefusedAgain
from tests.stores.contract import LATER, NEW_YEAR, at_once, erasure

MINUTE = timedelta(minutes=1)


def refusal(number: int = 1, **fields: object) -> Refusal:
    made = Refusal(
        id=f"req_{number:06}",
        timestamp=NEW_YEAR + number * MINUTE,
        status=429,
        code="insufficient_quota",
        limit="key.budget",
        key_id="key_0001",
        user="ada",
        group="physics",
        endpoint="/v1/chat/completions",
        model="gpt-4o",
        address="192.0.2.17",
        message="The budget is spent.",
    )
    return replace(made, **fields)


def repeated(first: Refusal, count: int) -> Refusal:
    """*first* with *count* in all, the first of which have ids."""
    named = [
        RefusedAgain(f"{first.id}-{again}", LATER, f"no. {again}", first.endpoint, f"model {again}")
        for again in range(2, min(count, 5) + 1)
    ]
    return replace(first, count=count, last_at=LATER, repeats=tuple(named))


def numbers(log: RefusalLog, **filters: object) -> list[int]:
    return [int(found.id[-6:]) for found in log.list(RefusalQuery(**{"limit": 100, **filters}))]


class RefusalLogContract:
    @pytest.fixture
    def log(self) -> RefusalLog:
        raise NotImplementedError

    @pytest.fixture
    def elsewhere(self) -> RefusalLog:
        raise NotImplementedError

    def test_begins_empty(self, log):
        assert [] == log.list(RefusalQuery(limit=10))
        assert log.find("req_000001") is None
        log.append([])

    def test_shows_a_refusal_as_it_went_in(self, log, elsewhere):
        """Every field comes back, also those that are not known."""
        optional = ("code", "limit", "key_id", "user", "group", "endpoint", "model", "address")
        bare = refusal(2, **dict.fromkeys(optional))
        kept = [refusal(1, message="Für „Ada“ \\ 🎓", group="Büro.$x"), bare, repeated(refusal(3), 40)]
        log.append(kept)

        assert kept[::-1] == elsewhere.list(RefusalQuery(limit=10))
        assert kept == [elsewhere.find(each.id) for each in kept]

    def test_finds_the_first_repetitions_by_their_own_id(self, log, elsewhere):
        log.append([refusal(1)])
        log.append([repeated(refusal(1), 3)])

        assert [repeated(refusal(1), 3)] * 3 == [
            elsewhere.find(each) for each in ("req_000001", "req_000001-2", "req_000001-3")
        ]
        assert elsewhere.find("req_000001-4") is None

    def test_counts_up_and_never_down(self, log, elsewhere):
        """The same may be written again after an error, in any order; nothing but the count changes."""
        first = refusal(1)
        log.append([repeated(first, 3)])
        elsewhere.append([repeated(replace(first, user="somebody else"), 7)])
        log.append([first, repeated(first, 3)])

        assert repeated(first, 7) == elsewhere.find(first.id)

    def test_lists_page_by_page(self, log):
        """Newest first, the highest identifier first among those of one moment, whatever was deleted meanwhile."""
        moments = [0, 5, 5, 5, 3, 9, 9, 1]
        kept = [refusal(number, timestamp=NEW_YEAR + minute * MINUTE) for number, minute in enumerate(moments)]
        log.append(kept)

        expected = sorted(kept, key=lambda each: (each.timestamp, each.id), reverse=True)
        for size in (1, 3, 4):
            pages, before = [], None
            while page := log.list(RefusalQuery(limit=size, before=before)):
                pages += page
                before = page[-1].timestamp, page[-1].id
            assert expected == pages
        between = (NEW_YEAR + 4 * MINUTE, "never there")
        assert expected[5:] == log.list(RefusalQuery(limit=10, before=between))
        assert [] == log.list(RefusalQuery(limit=0))

    def test_lists_what_matches_every_filter(self, log):
        log.append(
            [
                refusal(1),
                refusal(2, key_id="key_0002", code="invalid_api_key", limit=None),
                refusal(3, key_id="key_0003", user="bob", group=None),
                refusal(4, key_id=None, user=None, group=None, code="invalid_api_key", limit=None),
            ]
        )

        assert [2, 1] == numbers(log, user="ada")
        assert [] == numbers(log, user="Ada")
        assert [2, 1] == numbers(log, group="physics")
        assert [4, 2] == numbers(log, code="invalid_api_key")
        assert [2] == numbers(log, code="invalid_api_key", user="ada")
        assert [3, 1] == numbers(log, key_ids=["key_0001", "key_0003", "key_0009"])
        assert [] == numbers(log, key_ids=[])
        assert [4, 3] == numbers(log, since=NEW_YEAR + 3 * MINUTE)
        assert [2, 1] == numbers(log, until=NEW_YEAR + 3 * MINUTE)
        log.append([refusal(5, status=404, model="o4", endpoint="/v1/embeddings")])
        assert [[5]] * 3 == [
            numbers(log, **{name: value})
            for name, value in (("status", 404), ("model", "o4"), ("endpoint", "/v1/embeddings"))
        ]
        assert [5, 4] == numbers(log, newer_than=(refusal(3).timestamp, refusal(3).id))
        assert [4, 3] == numbers(
            log, newer_than=(refusal(3).timestamp, "a"), before=(refusal(5).timestamp, "a"), since=NEW_YEAR
        )
        assert [3] == numbers(log, since=NEW_YEAR + 3 * MINUTE, before=(NEW_YEAR + 4 * MINUTE, refusal(4).id))

    def test_counts_by_minute_and_code(self, log, elsewhere):
        """With repetitions; a period ends before its end; groups are compared exactly."""
        log.append(
            [
                refusal(1),
                repeated(refusal(2, timestamp=NEW_YEAR + 1.5 * MINUTE), 7),
                refusal(3, code=None, group="Physics"),
                refusal(4, group=None),
            ]
        )

        def counts(**filters: object) -> list[tuple[int, str | None, int]]:
            found = elsewhere.counts(**{"since": None, "until": None, **filters})
            return sorted(((each.at - NEW_YEAR) // MINUTE, each.code, each.requests) for each in found)

        code = "insufficient_quota"
        assert [(1, code, 8), (3, None, 1), (4, code, 1)] == counts()
        assert [(3, None, 1)] == counts(since=NEW_YEAR + 3 * MINUTE, until=NEW_YEAR + 4 * MINUTE)
        assert [(1, code, 8)] == counts(group="physics") == counts(groups=("physics", "chemistry"))
        assert [] == counts(groups=()) == counts(groups=("physics",), group="Physics")

    @pytest.fixture
    def erasures(self) -> Erasures:
        """The erasures beside ``log``."""
        raise NotImplementedError

    def test_knows_what_it_keeps_of_a_person(self, log, elsewhere):
        """By exactly this name; each key with all names that it had."""
        log.append([refusal(1), refusal(2), refusal(3, user="bob"), refusal(4, key_id=None, user=None)])
        log.append([refusal(5, key_id="key_0002", user="bob")])

        assert Kept({"key_0001": {"ada", "bob"}}, 2) == elsewhere.kept_of("ada")
        assert Kept({}, 0) == elsewhere.kept_of("nobody")

    def test_erases_a_person(self, log, elsewhere, erasures):
        """By key and not by name: a namesake stays as it is. What is written later does not bring the name back."""
        log.append([refusal(1), refusal(2, key_id="key_0002", address=None), refusal(3, key_id="key_0003")])
        erased = erasure("key_0001", "key_0002", "key_0009")
        erasures.begin(erased)

        elsewhere.erase(erased)
        log.append([repeated(refusal(1), 2), refusal(4), refusal(5, key_id=None, user=None)])

        first, second, third, fourth, fifth = (log.find(refusal(number).id) for number in range(1, 6))
        assert ("erased-1", "erased-1", 2) == (first.user, first.address, first.count)
        assert ("erased-1", None) == (second.user, second.address)
        assert refusal(3, key_id="key_0003") == third
        assert ("erased-1", "erased-1") == (fourth.user, fourth.address)
        assert refusal(5, key_id=None, user=None) == fifth

    def test_of_a_shared_key_only_the_persons_part_goes(self, log, erasures):
        log.append([refusal(1), refusal(2, user="bob")])
        shared = erasure("key_0001", shared=("key_0001",), name=NameDigest.of("ada"))
        erasures.begin(shared)
        log.erase(shared)
        log.append([refusal(3), refusal(4, user="bob")])

        users = [log.find(refusal(number).id).user for number in range(1, 5)]
        assert ["erased-1", "bob", "erased-1", "bob"] == users

    def test_purges_what_is_old(self, log, elsewhere):
        """The oldest first, a few at a time; ids of repetitions go, too."""
        log.append([repeated(refusal(number), 2) for number in range(1, 6)])
        before = refusal(4).timestamp

        assert 2 == log.purge(before, most=100, limit=2)
        assert [5, 4, 3] == numbers(elsewhere)
        assert 1 == elsewhere.purge(before, most=100, limit=2)
        assert 0 == log.purge(before, most=100, limit=2)
        assert [5, 4] == numbers(log)
        assert log.find("req_000001-2") is None
        log.append([refusal(1)])  # the id is free again
        assert refusal(1) == log.find("req_000001")

    def test_purges_what_is_too_much(self, log):
        """The oldest go, so that no more than the most are left; both reasons together keep to the limit."""
        log.append([refusal(number) for number in range(1, 8)])

        assert 2 == log.purge(NEW_YEAR, most=3, limit=2)
        assert [7, 6, 5, 4, 3] == numbers(log)
        assert 2 == log.purge(refusal(4).timestamp, most=3, limit=9)
        assert [7, 6, 5] == numbers(log)
        assert 0 == log.purge(NEW_YEAR, most=3, limit=9)

    def test_loses_nothing_under_threads(self, log, elsewhere):
        at_once(
            *[
                lambda store=store, number=number: [
                    store.append([refusal(number * 20 + step), repeated(refusal(900), number * 20 + step + 2)])
                    for step in range(10)
                ]
                for number, store in enumerate([log, elsewhere] * 2)
            ]
        )

        assert 41 == len(numbers(log))
        assert 71 == log.find(refusal(900).id).count

    def test_takes_many_at_once(self, log):
        kept = [repeated(refusal(number), 9) for number in range(200)]
        log.append(kept)

        assert kept[::-1] == log.list(RefusalQuery(limit=1000))
