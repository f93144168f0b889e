"""The lengths of a key's last answers."""

from __future__ import annotations

from llmgateway.ratelimit import answer_lengths
from llmgateway.ratelimit.answer_lengths import USUAL_TOKENS, AnswerLengths
from tests.stores.contract import at_once


def test_a_key_without_answers_has_usual_ones():
    """Nothing is known of it."""
    assert USUAL_TOKENS == AnswerLengths().usual("key_1")


def test_a_key_is_estimated_by_its_own_answers():
    """The first answer counts fully, later ones by a quarter; other keys are not affected."""
    lengths = AnswerLengths()

    lengths.add("key_1", 4000)
    assert [4000, USUAL_TOKENS] == [lengths.usual(name) for name in ("key_1", "key_2")]

    lengths.add("key_1", 2000)
    assert 3500 == lengths.usual("key_1")


def test_short_answers_do_not_make_a_key_look_harmless():
    """The estimate is never below that of a key without answers, and one long answer after many short ones shows."""
    lengths = AnswerLengths()
    for _ in range(100):
        lengths.add("key_1", 1)
    assert USUAL_TOKENS == lengths.usual("key_1")

    lengths.add("key_1", 20_001)

    assert 5001 == lengths.usual("key_1")


def test_keys_are_forgotten_when_there_are_many(monkeypatch):
    """The one whose last answer is the oldest goes first."""
    monkeypatch.setattr(answer_lengths, "MOST_KEYS", 3)
    lengths = AnswerLengths()
    for name in ("key_1", "key_2", "key_3", "key_1", "key_4"):
        lengths.add(name, 1000)

    assert [1000, USUAL_TOKENS, 1000, 1000] == [lengths.usual(f"key_{number}") for number in (1, 2, 3, 4)]


def test_threads_may_add_at_once(monkeypatch):
    """Nobody finds a key gone that is being replaced."""
    monkeypatch.setattr(answer_lengths, "MOST_KEYS", 2)
    lengths = AnswerLengths()

    def work(number):
        for turn in range(500):
            lengths.add(f"key_{(number + turn) % 4}", 1000)
        return True

    assert [True] * 8 == at_once(*(lambda number=number: work(number) for number in range(8)))
