"""The application without a socket, in front of a simulated Azure with one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from llmgateway.app import create_app
from llmgateway.settings import Settings
from llmgateway.simulator import Simulator
from llmgateway.simulator.deployments import DEFAULT_DEPLOYMENTS, OTHER_DEPLOYMENTS
from llmgateway.web.context import EXTENSION

ADMIN_KEY = "web-tests-admin-key"
AZURE_KEY = "web-tests-azure-key"
MODELS = ("gpt-4o-mini", "gpt-4o")
MAX_BODY_BYTES = 100_000


@pytest.fixture(scope="module")
def azure() -> Iterator[Simulator]:
    with Simulator(key=AZURE_KEY, deployments=(*DEFAULT_DEPLOYMENTS, *OTHER_DEPLOYMENTS)) as simulator:
        yield simulator


@pytest.fixture
def make_app(azure, clock, tmp_path) -> Iterator[Callable[..., Flask]]:
    """Makes an application with an instance folder of its own; settings can be replaced by name."""
    with making_apps(azure, clock, tmp_path) as make:
        yield make


@contextmanager
def making_apps(azure: Simulator, clock: Callable[[], float], folder: Path) -> Iterator[Callable[..., Flask]]:
    apps: list[Flask] = []

    def make(**environ: str) -> Flask:
        defaults = {
            "ADMIN_KEY": ADMIN_KEY,
            "LLM_BASE_URL": f"{azure.url}/openai/v1",
            "LLM_API_KEY": AZURE_KEY,
            "LLMGATEWAY_MODELS": ",".join(MODELS),
            "LLMGATEWAY_INSTANCE": str(folder / f"instance-{len(apps)}"),
            "LLMGATEWAY_MAX_BODY_BYTES": str(MAX_BODY_BYTES),
        }
        app = create_app(Settings.from_env(defaults | environ), clock=clock)
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.extensions[EXTENSION].journal.close()
        app.extensions[EXTENSION].refusals.close()


@pytest.fixture
def client(make_app) -> FlaskClient:
    return make_app().test_client()


@pytest.fixture
def admin() -> dict[str, str]:
    """The header of the admin API."""
    return {"AdminKey": ADMIN_KEY}


@pytest.fixture
def call(client, admin) -> Callable[..., Any]:
    """Call the admin API, and return what it answers, checked for its status."""

    def call(method: str, path: str, *, status: int = 200, **arguments: Any) -> Any:
        answer = client.open(f"/admin{path}", method=method, headers=admin, **arguments)
        assert status == answer.status_code, answer.text
        return answer.json if answer.is_json and answer.text else answer.text

    return call


@pytest.fixture
def new_key(client, admin) -> Callable[..., dict[str, object]]:
    """Hand out a key, and return all fields of the response; its group is made if there is none."""

    def create(**fields: object) -> dict[str, object]:
        group = f"/admin/groups/{fields.get('group')}"
        if "group" in fields and 404 == client.get(group, headers=admin).status_code:
            assert 200 == client.put(group, json={}, headers=admin).status_code
        answer = client.post("/admin/keys", json={"user": "ada", **fields}, headers=admin)
        assert 201 == answer.status_code
        created: dict[str, object] = answer.json
        return created

    return create


@pytest.fixture
def user(new_key) -> dict[str, str]:
    """The header of a user's request."""
    return {"Authorization": f"Bearer {new_key()['key']}"}
