"""What the Compose files promise: who can reach what, as whom it runs, and that nothing is left to guess."""

from __future__ import annotations

import inspect
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from llmgateway.settings import settings_fields
from llmgateway.stores.mongo.database import MongoDatabase

from .compose import DOCKER, FILES, load, seconds, variables

BY_IMAGE = {"LLMGATEWAY_HOST", "LLMGATEWAY_PORT", "LLMGATEWAY_INSTANCE"}
"""Settings that the image fixes."""


@pytest.fixture(scope="module")
def databases() -> dict[str, Any]:
    return load(DOCKER / "compose.databases.yml")


@pytest.fixture(scope="module")
def front() -> dict[str, Any]:
    return load(DOCKER / "compose.gateway.yml")


@pytest.fixture(scope="module")
def every_service(databases: dict[str, Any], front: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """All four; ``gateway`` as its own file describes it."""
    return databases["services"] | front["services"]


@pytest.fixture(scope="module")
def documented() -> dict[str, str]:
    """The variables of example.env with the value given there, commented out or not."""
    lines = (DOCKER / "example.env").read_text().splitlines()
    return dict(found.groups() for line in lines if (found := re.match(r"#?([A-Z_]+)=(.*)$", line)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_file_fits_the_official_schema(path: Path) -> None:
    """Every file is valid by the schema of the Compose specification."""
    command = Path(sysconfig.get_path("scripts")) / "check-jsonschema"
    result = subprocess.run(
        [command, "--builtin-schema", "vendor.compose-spec", path], capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stdout


def test_example_documents_exactly_what_is_used(documented: dict[str, str]) -> None:
    """An operator finds every variable in example.env, and none that nothing reads."""
    used = {name for path in FILES for name in variables(path)}

    assert used == set(documented)


def test_what_is_required_is_not_commented_out() -> None:
    """A variable without which Compose refuses to start is there to be filled in."""
    required = {name for path in FILES for name, kind in variables(path).items() if kind == "?"}
    open_lines = set(re.findall(r"^([A-Z_]+)=", (DOCKER / "example.env").read_text(), re.MULTILINE))

    assert {"ADMIN_KEY", "TLS_FOLDER", "MONGOPASSWORD", "REDISPASSWORD"} <= required
    assert required <= open_lines


def test_example_holds_no_secret(documented: dict[str, str]) -> None:
    """Nobody's deployment starts with a password that everybody can read."""
    secrets = {field.metadata["variable"] for field in settings_fields() if field.metadata["secret"]}

    assert {""} == {documented[name] for name in secrets}


def test_every_setting_reaches_the_gateway(front: dict[str, Any]) -> None:
    """A setting of the program can be set from docker/.env, or is fixed here on purpose."""
    # docker/.env is the file of settings here.
    settings = {field.metadata["variable"] for field in settings_fields()} - BY_IMAGE - {"LLMGATEWAY_ENV_FILE"}
    passed_on = set(front["services"]["gateway"]["environment"])

    assert settings == passed_on - {"HTTPS_PROXY", "NO_PROXY"}


def test_defaults_in_the_example_are_the_programs(documented: dict[str, str]) -> None:
    """What is commented out in example.env says what happens without it."""
    lines = (DOCKER / "example.env").read_text()
    shown = {name: value for name, value in documented.items() if value and f"\n#{name}=" in lines}
    defaults = {field.metadata["variable"]: field for field in settings_fields()}

    assert shown
    for name, value in shown.items():
        field = defaults[name]
        assert field.default == field.metadata["parse"](value), name


def test_only_nginx_publishes_ports(every_service: dict[str, dict[str, Any]]) -> None:
    """From outside there is one way in, on the two ports of the web."""
    published = {name: service["ports"] for name, service in every_service.items() if "ports" in service}

    assert published == {"nginx": ["80:8080", "443:8443"]}


def test_databases_are_on_an_inner_network(databases: dict[str, Any], front: dict[str, Any]) -> None:
    """The databases' network leads nowhere, and only the gateway joins it."""
    joined = {
        name
        for file in (databases, front)
        for name, service in file["services"].items()
        if "databases" in service["networks"]
    }

    assert databases["networks"] == {"databases": {"internal": True}}
    assert {"mongodb", "redis", "gateway"} == joined
    assert list(databases["services"]["mongodb"]["networks"]) == ["databases"]
    assert list(databases["services"]["redis"]["networks"]) == ["databases"]


def test_databases_keep_their_data(databases: dict[str, Any]) -> None:
    """What must survive the container is on a named volume."""
    mounts = {
        name: [volume for volume in databases["services"][name]["volumes"] if not volume.startswith("./")]
        for name in ("mongodb", "redis")
    }

    assert mounts == {"mongodb": ["mongodb:/data/db", "mongodb-config:/data/configdb"], "redis": ["redis:/data"]}
    assert {"mongodb", "mongodb-config", "redis"} == set(databases["volumes"])


@pytest.mark.parametrize("name", ["gateway", "mongodb", "nginx", "redis"])
def test_service_can_do_little_harm(every_service: dict[str, dict[str, Any]], name: str) -> None:
    """No capability, no way to get one, a root file system that cannot be written, logs that cannot fill the disk."""
    service = every_service[name]

    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert "max-size" in service["logging"]["options"]
    assert not service.get("privileged")


def test_nobody_is_root(every_service: dict[str, dict[str, Any]]) -> None:
    """Every service has an ordinary user; the gateway's is set in its image."""
    users = {name: service.get("user") for name, service in every_service.items()}

    assert users == {"gateway": None, "mongodb": "mongodb", "nginx": "nginx", "redis": "redis"}


def test_gateways_user_may_use_its_database_only(databases: dict[str, Any]) -> None:
    """It can neither read other databases nor create users; the administrator has another password."""
    service = databases["services"]["mongodb"]
    database = inspect.signature(MongoDatabase).parameters["database"].default
    script = DOCKER / "mongo-user.js"
    environment = service["environment"]
    created = re.findall(r"createUser\(\{(.*?)\}\);", script.read_text(), re.DOTALL)

    assert f"./{script.name}:/docker-entrypoint-initdb.d/{script.name}:ro" in service["volumes"]
    assert [["user: process.env.MONGOUSER", "pwd: process.env.MONGOPASSWORD"]] == [
        [line.strip() for line in fields.split(",")[:2]] for fields in created
    ]
    assert re.findall(r"role\w*: *\W.*", created[0]) == [f'roles: [{{ role: "readWrite", db: "{database}" }}],']
    assert environment["MONGOUSER"].startswith("${MONGOUSER:?")
    assert environment["MONGOPASSWORD"].startswith("${MONGOPASSWORD:?")
    assert environment["MONGO_INITDB_ROOT_PASSWORD"].startswith("${MONGOROOTPASSWORD:?")
    assert "MONGOROOTPASSWORD" not in variables(DOCKER / "compose.gateway.yml")


def test_redis_needs_a_password(databases: dict[str, Any]) -> None:
    """Compose does not start it without one."""
    assert databases["services"]["redis"]["environment"]["REDISPASSWORD"].startswith("${REDISPASSWORD:?")


def test_databases_are_waited_for(databases: dict[str, Any], front: dict[str, Any]) -> None:
    """The gateway starts when its databases answer, nginx when the gateway does."""
    healthy = {"condition": "service_healthy"}

    assert {"mongodb": healthy, "redis": healthy} == databases["services"]["gateway"]["depends_on"]
    assert {"gateway": {**healthy, "restart": True}} == front["services"]["nginx"]["depends_on"]
    assert all("healthcheck" in databases["services"][name] for name in ("mongodb", "redis"))


def test_gateway_file_stands_alone(front: dict[str, Any]) -> None:
    """Without the databases' file nothing in the gateway's refers to them."""
    networks = {name for service in front["services"].values() for name in service["networks"]}
    needed = {name for service in front["services"].values() for name in service.get("depends_on", {})}

    assert networks == set(front["networks"])
    assert needed <= set(front["services"])
    assert not {"MONGOPASSWORD", "REDISPASSWORD"} & {
        name for name, kind in variables(DOCKER / "compose.gateway.yml").items() if kind == "?"
    }


def test_docker_waits_longer_than_the_gateway_drains(front: dict[str, Any]) -> None:
    """Running answers get their time, and the last records are written, before Docker kills."""
    gateway, nginx = front["services"]["gateway"], front["services"]["nginx"]
    drain = int(gateway["environment"]["LLMGATEWAY_DRAIN_SECONDS"])

    assert seconds(gateway["stop_grace_period"]) >= drain + 10
    assert seconds(nginx["stop_grace_period"]) >= drain + 10


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_passwords_are_in_no_command_line(path: Path) -> None:
    """Compose puts no secret into a command or a health check, where process lists and `docker ps` would show it."""
    secrets = [field.metadata["variable"] for field in settings_fields() if field.metadata["secret"]]
    for service in load(path)["services"].values():
        words = [*service.get("command", []), *service.get("healthcheck", {}).get("test", [])]
        for name in secrets:
            assert not re.search(rf"(?<!\$)\$\{{?{name}", " ".join(words))
