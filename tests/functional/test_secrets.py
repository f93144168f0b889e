"""Canaries: keys that are sent down every path, and must turn up nowhere but where they were handed out."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pymongo
import pytest
import redis

from llmgateway.simulator import FILTERED_PHRASE, Script, Simulator
from tests.folders import contents_below
from tests.functional.conftest import AZURE_KEY
from tests.gateway_process import GatewayProcess, dump
from tests.servers import PASSWORD, free_port

# Nothing about them tells a filter that they are keys.
USER_KEY = "canary0user0Vq3mZs81"
UNKNOWN_KEY = "canary0unknown0Lw7Tx2"
ADMIN_KEY = "canary0admin0Hc5Ry64"
AZURE_CANARY = "canary0azure0Jb9Np30"
ENVIRONMENT_AZURE_KEY = "canary0environment0Gf2"
IMPORTED_KEY = "canary0import0Kd8Wq2s"
CANARIES = (USER_KEY, UNKNOWN_KEY, IMPORTED_KEY, ADMIN_KEY, AZURE_CANARY, ENVIRONMENT_AZURE_KEY)
HELLO = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
CHAT = "/v1/chat/completions"


@pytest.fixture
def azure_key_afterwards(gateway):
    yield
    gateway.admin("POST", "/admin/setllmkey", json={"key": AZURE_KEY})


@pytest.fixture
def own_azure():
    with Simulator(key=AZURE_CANARY) as azure:
        yield azure


class Recorder:
    """Remembers every answer."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.answers = []

    def ask(self, method, path, **arguments):
        answer = self.gateway.request(method, path, **arguments)
        where = f"{method} {path} {arguments}"
        self.answers.append((where, repr(answer.headers).encode() + answer.body, answer.status))
        return answer

    def admin(self, method, path, **arguments):
        return self.ask(method, path, headers={"AdminKey": ADMIN_KEY}, **arguments)

    def roster(self, file):
        headers = {"AdminKey": ADMIN_KEY, "Content-Type": "text/csv"}
        return self.ask("POST", "/admin/keys/import?existing=add", body=file.encode(), headers=headers)

    def raw(self, sent):
        received = b""
        with socket.create_connection(("127.0.0.1", self.gateway.port), 5) as connection:
            # What is too long is answered and cut off before its end.
            with suppress(ConnectionError):
                connection.sendall(sent)
            with suppress(ConnectionError):
                while piece := connection.recv(65536):
                    received += piece
        assert received
        self.answers.append((repr(sent), received, 0))


def go_every_good_way(recorder):
    assert 200 == recorder.admin("POST", "/admin/setllmkey", json={"key": AZURE_CANARY}).status
    created = recorder.admin("POST", "/admin/addapikey", json={"user": "marker", "key": USER_KEY})
    assert 201 == created.status
    recorder.answers.pop()  # the one place where the key belongs
    for stream in (False, True):
        assert 200 == recorder.ask("POST", CHAT, key=USER_KEY, json=HELLO | {"stream": stream}).status
    recorder.ask("POST", CHAT, json=HELLO, headers={"api-key": USER_KEY})
    assert 201 == recorder.roster(f"user,key\nmarker,{IMPORTED_KEY}\n").status
    recorder.answers.pop()  # and the other one
    assert 200 == recorder.ask("POST", CHAT, key=IMPORTED_KEY, json=HELLO).status
    for path in ("/v1/me", "/v1/models", "/v1/models/gpt-4o"):
        recorder.ask("GET", path, key=USER_KEY)
    identifier = created.json()["id"]
    for path in (
        "listkeys",
        "keys",
        f"keys/{identifier}",
        "usage?by=key,user",
        "prompt",
        "prompt/versions",
        "audit",
        "groups",
    ):
        assert 200 == recorder.admin("GET", f"/admin/{path}").status
    recorder.admin("PATCH", f"/admin/keys/{identifier}", json={"note": "changed"})
    recorder.admin("POST", "/admin/addapikey", json={"user": "marker", "key": USER_KEY})
    for path in ("/livez", "/readyz", "/docs", "/openapi.json", "/metrics", "/admin/status", "/dashboard"):
        recorder.ask("GET", path, headers={"AdminKey": ADMIN_KEY})


def go_every_wrong_way_as_a_user(recorder):
    for key in (UNKNOWN_KEY, f"{USER_KEY} ", f"{USER_KEY} {UNKNOWN_KEY}", f'"{USER_KEY}"', f"{USER_KEY}é", ADMIN_KEY):
        for header in ({"Authorization": f"Bearer {key}"}, {"Authorization": key}, {"api-key": key}):
            encoded = {name: value.encode("latin-1") for name, value in header.items()}
            recorder.ask("POST", CHAT, json=HELLO, headers=encoded)
            recorder.ask("GET", "/v1/me", headers=encoded)
    recorder.ask("POST", CHAT, json=HELLO, headers={"Authorization": f"Basic {USER_KEY}"})
    recorder.ask("POST", CHAT, json=HELLO, headers={"AdminKey": USER_KEY, "Cookie": f"key={USER_KEY}"})
    for place in (f"/{USER_KEY}", f"/v1/{USER_KEY}", f"/v1/models/{USER_KEY}", f"{CHAT}/{USER_KEY}", f"//{USER_KEY}"):
        recorder.ask("GET", place, key=USER_KEY)
        recorder.ask("POST", f"{place}?key={USER_KEY}", key=USER_KEY, json=HELLO)
    recorder.ask("GET", f"{CHAT}?api_key={USER_KEY}")
    recorder.ask("POST", f"{CHAT}?api-key={USER_KEY}", json=HELLO)
    for body in (
        b"",
        USER_KEY.encode(),
        dump(USER_KEY),
        b'{"key": "' + USER_KEY.encode(),
        dump({"api_key": USER_KEY}),
        dump(HELLO | {"messages": USER_KEY}),
        dump(HELLO | {"messages": [USER_KEY]}),
        dump(HELLO | {"stream": USER_KEY}),
        dump(HELLO | {"stream": True, "stream_options": USER_KEY}),
        dump(HELLO | {"model": [USER_KEY]}),
        b"x" * 200_000,
    ):
        recorder.ask("POST", CHAT, key=USER_KEY, body=body)
    recorder.ask("POST", CHAT, key=USER_KEY, body=b"{}", headers={"Content-Type": f"text/{USER_KEY}"})
    recorder.ask("POST", CHAT, key=USER_KEY, body=b"{}", headers={"Content-Encoding": USER_KEY})


def go_every_wrong_way_as_an_admin(recorder):
    for body in (
        {"user": 7, "key": USER_KEY},
        {"key": [USER_KEY]},
        {"user": "marker", "key": f"{USER_KEY} with space"},
        {"user": "marker", "key": [USER_KEY]},
        {"user": [USER_KEY]},
        {"user": f"{USER_KEY}\n"},
        {"user": "marker", "email": USER_KEY},
        {"user": "marker", "active": USER_KEY, "starts_at": USER_KEY, "models": USER_KEY, "limits": USER_KEY},
        {"user": "marker", "apikey": USER_KEY},
        USER_KEY,
        [USER_KEY],
    ):
        for path in ("/admin/keys", "/admin/addapikey", "/admin/removeapikey", "/admin/setprompt"):
            assert 400 <= recorder.admin("POST", path, json=body).status < 500
    for file in (
        f"{USER_KEY},x\n",
        f"user,{USER_KEY}\nmarker,x\n",
        f"user,{USER_KEY},{USER_KEY}\nmarker,x,y\n",
        f"user,key\nmarker,{USER_KEY}\n",
        f"user,key\nmarker,{UNKNOWN_KEY}\nmarker,{UNKNOWN_KEY}\n",
        f"user,key\nmarker,{UNKNOWN_KEY} x\n",
        f"user,key\nmarker,={UNKNOWN_KEY}\n",
        f"user,email,group,budget_unit,active\nmarker,{USER_KEY},{USER_KEY},{USER_KEY},{USER_KEY}\n",
        f'user,key\nmarker,"{UNKNOWN_KEY}\n',
        f"user\nmarker,{UNKNOWN_KEY}\n",
    ):
        assert 422 == recorder.roster(file).status
    for body in ({"note": USER_KEY * 200}, {"models": USER_KEY}, {"limits": {"budget": USER_KEY}}):
        assert 422 == recorder.admin("PUT", f"/admin/groups/{USER_KEY}", json=body).status
    for path in ("keys/x/rotate", "limits", "prompt/preview", f"prompt?key={USER_KEY}", f"groups/{USER_KEY}/revoke"):
        for method in ("GET", "POST", "PUT", "DELETE"):
            recorder.admin(method, f"/admin/{path}", json={"key": USER_KEY, "messages": []})
    recorder.admin("GET", f"/admin/audit?target={USER_KEY}&cursor={USER_KEY}&limit={USER_KEY}")
    for body in (AZURE_CANARY, [AZURE_CANARY], {"kye": AZURE_CANARY}, {"key": [AZURE_CANARY]}):
        recorder.admin("POST", "/admin/setllmkey", json=body)
    for key in (f"{AZURE_CANARY} ", f"{AZURE_CANARY}\n", f"{AZURE_CANARY}é"):
        recorder.admin("POST", "/admin/setllmkey", json={"key": key})
    recorder.admin("POST", "/admin/setllmkey", body=b'{"key": "' + AZURE_CANARY.encode() + b'"')
    recorder.admin("POST", "/admin/removeapikey", json={"id": USER_KEY})
    recorder.admin("POST", "/admin/removeapikey", json={"key": UNKNOWN_KEY})
    recorder.admin("POST", "/admin/removeapikey", json={"key": USER_KEY, "id": USER_KEY})
    for method in ("GET", "PATCH", "DELETE", "POST"):
        recorder.admin(method, f"/admin/keys/{USER_KEY}", json={} if method == "PATCH" else {"key": USER_KEY})
        recorder.admin(method, f"/admin/{USER_KEY}")
    for field in ("cursor", "user", "group", "active", "limit"):
        recorder.admin("GET", f"/admin/keys?{field}={USER_KEY}")
    for field in ("by", "start", "end", "format"):
        recorder.admin("GET", f"/admin/usage?{field}={USER_KEY}")
    for wrong in (UNKNOWN_KEY, f"{ADMIN_KEY}0", USER_KEY):
        recorder.ask("GET", "/admin/keys", headers={"AdminKey": wrong})
    recorder.ask("GET", f"/admin/keys?AdminKey={ADMIN_KEY}")
    recorder.ask("GET", "/admin/keys", key=ADMIN_KEY)


def send_what_is_no_http(recorder):
    key = USER_KEY.encode()
    recorder.raw(b"GET /livez HTTP/1.1\r\nAuthorization Bearer %b\r\n\r\n" % key)
    recorder.raw(b"GET /livez HTTP/1.1\r\nConnection: close\r\nX: x\r\n Authorization: Bearer %b\r\n\r\n" % key)
    recorder.raw(b"%b /livez HTTP/9.9\r\nConnection: close\r\n\r\n" % key)
    recorder.raw(b"GET http://[%b/ HTTP/1.1\r\nHost: x\r\n\r\n" % key)
    recorder.raw(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %b\r\n\r\n" % (CHAT.encode(), key))
    recorder.raw(b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: %b\r\n\r\n" % (CHAT.encode(), key))
    recorder.raw(b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%b\r\n" % (CHAT.encode(), key))
    recorder.raw(b"GET /livez HTTP/1.1\r\nHost: x\r\nX: %b\r\n\r\n" % (key * 20_000))


def meet_every_trouble_of_azures(recorder, azure):
    scripts = [
        *(Script(fault=fault) for fault in ("unauthorized", "blocked", "server_error", "token_rate_limit")),
        Script(refuse=True),
        Script(refuse=True, reset=True),
        Script(cut_after_bytes=60),
        Script(cut_after_events=3),
        Script(error_event_after=3),
        Script(delay=5),
        Script(stall_after_events=2),
    ]
    for script in scripts:
        for stream in (False, True):
            azure.reset()
            azure.script(script)
            recorder.ask("POST", CHAT, key=USER_KEY, json=HELLO | {"stream": stream})
    azure.reset()
    filtered = [{"role": "user", "content": f"Please {FILTERED_PHRASE}."}]
    recorder.ask("POST", CHAT, key=USER_KEY, json=HELLO | {"messages": filtered})
    recorder.ask("POST", CHAT, key=USER_KEY, json=HELLO | {"model": "none-of-this-name"})
    azure.stop()
    assert 502 == recorder.ask("POST", CHAT, key=USER_KEY, json=HELLO).status
    assert 200 == recorder.ask("GET", "/readyz").status


_READ_OF_A_TYPE = {
    b"none": lambda client, name: None,  # it expired meanwhile
    b"string": lambda client, name: client.get(name),
    b"hash": lambda client, name: client.hgetall(name),
    b"zset": lambda client, name: client.zrange(name, 0, -1),
    b"set": lambda client, name: client.smembers(name),
    b"list": lambda client, name: client.lrange(name, 0, -1),
}


def everything_stored(stores, gateway):
    """What the instance folder, Redis and MongoDB have, by where it is."""
    for path, content in contents_below(gateway.instance):
        yield str(path), content
    if stores.redis is not None:
        yield "redis' file", b"".join(path.read_bytes() for path in Path(stores.redis.folder).rglob("*.aof"))
        with redis.Redis.from_url(stores.redis.url) as client:
            for name in client.scan_iter():
                read = _READ_OF_A_TYPE[client.type(name)]
                yield f"redis {name!r}", name + repr(read(client, name)).encode()
    if stores.mongo is not None:
        with pymongo.MongoClient(stores.mongo.url) as client:
            for collection in client.gateway.list_collection_names():
                yield f"mongodb {collection}", repr([*client.gateway[collection].find()]).encode()


@pytest.mark.usefixtures("azure_key_afterwards")
def test_keeps_every_key_to_itself(start_gateway, stores, own_azure):
    """At the most talkative log level, on good ways and bad: in no answer, no log, no file, no store."""
    gateway = start_gateway(
        ADMIN_KEY=ADMIN_KEY,
        LLM_BASE_URL=f"{own_azure.url}/openai/v1",
        LLM_API_KEY=ENVIRONMENT_AZURE_KEY,
        LLMGATEWAY_LOG_LEVEL="DEBUG",
        LLMGATEWAY_MAX_BODY_BYTES="100000",
        LLMGATEWAY_FIRST_BYTE_TIMEOUT="0.3",
        LLMGATEWAY_BETWEEN_BYTES_TIMEOUT="0.3",
    )
    recorder = Recorder(gateway)

    go_every_good_way(recorder)
    go_every_wrong_way_as_a_user(recorder)
    go_every_wrong_way_as_an_admin(recorder)
    send_what_is_no_http(recorder)
    meet_every_trouble_of_azures(recorder, own_azure)
    recorder.admin("POST", "/admin/removeapikey", json={"key": USER_KEY})
    gateway.stop()

    stored = [*everything_stored(stores, gateway)]
    assert any(b"marker" in content for _, content in stored), "the search finds nothing at all"
    assert "Traceback" not in gateway.output
    assert [] == [where for where, text, _ in recorder.answers if b"internal_error" in text]
    searched = [*stored, ("output", gateway.output.encode()), *((where, text) for where, text, _ in recorder.answers)]
    leaks = [(canary, where) for canary in CANARIES for where, text in searched if canary.encode() in text]
    assert [] == leaks
    passwords = (PASSWORD.encode(), quote(PASSWORD, safe="").encode())
    assert [] == [where for where, text in searched if any(password in text for password in passwords)]


def test_keeps_keys_to_itself_while_its_stores_fail(tmp_path):
    """Drivers' errors name hosts and passwords; none of it gets out, not even into the log."""
    for url in ("MONGO_URL", "REDIS_URL"):
        scheme = "mongodb" if url == "MONGO_URL" else "redis"
        environ = {
            "LLM_BASE_URL": f"http://127.0.0.1:{free_port()}/openai/v1",
            "LLM_API_KEY": ENVIRONMENT_AZURE_KEY,
            "ADMIN_KEY": ADMIN_KEY,
            url: f"{scheme}://gateway:canary-password@127.0.0.1:{free_port()}/",
            "LLMGATEWAY_STORE_TIMEOUT": "0.1",
            "LLMGATEWAY_LOG_LEVEL": "DEBUG",
        }
        with GatewayProcess(environ, folder=tmp_path / scheme) as gateway:
            recorder = Recorder(gateway)
            recorder.ask("POST", CHAT, key=UNKNOWN_KEY, json=HELLO)
            recorder.admin("POST", "/admin/keys", json={"user": "marker", "key": UNKNOWN_KEY})
            recorder.admin("POST", "/admin/setllmkey", json={"key": AZURE_CANARY})
            recorder.ask("GET", "/readyz")
            gateway.stop()
        told = [text for _, text, status in recorder.answers if status != 201] + [gateway.output.encode()]
        for secret in (*CANARIES, "canary-password"):
            assert not [text for text in told if secret.encode() in text], secret
