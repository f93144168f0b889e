"""Who may call the admin API, and how often somebody may guess."""

from __future__ import annotations

import pytest

from llmgateway.accounts.admins import PREFIX, Admins
from llmgateway.accounts.attempts import ATTEMPTS, WINDOW_SECONDS, WrongKeys
from llmgateway.errors import AdminThrottled, InvalidAdminKey, StoreUnavailable
from llmgateway.records import Role, moment
from llmgateway.settings import SHORT_ADMIN_KEY
from llmgateway.web.guard import LINES_PER_MINUTE, AdminGuard
from tests.stores.contract import at_once

KEY = "admin-key-16char"
SHORT_KEY = KEY[:-1]
OTHERS_KEY = "the-key-of-another-admin"


class Store:
    """Named admins by digest; may be away."""

    def __init__(self):
        self.records = {}
        self.asked = []
        self.is_away = False

    def find(self, digest):
        self.asked.append(digest)
        if self.is_away:
            raise StoreUnavailable("away")
        return next((record for record in self.records.values() if digest in record.digests), None)

    def list(self):
        return [*self.records.values()]

    def add(self, record):
        self.records[record.id] = record
        return True

    def change(self, admin_id, change):
        before, after = self.records[admin_id], change(self.records[admin_id])
        self.records[admin_id] = after
        return before, after


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def admins(store, clock):
    return Admins(store, clock=clock)


@pytest.fixture
def make_guard(clock, tmp_path, admins):
    def make(*keys: str) -> AdminGuard:
        wrong_keys = WrongKeys(tmp_path / "wrong-admin-keys", clock=clock)
        return AdminGuard(keys, admins=admins, wrong_keys=wrong_keys, clock=clock)

    return make


@pytest.fixture
def guard(make_guard):
    return make_guard(KEY, OTHERS_KEY)


def guess(guard: AdminGuard, times: int = 1, *, address: str = "10.0.0.1", key: str | None = "a-guess") -> None:
    for _ in range(times):
        with pytest.raises(InvalidAdminKey) as refused:
            guard.check(key, address)
        assert not key or key not in refused.value.message


def throttled(guard: AdminGuard, *, address: str = "10.0.0.1", key: str = "a-guess") -> int:
    with pytest.raises(AdminThrottled) as refused:
        guard.check(key, address)
    return refused.value.retry_after


def test_lets_the_right_keys_in(guard):
    """Each of them, as often as it comes."""
    for _ in range(100):
        guard.check(KEY, "10.0.0.1")
        guard.check(OTHERS_KEY, "10.0.0.1")


@pytest.mark.parametrize("key", [None, "", "a-guess", KEY.upper(), KEY + " ", KEY[:-1], "\xff", "日本"])
def test_keeps_every_other_out(guard, key):
    """A key is right to the last byte or it is wrong, whatever characters it has."""
    guess(guard, key=key)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_key_with_umlauts_is_right_as_every_client_sends_it(make_guard, encoding):
    """curl sends UTF-8, browsers and Python send Latin-1; a server gives the bytes as Latin-1."""
    make_guard("schlüssel-für-alles").check("schlüssel-für-alles".encode(encoding).decode("latin-1"), "10.0.0.1")


def test_slows_down_who_guesses(make_guard, clock):
    """After some wrong keys a short key waits, even if it is right, until the first guess is long enough ago."""
    guard = make_guard(SHORT_KEY)
    guess(guard, ATTEMPTS)
    assert WINDOW_SECONDS + 1 == throttled(guard)
    assert WINDOW_SECONDS + 1 == throttled(guard, key=SHORT_KEY)

    clock.advance(WINDOW_SECONDS - 1)
    assert 2 == throttled(guard, key=SHORT_KEY)
    clock.advance(1)
    guard.check(SHORT_KEY, "10.0.0.1")


def test_a_key_that_cannot_be_guessed_never_waits(guard):
    """Nobody locks the admin out: not a scraper with an old key, not a stranger behind the same proxy."""
    assert SHORT_ADMIN_KEY == len(KEY)
    guess(guard, ATTEMPTS)

    for _ in range(ATTEMPTS + 1):
        throttled(guard)
        guard.check(KEY, "10.0.0.1")


def test_a_short_key_waits_beside_a_long_one(make_guard):
    """Each key is judged by its own length."""
    guard = make_guard(SHORT_KEY, OTHERS_KEY)
    guess(guard, ATTEMPTS)

    throttled(guard, key=SHORT_KEY)
    guard.check(OTHERS_KEY, "10.0.0.1")


def test_waiting_is_not_prolonged_by_asking(guard, clock):
    """A script with an old key recovers a minute after it was corrected, however eager it is."""
    guess(guard, ATTEMPTS)
    for _ in range(30):
        clock.advance(1)
        throttled(guard)
    clock.advance(WINDOW_SECONDS - 30)

    guard.check(KEY, "10.0.0.1")


def test_the_window_slides(guard, clock):
    """Guesses spread over time are let be until there are too many within one window."""
    for _ in range(3 * ATTEMPTS):
        clock.advance(WINDOW_SECONDS / (ATTEMPTS - 1))
        guess(guard)

    guess(guard)
    throttled(guard)


def test_a_missing_key_is_no_guess(guard):
    """Who sends none, as a scraper may, locks nobody out of the address."""
    guess(guard, ATTEMPTS + 1, key=None)

    guard.check(KEY, "10.0.0.1")


def test_others_are_not_slowed_down(guard):
    """Each address has its own count."""
    guess(guard, ATTEMPTS)

    guard.check(KEY, "10.0.0.2")
    guess(guard, ATTEMPTS, address="10.0.0.3")


def test_the_log_names_the_address(guard, caplog):
    """The first wrong key, and the one after which it has to wait; never the key itself."""
    guess(guard, ATTEMPTS, address="2001:db8::7")
    throttled(guard, address="2001:db8::7")

    first, last = [record.getMessage() for record in caplog.records]
    assert "2001:db8::7 (counted as 2001:db8::/64), number 1 within" in first
    assert "number 10 within" in last
    assert "wait" in last
    assert "a-guess" not in caplog.text


def test_the_log_cannot_be_filled(guard, caplog, clock):
    """Whoever has many addresses gets a bounded number of lines, the last of which says so."""
    for number in range(2 * LINES_PER_MINUTE):
        guess(guard, address=f"10.0.0.{number}")
    assert LINES_PER_MINUTE == len(caplog.records)
    assert "not logged for the rest of this minute" in caplog.records[-1].getMessage()

    clock.advance(60)
    guess(guard, address="10.0.1.1")
    assert LINES_PER_MINUTE + 1 == len(caplog.records)


def test_counts_under_threads(guard):
    """Guessing in parallel is not faster."""

    def attempt() -> bool:
        try:
            guard.check("a-guess", "10.0.0.1")
        except AdminThrottled:
            return True
        except InvalidAdminKey:
            return False

    assert ATTEMPTS == at_once(*[attempt] * (3 * ATTEMPTS)).count(False)


def test_says_who_it_is(guard, admins):
    """The first owner needs no record; a named admin is known by the key."""
    record, key = admins.create(name="Grace", role=Role.GROUP, groups=("physics",))

    owner, grace = guard.check(KEY, "10.0.0.1"), guard.check(key, "10.0.0.1")

    assert (None, "ADMIN_KEY", Role.OWNER, None) == (owner.id, owner.name, owner.role, owner.reach)
    assert (record.id, "Grace", Role.GROUP, ("physics",)) == (grace.id, grace.name, grace.role, grace.reach)
    assert len({owner.key_id, guard.check(OTHERS_KEY, "10.0.0.1").key_id, grace.key_id}) == 3
    assert grace.key_id not in record.digest


def test_a_named_admins_key_never_waits(guard, admins):
    """However many wrong keys came from the address."""
    _, key = admins.create(name="Grace", role=Role.VIEWER)
    guess(guard, ATTEMPTS)

    throttled(guard, key=PREFIX + 43 * "a")
    assert "Grace" == guard.check(key, "10.0.0.1").name


def test_guesses_of_named_keys_count(guard):
    guess(guard, ATTEMPTS, key=PREFIX + 43 * "a")

    throttled(guard)


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"active": False}, "blocked"), ({"expires_at": 1}, "expired")],
)
def test_a_named_admin_who_is_not_let_in(guard, admins, clock, changes, says):
    """The message says why, and not who."""
    record, key = admins.create(name="Grace", role=Role.VIEWER)
    if "expires_at" in changes:
        changes = {"expires_at": moment(clock() + 60)}
    admins.update(record.id, changes, check=lambda _: None)
    if "expires_at" in changes:
        clock.advance(59)
        guard.check(key, "10.0.0.1")
        clock.advance(1)

    with pytest.raises(InvalidAdminKey, match=says) as refused:
        guard.check(key, "10.0.0.1")
    assert "Grace" not in refused.value.message


def test_a_replaced_key_works_until_the_overlap_ends(guard, admins, clock):
    record, old = admins.create(name="Grace", role=Role.VIEWER)
    _, _, new = admins.rotate(record.id, overlap_seconds=60, check=lambda _: None)
    for key in (old, new):
        assert "Grace" == guard.check(key, "10.0.0.1").name
    clock.advance(60)

    with pytest.raises(InvalidAdminKey, match="replaced"):
        guard.check(old, "10.0.0.1")
    _, _, newest = admins.rotate(record.id, overlap_seconds=0, check=lambda _: None)
    guess(guard, key=new)
    guard.check(newest, "10.0.0.1")


def test_the_first_owner_gets_in_while_the_store_is_away(guard, store, admins):
    """Nobody else can be told from a stranger; who guesses the ADMIN_KEY still has to wait."""
    _, key = admins.create(name="Grace", role=Role.OWNER)
    store.is_away = True

    assert Role.OWNER == guard.check(KEY, "10.0.0.1").role
    with pytest.raises(StoreUnavailable):
        guard.check(key, "10.0.0.1")
    guess(guard, ATTEMPTS)
    throttled(guard)


@pytest.mark.parametrize("key", ["a-guess", PREFIX, PREFIX + 42 * "a", PREFIX + 44 * "a", PREFIX + 42 * "a" + "\xe4"])
def test_only_a_key_that_nobody_can_guess_is_looked_up(guard, store, key):
    """So a flood of guesses does not reach the store."""
    guess(guard, key=key)

    assert [] == store.asked


def test_the_first_owner_can_be_replaced(guard):
    """From one moment to the next."""
    guard.replace_keys(["the-new-admin-key-of-all"])

    guard.check("the-new-admin-key-of-all", "10.0.0.1")
    guess(guard, key=KEY)
