"""A gateway full of hostile names, everybody who can sign in to it, and everything that can be asked of the pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule

from llmgateway.records import Account, Role
from llmgateway.web.context import EXTENSION
from llmgateway.web.dashboard.sessions import Kind
from tests.web.conftest import ADMIN_KEY
from tests.web.dashboard.conftest import SAME_SITE

NAMES = (
    "<script>alert(1)</script>",
    "\"onmouseover='alert(1)' x=\"",
    "</title></svg><img src=x onerror=alert(1)>",
    "{{7*7}}{% raw %}",
    "\u05d0\u05d1 \U0001f469\U0001f52c",
    "=HYPERLINK(1)",
)
OTHERS_GROUP, OWN_GROUP = "group of others", "group of hers"
OTHERS_USER = "person of others"

ID = "<[^>]+>"


@dataclass
class Scene:
    """What there is, and who is signed in."""

    app: Flask
    ids: dict[str, str] = field(default_factory=dict)
    """Of an object of each kind that a path can name."""
    secrets: set[str] = field(default_factory=set)
    """What must never be in a page."""
    browsers: dict[str, FlaskClient] = field(default_factory=dict)
    """By role; ``nobody`` has no session."""

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        answer = self.app.test_client().open(
            f"/admin{path}", method=method, headers={"AdminKey": ADMIN_KEY}, **arguments
        )
        assert answer.status_code < 300, (method, path, answer.text)
        return answer.json if answer.is_json and answer.text else answer.text

    def pages(self) -> list[tuple[str, str]]:
        """Return endpoint and address of all that can be read, with objects of others in the paths."""
        return [*self._rules("GET")]

    def forms(self) -> list[tuple[str, str]]:
        """Return endpoint and address of all to which something can be sent."""
        return [*self._rules("POST")]

    def _rules(self, method: str) -> Iterator[tuple[str, str]]:
        rule: Rule
        for rule in self.app.url_map.iter_rules():
            if rule.endpoint.startswith("dashboard.") and method in (rule.methods or ()):
                yield rule.endpoint, re.sub(r"<(?:\w+:)?(\w+)>", lambda part: self.ids[part[1]], rule.rule)


def fill(app: Flask) -> Scene:
    """Return *app* with objects of hostile names, and with somebody of each kind signed in."""
    scene = Scene(app)
    for number, name in enumerate(NAMES):
        path = "/".join(("/groups", name.replace("/", "").replace("%", "%25").replace("#", "%23").replace("?", "%3F")))
        scene.call("PUT", path, json={"note": f"{name}\u202e"})
        made = scene.call("POST", "/keys", json={"user": name.replace("/", ""), "name": name, "note": name})
        scene.ids["key_id"] = made["id"]
        scene.secrets.add(made["key"])
        if number == 0:
            scene.call("PUT", "/prompt", json={"prompt": name})
    for group in (OTHERS_GROUP, OWN_GROUP):
        scene.call("PUT", f"/groups/{group}", json={"note": f"note of {group}", "self_service": {"keys": 2}})
    made = scene.call("POST", "/keys", json={"user": OTHERS_USER, "group": OTHERS_GROUP, "name": "key of others"})
    scene.ids["key_id"] = made["id"]
    scene.secrets.add(made["key"])
    mine = scene.call("POST", "/keys", json={"user": "holder", "group": OWN_GROUP})
    scene.secrets.add(mine["key"])
    _sign_in(scene, "holder", mine["key"])
    _sign_in(scene, "owner", ADMIN_KEY)
    for role in Role:
        if role is not Role.OWNER:
            groups = {"groups": [OWN_GROUP]} if role is Role.GROUP else {}
            made = scene.call("POST", "/admins", json={"name": f"{role} {NAMES[0]}", "role": role, **groups})
            scene.ids["admin_id"] = made["id"]
            scene.secrets.add(made["key"])
            _sign_in(scene, role.value, made["key"])
    _sign_in_person(scene)
    scene.browsers["nobody"] = app.test_client()
    scene.ids |= {"request_id": "req_0", "token": "guessed", "rest": "nowhere/at-all", "name": "dashboard.css"}
    return scene


def _sign_in(scene: Scene, role: str, key: str) -> None:
    scene.browsers[role] = browser = scene.app.test_client()
    assert 303 == browser.post("/dashboard/sign-in", data={"key": key}, headers=SAME_SITE).status_code


def _sign_in_person(scene: Scene) -> None:
    services = scene.app.extensions[EXTENSION]
    rules = [{"claim": "groups", "value": OWN_GROUP, "group": OWN_GROUP}]
    scene.call("PUT", "/sign-in", json={"rules": rules, "admits": "everybody"})
    claims = {"preferred_username": "somebody", "groups": [OWN_GROUP], "email": NAMES[0], "name": NAMES[1]}
    identity = services.identities.sign_in(Account("https://id.example.org", "subject", claims, None))
    scene.ids["identity_id"] = identity.id
    now, browser = int(services.clock()), scene.app.test_client()
    with browser.session_transaction(path="/dashboard/") as session:
        session.update({"kind": Kind.PERSON, "identity": identity.id, "of": identity.id, "begun": now, "seen": now})
        session.update({"id": "session of a person", "marks": services.sessions.mark(identity.id)})
    scene.browsers["person"] = browser
