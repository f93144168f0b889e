"""``python bare.py PORT``: one Flask view on waitress as both come, which answers a completion without asking anybody.

The floor for a synchronous gateway in Flask: request context, routing, a response, and waitress' threads.
"""

from __future__ import annotations

import json
import sys

from flask import Flask, Response
from waitress import serve

ANSWER = json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}}]})

app = Flask(__name__)


@app.post("/v1/chat/completions")
def answer() -> Response:
    return Response(ANSWER, mimetype="application/json")


if __name__ == "__main__":
    serve(app, host="127.0.0.1", port=int(sys.argv[1]), threads=128)
