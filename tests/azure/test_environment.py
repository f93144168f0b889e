"""Proxies and certificates from the environment: what cannot be used is said at start, in a sentence."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from llmgateway.azure.endpoint import Endpoint
from llmgateway.azure.environment import check_environment
from llmgateway.errors import ConfigurationError
from tests.certificates import make_certificate

VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def check(monkeypatch, *, url="https://n.openai.azure.com", **environ):
    for name, text in environ.items():
        monkeypatch.setenv(name, text)
    check_environment(Endpoint.parse(url))


def problems(monkeypatch, **environ):
    with pytest.raises(ConfigurationError) as refused:
        check(monkeypatch, **environ)
    return refused.value.problems


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"HTTPS_PROXY": "http://proxy.example:3128"},
        {"HTTPS_PROXY": "https://me:p%2Fw@proxy.example"},
        {"HTTPS_PROXY": "proxy.example:3128"},
        {"HTTPS_PROXY": "socks5h://proxy.example:1080", "NO_PROXY": "openai.azure.com"},
        {"HTTP_PROXY": "socks5h://proxy.example:1080"},
        {"REQUESTS_CA_BUNDLE": ""},
    ],
    ids=str,
)
def test_takes_what_can_be_used(monkeypatch, environ):
    """Also a proxy that is not on the way."""
    check(monkeypatch, **environ)


@pytest.mark.skipif(find_spec("socks") is not None, reason="PySocks is installed")
@pytest.mark.parametrize("scheme", ["socks5h", "socks5", "socks4", "SOCKS4A"])
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_says_what_a_socks_proxy_needs(monkeypatch, variable, scheme):
    """By the name of the variable; the password stays out of the sentence."""
    (problem,) = problems(monkeypatch, **{variable: f"{scheme}://me:hunter2@proxy.example:1080"})

    assert problem.startswith(f"{variable} names a SOCKS proxy")
    assert "pip install 'requests[socks]'" in problem
    assert "hunter2" not in problem


@pytest.mark.parametrize(
    "proxy",
    ["ftp://proxy.example", "http://", "http://proxy.example:99999", "http://proxy.example:port", "http://[::1"],
)
def test_refuses_proxies_that_are_none(monkeypatch, proxy):
    """Instead of failing at each request."""
    (problem,) = problems(monkeypatch, HTTPS_PROXY=proxy)

    assert problem.startswith("HTTPS_PROXY must be")


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_names_the_file_of_certificates_that_is_missing(monkeypatch, tmp_path, variable):
    """With its whole path, also if the variable has a part of it only."""
    monkeypatch.chdir(tmp_path)
    (problem,) = problems(monkeypatch, **{variable: "ca.pem"})

    assert f"{variable} names {tmp_path / 'ca.pem'}, which does not exist" in problem


def test_refuses_certificates_that_are_none(monkeypatch, tmp_path):
    """A file without any, and a folder that OpenSSL finds nothing in."""
    file, folder = tmp_path / "ca.pem", tmp_path / "certs"
    file.write_text("none")
    folder.mkdir()

    assert "no certificates" in problems(monkeypatch, REQUESTS_CA_BUNDLE=str(file))[0]
    assert f"openssl rehash {folder}" in problems(monkeypatch, REQUESTS_CA_BUNDLE=str(folder))[0]


def test_reports_both_at_once(monkeypatch):
    """A proxy and certificates that cannot be used."""
    found = problems(monkeypatch, HTTPS_PROXY="ftp://h", REQUESTS_CA_BUNDLE="/no/ca.pem")

    assert ["HTTPS_PROXY", "REQUESTS_CA_BUNDLE"] == [problem.split()[0] for problem in found]


def test_takes_a_file_of_certificates(monkeypatch, tmp_path):
    """As in requests."""
    check(monkeypatch, REQUESTS_CA_BUNDLE=str(make_certificate(tmp_path)))
