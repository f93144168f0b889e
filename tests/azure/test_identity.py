"""Which identity is chosen, and tokens that are fetched with it over real connections."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace

import pytest

from llmgateway.azure import identity as module
from llmgateway.azure.credentials import TokenUnavailable
from llmgateway.azure.identity import Identity
from llmgateway.errors import ConfigurationError
from tests.certificates import make_certificate
from tests.entra import CLIENT, TENANT, token_server

SCOPE = "https://cognitiveservices.azure.com/.default"
ADDRESS = "https://name.openai.azure.com/openai/v1"
SECRET = "Abc8Q~the-secret-of-the-client"

MANAGED = Identity(kind="managed", scope=SCOPE, authority="login.example.org")


@pytest.fixture
def endpoint():
    with token_server() as server:
        yield server


@pytest.fixture
def entra(tmp_path, monkeypatch):
    """The token endpoint of Entra ID, over TLS."""
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with token_server(certificate) as server:
        yield server


@pytest.fixture(params=["imds", "app_service"])
def platform(request, endpoint, monkeypatch):
    """What issues tokens for managed identities."""
    for variable, value in getattr(endpoint, request.param).items():
        monkeypatch.setenv(variable, value)
    return endpoint


@pytest.fixture
def secret(entra):
    return Identity(
        kind="secret", scope=SCOPE, authority=entra.url, tenant_id=TENANT, client_id=CLIENT, client_secret=SECRET
    )


@pytest.fixture
def workload(entra, tmp_path):
    (tmp_path / "platform-token").write_text("first")
    return Identity(
        kind="workload",
        scope=SCOPE,
        authority=entra.url,
        tenant_id=TENANT,
        client_id=CLIENT,
        token_file=str(tmp_path / "platform-token"),
    )


def refusal(identity: Identity) -> TokenUnavailable:
    with pytest.raises(TokenUnavailable) as refused:
        identity.fetch()
    return refused.value


def test_managed_identity_of_the_system(platform):
    """The platform is asked for a token of the scope's resource, and for no client."""
    token = MANAGED.fetch()

    assert "token-1" == token.value
    assert 3597 < token.seconds <= 3600
    assert ["https://cognitiveservices.azure.com"] == [asked["resource"] for asked in platform.asked]
    assert "client_id" not in platform.asked[0]


def test_managed_identity_of_a_user(platform):
    """The identity that a user has assigned is named by its client id."""
    replace(MANAGED, client_id=CLIENT).fetch()

    assert CLIENT == platform.asked[0]["client_id"]


@pytest.mark.parametrize("status", [400, 403, 404, 410, 429, 500])
def test_managed_identity_that_gets_no_token(platform, status):
    """One attempt is one request, and its error has the status and what the platform says."""
    platform.refuse(status, error="invalid_request", error_description="Identity not found")

    refused = refusal(MANAGED)

    assert f"status {status}" == refused.code
    assert "Identity not found" in str(refused)
    assert 1 == len(platform.asked)


@pytest.mark.parametrize("charset", ["utf-16", "no-such-charset"])
def test_refusal_that_cannot_be_decoded(platform, charset):
    """A proxy's page in between is told by its status."""
    platform.refuse(502, error="odd")
    platform.content_type = f"text/html; charset={charset}"

    assert "status 502" == refusal(MANAGED).code


def test_no_token_is_taken_from_a_cache(platform):
    """Each call asks for a new one: the library would return the one it has until five minutes before its end."""
    assert ["token-1", "token-2"] == [MANAGED.fetch().value, MANAGED.fetch().value]


def test_platform_that_is_away(monkeypatch):
    """Nobody answers at the address of IMDS."""
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")

    assert "no answer" == refusal(MANAGED).code


def test_client_secret(entra, secret):
    """The secret goes to the token endpoint of the tenant, over TLS."""
    token = secret.fetch()

    assert "token-1" == token.value
    form = entra.asked[0]
    assert (SECRET, CLIENT, SCOPE) == (form["client_secret"], form["client_id"], form["scope"])
    assert "client_credentials" == form["grant_type"]


def test_workload_identity(entra, workload, tmp_path):
    """The token of the platform is exchanged; its file is read each time, because the platform replaces it."""
    workload.fetch()
    (tmp_path / "platform-token").write_text("second")
    workload.fetch()

    assert ["first", "second"] == [form["client_assertion"] for form in entra.asked]


def test_workload_identity_without_its_file(workload, tmp_path):
    """The error says what is missing."""
    (tmp_path / "platform-token").unlink()

    refused = refusal(workload)

    assert "no token of the platform" == refused.code
    assert "platform-token" in str(refused)


@pytest.mark.parametrize("kind", ["secret", "workload"])
@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
def test_entra_that_refuses(request, entra, kind, status):
    """The error has the number under which Microsoft explains it, or the status if the answer has none."""
    identity = request.getfixturevalue(kind)
    description = "AADSTS70011: The provided value for the input parameter 'scope' is not valid."
    entra.refuse(status, error="invalid_scope", error_description=description)
    assert "AADSTS70011" == refusal(identity).code

    entra.refuse(status)
    assert f"status {status}" == refusal(identity).code


def test_hides_the_secret(entra, secret):
    """Not even an answer that repeats the secret brings it into an error."""
    entra.refuse(401, error="invalid_client", error_description=f"AADSTS7000215: Invalid secret {SECRET}.")

    assert SECRET not in str(refusal(secret))
    assert SECRET not in repr(secret)


@pytest.mark.parametrize("kind", ["secret", "workload", "managed"])
def test_answer_that_makes_no_sense(request, entra, endpoint, monkeypatch, kind):
    """An answer without an end of its token is none, and the token in it is not quoted."""
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", endpoint.url)
    identity = MANAGED if kind == "managed" else request.getfixturevalue(kind)
    for server in (entra, endpoint):
        server.status, server.body = 201, {"access_token": "token-that-has-no-end"}

    refused = refusal(identity)

    assert "no usable answer" == refused.code
    assert "token-that" not in str(refused)


def test_certificate_that_is_not_trusted(secret, monkeypatch):
    """The secret goes to nobody who cannot prove to be the authority."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")

    refused = refusal(secret)

    assert "no answer" == refused.code
    assert "CERTIFICATE_VERIFY_FAILED" in str(refused)


def test_authority_that_is_away(entra, secret):
    """A connection that is refused is no answer."""
    assert "no answer" == refusal(replace(secret, authority="https://127.0.0.1:1")).code


def choose(kind: str, address: str = ADDRESS, **values: str) -> Identity:
    named = {"authority": None, "scope": None} | values
    return Identity.choose(kind, address, **named)


OF_A_SECRET = {"tenant_id": TENANT, "client_id": CLIENT, "client_secret": SECRET}
OF_A_WORKLOAD = {"tenant_id": TENANT, "client_id": CLIENT, "token_file": "file"}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({}, "managed"),
        ({"client_id": CLIENT}, "managed"),
        ({"client_id": CLIENT, "tenant_id": TENANT}, "managed"),
        (OF_A_WORKLOAD, "workload"),
        (OF_A_SECRET, "secret"),
        (OF_A_SECRET | OF_A_WORKLOAD, "secret"),
    ],
    ids=["nothing", "client", "client-and-tenant", "workload", "secret", "both"],
)
def test_chooses_by_the_environment(values, kind):
    """``auto`` takes the first kind that has all it needs, in the order of DefaultAzureCredential."""
    assert kind == choose("auto", **values).kind


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        ("secret", ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"]),
        ("workload", ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"]),
    ],
)
def test_names_all_that_is_missing(kind, missing):
    """Everything that an identity needs and does not have is said at once."""
    with pytest.raises(ConfigurationError) as refused:
        choose(kind)

    assert [f"LLM_IDENTITY={kind} needs {name}: set it." for name in missing] == refused.value.problems


def test_refuses_an_authority_without_tls():
    """The library would raise an error for each token; this one comes at the start."""
    with pytest.raises(ConfigurationError, match="AZURE_AUTHORITY_HOST must begin with https://"):
        choose("secret", authority="http://login.example.org", **OF_A_SECRET)


@pytest.mark.parametrize(
    ("address", "authority", "scope"),
    [
        (ADDRESS, "login.microsoftonline.com", SCOPE),
        ("https://n.services.ai.azure.com/openai/v1", "login.microsoftonline.com", SCOPE),
        ("https://llm.example.org/openai", "login.microsoftonline.com", SCOPE),
        (
            "https://n.openai.azure.us/openai/v1",
            "login.microsoftonline.us",
            "https://cognitiveservices.azure.us/.default",
        ),
        (
            "https://n.openai.azure.cn/openai/v1",
            "login.chinacloudapi.cn",
            "https://cognitiveservices.azure.cn/.default",
        ),
    ],
)
def test_follows_the_cloud(address, authority, scope):
    """The authority and the scope are those of the cloud in which the resource is."""
    chosen = choose("managed", address)

    assert (authority, scope) == (chosen.authority, chosen.scope)


def test_settings_win_over_the_cloud():
    """An operator may name another authority and another scope."""
    chosen = choose("managed", authority="login.example.org", scope="https://ai.azure.com/.default")

    assert ("login.example.org", "https://ai.azure.com/.default") == (chosen.authority, chosen.scope)


def test_says_how_to_install_the_library(monkeypatch):
    """Whoever has not installed the extra is told its name."""
    MANAGED.check_installed()
    monkeypatch.setattr(module, "find_spec", lambda name: importlib.util.find_spec(f"{name}_that_is_not_there"))

    with pytest.raises(ConfigurationError, match=re.escape("pip install 'llmgateway[entra]'")):
        MANAGED.check_installed()
