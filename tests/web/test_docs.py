"""``/openapi.json`` says what the application does, all of it and nothing else; ``/docs`` shows it to nobody's harm."""

from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import openapi_spec_validator
import pytest
from flask.testing import FlaskClient
from openapi_schema_validator import OAS30Validator
from werkzeug.test import TestResponse

from llmgateway.records import FILTER_GROUPINGS, Account
from llmgateway.simulator.pictures import draw
from llmgateway.simulator.recordings import silent_wav
from llmgateway.usage.report import REPORT_GROUPINGS
from llmgateway.web import examples
from llmgateway.web.context import EXTENSION
from llmgateway.web.docs import API
from llmgateway.web.schemas.groups import INCLUDABLE_OF_GROUPS
from llmgateway.web.schemas.keys import INCLUDABLE
from llmgateway.web.schemas.persons import INCLUDABLE_OF_PERSONS
from tests.reconcile.samples import Charge, table
from tests.resources import listing_resource

from .conftest import ADMIN_KEY, AZURE_KEY

ACCOUNT = Account("https://id.example.org", "subject-1", {"preferred_username": "eve", "groups": ["ml"]}, None)

CHAT = "/v1/chat/completions"
UNDOCUMENTED = {("get", "/"), ("get", "/docs"), ("get", "/docs/assets/{name}"), ("get", "/openapi.json")}
CONVERTED = ("currency", "cost", "months_without_rate")
METHODS = {"get", "post", "put", "patch", "delete"}


MEDIA: dict[str, dict[str, Any]] = {
    "completions": {"json": {"model": "gpt-4o-mini", "prompt": "Once"}},
    "embeddings": {"json": {"model": "text-embedding-3-small", "input": "Hello"}},
    "images/generations": {"json": {"model": "gpt-image-1", "prompt": "a cat", "quality": "low"}},
    "images/edits": {"data": {"model": "gpt-image-1", "prompt": "a hat", "quality": "low"}, "image": draw(8, 8, "cat")},
    "audio/transcriptions": {"data": {"model": "whisper"}, "file": silent_wav(0.1)},
    "audio/translations": {"data": {"model": "whisper"}, "file": silent_wav(0.1)},
    "audio/speech": {"json": {"model": "tts", "input": "Hello", "voice": "alloy"}},
}
"""What to send to the operations that are relayed, besides chat completions."""


@pytest.fixture
def client(make_app) -> FlaskClient:
    """Of a gateway with a model for every operation."""
    models = ("gpt-4o-mini", "gpt-4o", "text-embedding-3-small", "gpt-image-1", "whisper", "tts")
    return make_app(LLMGATEWAY_MODELS=",".join(models)).test_client()


def sent(body: dict[str, Any]) -> dict[str, Any]:
    """The arguments for a call with *body*, which may have files."""
    if "data" not in body:
        return body
    files = {
        name: (io.BytesIO(content), "talk.wav" if name == "file" else "cat.png")
        for name, content in body.items()
        if name != "data"
    }
    return {"data": body["data"] | files, "content_type": "multipart/form-data"}


@pytest.fixture
def document(client) -> dict[str, Any]:
    answer = client.get("/openapi.json")
    assert 200 == answer.status_code
    document: dict[str, Any] = answer.json
    return document


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in METHODS & item.keys():
            yield f"{method} {path}", item[method]


def parameters(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for holder in (item, *(item[method] for method in METHODS & item.keys())):
            for parameter in holder.get("parameters", []):
                yield f"{path} {parameter['name']}", parameter


def resolve(document: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in value:
        return value
    for name in value["$ref"].removeprefix("#/").split("/"):
        document = document[name]
    return document


def shown(holder: dict[str, Any]) -> list[Any]:
    """The examples of a media type, a parameter or a header."""
    alone = [place["example"] for place in (holder, holder["schema"]) if "example" in place]
    return alone + [example["value"] for example in holder.get("examples", {}).values()]


def check(document: dict[str, Any], schema: dict[str, Any], value: Any, *, strict: bool = False) -> None:
    """Fail unless *value* fits *schema*; *strict* allows no field that the schema does not name."""
    components = copy.deepcopy(document["components"])
    if strict:
        for component in components["schemas"].values():
            component["additionalProperties"] = False
    OAS30Validator({**schema, "components": components}).validate(value)


def schemas_in(document: dict[str, Any], schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The named schemas that *schema* is made of."""
    for name in re.findall(r"#/components/schemas/(\w+)", json.dumps(schema)):
        component = document["components"]["schemas"][name]
        yield name, component
        yield from schemas_in(document, component)


def media(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Everything with a schema and perhaps examples, with where it is."""
    for name, operation in operations(document):
        for kind, holder in operation.get("requestBody", {}).get("content", {}).items():
            yield f"{name} body {kind}", holder
        for status, response in operation["responses"].items():
            for kind, holder in resolve(document, response).get("content", {}).items():
                yield f"{name} {status} {kind}", holder
            for header, holder in resolve(document, response).get("headers", {}).items():
                yield f"{name} {status} {header}", holder
    yield from parameters(document)


def test_is_valid(document):
    """The document is OpenAPI 3.0."""
    openapi_spec_validator.validate(document)


def test_documents_every_route(client, document):
    """What can be called is documented, and the other way round; but for the documentation itself."""
    served = {
        (method.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in client.application.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not rule.rule.startswith("/dashboard/")  # pages for people
    }
    documented = {tuple(name.split(" ")) for name, _ in operations(document)}

    assert served - UNDOCUMENTED == documented


def test_every_operation_is_described(document):
    """Each has a tag that is explained, a short summary, a description, and says whose key it needs."""
    tags = {tag["name"] for tag in document["tags"] if tag["description"]}
    security = {"users": [{"userKey": []}], "azure": [{"userKey": []}], "health": []}
    for name, operation in operations(document):
        [tag] = operation["tags"]
        assert tag in tags, name
        assert security.get(tag, [{"adminKey": []}]) == operation["security"], name
        assert 0 < len(operation["summary"]) <= 50, name
        assert not operation["summary"].endswith("."), name
        assert operation["description"], name


def test_every_operation_has_a_name_of_its_own(document):
    """The names become methods of generated clients: a verb and a thing, or a question's answer."""
    names = [operation["operationId"] for _, operation in operations(document)]

    assert len(names) == len(set(names))
    assert [] == [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)+", name)]


def test_both_kinds_of_key_are_explained(document):
    """Bearer for users, the header AdminKey for admins, each with a sentence for the reader."""
    schemes = document["components"]["securitySchemes"]

    assert {"userKey", "adminKey"} == schemes.keys()
    assert ("http", "bearer") == (schemes["userKey"]["type"], schemes["userKey"]["scheme"])
    admin = schemes["adminKey"]
    assert ("apiKey", "header", "AdminKey") == (admin["type"], admin["in"], admin["name"])
    assert all(scheme["description"] for scheme in schemes.values())


def test_every_body_and_answer_has_an_example(document):
    """Request bodies, successes and errors alike."""
    assert [] == [name for name, holder in media(document) if " body " in name and not shown(holder)]
    assert [] == [name for name, holder in media(document) if "/json" in name and not shown(holder)]
    assert shown(document["paths"][CHAT]["post"]["responses"]["200"]["content"]["text/event-stream"])
    assert shown(document["paths"]["/admin/usage"]["get"]["responses"]["200"]["content"]["text/csv"])


def test_every_parameter_is_explained(document):
    """By a sentence, and by an example where the type does not say it all."""
    for name, parameter in parameters(document):
        assert parameter["description"], name
        assert parameter["schema"]["type"] == "boolean" or shown(parameter), name


def test_every_example_fits_its_schema(document):
    """Whoever copies one gets no 422."""
    checked = 0
    for _, holder in media(document):
        for example in shown(holder):
            check(document, holder["schema"], example)
            checked += 1
    for component in document["components"]["schemas"].values():
        for schema in component["properties"].values():
            if "example" in schema:
                check(document, schema, schema["example"])
                checked += 1
    assert checked > 100


def test_answers_are_shown_whole(document):
    """No example of a success lacks a field, or has one that there is not."""
    for name, holder in media(document):
        if re.search(r" 20\d application/json$", name):
            for example in shown(holder):
                check(document, holder["schema"], example, strict=True)


def test_every_field_of_an_answer_is_promised(document):
    """Generated clients need not ask whether one is there; but for what is asked for, as a report's groupings and its
    second currency, and for settings of models, which somebody has set or not."""
    for name, holder in media(document):
        if re.search(r" 20\d application/json$", name):
            for component, schema in schemas_in(document, holder["schema"]):
                optional = schema["properties"].keys() - schema["required"]
                if component in ("NamedModelSettings", "Prices", "Tier", "LongPrices", "StoredDeployment"):
                    continue
                asked_for = {
                    "UsageRow": (*REPORT_GROUPINGS, *CONVERTED),
                    "Converted": CONVERTED,
                    "FilterRow": FILTER_GROUPINGS,
                    "KeyWithUsage": INCLUDABLE,
                    "ListedPerson": INCLUDABLE_OF_PERSONS,
                    "ListedGroup": (*INCLUDABLE_OF_GROUPS, "remaining"),
                    "PeriodTimes": ("day", "week", "month"),  # the one of them that `by` names
                }
                assert optional == set(asked_for.get(component, ())), (name, component)


def test_carries_nothing_that_nobody_refers_to(document):
    """No leftovers of the libraries, no schema under two names."""
    text = json.dumps(document)
    for kind in ("schemas", "responses"):
        for name in document["components"][kind]:
            assert f'"#/components/{kind}/{name}"' in text, name
            assert not name[-1].isdigit(), name
    assert "default" not in {status for _, operation in operations(document) for status in operation["responses"]}


def test_holds_no_secret(client, document):
    """What looks like a key is the example's, and that one opens nothing."""
    text = json.dumps(document) + client.get("/docs").text

    assert ADMIN_KEY not in text
    assert AZURE_KEY not in text
    assert {examples.SECRET_KEY, examples.ADMIN_KEY} == set(re.findall(r"llmgw-[\w-]+", text)) - {"llmgw-admin-"}
    assert {examples.SECRET_KEY, examples.AZURE_KEY, examples.ADMIN_KEY} == set(re.findall(r'"key": "([^"]*)"', text))


def test_asks_for_a_model_that_there_is(make_app):
    """The example of a gateway with other models names one of them."""
    document = make_app(LLMGATEWAY_MODELS="o4-mini,gpt-5").test_client().get("/openapi.json").json
    body = document["paths"][CHAT]["post"]["requestBody"]["content"]["application/json"]

    assert ["o4-mini", "o4-mini"] == [example["model"] for example in shown(body)]


def test_the_document_is_written_once(make_app):
    """Anybody may ask for it, again and again."""
    api = make_app().extensions[API]
    with make_app().app_context():
        assert api.document("gpt-4o") is api.document("gpt-4o")
        assert "gpt-5" in api.document("gpt-5")


def answers(
    client: FlaskClient, admin: dict[str, str], new_key: Callable[..., Any]
) -> Iterator[tuple[str, TestResponse]]:
    """Call every operation once as it should be called."""
    mine = new_key(
        group="ml",
        models=["gpt-4o-mini"],
        expires_at="2027-03-31",
        email="ada@example.org",
        limits=examples.LIMITS,
    )
    user = {"Authorization": f"Bearer {mine['key']}"}
    one = f"/admin/keys/{new_key()['id']}"
    prices = {"prices": {"prompt": 1, "cached": 0.5, "completion": 2}}

    def call(name: str, path: str = "", **arguments: Any) -> tuple[str, TestResponse]:
        method, template = name.split(" ")
        headers = user if template.startswith(("/v1/", "/openai/")) else admin
        answer = client.open(path or template, method=method.upper(), headers=headers, **arguments)
        answer.get_data()
        return name, answer

    yield call(f"post {CHAT}", json=examples.CONVERSATION)
    yield call(f"post {CHAT}", json=examples.STREAMED_CONVERSATION)
    yield call("post /openai/v1/chat/completions", json=examples.CONVERSATION)
    deployment = "/openai/deployments/{model}"
    path = deployment.replace("{model}", "gpt-4o-mini")
    yield call(f"post {deployment}/chat/completions", f"{path}/chat/completions", json=examples.CONVERSATION)
    everything = {"Authorization": f"Bearer {new_key()['key']}"}
    for operation, body in MEDIA.items():
        model = (body.get("json") or body["data"])["model"]
        for prefix in ("/v1", "/openai/v1", deployment):
            place = f"{prefix.replace('{model}', model)}/{operation}"
            answer = client.post(place, headers=everything, **sent(body))
            answer.get_data()
            yield f"post {prefix}/{operation}", answer
    for models in ("/openai/models", "/openai/v1/models"):
        yield call(f"get {models}/{{model}}", f"{models}/gpt-4o-mini")
    yield call("post /v1/responses", json=examples.STREAMED_RESPONSE_REQUEST)
    for path in ("/openai/v1/responses", "/openai/responses"):
        yield call(f"post {path}", json=examples.RESPONSE_REQUEST)
    path = "/openai/deployments/gpt-4o-mini/responses"
    yield call("post /openai/deployments/{model}/responses", path, json=examples.RESPONSE_REQUEST)
    name, made = call("post /v1/responses", json=examples.RESPONSE_REQUEST)
    yield name, made
    for there in ("/v1", "/openai/v1", "/openai"):
        yield call(f"get {there}/responses/{{response_id}}", f"{there}/responses/{made.json['id']}")
        yield call(
            f"get {there}/responses/{{response_id}}/input_items", f"{there}/responses/{made.json['id']}/input_items"
        )
    for there in ("/v1", "/openai/v1", "/openai"):
        _, made = call("post /v1/responses", json=examples.RESPONSE_REQUEST)
        yield call(f"delete {there}/responses/{{response_id}}", f"{there}/responses/{made.json['id']}")
    client.application.extensions[EXTENSION].journal.flush()
    for path in ("/v1/me", "/v1/nothing"):
        id_ = client.get(path).headers["x-request-id"]
        yield call("get /admin/logs/{request_id}", f"/admin/logs/{id_}")
    yield call("get /admin/logs/{request_id}", f"/admin/logs/{made.headers['x-request-id']}")
    yield call("get /admin/logs", "/admin/logs?kind=all")
    yield call("put /admin/models/{name}", "/admin/models/gpt-4o", json=prices)
    yield call("post /admin/setprompt", json={"prompt": "Be brief."})
    for path, item in client.get("/openapi.json").json["paths"].items():
        if "get" in item and "{" not in path:
            yield call(f"get {path}")
    yield call("put /admin/groups/{name}", "/admin/groups/seminar", json=examples.GROUP_REQUEST | {"note": "Tuesdays"})
    yield call("get /admin/groups/{name}", "/admin/groups/seminar")
    yield call("patch /admin/groups/{name}", "/admin/groups/seminar", json={"limits": {"parallel_requests": 9}})
    yield call("post /admin/groups/{name}/revoke", "/admin/groups/seminar/revoke")
    until = {"until": "2099-01-01T12:00:00+01:00"}
    raised = {"limits": {"parallel_requests": 99}} | until
    yield call("post /admin/groups/{name}/raise", "/admin/groups/seminar/raise", json=raised)
    yield call("delete /admin/groups/{name}/raise", "/admin/groups/seminar/raise")
    yield call("put /admin/users/{user}", "/admin/users/ada", json={"limits": examples.LIMITS})
    yield call("patch /admin/users/{user}", "/admin/users/ada", json={"limits": {"parallel_requests": 9}})
    yield call("post /admin/users/{user}/raise", "/admin/users/ada/raise", json=raised)
    yield call("get /admin/users/{user}", "/admin/users/ada")
    yield call("delete /admin/users/{user}/raise", "/admin/users/ada/raise")
    yield call("delete /admin/users/{user}", "/admin/users/ada")
    yield call("put /admin/settings", json={"timezone": "Europe/Helsinki"})
    yield call("put /admin/self-service", json=examples.WITHOUT_GROUP)
    yield call("delete /admin/groups/{name}", "/admin/groups/seminar")
    for query in ("", "?format=csv"):
        closing = {"keys": "remove", "dry_run": True}
        yield call("post /admin/groups/{name}/close", f"/admin/groups/ml/close{query}", json=closing)
    yield call("put /admin/limits", json=examples.ORGANISATION_LIMITS)
    yield call("patch /admin/limits", json={"parallel_requests": 9})
    yield call("put /admin/currency", json=examples.CURRENCY | {"rates": {"2026-01": 0.9}})
    yield call("patch /admin/currency", json={"rates": {"2026-02": 0.91}})
    yield call("get /admin/usage", "/admin/usage?by=week,cost_centre&currency=EUR")
    for kind in ("json", "csv", "html"):
        yield call("get /admin/statements/{month}", f"/admin/statements/2026-01?format={kind}")
        yield call("get /admin/groups/{name}/statement", f"/admin/groups/ml/statement?month=2026-01&format={kind}")
    yield call("put /admin/alerts", json={"webhooks": [{"url": "http://127.0.0.1:9/hook"}]})
    yield call("get /admin/alerts/fired")
    yield call("get /admin/prompts")
    yield call("post /admin/alerts/test")
    yield call("get /v1/me")
    yield call("put /admin/prompt", "/admin/prompt?group=ml", json={"prompt": "Be kind."})
    yield call("get /admin/prompt/versions", "/admin/prompt/versions?group=ml")
    yield call("post /admin/prompt/preview", json=examples.PREVIEW_REQUEST | {"group": "ml"})
    yield call("delete /admin/prompt", "/admin/prompt?group=ml")
    yield call("post /admin/keys/import", data="user,group\ngrace,ml\n", content_type="text/csv")
    yield call("post /admin/keys/{key_id}/rotate", f"{one}/rotate", json={"overlap_seconds": 60})
    name, made = call("post /admin/admins", json={"name": "Grace", "role": "group", "groups": ["ml"]})
    yield name, made
    admin_path = f"/admin/admins/{made.json['id']}"
    yield call("get /admin/admins/{admin_id}", admin_path)
    yield call("patch /admin/admins/{admin_id}", admin_path, json={"expires_at": "2027-04-01"})
    yield call("post /admin/admins/{admin_id}/rotate", f"{admin_path}/rotate", json={"overlap_seconds": 60})
    yield call("delete /admin/admins/{admin_id}", admin_path)
    yield call("put /admin/sign-in", json={"rules": [{"claim": "groups", "value": "ml", "group": "ml"}]})
    identity = client.application.extensions[EXTENSION].identities.sign_in(ACCOUNT)
    yield call("get /admin/identities")
    identity_path = f"/admin/identities/{identity.id}"
    yield call("get /admin/identities/{identity_id}", identity_path)
    yield call("patch /admin/identities/{identity_id}", identity_path, json={"active": False})
    yield call("delete /admin/identities/{identity_id}", identity_path)
    yield call("post /admin/sessions/end", json={})
    yield call("get /admin/audit", "/admin/audit?limit=2")
    bill = table([Charge("gpt-4o-mini-0718-Inp-glbl", 1000, deployment="gpt-4o-mini")]).encode()
    yield call("post /admin/reconcile", data={"file": (io.BytesIO(bill), "bill.csv"), "threshold": "1"})
    yield call("get /v1/models/{model}", "/v1/models/gpt-4o-mini")
    yield call("post /admin/addapikey", json={"user": "alan"})
    yield call("get /admin/users/{user}/export", "/admin/users/alan/export")
    yield call("post /admin/users/{user}/erase", "/admin/users/alan/erase", json={"dry_run": True})
    yield call("post /admin/keys/bulk", json={"filter": {"user": "alan"}, "action": "block"})
    yield call("get /admin/keys", "/admin/keys?limit=1")
    yield call("post /admin/keys", json={"user": "grace"})
    yield call("get /admin/keys/{key_id}", f"/admin/keys/{mine['id']}")
    changes = {"note": "until June", "starts_at": "2026-01-01", "limits": {"parallel_requests": 4}}
    yield call("patch /admin/keys/{key_id}", one, json=changes)
    yield call("post /admin/keys/{key_id}/raise", f"{one}/raise", json=raised)
    yield call("delete /admin/keys/{key_id}/raise", f"{one}/raise")
    yield call("delete /admin/keys/{key_id}", one)
    yield call("post /admin/removeapikey", json={"id": mine["id"]})
    yield call("put /admin/prompt", json={"prompt": ""})
    yield call("get /admin/usage", "/admin/usage?by=day,month,user,key,group,model")
    yield call("get /admin/usage", "/admin/usage?by=day&format=csv")
    yield call("get /admin/usage", "/admin/usage?by=user&top=3")
    yield call("get /admin/usage/latency")
    yield call("get /admin/usage/hours")
    yield call("get /admin/usage/refusals")
    yield call("post /admin/setllmkey", json={"key": AZURE_KEY})
    yield call("get /admin/models/{name}", "/admin/models/gpt-4o")
    yield call("get /admin/prices")
    yield call("post /admin/doctor", json={"model": "gpt-4o"})
    with listing_resource({"mine": "gpt-4o"}, key=AZURE_KEY) as url:
        yield call("post /admin/models/import", json={"base_url": f"{url}/openai/v1", "key": AZURE_KEY})
    yield call("delete /admin/models/{name}", "/admin/models/gpt-4o")


def test_real_answers_are_as_documented(client, admin, new_key, document):
    """Every operation is called, and answers with a status, a type and fields that are documented."""
    called = set()
    for name, answer in answers(client, admin, new_key):
        method, path = name.split(" ")
        called.add(name)
        response = document["paths"][path][method]["responses"][str(answer.status_code)]
        assert answer.status_code < 300, (name, answer.data)
        if answer.status_code == 204:
            assert "content" not in response
            continue
        schema = response["content"][answer.mimetype]["schema"]
        check(
            document,
            schema,
            answer.json if answer.is_json else answer.data.decode("latin-1"),
            strict="$ref" in str(schema),
        )
    # Azure cancels responses in the background only, which are not served here.
    refused = {f"post {there}/responses/{{response_id}}/cancel" for there in ("/v1", "/openai/v1", "/openai")}
    assert {name for name, _ in operations(document)} == called | refused


def test_a_report_has_rows_to_check(client, admin, new_key):
    """The call above sees every field of a row; the groupings come first."""
    reports = [answer.json for name, answer in answers(client, admin, new_key) if name == "get /admin/usage"]
    [_, grouped, _] = [report for report in reports if report and report["rows"]]

    assert 12 + 3 * len(MEDIA) == grouped["total"]["requests"]
    assert ["day", "month", "user", "key", "group", "model", "requests"] == list(grouped["rows"][0])[:7]


@pytest.fixture
def in_use(client, admin, new_key):
    """A gateway in use: a function that returns everything that matters to somebody."""
    group = {"note": "ours", "models": ["gpt-4o-mini"], "limits": {"requests_per_minute": 100}}
    prices = {"prices": {"prompt": 7, "cached": 7, "completion": 7}}
    for path, body in (
        ("/groups/ml-2026", group),
        ("/groups/ours", group),
        ("/limits", {"tokens_per_minute": 500_000}),
        ("/prompt", {"prompt": "Be kind."}),
        ("/prompt?group=ours", {"prompt": "Be brief."}),
        (f"/models/{examples.MODEL}", prices),
        ("/models/gpt-4o", prices),
    ):
        assert 200 == client.put(f"/admin{path}", json=body, headers=admin).status_code
    keys = [new_key(user="ada", group="ours", limits={"requests_per_minute": 50}), new_key(user="alan")]

    def state() -> dict[str, Any]:
        told = {path: client.get(f"/admin{path}", headers=admin).json for path in ("/limits", "/prompt", "/status")}
        told |= {name: client.get(f"/admin/groups/{name}", headers=admin).json for name in ("ml-2026", "ours")}
        told |= {name: client.get(f"/admin/models/{name}", headers=admin).json for name in (examples.MODEL, "gpt-4o")}
        told["prompt"] = client.get("/admin/prompt?group=ours", headers=admin).json
        told["azure_key"] = told.pop("/status")["azure_key"]
        for key in keys:
            record = client.get(f"/admin/keys/{key['id']}", headers=admin).json
            told[key["id"]] = {name: value for name, value in record.items() if name != "retires_at"}
            works = client.get("/v1/me", headers={"Authorization": f"Bearer {key['key']}"})
            told[f"{key['id']} works"] = works.status_code
        return told

    return keys[0]["id"], state


def tries(document: dict[str, Any], ours: dict[str, str] | None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What Swagger UI sends for every example, unchanged; in paths, *ours* may take the place of the example."""
    for path, item in document["paths"].items():
        for method in METHODS & item.keys():
            operation, query = item[method], {}
            url = path
            for parameter in [*item.get("parameters", []), *operation.get("parameters", [])]:
                values = shown(parameter)
                if parameter["in"] == "path":
                    value = (ours or {}).get(parameter["name"], values[0])
                    value = "gpt-4o" if ours and path.startswith("/admin/models/") else value
                    url = url.replace(f"{{{parameter['name']}}}", value)
                elif values and values[0] != "":
                    query[parameter["name"]] = values[0]
            bodies = operation.get("requestBody", {}).get("content", {})
            calls = [(kind, body) for kind, holder in bodies.items() for body in shown(holder)] or [(None, None)]
            for kind, body in calls:
                sent = body if body is None or isinstance(body, str) else json.dumps(body)
                if ours is None or body is not None:
                    yield method, url, {"query_string": query, "data": sent, "content_type": kind}


@pytest.mark.parametrize("place", ["the example's", "ours"])
def test_no_example_does_harm(client, admin, document, in_use, place):
    """Executed unchanged, each leaves keys, groups, limits, prompts and prices as they are, and every key works.

    Also if somebody has put a name or an id of their own into the path, and has not looked at the body.
    """
    key_id, state = in_use
    before = state()
    ours = {"key_id": key_id, "name": "ours"} if place == "ours" else None

    tried = 0
    for method, path, arguments in tries(document, ours):
        answer = client.open(path, method=method.upper(), headers=admin, **arguments)
        answer.get_data()
        assert answer.status_code < 500, (method, path, answer.text)
        assert before == state(), (method, path, arguments)
        tried += 1
    assert tried > (10 if ours else 40)


def test_what_is_refused_says_why(client, admin):
    """An example that would replace something is refused with a sentence."""
    answer = client.put("/admin/limits", json=examples.LIMITS_REQUEST, headers=admin)

    assert 422 == answer.status_code
    assert "Put your own values in its place" in answer.json["error"]["message"]
    assert 200 == client.put("/admin/limits", json={"tokens_per_minute": 123_456}, headers=admin).status_code


def resolved(base: str, reference: str) -> str:
    """Where a browser on the page *base* goes (RFC 3986 section 5.2); urljoin() counts doubled slashes as one."""
    parts = base.split("/")[:-1]
    for part in reference.split("/"):
        if part == "..":
            parts = parts[: max(1, len(parts) - 1)]
        else:
            parts.append(part)
    return "/".join(parts)


@pytest.mark.parametrize("path", ["/docs", "/docs/", "/x//docs"])
def test_all_links_of_the_page_are_relative(make_app, path):
    """The proxy in front may have a path that nobody here knows. More slashes lead to the same files."""
    app = make_app()
    app.add_url_rule(path, "elsewhere", app.view_functions["docs.page"], merge_slashes=False)
    page = app.test_client().get(path).text

    links = re.findall(r'(?:href|src|url:) ?=?"([^"]+)"', page)
    assert len(links) >= 5
    for link in links:
        found = resolved(f"/llm{path}", link)
        assert found.startswith("/llm/docs/assets/") or found == "/llm/openapi.json", link


@pytest.mark.parametrize(
    ("path", "environ", "location"),
    [
        ("/admin//keys?limit=1", {}, "/llm/admin/keys?limit=1"),
        ("/docs///assets/swagger-ui.css", {}, "/llm/docs/assets/swagger-ui.css"),
        ("/admin//keys", {"SCRIPT_NAME": "/llm"}, "/llm/admin/keys"),
    ],
)
def test_redirects_are_relative(client, path, environ, location):
    """They lead to the same place behind a proxy that has removed a part of the path, whether we know it or not."""
    answer = client.get(path, environ_base=environ)

    assert 308 == answer.status_code
    assert location == resolved(f"/llm{path.partition('?')[0]}", answer.headers["Location"])
