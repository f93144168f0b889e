"""Why Azure cannot be reached, in words that say what to change."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress

import pytest

from llmgateway.azure.cancellation import CancellationToken
from llmgateway.azure.client import AzureClient
from llmgateway.azure.credentials import StaticKey
from llmgateway.azure.deployments import Target
from llmgateway.azure.endpoint import Endpoint
from llmgateway.errors import GatewayError
from tests.certificates import make_certificate
from tests.servers import free_port, listening


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


def failure_at(base_url):
    """What the client says about a call that fails."""
    client = AzureClient(connect_timeout=1, first_byte_timeout=0.3, between_bytes_timeout=0.3, connections=1)
    endpoint = Endpoint.parse(base_url)
    target = Target(name="", endpoint=endpoint, deployment="d", credential=StaticKey("api-key", "secret-key"))
    with pytest.raises(GatewayError) as failed:
        client.send(
            b"{}",
            target=target,
            operation="chat/completions",
            request_id="r",
            cancellation=CancellationToken(),
        )
    client.close()
    found = client.explain(failed.value, endpoint)
    assert "secret-key" not in "".join(found)
    return found


def answering(data):
    def talk(connection):
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(data)

    return listening(talk)


def silent():
    def talk(connection):
        with connection, suppress(OSError):
            while connection.recv(65536):
                pass

    return listening(talk)


def test_a_name_that_nobody_knows():
    """With the ends of names in other clouds, if it may be in one."""
    assert ("dns", "There is no host n.invalid") == failure_at("https://n.invalid/openai/v1")[:2]


@pytest.mark.parametrize(
    ("host", "others"), [("n.openai.azure.com", "openai.azure.us"), ("n.openai.azure.us", "openai.azure.com")]
)
def test_a_name_in_another_cloud(monkeypatch, host, others):
    """The remedy names where it may be."""

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    found = failure_at(f"https://{host}/openai/v1")

    assert "dns" == found.cause
    assert others in found.remedy


def test_a_port_without_a_server():
    assert ("refused", "127.0.0.1 refuses connections") == failure_at(f"http://127.0.0.1:{free_port()}/openai/v1")[:2]


def test_a_server_without_tls():
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert ("tls", "127.0.0.1 does not speak TLS there") == failure_at(f"https://127.0.0.1:{port}/openai/v1")[:2]


@pytest.fixture
def tls_port(tmp_path):
    """A server whose certificate is for localhost and 127.0.0.1, and signed by nobody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(make_certificate(tmp_path))

    def talk(connection):
        with suppress(OSError), connection, context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(65536)

    with listening(talk) as port:
        yield port


def test_a_certificate_of_an_own_authority(tls_port):
    """As of a proxy that opens TLS."""
    found = failure_at(f"https://localhost:{tls_port}/openai/v1")

    assert ("tls", "The certificate of localhost is not trusted") == found[:2]
    assert "REQUESTS_CA_BUNDLE" in found.remedy


def test_a_certificate_of_another_host(tls_port, tmp_path, monkeypatch):
    """It is trusted, and names another host."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(next(tmp_path.glob("*.pem"))))
    look_up = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *others, **named: look_up("127.0.0.1", *others, **named))
    found = failure_at(f"https://n.openai.azure.com:{tls_port}/openai/v1")

    assert ("tls", "The certificate is not one of n.openai.azure.com") == found[:2]


def test_silence():
    with silent() as port:
        found = failure_at(f"http://127.0.0.1:{port}/openai/v1")

    assert ("timeout", "127.0.0.1 does not answer in time") == found[:2]


def test_a_server_that_hangs_up():
    with answering(b"") as port:
        assert "broken" == failure_at(f"http://127.0.0.1:{port}/openai/v1").cause


@pytest.mark.parametrize("status", [b"407 Proxy Authentication Required", b"403 Forbidden"])
def test_a_proxy_that_does_not_lead_there(monkeypatch, status):
    """It wants a password, or does not admit the host."""
    with answering(b"HTTP/1.1 " + status + b"\r\n\r\n") as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        found = failure_at("https://n.openai.azure.com/openai/v1")

    assert "proxy" == found.cause
    assert status[:3].decode() in found.problem
    assert "HTTPS_PROXY" in found.remedy


def test_a_proxy_that_is_away(monkeypatch):
    """Neither its address nor its password is repeated."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:hunter2@127.0.0.1:{free_port()}")
    found = failure_at("https://n.openai.azure.com/openai/v1")

    assert "refused" == found.cause
    assert "HTTPS_PROXY" in found.remedy
    assert "hunter2" not in "".join(found)
