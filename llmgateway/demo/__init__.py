"""Three months of made-up traffic, for ``llmgateway try --demo``, screenshots and tests of the dashboard."""

from .filling import Filled, fill

__all__ = ["Filled", "fill"]
