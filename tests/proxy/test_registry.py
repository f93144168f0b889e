"""What admins have registered: names, aliases, and deployments ready to be called."""

from __future__ import annotations

import pytest

from llmgateway.azure.endpoint import Endpoint
from llmgateway.proxy.registry import Registry
from llmgateway.records import Deployment, ModelSettings, Prices

EAST = Deployment(name="east", base_url="https://east.openai.azure.com/openai/v1", deployment="gpt-4o", key="sealed")


class Identity:
    """A token that ends and is renewed."""

    ends: str | None = None

    def header(self) -> tuple[str, str]:
        return "Authorization", "Bearer token"

    def problem(self) -> str | None:
        return self.ends


def registry(settings, *, decrypt=lambda key: f"open-{key.decode()}", identity=None, may_share_key=lambda _: True):
    return Registry(settings, key_header="api-key", decrypt=decrypt, identity=identity, may_share_key=may_share_key)


def only(settings, **options):
    """The one deployment of the one model."""
    (model,) = registry({"model": settings}, **options).models.values()
    (deployment,) = model.deployments
    return deployment


class TestNames:
    def test_mean_the_same_in_upper_and_lower_case(self):
        """As at Azure."""
        found = registry({"GPT-4o": ModelSettings(deployments=(EAST,))})

        assert ["GPT-4o"] * 2 == [found.find(name).name for name in ("gpt-4O", "GPT-4o")]
        assert found.find("gpt-4") is None

    def test_come_before_aliases_and_longer_patterns_before_shorter_ones(self):
        """Whatever the order is in which the store returns them."""
        settings = {
            "a": ModelSettings(deployments=(EAST,), aliases=("gpt-*", "*")),
            "b": ModelSettings(deployments=(EAST,), aliases=("gpt-4o-*",)),
            "c": ModelSettings(deployments=(EAST,), aliases=("gpt-4o-latest",)),
            "gpt-4o-mini": ModelSettings(deployments=(EAST,)),
        }
        names = ("gpt-4o-mini", "gpt-4o-latest", "gpt-4o-2024", "gpt-5", "o1")
        for order in (settings, dict(reversed(settings.items()))):
            found = registry(order)
            assert ["gpt-4o-mini", "c", "b", "a", "a"] == [found.find(name).name for name in names]

    def test_with_a_price_alone_are_not_registered(self):
        """A model without deployments is priced, not registered (contract, section 4)."""
        found = registry({"gpt-4o": ModelSettings(prices=Prices(prompt=1, cached=1, completion=1), reasoning=True)})

        assert found.find("gpt-4o") is None
        assert () == found.names

    def test_of_models_that_are_off_are_known_and_not_shown(self):
        """Their requests must not go to LLM_BASE_URL."""
        off = Deployment(name="east", base_url=EAST.base_url, deployment="gpt-4o", active=False)
        found = registry({"gpt-4o": ModelSettings(deployments=(off,))})

        assert found.find("gpt-4o").is_registered
        assert () == found.names == found.find("gpt-4o").deployments

    def test_that_clients_make_up_take_no_memory(self):
        found = registry({"gpt-4o": ModelSettings(deployments=(EAST,))})
        for number in range(5000):
            found.find(f"made-up-{number}")

        assert len(found._found) <= 1000


class TestCredentials:
    def test_are_decrypted_and_never_shown(self):
        deployment = only(ModelSettings(deployments=(EAST,)))

        assert ("api-key", "open-sealed") == deployment.credential.header()
        assert "sealed" not in repr(deployment)

    @pytest.mark.parametrize("header", ["Authorization", "Ocp-Apim-Subscription-Key"])
    def test_have_their_own_header(self, header):
        stored = Deployment(name="e", base_url=EAST.base_url, deployment="d", key="sealed", key_header=header)

        assert header == only(ModelSettings(deployments=(stored,))).credential.header()[0]

    def test_that_cannot_be_decrypted_are_a_problem(self):
        """Its remedy is named."""
        problem = only(ModelSettings(deployments=(EAST,)), decrypt=lambda _: None).problem

        assert "set the key again" in problem

    def test_of_the_base_url_are_shared_with_its_host_only(self):
        """Otherwise an admin could send the key to a server of theirs, and read it."""
        stored = Deployment(name="e", base_url="https://evil.example.org/v1", deployment="d")
        asked: list[Endpoint] = []

        assert only(ModelSettings(deployments=(stored,)), may_share_key=lambda _: True).problem is None
        refused = only(ModelSettings(deployments=(stored,)), may_share_key=lambda each: bool(asked.append(each)))
        assert "it has no key" in refused.problem
        assert ["evil.example.org"] == [each.host for each in asked]

    def test_by_identity_go_to_no_other_host(self):
        """A token opens all that the identity may use: no admin may send it to a server of theirs, and read it."""
        stored = Deployment(name="e", base_url="https://evil.example.org/v1", deployment="d", identity=True)
        deployment = only(ModelSettings(deployments=(stored,)), identity=Identity(), may_share_key=lambda _: False)

        assert "tokens are not sent to this host" in deployment.problem
        assert deployment.credential is None

    def test_by_identity_may_end_and_come_back(self):
        """The registry lives until an admin changes something; a token does not."""
        stored = Deployment(name="e", base_url=EAST.base_url, deployment="d", identity=True)
        identity = Identity()
        deployment = only(ModelSettings(deployments=(stored,)), identity=identity)

        assert deployment.problem is None
        identity.ends = "the token has ended"
        assert "the token has ended" == deployment.problem
        assert "LLM_IDENTITY" in only(ModelSettings(deployments=(stored,))).problem


@pytest.mark.parametrize(
    ("url", "origin", "is_azure"),
    [
        ("https://n.openai.azure.com", "https://n.openai.azure.com:443", True),
        ("https://n.openai.azure.us/openai/v1", "https://n.openai.azure.us:443", True),
        ("https://n.cognitiveservices.azure.cn/openai/v1", "https://n.cognitiveservices.azure.cn:443", True),
        ("https://N.openai.azure.com:443/openai/v1/", "https://n.openai.azure.com:443", True),
        ("http://n.openai.azure.com/openai/v1", "http://n.openai.azure.com:80", False),
        ("https://openai.azure.com.evil.org/v1", "https://openai.azure.com.evil.org:443", False),
        ("https://evilopenai.azure.com/v1", "https://evilopenai.azure.com:443", False),
        ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080", False),
    ],
)
def test_keys_belong_to_origins(url, origin, is_azure):
    endpoint = Endpoint.parse(url)

    assert (origin, is_azure) == (endpoint.origin, endpoint.is_azure)
