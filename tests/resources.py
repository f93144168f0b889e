"""Stand-ins for resources at Azure that the simulator does not play."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@contextmanager
def listing_resource(models: Mapping[str, str], *, key: str) -> Iterator[str]:
    """A resource that lists its deployments, with the model of each; yields its address.

    The body is that of openai-python#447 with the status that Azure's list had. A name that begins with "new" is being
    created.
    """
    items = [
        {
            "id": name,
            "model": model,
            "object": "deployment",
            "owner": "organization-owner",
            "scale_settings": {"scale_type": "standard"},
            "status": "notRunning" if name.startswith("new") else "succeeded",
        }
        for name, model in models.items()
    ]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/openai/deployments?api-version=2023-03-15-preview"
            status = 401 if self.headers["api-key"] != key else 200 if found else 404
            error = {"error": {"code": str(status), "message": "Resource not found"}}
            body = json.dumps({"data": items, "object": "list"} if status == 200 else error).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
