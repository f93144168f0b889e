"""What goes into the image and how it starts; no container engine is needed to see it."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmgateway.settings import settings_fields

TOP = Path(__file__).parents[2]
DOCKERFILE = TOP / "docker" / "Dockerfile"


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """The instructions of the last stage: name and arguments, lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines()) if name]
    last = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    return found[last:]


def arguments(instructions: list[tuple[str, str]], wanted: str) -> str:
    (found,) = [rest for name, rest in instructions if name == wanted]
    return found


def test_hadolint_finds_nothing() -> None:
    """The linter of Dockerfiles has no complaint of any severity."""
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    result = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)

    assert result.stdout + result.stderr == ""
    assert result.returncode == 0


def test_gateway_is_process_one(instructions: list[tuple[str, str]]) -> None:
    """No shell stands between Docker's SIGTERM and the gateway."""
    assert json.loads(arguments(instructions, "ENTRYPOINT")) == ["llmgateway"]
    assert json.loads(arguments(instructions, "CMD")) == ["serve", "--host", "0.0.0.0", "--port", "8080"]
    assert arguments(instructions, "STOPSIGNAL") == "SIGTERM"
    assert arguments(instructions, "EXPOSE") == "8080"


def test_runs_as_a_numbered_ordinary_user(instructions: list[tuple[str, str]]) -> None:
    """The user is a number (so that Kubernetes can see it is not root), and owns the instance folder."""
    uid, gid = arguments(instructions, "USER").split(":")

    assert int(uid) > 0
    assert f"--owner={uid} --group={gid} --mode=0700 /instance" in arguments(instructions, "RUN")


def test_what_is_written_goes_into_the_volume(instructions: list[tuple[str, str]]) -> None:
    """The instance folder is the volume, by the name that the settings read."""
    (variable,) = [field.metadata["variable"] for field in settings_fields() if field.name == "instance"]

    assert arguments(instructions, "VOLUME") == "/instance"
    assert f"{variable}=/instance" in arguments(instructions, "ENV")
    assert "PYTHONUNBUFFERED=1" in arguments(instructions, "ENV")


def test_image_holds_no_secret() -> None:
    """Neither build arguments nor the environment of the image name a secret setting."""
    secrets = {field.metadata["variable"] for field in settings_fields() if field.metadata["secret"]}

    assert set() == {name for name in secrets if name in DOCKERFILE.read_text()}


def test_build_sees_the_package_alone() -> None:
    """Of the checkout only what makes the wheel, and the versions of what it needs, is sent to the build."""
    patterns = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")}

    assert next(pattern for pattern in patterns if pattern and not pattern.startswith("#")) == "*"
    assert {"llmgateway", "LICENSE", "README.md", "constraints.txt", "pyproject.toml", "setup.cfg", "setup.py"} == kept
    assert all((TOP / name).exists() for name in kept)


class _Livez(http.server.BaseHTTPRequestHandler):
    """Answers /livez with the status that the server was made with."""

    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == "/livez" else 404)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the tests' output clean."""


@pytest.fixture
def livez(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a server whose /livez has the status in ``request.param``."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Livez) as server:
        server.status = request.param  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def health(instructions: list[tuple[str, str]], port: int) -> int:
    """Run the health check against *port* the way Docker would, with a proxy in the environment; its exit status."""
    _, _, command = arguments(instructions, "HEALTHCHECK").partition("CMD ")
    python, *rest = [word.replace("8080", str(port)) for word in json.loads(command)]
    assert python == "python"
    environment = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run([sys.executable, *rest], env=environment, stderr=subprocess.DEVNULL, check=False).returncode


@pytest.mark.parametrize(("livez", "expected"), [(200, 0), (503, 1)], indirect=["livez"])
def test_health_is_what_livez_says(instructions: list[tuple[str, str]], livez: int, expected: int) -> None:
    """The container is healthy if /livez says 200, whatever proxy the environment names."""
    assert expected == health(instructions, livez)


def test_health_fails_where_nothing_listens(instructions: list[tuple[str, str]]) -> None:
    """A gateway that is not there is not healthy."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Livez) as server:
        port = server.server_port

    assert health(instructions, port) == 1
