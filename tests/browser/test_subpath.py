"""``/docs`` below a path of somebody else's site: behind a real nginx, in a real browser."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Browser, expect

from llmgateway.simulator import DEFAULT_DEPLOYMENTS, Simulator
from tests.gateway_process import ADMIN_KEY, GatewayProcess
from tests.programs import needed
from tests.servers import _die_with_parent, free_port, wait_until

from .conftest import Trial, Visit, visiting
from .test_docs import CHAT, authorize, execute, open_operation, press_execute

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# With and without the header that names the path.
_NGINX = """
daemon off;
pid nginx.pid;
worker_processes 1;
events {{}}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy;
    fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    merge_slashes off;
    server {{
        listen 127.0.0.1:{port};
        proxy_set_header Host $host:$server_port;
        proxy_set_header X-Forwarded-For $remote_addr;
        location /llm/ {{
            proxy_pass http://127.0.0.1:{gateway}/;
        }}
        location /a/deep/path/ {{
            proxy_pass http://127.0.0.1:{gateway}/;
            proxy_set_header X-Forwarded-Prefix /a/deep/path;
        }}
    }}
}}
"""
PLACES = ["llm", "a/deep/path"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """A gateway that trusts its nginx; the URL is nginx'."""
    folder = tmp_path_factory.mktemp("site")
    with ExitStack() as stack:
        azure = stack.enter_context(Simulator(key="azure-key"))
        environ = {
            "LLM_BASE_URL": f"{azure.url}/openai/v1",
            "LLM_API_KEY": "azure-key",
            "LLMGATEWAY_MODELS": ",".join(DEFAULT_DEPLOYMENTS),
            "LLMGATEWAY_TRUSTED_PROXY": "127.0.0.1",
        }
        gateway = stack.enter_context(GatewayProcess(environ, folder=folder / "gateway"))
        port = free_port()
        stack.enter_context(nginx(folder, port=port, gateway=gateway.port))
        yield Trial(f"http://127.0.0.1:{port}", gateway.key(), ADMIN_KEY)


@pytest.fixture
def visit(browser: Browser, site: Trial) -> Iterator[Visit]:
    yield from visiting(browser, site.url)


class nginx:  # noqa: N801 - the name of the program
    """nginx in front of a gateway."""

    def __init__(self, folder: Path, *, port: int, gateway: int) -> None:
        (folder / "nginx.conf").write_text(_NGINX.format(port=port, gateway=gateway))
        self._command = [needed("nginx", package="nginx-light"), "-e", "stderr", "-p", str(folder), "-c", "nginx.conf"]
        self._port = port

    def __enter__(self) -> None:
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL, preexec_fn=_die_with_parent)
        wait_until(self._listens, seconds=10, what="nginx")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)

    def _listens(self) -> bool:
        assert self._process.poll() is None, "nginx ended"
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self._port)) == 0


@pytest.mark.parametrize("place", PLACES)
def test_works_below_a_path(visit, site, place):
    """Nothing is asked outside of the path: not the page's files, the document, nor what is tried out."""
    asked = []
    visit.page.on("request", lambda request: asked.append(request.url))
    visit.page.goto(f"/{place}/docs")
    visit.page.locator(".opblock").first.wait_for()

    authorize(visit.page, "userKey", site.user_key)
    status, body = execute(open_operation(visit.page, CHAT))
    authorize(visit.page, "adminKey", site.admin_key)
    changed = press_execute(open_operation(visit.page, "admin-create_key"))

    assert (200, 201) == (status, changed)
    assert json.loads(body)["choices"]
    outside = [url for url in asked if not urlsplit(url).path.startswith(f"/{place}/") and not url.startswith("data:")]
    assert [] == outside
    assert [] == visit.complaints
    assert f"{site.url}/{place}/v1/chat/completions" in asked


@pytest.mark.parametrize("place", PLACES)
def test_redirects_stay_below_the_path(site, place):
    """Whoever opens the base URL there comes to the dashboard there."""
    for path in ("", "v1", "v1/", "v1/v1"):
        answer = requests.get(f"{site.url}/{place}/{path}", headers={"Accept": "text/html"}, timeout=10)

        assert [302, 303] == [redirect.status_code for redirect in answer.history]
        assert (200, f"{site.url}/{place}/dashboard/sign-in") == (answer.status_code, answer.url.partition("?")[0])


def test_a_curl_line_shows_no_key(visit, site):
    """Neither in a header nor in a body: people copy it into tickets."""
    visit.page.goto("/llm/docs")
    authorize(visit.page, "userKey", site.user_key)
    authorize(visit.page, "adminKey", site.admin_key)
    secret = "a-secret-key-of-somebody"

    chat = open_operation(visit.page, CHAT)
    press_execute(chat)
    expect(chat.locator(".curl-command")).to_contain_text("Authorization: Bearer YOUR-KEY")
    add = open_operation(visit.page, "admin-add_api_key")
    add.locator("textarea").fill(json.dumps({"user": "ada", "key": secret}))
    press_execute(add)
    expect(add.locator(".curl-command")).to_contain_text("AdminKey: YOUR-ADMIN-KEY")
    expect(add.locator(".curl-command")).to_contain_text('"key": "YOUR-KEY"')

    for operation in (chat, add):
        text = operation.locator(".curl-command").inner_text()
        for key in (site.user_key, site.admin_key, secret):
            assert key not in text


def test_a_class_list_is_chosen_as_a_file(visit, site, tmp_path):
    """As a spreadsheet has written it; the answer is a file with the keys."""
    file = tmp_path / "class.csv"
    file.write_bytes("\ufeffuser;name\r\nZoë;thesis\r\nalan;thesis\r\n".encode())
    visit.page.goto("/llm/docs")
    authorize(visit.page, "adminKey", site.admin_key)
    operation = open_operation(visit.page, "admin-import_keys")
    operation.locator("input[type=file]").set_input_files(file)

    assert 201 == press_execute(operation)
    expect(operation.get_by_role("link", name="Download file")).to_be_visible()
    users = {key["user"] for key in requests.get(
        f"{site.url}/llm/admin/listkeys", headers={"AdminKey": site.admin_key}, timeout=10
    ).json()}  # fmt: skip
    assert {"Zoë", "alan"} <= users
