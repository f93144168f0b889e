"""The lists of models and deployments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .deployments import MODELS, Deployment

_CREATED = 1_700_000_000
_DEPLOYMENTS = "/openai/deployments"
_MODELS = re.compile(r"/openai/(v1/)?models(?:/([^/]+))?")
DEPLOYMENT_VERSIONS = frozenset({"2022-12-01", "2023-03-15-preview"})
"""The API versions that list deployments with a key; the second one is still used (langflow#14509, 2026-08)."""


def is_list(method: str, path: str) -> bool:
    """Whether a request is for one of the lists."""
    return method == "GET" and (path == _DEPLOYMENTS or _MODELS.fullmatch(path) is not None)


def answer(path: str, version: str | None, deployments: Iterable[Deployment], known: frozenset[str]) -> Any:
    """Return a list, or a model of it; ``None`` if there is none of that name, or no such version of the API.

    Lists of models contain all models of the region, not the deployments (``Models - List``, 2024-10-21); on the v1
    API they are taken to be the same, because nobody has recorded them.
    """
    if path == _DEPLOYMENTS:
        return _list(map(_deployment, deployments)) if version in DEPLOYMENT_VERSIONS else None
    asked = _MODELS.fullmatch(path)
    if asked is None or (asked[1] is None and version not in known):
        return None
    models = sorted(set(MODELS) | {deployment.model_version for deployment in deployments})
    if asked[2] is None:
        return _list(map(_model, models))
    return _model(asked[2]) if asked[2] in models else None


def _list(entries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {"data": list(entries), "object": "list"}


def _deployment(deployment: Deployment) -> dict[str, Any]:
    """The form of openai-python#447."""
    return {
        "created_at": _CREATED,
        "id": deployment.name,
        "model": deployment.family,
        "object": "deployment",
        "owner": "organization-owner",
        "scale_settings": {"scale_type": "standard"},
        "status": "succeeded",
        "updated_at": _CREATED,
    }


def _model(model: str) -> dict[str, Any]:
    """The form of Microsoft's reference."""
    abilities = Deployment(model, model=model).abilities
    return {
        "capabilities": {
            "chat_completion": "chat" in abilities,
            "completion": False,
            "embeddings": "embeddings" in abilities,
            "fine_tune": False,
            "inference": True,
        },
        "created_at": _CREATED,
        "deprecation": {"inference": 1_830_000_000},
        "id": model,
        "lifecycle_status": "generally-available",
        "object": "model",
        "status": "succeeded",
        "updated_at": _CREATED,
    }
