"""The habits of models of other makers in Foundry, and of the model router.

Sources: Grok was recorded in charmbracelet/fantasy (2025-10), DeepSeek in vercel/ai (2026-02), the refusals of Mistral
(litellm#11696) and Phi were pasted; the router is described on Microsoft's page (2026-08).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from .deployments import Deployment
from .faults import Fault
from .operations import Refused
from .scripts import ORDINARY, Script

_HABITS: Mapping[str, Mapping[str, Any]] = {
    "openai": {},
    # Its reasoning is shown, and is no part of the tokens of the completion.
    "grok": {"usage": "grok", "visible_reasoning": True, "reasoning_tokens": 64},
    "deepseek": {"usage": "deepseek", "visible_reasoning": True, "reasoning_tokens": 64, "filter": "absent"},
    "mistral": {"usage": "bare", "usage_in": "finish", "filter": "absent"},
    "phi": {"usage": "bare", "usage_in": "finish", "filter": "absent"},
    "router": {},
}
_MODELS: Mapping[str, Mapping[str, str]] = {"grok": {"grok-3-mini": "grok-3-mini-high"}}
_ROUTED = ("gpt-4.1-nano-2025-04-14", "gpt-4.1-2025-04-14")
"""What the router picks for short and for long questions."""
_LONG = 200
_STRICT = ("stream_options", "logit_bias", "user", "parallel_tool_calls", "store", "metadata", "service_tier")
"""Parameters of OpenAI that strict partners refuse."""


def adapt(script: Script, deployment: Deployment, *, characters: int) -> Script:
    """Return *script* with the habits of the deployment's maker where it says nothing else.

    Args:
        characters: Length of the prompt, by which the router chooses.
    """
    if deployment.maker == "openai":
        return script
    habits = dict(_HABITS[deployment.maker])
    if deployment.maker == "router":
        habits["model"] = _ROUTED[characters > _LONG]
    if model := _MODELS.get(deployment.maker, {}).get(deployment.model_version):
        habits["model"] = model
    silent = {name: value for name, value in habits.items() if getattr(script, name) == getattr(ORDINARY, name)}
    return replace(script, **silent) if silent else script


def check(document: Mapping[str, Any], deployment: Deployment) -> None:
    """Refuse what a strict partner refuses.

    Raises:
        Refused: with the maker's own error.
    """
    if deployment.maker not in ("mistral", "phi"):
        return
    for name in _STRICT:
        if document.get(name) is not None:
            raise Refused(_mistral(name) if deployment.maker == "mistral" else _phi(name, document[name]))


def _mistral(name: str) -> Fault:
    place = ["body", "stream_options", "include_usage"] if name == "stream_options" else ["body", name]
    detail = {"type": "extra_forbidden", "loc": place, "msg": "Extra inputs are not permitted", "input": True}
    message = orjson.dumps({"detail": [detail]}).decode()
    return Fault(422, orjson.dumps({"error": {"code": "Invalid input", "message": message, "status": 422}}))


def _phi(name: str, value: Any) -> Fault:
    """The text is a list as Python writes it."""
    detail = {"type": "extra_forbidden", "loc": ("body", name), "msg": "Extra inputs are not permitted", "input": value}
    body = {"object": "error", "message": repr([detail]), "type": "BadRequestError", "param": None, "code": 400}
    return Fault(400, orjson.dumps(body))
