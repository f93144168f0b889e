"""A student at an identity provider that somebody else has written: from the button to the counted request."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from llmgateway.app import create_app
from llmgateway.errors import GrantEnded
from llmgateway.settings import Settings
from llmgateway.web.context import EXTENSION
from tests.oidc.mock import MockProvider
from tests.web.conftest import ADMIN_KEY, AZURE_KEY
from tests.web.dashboard.conftest import SAME_SITE, Person

STUDENT = {"sub": "s-1", "preferred_username": "ada", "email": "ada@example.org", "groups": ["students"]}
BOSS = {"sub": "s-2", "preferred_username": "grace", "realm_access": {"roles": ["llm-admins"]}}


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProvider]:
    server = MockProvider([STUDENT, BOSS])
    server.start()
    yield server
    server.remove()


@pytest.fixture
def app(mock, azure, tmp_path):
    environ = {
        "ADMIN_KEY": ADMIN_KEY,
        "LLM_BASE_URL": f"{azure.url}/openai/v1",
        "LLM_API_KEY": AZURE_KEY,
        "LLMGATEWAY_INSTANCE": str(tmp_path / "instance"),
        "OIDC_ISSUER": mock.url,
        "OIDC_CLIENT_ID": "gateway",
        "OIDC_CLIENT_SECRET": "the secret of the gateway",
    }
    app = create_app(Settings.from_env(environ), clock=time.time)  # the provider's clock cannot be set
    yield app
    services = app.extensions[EXTENSION]
    services.journal.close()
    services.refusals.close()


@pytest.fixture
def call(app, admin):
    def call(method, path, **arguments):
        answer = app.test_client().open(f"/admin{path}", method=method, headers=admin, **arguments)
        assert answer.status_code < 300, answer.text
        return answer.get_json(silent=True)

    return call


def sign_in(app, mock, sub) -> Person:
    person = Person(app.test_client())
    address = person.client.get("/dashboard/sign-in/start").headers["Location"]
    answer = person.client.get(mock.consent(address, sub))
    assert 303 == answer.status_code, answer.text
    return person


def test_a_student_makes_a_key_and_sees_it_counted(app, mock, call):
    call("PUT", "/groups/ml", json={"self_service": {"keys": 1, "days": 180}})
    call("PUT", "/sign-in", json={"rules": [{"claim": "groups", "value": "students", "group": "ml"}]})
    student = sign_in(app, mock, "s-1")
    form = student.open("me/new?group=ml")
    token = re.search(r'name="once" value="([^"]+)"', form)[1]

    made = student.client.post(
        "/dashboard/me/new", data={"group": "ml", "name": "laptop", "once": token}, headers=SAME_SITE
    )
    (key,) = set(re.findall(r"llmgw-[\w-]{43}", made.text))
    chat = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}
    with app.test_client().post(
        "/v1/chat/completions", json=chat, headers={"Authorization": f"Bearer {key}"}
    ) as answer:
        assert (200, True) == (answer.status_code, "choices" in answer.json)
    app.extensions[EXTENSION].journal.flush()

    assert "gpt-4o-mini" in student.open("me/requests")
    assert "ada" == call("GET", "/keys")["items"][0]["user"]


def test_a_nested_claim_makes_an_admin_and_losing_it_unmakes(app, mock, call):
    rules = [{"claim": "realm_access.roles", "value": "llm-admins", "role": "admin"}]
    call("PUT", "/sign-in", json={"rules": rules})
    boss = sign_in(app, mock, "s-2")
    boss.open("keys")
    call("PUT", "/sign-in", json={"rules": []})
    boss.open("keys", status=403)


def test_an_account_that_has_ended_is_noticed(app, mock, call):
    """Its refresh token works until the provider ends it, and is stored encrypted."""
    sign_in(app, mock, "s-1")
    services = app.extensions[EXTENSION]
    identity = services.identities.of_user("ada")
    token = services.policy.decrypt(identity.refresh_token.encode())
    account = services.provider.refresh(token, subject="s-1", wanted=())
    assert "s-1" == account.subject

    mock.forget_refresh_tokens("s-1")
    with pytest.raises(GrantEnded):
        services.provider.refresh(account.refresh_token or token, subject="s-1", wanted=())
