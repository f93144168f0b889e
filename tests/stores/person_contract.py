"""What every store of people must do; a test module brings the fixtures."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from llmgateway.interfaces import KeyStore, OrganisationStore, PersonStore
from llmgateway.records import UNLIMITED, Limits, Person, Raise, User

from .contract import LATER, LIMITS, NEW_YEAR, at_once, group, key

RAISED = Raise(limits=Limits(requests_per_minute=99, budget=replace(LIMITS.budget, amount=77.25)), until=LATER)
ADA = Person(user="ada", limits=LIMITS, raised=RAISED)


class PersonStoreContract:
    @pytest.fixture
    def persons(self) -> PersonStore:
        raise NotImplementedError

    @pytest.fixture
    def elsewhere(self) -> PersonStore:
        """Another process's."""
        raise NotImplementedError

    @pytest.fixture
    def organisation(self) -> OrganisationStore:
        """In the other process."""
        raise NotImplementedError

    @pytest.fixture
    def keys(self) -> KeyStore:
        """In the other process."""
        raise NotImplementedError

    def test_a_change_is_in_the_organisation_everywhere(self, persons, elsewhere, organisation, keys):
        """Each change gets the person before it, and begins a version; without a person nothing is left."""
        before = keys.find("0" * 64).version
        assert {} == organisation.load().persons
        assert persons.get("ada") is None

        seen = []
        assert ADA == persons.change("ada", lambda old: seen.append(old) or ADA)
        assert ADA == elsewhere.get("ada")
        assert {"ada": ADA} == organisation.load().persons
        after = keys.find("0" * 64).version
        assert before != after

        assert persons.change("ada", lambda old: seen.append(old)) is None
        assert [None, ADA] == seen
        assert {} == organisation.load().persons
        assert after != keys.find("0" * 64).version
        assert elsewhere.change("ada", lambda old: old) is None

    def test_names_are_compared_exactly(self, persons, organisation):
        """Case, Unicode form, blanks and signs that databases know make a difference."""
        names = ["ada", "Ada", "ada ", " ada", "ä", "a\u0308", "a/b", "$set", "a.b", "ß", "ss", "Zoë 🎓", "%", "'"]
        for number, name in enumerate(names, 1):
            persons.change(name, lambda _, n=name, i=number: Person(user=n, limits=Limits(requests_per_minute=i)))

        loaded = organisation.load().persons
        assert set(names) == loaded.keys()
        assert list(range(1, len(names) + 1)) == [loaded[name].limits.requests_per_minute for name in names]
        assert loaded["a\u0308"] == persons.get("a\u0308")

    def test_no_change_is_lost(self, persons, elsewhere):
        """Two processes change the same person at once, and both changes are kept."""

        def add(store, part):
            def add_part(old):
                limits = UNLIMITED if old is None else old.limits
                return Person(user="ada", limits=replace(limits, **{part: 7}))

            return lambda: store.change("ada", add_part)

        at_once(
            add(persons, "requests_per_minute"),
            add(elsewhere, "tokens_per_minute"),
            add(persons, "parallel_requests"),
        )

        assert Limits(requests_per_minute=7, tokens_per_minute=7, parallel_requests=7) == persons.get("ada").limits

    def test_a_change_that_is_refused_stores_nothing(self, persons, organisation):
        def refuse(_):
            raise KeyError("no")

        persons.change("ada", lambda _: ADA)
        with pytest.raises(KeyError):
            persons.change("ada", refuse)

        assert {"ada": ADA} == organisation.load().persons

    def test_keys_and_groups_have_raises(self, keys, organisation):
        """A raise, and limits of members, come back as they were stored; other changes leave them."""
        organisation.set_group(group("physics", member_limits=LIMITS))
        organisation.update_group("physics", {"raised": RAISED})
        organisation.update_group("physics", {}, member_limits={"parallel_requests": None})
        organisation.set_group(group("physics", member_limits=replace(LIMITS, parallel_requests=4), note="PUT"))
        keys.add(key(1, group="physics"))
        keys.update("key_0001", {"raised": RAISED})

        stored = organisation.load().groups["physics"]
        assert (RAISED, 4, "PUT") == (stored.raised, stored.member_limits.parallel_requests, stored.note)
        assert RAISED == keys.get("key_0001").raised == keys.find(key(1).digest).record.raised
        later = replace(RAISED, until=RAISED.until + timedelta(days=1, milliseconds=1))
        assert later == keys.update("key_0001", {"raised": later, "note": "x"}).raised
        assert keys.update("key_0001", {"raised": None}).raised is None
        assert organisation.update_group("physics", {"raised": None}).raised is None

    def test_lists_those_who_have_keys(self, keys):
        """By name in the order of code points, each once."""
        for number, user in enumerate(["b", "a", "B", "ä", "b", "a ", "😀"], 1):
            keys.add(key(number, user=user, created_at=NEW_YEAR))

        everybody = [User("B", 1), User("a", 1), User("a ", 1), User("b", 2), User("ä", 1), User("😀", 1)]
        assert everybody == list(keys.users())

    def test_finds_people_by_name_and_address(self, keys):
        """In any case. All their keys are counted, whichever has the address."""
        keys.add(key(1, user="Ädä", created_at=NEW_YEAR))
        keys.add(key(2, user="Ädä", email="lovelace@example.org", created_at=NEW_YEAR))
        keys.add(key(3, user="bob", email="bob@example.org", note="ädä", created_at=NEW_YEAR))

        assert [User("Ädä", 2)] == list(keys.users(text="äDÄ")) == list(keys.users(text="LOVEL"))
        assert [User("bob", 1), User("Ädä", 2)] == list(keys.users(text="@"))
        assert [] == list(keys.users(text=".*"))
