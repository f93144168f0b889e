"""A gateway that lends one Azure OpenAI subscription to many people."""

from __future__ import annotations

__version__ = "0.1.0"
