"""For any WSGI host: ``app``, configured from the environment."""

from llmgateway import create_app

app = create_app()
