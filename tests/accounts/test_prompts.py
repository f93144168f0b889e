"""Prompts of the organisation, of groups and of keys, with all their versions."""

from __future__ import annotations

from contextlib import closing

import pytest

from llmgateway.accounts.credential import CredentialCipher
from llmgateway.accounts.groups import Groups
from llmgateway.accounts.keys import Keys
from llmgateway.accounts.policy import OrganisationPolicy
from llmgateway.accounts.prompts import Prompts, Scope
from llmgateway.errors import NotFound
from llmgateway.records import Prompt, moment
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteKeys, SQLiteOrganisation

EVERYBODY = Scope()
ML = Scope(group="ml")


class Desk:
    """Prompts with the stores that they need."""

    def __init__(self, database: SQLiteDatabase, clock) -> None:
        policy = OrganisationPolicy(SQLiteOrganisation(database), CredentialCipher("x"), fallback=None, clock=clock)
        self.keys = Keys(SQLiteKeys(database), policy, clock=clock)
        self.groups = Groups(policy, clock=clock)
        self.prompts = Prompts(policy, self.groups, self.keys, clock=clock)
        self.groups.put("ml")
        record, self.key = self.keys.create(user="ada", name="x", group="ml")
        self.own = Scope(key_id=record.id)

    def sent(self) -> str:
        """Return the text of the prompt that the key's requests get."""
        return self.keys.authenticate(self.key).prompt.text


@pytest.fixture
def desk(tmp_path, clock):
    with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
        yield Desk(database, clock)


def test_the_organisations_prompt_has_versions_and_times(desk, clock):
    """Each version is kept with its number and the time at which it was set."""
    assert Prompt() == desk.prompts.in_force(EVERYBODY)
    first = desk.prompts.set(EVERYBODY, "one")
    clock.advance(60)
    second = desk.prompts.set(EVERYBODY, "")

    assert (1, 2) == (first.version, second.version)
    assert moment(clock()) == second.set_at
    assert second == desk.prompts.in_force(EVERYBODY)
    assert [second, first] == desk.prompts.versions(EVERYBODY)


def test_the_nearest_prompt_is_in_force_with_the_next_request(desk):
    """A key's prompt replaces the group's, which replaces the organisation's, until it is cleared."""
    for scope, text in ((EVERYBODY, "all"), (ML, "group"), (desk.own, "key")):
        prompt = desk.prompts.set(scope, text)
        assert (text, prompt) == (desk.sent(), desk.prompts.in_force(scope))

    assert "all" == desk.prompts.in_force(EVERYBODY).text
    desk.prompts.clear(desk.own)
    assert "group" == desk.sent() == desk.prompts.in_force(desk.own).text
    desk.prompts.clear(ML)
    assert "all" == desk.sent() == desk.prompts.in_force(ML).text
    desk.prompts.clear(EVERYBODY)
    assert desk.sent() == ""


def test_a_group_or_key_can_have_no_prompt_although_everybody_has(desk):
    """An empty prompt means no prompt; without a prompt of its own, a key has that of its group."""
    desk.prompts.set(EVERYBODY, "all")
    assert desk.prompts.own(ML) is None

    desk.prompts.set(ML, "")

    assert desk.sent() == ""
    assert desk.prompts.own(ML).text == ""


def test_a_version_names_one_text(desk):
    """Versions are numbered across all scopes, so the number in a usage record identifies the prompt."""
    made = [desk.prompts.set(scope, "x") for scope in (EVERYBODY, ML, desk.own, EVERYBODY, ML)]

    assert [1, 2, 3, 4, 5] == [prompt.version for prompt in made]
    assert [made[4], made[1]] == desk.prompts.versions(ML)
    assert [made[2]] == desk.prompts.versions(desk.own)
    assert ["", "group:ml", f"key:{desk.own.key_id}"] == [prompt.scope for prompt in made[:3]]


@pytest.mark.parametrize("scope", [Scope(group="nobody"), Scope(key_id="key_nobody")])
@pytest.mark.parametrize(
    "act", [Prompts.own, Prompts.in_force, Prompts.clear, lambda prompts, of: prompts.set(of, "x")]
)
def test_nobodys_prompt_is_not_found(desk, scope, act):
    """A prompt for a missing group or key is refused, and no version is stored."""
    with pytest.raises(NotFound):
        act(desk.prompts, scope)

    assert [] == desk.prompts.versions(scope)
