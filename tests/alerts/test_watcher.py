"""What is announced, and that it is announced once."""

from __future__ import annotations

import itertools
import logging
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from llmgateway.alerts import delivery
from llmgateway.alerts.delivery import GIVE_UP_AFTER, PAUSES
from llmgateway.alerts.settings import Event, Mailbox, Webhook
from llmgateway.local_time import TimeZones
from llmgateway.records import Budget, Limits, Period, Person, Raise, Unit
from llmgateway.usage.journal import Backlog
from tests.alerts.parts import Host
from tests.alerts.sinks import webhook_sink
from tests.servers import free_port, wait_until
from tests.stores.contract import append, group, key, usage


def budget(amount=10.0, unit=Unit.USD, period=Period.MONTH):
    return Limits(budget=Budget(amount=amount, unit=unit, period=period))


@pytest.fixture
def host(tmp_path, clock, sink):
    made = Host(tmp_path / "gateway.sqlite", clock)
    made.set(webhooks=(Webhook(id="hook_1", url=sink.url),))
    yield made
    made.close()


@pytest.fixture
def other(tmp_path, clock, host):
    """Another host with the same store."""
    made = Host(tmp_path / "gateway.sqlite", clock, name="host-2")
    yield made
    made.close()


class TestBudgets:
    def spend(self, host, dollars, **fields):
        self.number = getattr(self, "number", 0) + 1
        at = datetime.fromtimestamp(host.clock(), UTC)
        append(host.usage_log, [usage(self.number, cost_usd=dollars, timestamp=at, **fields)])

    def test_each_threshold_is_announced_once(self, host, other, sink):
        """By one process of all; what is passed together is announced as the highest."""
        host.organisation.set_limits(budget())
        self.spend(host, 4.99)
        for each in (host, other) * 2:
            each.turn()
        assert [] == sink.posts

        self.spend(host, 0.01)
        for each in (other, host) * 3:
            each.turn()
        self.spend(host, 6)
        for each in (host, other) * 3:
            each.turn()

        assert [50, 100] == [post.json()["threshold"] for post in sink.posts]
        first = sink.posts[0].json()
        assert ("budget", "organisation", 5.0, 10.0) == tuple(
            first[name] for name in ("event", "scope", "used", "limit")
        )
        assert (
            "The organisation has used 50 % of a budget of 10.00 USD per month: 5.00 USD. "
            "It renews at 2026-02-01 00:00:00 UTC." == first["text"]
        )
        assert "Requests are refused now." in sink.texts[1]

    def test_again_in_the_next_period(self, host, sink):
        """A month later the same share is news."""
        host.organisation.set_limits(budget())
        self.spend(host, 5)
        host.turn(2)
        host.clock.advance(31 * 24 * 3600)
        host.turn()
        self.spend(host, 5)
        host.turn(2)

        assert [50, 50] == [post.json()["threshold"] for post in sink.posts]

    def test_a_budget_that_was_changed_is_another_one(self, host, sink):
        """A total that was topped up is watched again."""
        host.organisation.set_limits(budget(10, Unit.USD, Period.TOTAL))
        self.spend(host, 10)
        host.turn()
        host.organisation.set_limits(budget(20, Unit.USD, Period.TOTAL))
        host.turn(2)
        host.organisation.set_limits(budget(10, Unit.USD, Period.TOTAL))
        host.turn(2)

        assert [(100, 10), (50, 20)] == [(post.json()["threshold"], post.json()["limit"]) for post in sink.posts]
        assert sink.texts[0].endswith("It does not renew.")

    def test_of_every_scope_and_unit(self, host, sink):
        """Keys and groups count what is theirs, in their own unit and period."""
        host.organisation.set_group(group("physics", limits=budget(2, Unit.REQUESTS, Period.DAY)))
        host.organisation.set_group(group("art", limits=budget(2, Unit.REQUESTS, Period.DAY)))
        host.keys.add(key(1, limits=budget(100, Unit.TOKENS)))
        host.keys.add(key(2, limits=budget(100, Unit.TOKENS)))
        self.spend(host, 1, group="physics", key_id="key_0001", total_tokens=85)
        host.turn()

        got = {post.json()["scope"]: post.json() for post in sink.posts}
        assert {"group:physics": 50, "key:key_0001": 80} == {name: each["threshold"] for name, each in got.items()}
        assert "of a budget of 2 requests per day: 1 requests." in got["group:physics"]["text"]
        assert "The key 'laptop 1' of 'ada' (key_0001) has used 85 %" in got["key:key_0001"]["text"]

    def test_of_people_and_members(self, host, sink):
        """A person's keys together, in one group and in all; others' use is not theirs."""
        host.persons.change("ada", lambda _: Person(user="ada", limits=budget(10)))
        host.organisation.set_group(group("physics", member_limits=budget(4)))
        host.organisation.set_group(group("art", member_limits=budget(100)))
        for number, (user, where) in enumerate([("ada", "physics"), ("ada", "art"), ("alan", "physics")], 1):
            host.keys.add(key(number, user=user, group=where))
            self.spend(host, 3, user=user, group=where, key_id=f"key_{number:04}")
        self.spend(host, 50, user="Ada", group=None, key_id="key_0009")
        host.turn()

        got = {post.json()["scope"]: (post.json()["threshold"], post.json()["used"]) for post in sink.posts}
        assert {"person:ada": (50, 6), "member:physics/ada": (50, 3), "member:physics/alan": (50, 3)} == got
        assert any("The member 'ada' of the group 'physics' has used 75 %" in text for text in sink.texts)
        host.alerts.store.forget_person("ada")
        assert ["member:physics/alan"] == [each.scope for each in host.alerts.store.recent(limit=9)]

    def test_a_raise_counts_while_it_lasts(self, host, sink):
        """What was announced before is not announced again when it is over."""
        now = datetime.fromtimestamp(host.clock(), UTC)
        raised = Raise(limits=budget(100), until=now + timedelta(hours=1))
        host.organisation.set_limits(budget(1000))
        host.organisation.set_group(group("physics", limits=budget(10)))
        self.spend(host, 9, group="physics")
        host.turn()
        host.organisation.update_group("physics", {"raised": raised})
        host.turn(2)
        assert [(80, 10)] == [(post.json()["threshold"], post.json()["limit"]) for post in sink.posts]
        self.spend(host, 45, group="physics")
        host.turn()
        host.clock.advance(3600)
        host.turn(2)

        assert [(80, 10), (50, 100), (100, 10)] == [
            (post.json()["threshold"], post.json()["limit"]) for post in sink.posts
        ]

    def test_weeks_and_days_are_those_of_the_organisation(self, host, sink):
        """A week begins on Monday, in the time zone that holds."""
        host.organisation.update_document("settings", lambda _: TimeZones(("Asia/Tokyo",)).as_document())
        host.organisation.set_limits(budget(2, Unit.REQUESTS, Period.WEEK))
        self.spend(host, 1)
        host.turn()

        assert sink.texts[0].endswith("per week: 1 requests. It renews at 2026-01-05 00:00:00 +09:00.")

    def test_own_thresholds(self, host, sink):
        """Those that are set, and no others."""
        host.set(webhooks=(Webhook(id="hook_1", url=sink.url),), thresholds=(33, 90))
        host.organisation.set_limits(budget())
        self.spend(host, 6)
        host.turn()

        assert [33] == [post.json()["threshold"] for post in sink.posts]

    def test_no_log_names_a_person(self, host, sink, caplog):
        """Logs cannot be erased."""
        caplog.set_level(logging.DEBUG)
        host.keys.add(key(1, limits=budget()))
        self.spend(host, 6, key_id="key_0001")
        sink.answer = 500
        host.turn()

        assert "key:key_0001" in caplog.text
        assert "ada" not in caplog.text


class TestOutages:
    def test_a_store_that_is_away_is_announced_once_and_when_it_is_back(self, host, other, sink):
        """By one of all that see it; one slow answer is no outage."""
        for each in (host, other):
            each.stores["redis"] = "No answer."
        host.turn()
        host.stores["redis"] = None
        host.turn()
        assert [] == sink.posts

        host.stores["redis"] = "No answer."
        for each in (host, other) * 20:
            each.turn()
        assert 1 == len(sink.posts)
        assert sink.texts[0].startswith("The store redis is away (seen on host-")
        assert ("store", "redis") == (sink.posts[0].json()["event"], sink.posts[0].json()["scope"])

        host.stores["redis"] = None
        for each in (host, other) * 10:
            each.turn()
        assert 1 == len(sink.posts), "the other host still sees it"
        other.stores["redis"] = None
        for each in (host, other) * 10:
            each.turn()
        assert ["The store redis is back."] == sink.texts[1:]

        for each in (host, other):
            each.stores["redis"] = "No answer."
        for each in (host, other) * 4:
            each.turn()
        assert 3 == len(sink.posts), "the next outage is another one"

    def test_the_durable_store_is_announced_while_it_is_away(self, host, sink):
        """From memory, once, also when it is back."""
        host.turn()
        host.stores["sqlite"], host.store_away = "No space left.", True
        host.turn(20)
        assert 1 == len(sink.posts)
        assert "No space left." in sink.texts[0]

        host.stores["sqlite"], host.store_away = None, False
        host.turn(20)
        assert ["The store sqlite is back."] == sink.texts[1:]

    def test_azures_key(self, host, other, sink):
        """The process that has seen the refusal says when it is over; another one does not know."""
        host.credentials["LLM_BASE_URL"] = "refused by Azure"
        for each in (host, other) * 20:
            each.turn()
        assert 1 == len(sink.posts)
        assert "refused by Azure" in sink.texts[0]

        host.credentials.clear()
        for each in (host, other) * 10:
            each.turn()
        assert ["Azure's key for LLM_BASE_URL can be used again."] == sink.texts[1:]

    def test_what_nobody_knows_any_more_ends_in_silence(self, host, other, sink):
        """The process that has seen it has died: nobody says that it is over, and the next time is news."""
        other.quotas["gpt-4o"] = "100 tokens per minute instead of 200"
        other.turn()
        host.turn(5, seconds=740)
        assert 1 == len(sink.posts)

        other.turn()
        assert 2 == len(sink.posts)
        assert sink.texts[0] == sink.texts[1]

    def test_lowered_quota(self, host, sink):
        """With both limits."""
        host.quotas["gpt-4o"] = "100 tokens per minute instead of 200"
        host.turn(3)
        host.quotas.clear()
        host.turn(10)

        assert ["quota", "quota"] == [post.json()["event"] for post in sink.posts]
        assert "100 tokens per minute instead of 200" in sink.texts[0]
        assert "as high as before" in sink.texts[1]

    def test_records_that_wait(self, host, sink):
        """Not those that are only on their way."""
        host.backlog = Backlog(records=7, oldest_seconds=100, problem=None)
        host.turn(3)
        assert [] == sink.posts
        host.backlog = Backlog(records=7, oldest_seconds=130, problem="usage log: away")
        host.turn(3)
        host.backlog = Backlog(records=1, oldest_seconds=0.2, problem=None)
        host.turn(10)

        assert ["backlog", "backlog"] == [post.json()["event"] for post in sink.posts]
        assert "7 usage records wait on host-1" in sink.texts[0]

    def test_a_model_without_a_price(self, host, other, sink):
        """One process of all looks; the others do not take that for the end."""
        for each in (host, other):
            each.unpriced.append("gpt-9")
        for each in (host, other) * 40:
            each.turn()
        assert ["The model 'gpt-9' is used, and its price is not known"] == [text.split(":")[0] for text in sink.texts]

        for each in (host, other):
            each.unpriced.clear()
        for each in (host, other) * 40:
            each.turn()
        assert 2 == len(sink.posts)

    def test_only_the_events_that_are_set(self, host, sink):
        """The others are not looked at."""
        host.set(webhooks=(Webhook(id="hook_1", url=sink.url),), events=(Event.QUOTA,))
        host.credentials["LLM_BASE_URL"] = "refused"
        host.quotas["gpt-4o"] = "less"
        host.turn(3)

        assert ["quota"] == [post.json()["event"] for post in sink.posts]

    def test_nothing_is_looked_at_without_a_target(self, host):
        """A gateway without alerts does nothing for them."""
        host.set()
        host.stores = None

        host.turn(3)


class TestDeliveries:
    def test_are_repeated_with_growing_pauses(self, host, sink):
        """Over hours, until the server works again."""
        sink.answer = 503
        host.quotas["gpt-4o"] = "less"
        host.turn()
        began, tries = host.clock(), [0.0]
        while len(tries) < 9:
            host.turn(seconds=5 if len(tries) < 3 else 60)
            if len(sink.posts) > len(tries):
                tries.append(host.clock() - began)
        pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
        expected = [each.total_seconds() for each in PAUSES] + [PAUSES[-1].total_seconds()]
        assert all(wanted <= pause <= wanted + 65 for pause, wanted in zip(pauses, expected, strict=True)), pauses

        sink.answer = 200
        host.clock.advance(PAUSES[-1].total_seconds())
        host.turn(3)
        assert 10 == len(sink.posts)
        (alert,) = host.alerts.store.recent(limit=9)
        (done,) = alert.deliveries
        assert ("delivered", 10, 200, None) == (done.state, done.attempts, done.status, done.reason)
        assert 1 == len({post.headers["x-llmgateway-alert"] for post in sink.posts})

    def test_end_after_a_day(self, host, sink, caplog):
        """With a line in the log, and without a secret in it."""
        sink.answer = 404
        host.quotas["gpt-4o"] = "less"
        host.turn()
        for _ in range(30):
            host.clock.advance(GIVE_UP_AFTER.total_seconds() / 24)
            host.turn()

        (alert,) = host.alerts.store.recent(limit=9)
        (ended,) = alert.deliveries
        assert ("failed", None) == (ended.state, ended.due_at)
        assert "new one" in ended.reason
        assert "It is given up." in caplog.text
        posts = len(sink.posts)
        host.clock.advance(GIVE_UP_AFTER.total_seconds())
        host.turn()
        assert posts == len(sink.posts)

    def test_survive_the_process(self, host, other, sink):
        """What one process could not deliver is delivered by another one."""
        sink.answer = 500
        host.quotas["gpt-4o"] = "less"
        host.turn()
        sink.answer = 200
        other.turn(5)

        assert [1, 1] == [len(sink.posts) - 1, len({post.headers["x-llmgateway-alert"] for post in sink.posts})]
        assert 0 == other.alerts.store.waiting()

    def test_a_bad_target_keeps_no_other_waiting(self, host, sink, monkeypatch):
        """Not one that refuses, not one that is gone, and not one that never answers."""
        monkeypatch.setattr(delivery, "DEADLINE_SECONDS", 0.3)
        host.alerts._deliveries._deadline = 0.3
        with webhook_sink() as hanging:
            hanging.hangs.set()
            bad = [
                Webhook(id="hook_gone", url=f"http://127.0.0.1:{free_port()}/"),
                Webhook(id="hook_hangs", url=hanging.url),
            ]
            mail = Mailbox(address="ada@example.org")
            host.set(
                webhooks=(*bad, Webhook(id="hook_1", url=sink.url)),
                emails=(mail,),
                smtp_url=f"smtp://127.0.0.1:{free_port()}",
                sender="g@example.org",
            )
            for number in range(5):
                host.quotas[f"gpt-{number}"] = "less"
            host.turn()
            assert 5 == len(sink.posts)
            host.turn(30)
            assert 5 == len(sink.posts)
            assert 1 == len(hanging.posts), "while it keeps one connection open, it gets no other"
            states = {each.target: each.state for each in host.alerts.store.recent(limit=1)[0].deliveries}
            assert ["waiting", "waiting", "delivered", "waiting"] == [
                states[name] for name in ("hook_gone", "hook_hangs", "hook_1", mail.id)
            ]
            hanging.hangs.clear()

    def test_a_target_that_was_removed_gets_nothing_more(self, host, sink):
        """What waits for it is dropped."""
        sink.answer = 500
        host.quotas["gpt-4o"] = "less"
        host.turn()
        with webhook_sink() as new:
            host.set(webhooks=(Webhook(id="hook_2", url=new.url),))
            host.turn(5)
            assert ([], 1) == (new.posts, len(sink.posts))
        assert "dropped" == host.alerts.store.recent(limit=1)[0].deliveries[0].state

    def test_the_queue_is_bounded(self, host, sink, monkeypatch):
        """What does not fit is shown, and not delivered."""
        monkeypatch.setattr(delivery, "MOST_WAITING", 3)
        sink.answer = 500
        for number in range(5):
            host.quotas[f"gpt-{number}"] = "less"
        host.turn()

        states = [each.deliveries[0].state for each in host.alerts.store.recent(limit=9)]
        assert (3, 2) == (states.count("waiting"), states.count("dropped"))

    def test_two_at_once_deliver_once(self, host, other, sink):
        """While one delivers, the other one looks for something else."""
        entered, go_on = threading.Event(), threading.Event()

        def wait():
            entered.set()
            go_on.wait(10)

        sink.before = wait
        host.quotas["gpt-4o"] = "less"
        host.clock.advance(5)
        first = threading.Thread(target=host.alerts.turn)
        first.start()
        assert entered.wait(10)
        other.alerts.turn()
        go_on.set()
        first.join(10)
        other.turn(3)

        assert 1 == len(sink.posts)

    def test_a_process_that_stops_begins_nothing_new(self, host, other, sink):
        """It waits for what it does, and the rest is for others."""
        host.quotas["gpt-4o"] = "less"
        host.alerts.close()
        host.turn()
        assert [] == sink.posts
        other.quotas["gpt-4o"] = "less"
        other.turn()
        wait_until(lambda: sink.posts)

    def test_alerts_are_forgotten_when_their_period_is_over(self, host, sink):
        """Not before: they are what keeps it from being announced again."""
        host.quotas["gpt-4o"] = "less"
        host.turn()
        host.quotas.clear()
        host.turn(10)
        assert 2 == len(host.alerts.store.recent(limit=9))
        host.clock.advance(31 * 24 * 3600)
        host.turn()
        assert 0 == len(host.alerts.store.recent(limit=9))


def test_secrets_are_encrypted_in_the_store(host, tmp_path):
    """The file contains neither a password nor a secret, nor the address of a webhook, which may contain one."""
    host.set(
        webhooks=(Webhook(id="hook_1", url="https://example.org/hook-address", secret="hook-secret"),),
        smtp_url="smtp://gateway:smtp-password@mail.example.org",
        sender="g@example.org",
    )
    settings = host.alerts.settings()
    assert ("https://example.org/hook-address", "hook-secret") == (
        settings.webhooks[0].url,
        settings.webhooks[0].secret,
    )
    assert "smtp://gateway:smtp-password@mail.example.org" == settings.smtp_url
    assert not any(word in repr(settings) for word in ("hook-address", "hook-secret", "smtp-password"))

    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(word in content for word in (b"hook-address", b"hook-secret", b"smtp-password"))


def test_settings_of_another_secret_key_are_named(host, sink, monkeypatch):
    """They cannot be used, and nothing else fails."""
    host.set(webhooks=(Webhook(id="hook_1", url=sink.url, secret="x"),), smtp_url="smtp://127.0.0.1", sender="g@e.org")
    host.alerts._policy._cipher = type("Other", (), {"decrypt": lambda *_: None, "encrypt": lambda *_: b""})()
    settings = host.alerts.settings()

    assert (None, True) == (settings.webhooks[0].url, settings.smtp_unreadable)
    ((target, outcome),) = host.alerts.test()
    assert ("hook_1", False) == (target, outcome.delivered)
    assert "SECRET_KEY" in outcome.reason
    assert replace(settings.webhooks[0], url="x").id == "hook_1"
