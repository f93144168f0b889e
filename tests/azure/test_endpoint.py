"""The URLs that operators set, and the URLs of requests that are built from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgateway.azure.endpoint import Endpoint, is_deployment_name

V1 = "https://n.openai.azure.com/openai/v1/chat/completions"
CLASSIC = "https://n.openai.azure.com/openai/deployments/gpt/chat/completions?api-version=2024-10-21"


@pytest.mark.parametrize(
    ("pasted", "api_version", "url"),
    [
        ("https://n.openai.azure.com", None, V1),
        ("https://n.openai.azure.com/", None, V1),
        ("https://n.openai.azure.com/openai", None, V1),
        ("https://n.openai.azure.com/openai/", None, V1),
        ("https://n.openai.azure.com/openai/v1", None, V1),
        ("https://n.openai.azure.com/openai/v1/", None, V1),
        ("https://n.openai.azure.com/openai/v1/chat/completions", None, V1),
        ("https://n.openai.azure.com/openai/v1/chat/completions/", None, V1),
        ("  https://n.openai.azure.com/openai/v1\n", None, V1),
        ("HTTPS://n.openai.azure.com/openai/v1", None, V1),
        ("https://n.openai.azure.com/openai/v1#overview", None, V1),
        ("https://n.openai.azure.com/openai/v1?api-version=preview", None, V1 + "?api-version=preview"),
        ("https://n.openai.azure.com/openai/v1", "preview", V1 + "?api-version=preview"),
        ("https://n.services.ai.azure.com", None, V1.replace("n.openai.", "n.services.ai.")),
        ("https://n.cognitiveservices.azure.com/", None, V1.replace("n.openai.", "n.cognitiveservices.")),
        ("https://n.openai.azure.com:8443", None, V1.replace(".com/", ".com:8443/")),
        ("https://n.openai.azure.com/openai/responses?api-version=2025-04-01-preview", None, V1),
        ("https://n.openai.azure.com/openai/v1/responses", None, V1),
        ("https://n.openai.azure.com/openai/v1/models/", None, V1),
        ("https://n.openai.azure.com/openai/models?api-version=2024-10-21", None, V1),
        ("https://n.openai.azure.com/openai/v1/embeddings", None, V1),
        ("https://n.openai.azure.com?api-version=2024-10-21", None, V1),
        ("https://n.openai.azure.com/openai/deployments/gpt/completions?api-version=2024-10-21", None, CLASSIC),
        (
            "https://n.openai.azure.com/openai/deployments/models?api-version=2024-10-21",
            None,
            CLASSIC.replace("/gpt/", "/models/"),
        ),
        (
            "https://n.services.ai.azure.com/models?api-version=2024-05-01-preview",
            None,
            "https://n.services.ai.azure.com/models/chat/completions?api-version=2024-05-01-preview",
        ),
        (
            "https://n.eastus2.models.ai.azure.com/v1",
            None,
            "https://n.eastus2.models.ai.azure.com/v1/chat/completions",
        ),
        ("https://n.eu.inference.ml.azure.com/v1", None, "https://n.eu.inference.ml.azure.com/v1/chat/completions"),
        ("https://n.openai.azure.com/openai/deployments/gpt", "2024-10-21", CLASSIC),
        ("https://n.openai.azure.com/openai/deployments/gpt/", "2024-10-21", CLASSIC),
        ("https://n.openai.azure.com/openai/deployments/gpt/chat/completions", "2024-10-21", CLASSIC),
        ("https://n.openai.azure.com/openai/deployments/gpt?api-version=2024-10-21", None, CLASSIC),
        (CLASSIC, None, CLASSIC),
        (CLASSIC, "2023-05-15", CLASSIC),
        (
            "https://g.azure-api.net/ai/deployments/gpt",
            None,
            "https://g.azure-api.net/ai/deployments/gpt/chat/completions",
        ),
        ("https://g.azure-api.net/ai/v1/", None, "https://g.azure-api.net/ai/v1/chat/completions"),
        ("https://g.azure-api.net", None, "https://g.azure-api.net/chat/completions"),
        ("http://127.0.0.1:8081/openai/v1", None, "http://127.0.0.1:8081/openai/v1/chat/completions"),
        ("http://[::1]:8081/openai/v1", None, "http://[::1]:8081/openai/v1/chat/completions"),
    ],
)
def test_parses_urls_that_operators_set(pasted, api_version, url):
    """Any part of the URL may be set, with or without its query; the result is the same."""
    assert url == Endpoint.parse(pasted, api_version).url("gpt")


@pytest.mark.parametrize("pasted", ["https://n.openai.azure.com", "https://n.services.ai.azure.com/openai/v1/"])
def test_a_dated_version_stays_out_of_v1(pasted):
    """LLM_API_VERSION is for URLs that name a deployment; the v1 form answers 404 to a date."""
    assert "api-version" not in Endpoint.parse(pasted, "2024-10-21").url("gpt")


@pytest.mark.parametrize(
    ("pasted", "deployment", "in_path"),
    [
        ("https://n.openai.azure.com", None, False),
        (
            "https://n.openai.azure.com/openai/deployments/gpt-4o_mini.v2?api-version=2024-10-21",
            "gpt-4o_mini.v2",
            False,
        ),
        ("https://n.openai.azure.com/openai/deployments/{model}?api-version=2024-10-21", None, True),
        ("https://n.openai.azure.com/openai/deployments/eu-{model}?api-version=2024-10-21", None, True),
        ("https://g.azure-api.net/{model}/v1", None, True),
    ],
)
def test_knows_whether_the_path_names_a_deployment(pasted, deployment, in_path):
    """A fixed name is the deployment of all requests; a placeholder is replaced for each request."""
    endpoint = Endpoint.parse(pasted)

    assert (deployment, in_path) == (endpoint.deployment, endpoint.names_model_in_path)


def test_puts_the_model_into_the_path():
    """The placeholder is replaced by the model of the request."""
    endpoint = Endpoint.parse("https://n.openai.azure.com/openai/deployments/{model}", "2024-10-21")

    assert CLASSIC == endpoint.url("gpt")


@pytest.mark.parametrize(
    ("pasted", "remedy"),
    [
        ("", "must be a URL such as https://"),
        ("n.openai.azure.com/openai/v1", "must be a URL such as https://"),
        ("ftp://n.openai.azure.com", "must be a URL such as https://"),
        ("https://", "must be a URL such as https://"),
        ("https:///openai/v1", "must be a URL such as https://"),
        ("https://{your-resource}.openai.azure.com/openai/v1", "must be a URL such as https://"),
        ("https://<name>.openai.azure.com", "must be a URL such as https://"),
        ("https://https://n.openai.azure.com", "must be a URL such as https://"),
        ("https://n.services.ai.azure.com/models", "write https://n.services.ai.azure.com/openai/v1,"),
        ("https://[n.openai.azure.com", "must be a URL such as https://"),
        ("https://n.openai.azure.com:port", "must be a URL such as https://"),
        ("https://n.openai.azure.com:99999", "must be a URL such as https://"),
        ("https://n.openai.azure.com:0", "must be a URL such as https://"),
        ("https://n.openai.azure.com/openai/v1\r\nX: y", "in one line and without blanks"),
        ("https://n.openai.azure.com/openai v1", "in one line and without blanks"),
        ("https://n.openai.azure.com/openai\x00/v1", "in one line and without blanks"),
        ("https://n.openai.\tazure.com", "in one line and without blanks"),
        ("https://me:hunter2@n.openai.azure.com", "set the key with LLM_API_KEY"),
        ("https://hunter2@n.openai.azure.com", "set the key with LLM_API_KEY"),
        ("https://n.openai.azure.com/openai/deployments/gpt", "set LLM_API_VERSION"),
        ("https://n.openai.azure.com/openai/deployments/{model}", "set LLM_API_VERSION"),
        ("https://n.openai.azure.com/openai/deployments/..?api-version=2024-10-21", "no usable deployment name"),
        ("https://n.openai.azure.com/openai/deployments/a%2fb?api-version=2024-10-21", "no usable deployment name"),
        ("https://n.openai.azure.com/openai/deployments/{name}?api-version=2024-10-21", "no usable deployment name"),
        ("https://n.services.ai.azure.com/api/projects/p", "write https://n.services.ai.azure.com/openai/v1,"),
        (
            "https://N.Services.AI.azure.com/api/projects/p/openai/v1?x=1",
            "write https://N.Services.AI.azure.com/openai/",
        ),
        ("https://n.services.ai.azure.com/API/projects", "a Foundry project"),
        (
            "https://ai.azure.com/foundryProject/overview?wsid=/subscriptions/1",
            "https://NAME.openai.azure.com/openai/v1",
        ),
        ("https://oai.azure.com/portal/n/chat", "is the address of a page"),
        ("https://portal.azure.com/#@tenant/resource/x", "is the address of a page"),
        ("https://ms.portal.azure.com", "is the address of a page"),
    ],
)
def test_refuses_with_a_remedy(pasted, remedy):
    """An unusable URL is refused with advice; the message does not contain a password."""
    with pytest.raises(ValueError, match=remedy) as refused:
        Endpoint.parse(pasted)

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("name", ["gpt-4o", "gpt-4o_mini.2024-07-18", "A", ".hidden", "a" * 128])
def test_takes_deployment_names(name):
    """Letters, digits, '-', '_' and '.' are allowed."""
    assert is_deployment_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "...",
        "a/b",
        "../x",
        "a%2Fb",
        "a?b",
        "a#b",
        "a b",
        "a\n",
        "a;b",
        "a\\b",
        "ä",
        "{model}",
        "a" * 129,
    ],
)
def test_refuses_names_that_would_change_the_path(name):
    """Characters with a meaning in URLs are refused."""
    assert not is_deployment_name(name)


@given(st.text(max_size=20))
def test_no_name_changes_the_rest_of_the_url(name):
    """A valid name is a part of the URL unchanged, and the rest of the URL does not change."""
    if is_deployment_name(name):
        endpoint = Endpoint.parse("https://g.azure-api.net/deployments/{model}")

        assert f"https://g.azure-api.net/deployments/{name}/chat/completions" == endpoint.url(name)
        assert name.strip(".")
