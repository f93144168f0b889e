"""People who sign in: whose keys are theirs, and what happens when they leave."""

from __future__ import annotations

import pytest

from llmgateway.accounts.leavers import Leavers
from llmgateway.accounts.sign_in_rules import MATCHED, Rule, SignInSettings
from llmgateway.app import create_app
from llmgateway.errors import GrantEnded, IdentityProviderUnavailable, SignInRefused, UserTaken
from llmgateway.records import Account, AuditQuery, Batch, KeyQuery, Limits, Role, moment
from llmgateway.settings import Settings
from llmgateway.web.context import EXTENSION
from tests.parts import Stopwatch
from tests.stores.contract import usage

ISSUER = "https://id.example.org"


class Provider:
    """Answers each try with what the test has put here."""

    issuer = ISSUER

    def __init__(self) -> None:
        self.outcome: BaseException | Account = IdentityProviderUnavailable("?")
        self.tried: list[str] = []

    def refresh(self, token, *, subject, wanted):
        self.tried.append(token)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def account(subject="s-1", name="ada", token="refresh-1", **claims) -> Account:
    return Account(ISSUER, subject, {"preferred_username": name, **claims}, token)


@pytest.fixture
def services(tmp_path, clock):
    environ = {"ADMIN_KEY": "a" * 32, "LLM_BASE_URL": "none", "LLMGATEWAY_INSTANCE": str(tmp_path / "instance")}
    services = create_app(Settings.from_env(environ), clock=clock).extensions[EXTENSION]
    yield services
    services.journal.close()
    services.refusals.close()


@pytest.fixture
def identities(services):
    return services.identities


@pytest.fixture
def provider():
    return Provider()


@pytest.fixture
def leavers(services, provider, clock, tmp_path):
    identities = services.identities
    return Leavers(
        provider,
        identities,
        identities._store,
        services.keys._store,
        services.policy,
        claim=lambda name, now, until: services.alerts.store.claim(name, now=now, until=until),
        announce=lambda user, text: services.alerts.announce("leaver", text, user=user),
        max_days=30,
        clock=clock,
        timer=Stopwatch(),
    )


def admin_of(identities, identity):
    return identities.admin(identity, identities.rights(identity))


def key_of(services, user, **fields):
    return services.keys.create(user=user, name="laptop", **fields)[0]


class TestNames:
    def test_the_first_account_under_a_new_name_gets_it_and_keeps_it(self, identities):
        """Another account with this name waits; the first one keeps it, whatever the provider calls it later."""
        first = identities.sign_in(account())
        assert "ada" == first.user

        assert identities.sign_in(account("s-2")).user is None
        renamed = identities.sign_in(account(name="ada.married"))
        assert (first.id, "ada", "ada.married") == (renamed.id, renamed.user, renamed.claimed)
        assert identities.sign_in(account("s-2")).user is None

    @pytest.mark.parametrize("left", ["a key", "what was used", "limits"])
    def test_a_name_that_has_something_waits_for_an_admin(self, services, identities, left):
        """Keys, what was used with removed ones, and limits may belong to somebody else with this name."""
        if left == "a key":
            key_of(services, "ada")
        elif left == "limits":
            services.persons.set_limits("ada", Limits(requests_per_minute=1))
        else:
            services.usage_log.append([usage(user="ada")], batch=Batch("source", 1))
        waiting = identities.sign_in(account())
        assert waiting.user is None
        assert [waiting.id] == [each.id for each in identities.list(waiting=True, limit=9)]

        _, linked = identities.update(waiting.id, user="ada", check=lambda _: None)
        assert "ada" == linked.user == identities.sign_in(account()).user

    def test_an_admin_cannot_link_one_person_twice(self, identities):
        identities.sign_in(account())
        other = identities.sign_in(account("s-2"))
        with pytest.raises(UserTaken):
            identities.update(other.id, user="ada", check=lambda _: None)

    @pytest.mark.parametrize("name", ["", None, 7, "a/b", "a\u202eb", "..", " ada", "x" * 201])
    def test_names_that_cannot_be_used(self, identities, name):
        with pytest.raises(SignInRefused, match="identity provider"):
            identities.sign_in(account(name=name))
        assert [] == identities.list(limit=9)

    def test_a_blocked_account_may_not_sign_in(self, identities):
        signed_in = identities.sign_in(account())
        identities.update(signed_in.id, active=False, check=lambda _: None)
        with pytest.raises(SignInRefused, match="blocked"):
            identities.sign_in(account())

    def test_only_those_who_match_if_an_admin_says_so(self, identities):
        rules = (Rule(claim="groups", value="staff", role=Role.VIEWER),)
        identities.rules.change(lambda _: SignInSettings(rules=rules, admits=MATCHED))
        with pytest.raises(SignInRefused, match="may not use"):
            identities.sign_in(account())
        assert Role.VIEWER == admin_of(identities, identities.sign_in(account(groups=["staff"]))).role

    def test_rules_hold_at_once(self, identities):
        """A changed rule takes the role from somebody who is signed in; so do an end and a block."""
        rules = (Rule(claim="groups", value="staff", role=Role.OWNER),)
        identities.rules.change(lambda _: SignInSettings(rules=rules))
        signed_in = identities.sign_in(account(groups=["staff"]))
        assert ("ada", Role.OWNER, signed_in.id) == (
            (admin := admin_of(identities, signed_in)).name,
            admin.role,
            admin.id,
        )

        identities.rules.change(lambda _: SignInSettings())
        assert admin_of(identities, identities.get(signed_in.id)) is None

    def test_a_removed_group_leaves_the_rules(self, services, identities):
        """Nobody gets a later group of the same name."""
        services.groups.put("ml")
        services.groups.put("db")
        rules = (
            Rule(claim="g", value="1", group="ml"),
            Rule(claim="g", value="2", role=Role.GROUP, groups=("ml",)),
            Rule(claim="g", value="3", role=Role.GROUP, groups=("ml", "db")),
        )
        identities.rules.change(lambda _: SignInSettings(rules=rules))
        services.groups.remove("ml")
        assert (Rule(claim="g", value="3", role=Role.GROUP, groups=("db",)),) == identities.rules.get().rules

    def test_secrets_are_encrypted_and_not_shown(self, identities):
        signed_in = identities.sign_in(account())
        assert "refresh-1" not in signed_in.refresh_token
        assert signed_in.refresh_token not in repr(signed_in)


class TestLeavers:
    def days(self, leavers, clock, count):
        for _ in range(count):
            clock.advance(86_400)
            leavers.turn()

    def test_a_week_of_refusals_blocks_the_keys(self, services, identities, leavers, provider, clock):
        """Not a day earlier; an alert and the audit log tell it; a new sign-in unblocks what this has blocked."""
        signed_in = identities.sign_in(account())
        mine, blocked = key_of(services, "ada"), key_of(services, "ada", active=False)
        other = key_of(services, "adam")
        provider.outcome = GrantEnded()

        self.days(leavers, clock, 7)
        assert services.keys.get(mine.id).active
        assert 7 == len(provider.tried) == provider.tried.count("refresh-1")
        self.days(leavers, clock, 1)

        assert [False, False, True] == [services.keys.get(one.id).active for one in (mine, blocked, other)]
        assert not identities.may_enter(identities.get(signed_in.id))
        (alert,) = services.alerts.store.recent(limit=9)
        assert ("leaver", "ada") == (alert.event, alert.user)
        (entry,) = [
            entry for entry in services.audit.entries.entries(AuditQuery(limit=99)) if entry.action == "user.leave"
        ]
        assert ("ada", [mine.id]) == (entry.target, entry.after["keys"])
        self.days(leavers, clock, 2)
        assert 8 == len(provider.tried)

        back = identities.sign_in(account())
        assert [True, False, True] == [services.keys.get(one.id).active for one in (mine, blocked, other)]
        assert identities.may_enter(back)
        assert () == back.blocked_keys

    def test_other_errors_never_count(self, services, identities, leavers, provider, clock):
        """A provider that is away for months blocks nobody, and an account that comes back begins anew."""
        identities.sign_in(account())
        mine = key_of(services, "ada")
        self.days(leavers, clock, 60)

        provider.outcome = GrantEnded()
        self.days(leavers, clock, 5)
        provider.outcome = account(token="refresh-2", groups=[])
        self.days(leavers, clock, 1)
        provider.outcome = GrantEnded()
        self.days(leavers, clock, 6)

        assert services.keys.get(mine.id).active
        assert "refresh-2" == provider.tried[-1]

    def test_roles_follow_the_provider_daily(self, identities, leavers, provider, clock):
        """Somebody who is no admin any more at the provider is none here after a day."""
        rules = (Rule(claim="groups", value="staff", role=Role.ADMIN),)
        identities.rules.change(lambda _: SignInSettings(rules=rules))
        signed_in = identities.sign_in(account(groups=["staff"]))
        provider.outcome = account(token=None)
        self.days(leavers, clock, 1)
        assert admin_of(identities, identities.get(signed_in.id)) is None

    def test_without_refresh_tokens_only_the_date_counts(self, services, identities, leavers, provider, clock):
        """After so many days without a sign-in."""
        identities.sign_in(account(token=None))
        mine = key_of(services, "ada")
        self.days(leavers, clock, 29)
        assert services.keys.get(mine.id).active
        self.days(leavers, clock, 1)
        assert not services.keys.get(mine.id).active
        assert [] == provider.tried

    def test_without_that_setting_nothing_is_blocked(self, services, identities, leavers, clock):
        leavers._most = None
        identities.sign_in(account(token=None))
        mine = key_of(services, "ada")
        self.days(leavers, clock, 400)
        assert services.keys.get(mine.id).active

    def test_who_signs_in_meanwhile_keeps_the_keys(self, services, identities, leavers, provider, clock):
        """The sign-in comes between the provider's refusal and the block."""
        identities.sign_in(account())
        mine = key_of(services, "ada")
        provider.outcome = GrantEnded()
        self.days(leavers, clock, 7)
        clock.advance(86_400)

        def refuse(token, *, subject, wanted):
            identities.sign_in(account(token="refresh-3"))
            raise GrantEnded

        provider.refresh = refuse
        leavers.turn()
        assert services.keys.get(mine.id).active
        assert identities.of_user("ada").left_at is None

    def test_one_process_of_all_tries(self, identities, leavers, provider, clock):
        identities.sign_in(account())
        clock.advance(86_400)
        provider.outcome = account()
        leavers.turn()
        clock.advance(10)
        leavers.turn()
        assert 1 == len(provider.tried)

    def test_those_who_wait_for_an_admin_have_no_keys_to_block(self, services, identities, leavers, provider, clock):
        mine = key_of(services, "ada")
        identities.sign_in(account())
        provider.outcome = GrantEnded()
        self.days(leavers, clock, 9)
        assert services.keys.get(mine.id).active
        assert identities.list(limit=1)[0].left_at <= moment(clock())


class TestPersonalData:
    def test_is_exported_and_erased(self, services, identities):
        """With the person's keys; no token is exported."""
        identities.sign_in(account(email="ada@example.org", email_verified=True))
        key_of(services, "ada")

        exported = b"".join(services.personal_data.export("ada"))
        assert b"ada@example.org" in exported
        assert b"refresh_token" not in exported
        services.personal_data.erase("ada")
        assert [] == identities.list(limit=9)
        assert [] == services.keys.list(KeyQuery(user="ada"))
