"""Where a request leads, by the name of its model, and which names a key may use."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest

from llmgateway.accounts.credential import CredentialCipher
from llmgateway.accounts.policy import OrganisationPolicy
from llmgateway.accounts.principal import Principal
from llmgateway.azure.endpoint import Endpoint
from llmgateway.errors import InvalidRequest, ModelNotAllowed, ModelNotFound, UpstreamCredentials
from llmgateway.proxy.default_upstream import UpstreamSettings
from llmgateway.proxy.operations.chat import CHAT_COMPLETIONS
from llmgateway.proxy.request import prepare
from llmgateway.proxy.routing import Routing
from llmgateway.records import UNLIMITED, Deployment, KeyRecord
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteOrganisation
from llmgateway.usage.answered_models import AnsweredModels
from tests.stores.contract import key

CHAT = "chat/completions"
V1 = "https://n.openai.azure.com/openai/v1"
IN_PATH = "https://n.openai.azure.com/openai/deployments/{model}?api-version=2024-10-21"

CIPHER = CredentialCipher("secret")


class World:
    """An organisation with registered models, and the answers of the past month."""

    def __init__(self, database: SQLiteDatabase, clock) -> None:
        self.clock = clock
        self.cipher = CIPHER
        self.policy = OrganisationPolicy(SQLiteOrganisation(database), self.cipher, fallback="default", clock=clock)
        self.answered = AnsweredModels(lambda _: [], clock=clock)

    def register(self, name: str, *regions: str, active: bool = True, **parts: object) -> None:
        deployments = tuple(
            Deployment(
                name=region,
                base_url=f"https://{region}.openai.azure.com/openai/v1",
                deployment=f"{name}-in-{region}",
                key=self.policy.encrypt(f"key-of-{region}"),
                priority=number,
                active=active,
            )
            for number, region in enumerate(regions)
        )
        self.policy.set_model(name, {"deployments": deployments or None, **parts})

    def routing(self, *offered: str, url: str = V1) -> Routing:
        return Routing(UpstreamSettings(base_url=url), policy=self.policy, offered=offered, answered=self.answered)

    def principal(self, *models: str) -> Principal:
        record: KeyRecord = replace(key(), models=models or None, group=None, limits=UNLIMITED)
        return Principal(record, self.policy.stored())


@pytest.fixture
def world(tmp_path, clock):
    with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
        yield World(database, clock)


def targets(world: World, routing: Routing, model: str, *models: str) -> list[tuple[str, str, str]]:
    principal = world.principal(*models)
    found = routing.targets(routing.route(model, principal, CHAT), principal.organisation)
    return [(each.name, each.deployment, each.credential.header()[1]) for each in found]


EAST = ("east", "gpt-4o-in-east", "key-of-east")
WEST = ("west", "gpt-4o-in-west", "key-of-west")


@pytest.mark.parametrize("name", ["gpt-4o", "GPT-4o", "latest", "gpt-4o-2024-11-20"])
def test_a_registered_model_leads_to_its_deployments(world, name):
    """By its name and by its aliases, each with its own key, those with the smallest priority first."""
    world.register("gpt-4o", "east", "west", aliases=("latest", "gpt-4o-*"))

    assert [EAST, WEST] == targets(world, world.routing(), name)


def test_other_names_lead_to_the_base_url(world):
    """With the key of the base URL."""
    world.register("gpt-4o", "east")

    assert [("", "gpt-5", "default")] == targets(world, world.routing(), "gpt-5")


@pytest.mark.parametrize(
    ("own", "other", "is_shared"),
    [
        ("https://gateway.internal/v1", "https://gateway.internal:8443/v2", True),
        ("https://gateway.internal/v1", "http://gateway.internal/v1", False),
        ("http://gateway.internal/v1", "https://gateway.internal/v1", True),
        ("http://gateway.internal/v1", "http://gateway.internal:81/v1", True),
        ("https://gateway.internal/v1", "https://other.internal/v1", False),
        ("https://gateway.internal/v1", "https://n.openai.azure.com/openai/v1", True),
    ],
)
def test_the_key_of_the_base_url_is_shared_with_its_host_and_azure(world, own, other, is_shared):
    """In the clear only if it is so at the base URL."""
    assert is_shared == world.routing(url=own).may_share_key(Endpoint.parse(other), world.policy.stored())


def test_what_is_offered_there_does_not_concern_registered_models(world):
    """`LLMGATEWAY_MODELS` limits the names that are not registered."""
    world.register("gpt-4o", "east")
    routing = world.routing("gpt-5")

    assert [EAST] == targets(world, routing, "gpt-4o")
    assert [("", "gpt-5", "default")] == targets(world, routing, "gpt-5")
    with pytest.raises(ModelNotFound):
        targets(world, routing, "o1")


def test_an_alias_without_deployments_is_another_name_at_the_base_url(world):
    """The body then has the name that Azure knows, and the name must be on offer there."""
    world.register("gpt-5", aliases=("best",))

    assert [("", "gpt-5", "default")] == targets(world, world.routing("gpt-5"), "best")
    with pytest.raises(ModelNotFound):
        targets(world, world.routing("o1"), "best")
    body = b'{"model":"best","messages":[{"role":"user","content":"Hello"}]}'
    routing, principal = world.routing(), world.principal()
    upstream = prepare(body, CHAT_COMPLETIONS, principal, routing)
    (target,) = routing.targets(upstream.route, principal.organisation)
    assert b'"model":"gpt-5"' in upstream.body(target)


def test_a_model_that_is_off_does_not_lead_to_the_base_url(world):
    """An admin has switched its deployments off, not moved them."""
    world.register("gpt-4o", "east", active=False)

    with pytest.raises(ModelNotFound):
        targets(world, world.routing(), "gpt-4o")
    assert [] == world.routing().models(world.principal())


def test_a_model_whose_keys_cannot_be_read_says_so(world):
    """The user's key is fine."""
    world.register("gpt-4o", "east")
    world.policy.decrypt = lambda _: None

    with pytest.raises(UpstreamCredentials, match="Your key is fine"):
        targets(world, world.routing(), "gpt-4o")


@pytest.mark.parametrize(
    ("allowed", "asked", "ok"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "latest", True),
        ("gpt-4o", "GPT-4O", True),
        ("GPT-4o", "gpt-4o", True),
        ("latest", "latest", True),
        ("latest", "gpt-4o", False),
        ("gpt-4o", "other", False),
        ("other", "latest", False),
    ],
)
def test_a_key_may_use_a_model_by_all_of_its_names(world, allowed, asked, ok):
    """If it may use the model; an alias that is allowed allows no other name."""
    world.register("gpt-4o", "east", aliases=("latest",))
    world.register("other", "west")
    routing = world.routing()

    assert ok is routing.may_use(world.principal(allowed), asked)
    if not ok:
        with pytest.raises(ModelNotAllowed):
            targets(world, routing, asked, allowed)


def test_a_model_serves_its_endpoints(world):
    """The error names them."""
    world.register("gpt-4o", "east", endpoints=("responses", "embeddings"))

    with pytest.raises(InvalidRequest, match=r"It serves /v1/responses, /v1/embeddings\."):
        world.routing().route("gpt-4o", world.principal(), CHAT)
    assert world.routing().route("gpt-4o", world.principal(), "responses")


@pytest.mark.parametrize("name", ["a/b", "..", "with blank"])
def test_names_of_registered_models_are_free(world, name):
    """They are no part of a URL; the names of deployments are. Other names must be safe in the path."""
    world.register("gpt-4o", "east", aliases=(name,))
    routing = world.routing(url=IN_PATH)

    assert [EAST] == targets(world, routing, name)
    with pytest.raises(ModelNotFound):
        targets(world, routing, f"{name}/")


def test_lists_what_a_key_may_use(world):
    """Registered models, those on offer, and those that have answered; not the names that a pattern permits."""
    world.register("gpt-4o", "east", aliases=("gpt-4o-*",))
    world.register("priced", prices=None, reasoning=True)
    for name in ("gpt-5", "gpt-4o-made-up-by-a-client", "gpt-4o"):
        world.answered.answered(name)

    assert ["gpt-4o", "gpt-5"] == world.routing().models(world.principal())
    assert ["gpt-4o", "o1"] == world.routing("o1").models(world.principal())
    assert ["gpt-4o", "o1"] == world.routing("o1").models(world.principal("gpt-4o", "o1", "o3"))


def test_a_404_of_one_deployment_does_not_hide_a_model(world):
    """Its other deployments may have it; a name at the base URL is hidden for an hour."""
    world.register("gpt-4o", "east", "west")
    for name in ("gpt-4o", "gpt-5"):
        world.answered.refused(name)

    assert [True, False] == [world.routing().may_use(world.principal(), name) for name in ("gpt-4o", "gpt-5")]


def test_a_change_is_in_force_at_once(world):
    """And without one, nothing is parsed or decrypted again."""
    world.register("gpt-4o", "east")
    routing = world.routing()
    organisation = world.policy.stored()
    assert routing.registry(organisation) is routing.registry(organisation)
    assert [EAST] == targets(world, routing, "gpt-4o")

    world.register("gpt-4o", "west")
    assert [WEST] == targets(world, routing, "gpt-4o")
