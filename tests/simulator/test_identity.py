"""Tokens of Entra ID and of managed identities, and the resources that accept them."""

from __future__ import annotations

import json
import ssl
from urllib.parse import urlencode

import pytest
import requests
from openai import OpenAI

from llmgateway.simulator import DEFAULT_KEY, Directory, Script, Simulator, Subscription
from llmgateway.simulator.identity import CLIENT_ID, CLIENT_SECRET, IDENTITY_HEADER, TENANT
from tests.certificates import make_certificate

from .calls import CHAT, CLASSIC, HELLO, V1, call

COGNITIVE = "https://cognitiveservices.azure.com"
TOKEN = f"/{TENANT}/oauth2/v2.0/token"
GRANT = {
    "grant_type": "client_credentials",
    "client_id": CLIENT_ID,
    "client_secret": CLIENT_SECRET,
    "scope": "https://ai.azure.com/.default",
}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
EXPIRED = (
    b'{"statusCode":401,"message":"Unauthorized. Access token is missing, invalid, audience is incorrect '
    b'(https://cognitiveservices.azure.com), or have expired."}'
)


@pytest.fixture
def azure(clock):
    with Simulator(clock=clock) as simulator:
        yield simulator


def ask(azure, path=TOKEN, form=GRANT):
    return call(azure, urlencode(form).encode(), path=path, headers=FORM)


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def test_a_client_secret_gets_a_token(azure):
    """With the lifetime in whole seconds; it opens both APIs until it has ended."""
    answer = ask(azure)
    token = answer.json["access_token"]

    assert (answer.status, answer.json["token_type"], answer.json["expires_in"]) == (200, "Bearer", 3599)
    assert [call(azure, path=path, headers=bearer(token)).status for path in (V1, CLASSIC)] == [200, 200]
    assert [served.authenticated for served in azure.served] == [True, True]


def test_a_token_ends(azure, clock):
    """Then Azure answers 401 in words of its own."""
    azure.directory.lifetime = 60
    token = ask(azure).json["access_token"]
    clock.advance(59)
    before = call(azure, headers=bearer(token))
    clock.advance(1)
    after = call(azure, headers=bearer(token))

    assert before.status == 200
    assert (after.status, after.body) == (401, EXPIRED)
    assert azure.served[-1].authenticated is False


@pytest.mark.parametrize(
    "token",
    [Directory().token(), "a.b.c", "..", Directory().token()[:-2] + "AA"],
    ids=["foreign", "none", "empty", "cut"],
)
def test_a_token_of_others_is_refused(azure, token):
    """Only those of the own directory count."""
    assert call(azure, headers=bearer(token)).body == EXPIRED


def test_a_token_for_something_else_is_refused(azure):
    """The audience has to be that of Azure's models."""
    assert call(azure, headers=bearer(azure.directory.token("https://vault.azure.net"))).body == EXPIRED
    assert call(azure, headers=bearer(azure.directory.token(COGNITIVE + "/"))).status == 200


def test_a_principal_without_a_role_is_refused(azure):
    """Its token is right, and it may nothing."""
    token = azure.directory.token()
    azure.directory.allowed = False
    refused = call(azure, headers=bearer(token))

    assert (refused.status, refused.json["error"]["code"]) == (401, "PermissionDenied")


def test_a_wrong_key_is_no_token(azure):
    """What does not look like a token is answered as a key."""
    assert call(azure, headers=bearer("wrong")).json["error"]["code"] == "401"


@pytest.mark.parametrize(
    ("changes", "status", "error", "number"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client", 7000215),
        ({"client_id": "nobody"}, 400, "unauthorized_client", 700016),
        ({"scope": "https://ai.azure.com"}, 400, "invalid_scope", 70011),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", 70003),
    ],
)
def test_errors_of_the_token_endpoint(azure, changes, status, error, number):
    """They have a number, which the text begins with."""
    answer = ask(azure, form={**GRANT, **changes})

    assert (answer.status, answer.json["error"], answer.json["error_codes"]) == (status, error, [number])
    assert answer.json["error_description"].startswith(f"AADSTS{number}: ")


def test_an_unknown_tenant(azure):
    """The directory has one."""
    assert ask(azure, path="/other/oauth2/v2.0/token").json["error_codes"] == [90002]


def test_a_federated_assertion_gets_a_token(azure):
    """As workload identities send it."""
    form = {name: value for name, value in GRANT.items() if name != "client_secret"}
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

    assert ask(azure, form={**form, "client_assertion_type": kind, "client_assertion": "a.b.c"}).status == 200


MANAGED = {
    "imds": (f"/metadata/identity/oauth2/token?api-version=2018-02-01&resource={COGNITIVE}", {"Metadata": "true"}),
    "identity": (f"/msi/token?api-version=2019-08-01&resource={COGNITIVE}", {"X-IDENTITY-HEADER": IDENTITY_HEADER}),
    "msi": (f"/msi/token?api-version=2017-09-01&resource={COGNITIVE}", {"secret": IDENTITY_HEADER}),
}


@pytest.mark.parametrize("kind", MANAGED)
def test_a_managed_identity_gets_a_token(azure, clock, kind):
    """All values are texts; the end is in seconds since the epoch."""
    path, headers = MANAGED[kind]
    azure.directory.lifetime = 86_400
    answer = call(azure, b"", path=path, method="GET", headers=headers)

    assert all(isinstance(value, str) for value in answer.json.values())
    assert (answer.json["expires_in"], answer.json["resource"]) == ("86400", COGNITIVE)
    assert answer.json["expires_on"] == str(int(clock() + 86_400))
    assert call(azure, headers=bearer(answer.json["access_token"])).status == 200


def test_cloud_shell_posts_a_form(azure):
    """The oldest form has no secret."""
    assert ask(azure, path="/msi/token", form={"resource": COGNITIVE}).status == 200


@pytest.mark.parametrize("kind", MANAGED)
def test_a_managed_identity_needs_its_header(azure, kind):
    """So that no page in a browser gets a token."""
    path, _ = MANAGED[kind]

    assert call(azure, b"", path=path, method="GET", headers={}).status == (400 if kind == "imds" else 401)


def test_an_identity_that_is_not_assigned(azure):
    """The metadata service says so with 400."""
    path, headers = MANAGED["imds"]
    answer = call(azure, b"", path=f"{path}&client_id=other", method="GET", headers=headers)

    assert (answer.status, answer.json["error_description"]) == (400, "Identity not found")


def test_the_directory_has_scripts_of_its_own(azure):
    """They do not reach the resource, nor the resource's them."""
    azure.directory.script(Script(fault="imds_gone"))
    azure.script(Script(fault="capacity"))
    path, headers = MANAGED["imds"]
    gone, again = (call(azure, b"", path=path, method="GET", headers=headers) for _ in range(2))

    assert (gone.status, again.status, call(azure).status, call(azure).status) == (410, 200, 429, 200)
    assert ([len(azure.directory.served), len(azure.served)]) == [2, 2]


def test_a_directory_can_break_off(azure):
    """As a resource can."""
    azure.directory.script(Script(cut_after_bytes=20))

    assert not ask(azure).complete


def test_another_process_can_rule_the_directory(azure):
    """The lifetime, the role, scripts, and what was asked."""
    url = azure.url
    changed = requests.post(f"{url}/simulator/identity", json={"lifetime": 5, "allowed": False}, timeout=10)
    scripted = requests.post(
        f"{url}/simulator/script", json={"for": "identity", "fault": "entra_busy", "times": 1}, timeout=10
    )
    busy, token = ask(azure), ask(azure)
    served = requests.get(f"{url}/simulator/served?for=identity", timeout=10).json()["served"]
    wrong = requests.post(f"{url}/simulator/identity", json={"lifetime": "long"}, timeout=10)
    nowhere = requests.post(f"{url}/simulator/script", json={"for": "nobody"}, timeout=10)

    assert (changed.status_code, scripted.status_code) == (200, 200)
    assert (busy.status, token.json["expires_in"]) == (503, 5)
    assert call(azure, headers=bearer(token.json["access_token"])).json["error"]["code"] == "PermissionDenied"
    assert [one["status"] for one in served] == [503, 200]
    assert (wrong.status_code, nowhere.status_code) == (400, 400)


def test_regions_share_a_directory(clock):
    """A token of one opens the others."""
    with Subscription.of_regions(["eastus2", "swedencentral"], clock=clock) as subscription:
        east, sweden = subscription.resources
        token = ask(east).json["access_token"]

        assert call(sweden, headers=bearer(token)).status == 200


def test_the_official_client_sends_a_token(azure):
    """The v1 API takes it where a key can be, too."""
    with OpenAI(base_url=f"{azure.url}/openai/v1", api_key=azure.directory.token, max_retries=0) as client:
        answer = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO)

    assert answer.choices[0].message.content == "You said: hello there"


def test_entra_speaks_tls(tmp_path):
    """azure-identity insists on https; it asks for the configuration of the tenant first."""
    certificate = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Simulator(tls=context) as azure:
        session = requests.Session()
        session.verify = str(certificate)
        session.trust_env = False  # or REQUESTS_CA_BUNDLE would come first
        known = session.get(f"{azure.url}/{TENANT}/v2.0/.well-known/openid-configuration", timeout=10).json()
        token = session.post(known["token_endpoint"], data=GRANT, timeout=10).json()["access_token"]
        answer = session.post(azure.url + V1, json=CHAT, headers=bearer(token), timeout=10)
        stream = session.post(azure.url + V1, json={**CHAT, "stream": True}, headers=bearer(token), timeout=10)

    assert known["token_endpoint"] == f"{azure.url}{TOKEN}"
    assert (answer.status_code, stream.text.endswith("data: [DONE]\n\n")) == (200, True)


def test_secrets_are_in_no_record(azure):
    """Neither a key, nor a token, nor a client's secret."""
    token = ask(azure).json["access_token"]
    call(azure, headers=bearer(token))
    for path, headers in MANAGED.values():
        call(azure, b"", path=path, method="GET", headers=headers)
    shown = json.dumps([served.as_json() for served in azure.served])
    shown += requests.get(f"{azure.url}/simulator/served?for=identity", timeout=10).text

    assert token not in shown
    assert DEFAULT_KEY not in shown
    assert CLIENT_SECRET not in shown
    assert IDENTITY_HEADER not in shown
    assert token not in repr(azure.served) + repr(azure.directory.served)
