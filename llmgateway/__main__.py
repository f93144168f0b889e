"""``python -m llmgateway`` is the command ``llmgateway``."""

from .cli import main

main()
