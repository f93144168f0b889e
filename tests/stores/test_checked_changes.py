"""Changes that are made only if nobody was faster, in every combination of stores."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmgateway.errors import PreconditionFailed
from llmgateway.records import FilterCount, KeyQuery, Limits, RecordQuery, ReportQuery
from tests.stores.backends import COMBINATIONS, backends
from tests.stores.contract import LIMITS, NEW_YEAR, PROMPT, append, at_once, group, key, usage

ROUNDS = 10


@pytest.fixture(params=COMBINATIONS)
def opened(request, tmp_path):
    yield from backends(request, request.param, tmp_path)


@pytest.fixture
def here(opened):
    return opened()


@pytest.fixture
def there(opened):
    return opened()


def only_if(known):
    """A check that nobody has changed *known*."""

    def check(before):
        if before != known:
            raise PreconditionFailed("changed")

    return check


def winners(*actions) -> list[bool]:
    """Which of *actions* were made, all of them at once."""

    def made(action) -> bool:
        try:
            action()
        except PreconditionFailed:
            return False
        return True

    return at_once(*[lambda action=action: made(action) for action in actions])


def test_exactly_one_of_two_changes_of_a_key_wins(here, there):
    """The other learns of it, and changes nothing."""
    here.keys.add(key(1, limits=LIMITS, models=("gpt-4o",)))
    for number in range(ROUNDS):
        known = here.keys.get(key(1).id)
        won = winners(
            lambda known=known, n=number: here.keys.update(key(1).id, {"note": f"a{n}"}, check=only_if(known)),
            lambda known=known, n=number: there.keys.update(
                key(1).id, {}, limits={"parallel_requests": n + 100}, check=only_if(known)
            ),
        )
        assert 1 == won.count(True)
        after = there.keys.get(key(1).id)
        expected = (
            replace(known, note=f"a{number}")
            if won[0]
            else replace(known, limits=replace(known.limits, parallel_requests=number + 100))
        )
        assert expected == after


def test_a_key_that_was_moved_is_not_changed_any_more(here, there):
    """Nor rotated or removed; a change of the group is checked, too."""
    for name in ("physics", "chemistry"):
        here.organisation.set_group(group(name))
    here.keys.add(key(1, group="physics"))
    known = here.keys.get(key(1).id)
    here.keys.update(key(1).id, {"group": "chemistry"}, check=only_if(known))

    for action in (
        lambda: there.keys.update(key(1).id, {"note": "mine"}, check=only_if(known)),
        lambda: there.keys.update(key(1).id, {"group": "physics"}, check=only_if(known)),
        lambda: there.keys.update(key(1).id, {}, check=only_if(known)),
        lambda: there.keys.rotate(key(1).id, "a" * 64, retires_at=None, check=only_if(known)),
        lambda: there.keys.remove(key(1).id, check=only_if(known)),
    ):
        assert [False] == winners(action)
    moved = replace(known, group="chemistry")
    assert moved == here.keys.get(key(1).id)
    assert moved == there.keys.remove(key(1).id, check=only_if(moved))
    assert there.keys.update(key(1).id, {"note": "x"}, check=only_if(moved)) is None
    assert there.keys.rotate(key(1).id, "a" * 64, retires_at=None, check=only_if(moved)) is None
    assert there.keys.remove(key(1).id, check=only_if(moved)) is None


def test_a_key_is_not_changed_behind_a_rotation(here, there):
    """Exactly one of a rotation and a change that both know the same key."""
    here.keys.add(key(1))
    for number in range(ROUNDS):
        known = here.keys.get(key(1).id)
        won = winners(
            lambda known=known, n=number: here.keys.rotate(
                key(1).id, f"{n + 100:064x}", retires_at=None, check=only_if(known)
            ),
            lambda known=known, n=number: there.keys.update(key(1).id, {"note": str(n)}, check=only_if(known)),
        )
        assert 1 == won.count(True)


def test_exactly_one_of_two_changes_of_a_group_wins(here, there):
    """Whether it is set, changed or removed."""
    for number in range(ROUNDS):
        won = winners(
            lambda: here.organisation.set_group(group("physics"), check=only_if(None)),
            lambda: there.organisation.set_group(group("physics"), check=only_if(None)),
        )
        assert 1 == won.count(True)
        known = here.organisation.load().groups["physics"]
        won = winners(
            lambda known=known, n=number: here.organisation.update_group(
                "physics", {"note": f"a{n}"}, check=only_if(known)
            ),
            lambda known=known, n=number: there.organisation.update_group(
                "physics", {"prompt": PROMPT}, limits={"parallel_requests": n + 100}, check=only_if(known)
            ),
        )
        assert 1 == won.count(True)
        known = here.organisation.load().groups["physics"]
        won = winners(
            lambda known=known: here.organisation.remove_group("physics", check=only_if(known)),
            lambda known=known, n=number: (
                there.organisation.update_group("physics", {"note": f"b{n}"}, check=only_if(known))
                or only_if(known)(None)
            ),
        )
        assert 1 == won.count(True)
        if won[1]:
            here.organisation.remove_group("physics")


def test_exactly_one_of_two_changes_of_the_limits_wins(here, there):
    for number in range(ROUNDS):
        known = here.organisation.load().limits
        won = winners(
            lambda known=known, n=number: here.organisation.set_limits(
                Limits(requests_per_minute=n + 1), check=only_if(known)
            ),
            lambda known=known, n=number: there.organisation.update_limits(
                {"tokens_per_minute": n + 1}, check=only_if(known)
            ),
        )
        assert 1 == won.count(True)
        after = there.organisation.load().limits
        assert after == (
            Limits(requests_per_minute=number + 1) if won[0] else replace(known, tokens_per_minute=number + 1)
        )


def test_exactly_one_of_two_new_prompts_wins(here, there):
    for number in range(ROUNDS):
        known = here.organisation.load().prompt
        won = winners(
            lambda known=known, n=number: here.organisation.set_prompt(f"a{n}", NEW_YEAR, check=only_if(known)),
            lambda known=known, n=number: there.organisation.set_prompt(f"b{n}", NEW_YEAR, check=only_if(known)),
        )
        assert 1 == won.count(True)
        assert f"{'a' if won[0] else 'b'}{number}" == there.organisation.load().prompt.text


def test_queries_stay_within_groups(here):
    """Keys, records, sums and findings of filters; a record of another group is no place in a list, either."""
    for name in ("physics", "chemistry", "art"):
        here.organisation.set_group(group(name))
    groups = ("physics", "chemistry", "physics", None, "art")
    here.keys.add_all([key(number, group=name) for number, name in enumerate(groups, 1)])
    records = [
        usage(number, group=name, key_id=f"key_{number:04}", total_tokens=number, filter_severities=("hate:low",))
        for number, name in enumerate(groups, 1)
    ]
    append(here.usage_log, records)

    def keys_of(*names: str, **query: object) -> list[int]:
        return [int(each.id[-4:]) for each in here.keys.list(KeyQuery(groups=names, **query))]

    def records_of(*names: str, **query: object) -> list[int]:
        found = here.usage_log.records(RecordQuery(groups=names, limit=10, **query))
        return [int(each.id[-6:]) for each in found]

    def tokens_of(*names: str, **query: object) -> int:
        return sum(row.total_tokens for row in here.usage_log.report(ReportQuery(groups=names, **query)))

    def found_in(*names: str, **query: object) -> set[str | None]:
        counts: list[FilterCount] = [*here.usage_log.filter_counts(ReportQuery(groups=names, **query))]
        return {count.group for count in counts}

    assert ([1, 3], [1, 2, 3], [], []) == (
        keys_of("physics"),
        keys_of("physics", "chemistry"),
        keys_of(),
        keys_of("physics", group="art"),
    )
    assert [2] == keys_of("physics", "chemistry", group="chemistry")
    assert ([3, 1], [3, 2, 1], []) == (records_of("physics"), records_of("physics", "chemistry"), records_of())
    assert [1] == records_of("physics", after=usage(3).id)
    assert [] == records_of("physics", after=usage(5).id)
    assert [] == records_of("physics", after=usage(4).id)
    assert [] == records_of("physics", key_id="key_0002")
    assert (4, 6, 0) == (tokens_of("physics"), tokens_of("physics", "chemistry"), tokens_of())
    assert 4 == tokens_of("physics", by=("user", "group"))
    assert (0, 2) == (tokens_of("physics", group="art"), tokens_of("physics", "chemistry", group="chemistry"))
    assert {"physics"} == found_in("physics")
    assert {"physics", "chemistry"} == found_in("physics", "chemistry")
    assert set() == found_in() == found_in("physics", group="art")
