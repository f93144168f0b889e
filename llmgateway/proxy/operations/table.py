"""The table of operations: every kind of request that the gateway relays to Azure."""

from __future__ import annotations

from collections.abc import Mapping

from .audio import SPEECH, TRANSCRIPTIONS, TRANSLATIONS
from .chat import CHAT_COMPLETIONS
from .completions import COMPLETIONS
from .embeddings import EMBEDDINGS
from .images import IMAGE_EDITS, IMAGE_GENERATIONS
from .operation import Operation
from .responses import RESPONSES

_ALL = (
    CHAT_COMPLETIONS,
    RESPONSES,
    COMPLETIONS,
    EMBEDDINGS,
    IMAGE_GENERATIONS,
    IMAGE_EDITS,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    SPEECH,
)

OPERATIONS: Mapping[str, Operation] = {operation.name: operation for operation in _ALL}
"""By name."""
