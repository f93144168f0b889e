"""The clients, with the versions that have been tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = Path(__file__).with_name("programs")


@dataclass(frozen=True, kw_only=True)
class Client:
    """A package that people call the gateway with."""

    name: str
    """As one writes it behind ``python -m tests.clients``."""
    program: str
    """In the folder ``programs``; it prints a line of JSON for each call."""
    packages: Mapping[str, str]
    """The packages to install, each with its version; the first is the client."""
    section: str
    """The heading in docs/clients.md that says how to set the client."""
    registry: str = "pip"
    """``pip`` or ``npm``."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Variables that the client reads; ``{url}`` and ``{key}`` are filled in."""
    quick: bool = False
    """Whether the tests install and run it, too."""
    alone: bool = False
    """Whether its packages cannot be installed beside those of the others."""
    with_tests: bool = False
    """Whether the extra ``test`` has installed it already."""

    @property
    def path(self) -> Path:
        return PROGRAMS / self.program


_OF_OPENAI = {"OPENAI_BASE_URL": "{url}/v1", "OPENAI_API_KEY": "{key}"}
"""What OpenAI's own libraries read, and most that are built upon them."""
_OF_AGENTS = {**_OF_OPENAI, "OPENAI_AGENTS_DISABLE_TRACING": "1"}
"""Traces would go to OpenAI's own site, with the key."""

_NODE_22 = {"node": "22.23.3"}
"""What the newest clients in JavaScript ask for; Debian 13 has Node 20."""

CLIENTS = (
    Client(
        name="openai",
        section="OpenAI's own clients",
        program="call_openai.py",
        packages={"openai": "3.57.0"},
        quick=True,
        with_tests=True,
    ),
    Client(
        name="openai-1.12",
        section="OpenAI's own clients",
        program="call_openai_1_12.py",
        # The old client passes an argument to httpx that 0.28 has removed.
        packages={"openai": "1.12.0", "httpx": "0.27.2"},
        alone=True,
        quick=True,
    ),
    Client(
        name="azure-openai",
        section="The classes for Azure",
        program="call_azure_openai.py",
        packages={"openai": "3.57.0"},
        quick=True,
        with_tests=True,
    ),
    Client(
        name="openai-node",
        section="OpenAI's own clients",
        program="call_openai.mjs",
        packages={"openai": "6.49.0"},
        registry="npm",
        quick=True,
    ),
    Client(
        name="openai-node-7",
        section="OpenAI's own clients",
        program="call_openai.mjs",
        packages={"openai": "7.59.0"} | _NODE_22,
        registry="npm",
    ),
    Client(
        name="ai-sdk",
        section="AI SDK",
        program="call_ai_sdk.mjs",
        packages={"ai": "6.0.326", "@ai-sdk/openai": "3.0.141", "@ai-sdk/azure": "3.0.128", "zod": "4.6.7"},
        registry="npm",
        quick=True,
    ),
    Client(
        name="ai-sdk-7",
        section="AI SDK",
        program="call_ai_sdk.mjs",
        packages={"ai": "7.0.173", "@ai-sdk/openai": "4.0.118", "@ai-sdk/azure": "4.0.85", "zod": "4.6.7"} | _NODE_22,
        registry="npm",
    ),
    Client(
        name="openai-agents",
        section="Agents SDK",
        program="call_openai_agents.py",
        packages={"openai-agents": "0.24.0"},
        environ=_OF_AGENTS,
        quick=True,
    ),
    Client(
        name="openai-agents-node",
        section="Agents SDK",
        program="call_openai_agents.mjs",
        packages={"@openai/agents": "0.20.0", "zod": "4.6.7"},
        registry="npm",
        environ=_OF_AGENTS,
        quick=True,
    ),
    Client(
        name="langchain",
        section="LangChain",
        program="call_langchain.py",
        packages={"langchain-openai": "1.7.4"},
        quick=True,
    ),
    Client(
        name="llamaindex",
        section="LlamaIndex",
        program="call_llamaindex.py",
        packages={
            "llama-index-llms-openai": "0.8.3",
            "llama-index-llms-azure-openai": "0.6.1",
            "llama-index-embeddings-openai": "0.6.0",
            "llama-index-embeddings-azure-openai": "0.6.1",
        },
    ),
    Client(
        name="semantic-kernel",
        section="Semantic Kernel",
        program="call_semantic_kernel.py",
        packages={"semantic-kernel": "1.45.0"},
    ),
    Client(
        name="pydantic-ai",
        section="pydantic-ai",
        program="call_pydantic_ai.py",
        packages={"pydantic-ai-slim[openai]": "2.68.0"},
        environ=_OF_OPENAI,
    ),
    Client(name="instructor", section="instructor", program="call_instructor.py", packages={"instructor": "1.17.0"}),
    Client(name="llm", section="llm", program="call_llm.py", packages={"llm": "0.36"}),
    Client(name="chatlas", section="chatlas", program="call_chatlas.py", packages={"chatlas[openai]": "0.23.0"}),
    Client(
        name="codex", section="Codex", program="call_codex.py", packages={"@openai/codex": "0.171.0"}, registry="npm"
    ),
)
BY_NAME = {client.name: client for client in CLIENTS}
