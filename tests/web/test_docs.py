"""``/openapi.json`` says what the application does, all of it and nothing else; ``/docs`` shows it to nobody's harm."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import openapi_spec_validator
import pytest
from flask.testing import FlaskClient
from openapi_schema_validator import OAS30Validator
from werkzeug.test import TestResponse

from llmgateway.records import GROUPINGS
from llmgateway.web import examples
from llmgateway.web.context import EXTENSION

from .conftest import ADMIN_KEY, AZURE_KEY

CHAT = "/v1/chat/completions"
UNDOCUMENTED = {("get", "/docs"), ("get", "/docs/assets/{name}"), ("get", "/openapi.json")}
METHODS = {"get", "post", "put", "patch", "delete"}


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
    }
    documented = {tuple(name.split(" ")) for name, _ in operations(document)}

    assert served - UNDOCUMENTED == documented


def test_every_operation_is_described(document):
    """Each has a tag that is explained, a short summary, a description, and says whose key it needs."""
    tags = {tag["name"] for tag in document["tags"] if tag["description"]}
    security = {"users": [{"userKey": []}], "health": []}
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
    """Generated clients need not ask whether one is there; but for a report's groupings, which are asked for."""
    for name, holder in media(document):
        if re.search(r" 20\d application/json$", name):
            for component, schema in schemas_in(document, holder["schema"]):
                optional = schema["properties"].keys() - schema["required"]
                assert optional == (set(GROUPINGS) if component == "UsageRow" else set()), (name, component)


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
    assert {examples.SECRET_KEY} == set(re.findall(r"llmgw-[\w-]+", text))
    assert {examples.SECRET_KEY, examples.AZURE_KEY} == set(re.findall(r'"key": "([^"]*)"', text))


def test_asks_for_a_model_that_there_is(make_app):
    """The example of a gateway with other models names one of them."""
    document = make_app(LLMGATEWAY_MODELS="o4-mini,gpt-5").test_client().get("/openapi.json").json
    body = document["paths"][CHAT]["post"]["requestBody"]["content"]["application/json"]

    assert ["o4-mini", "o4-mini"] == [example["model"] for example in shown(body)]


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
        headers = user if template.startswith("/v1") else admin
        answer = client.open(path or template, method=method.upper(), headers=headers, **arguments)
        answer.get_data()
        return name, answer

    yield call(f"post {CHAT}", json=examples.CONVERSATION)
    yield call(f"post {CHAT}", json=examples.STREAMED_CONVERSATION)
    client.application.extensions[EXTENSION].journal.flush()
    yield call("put /admin/models/{name}", "/admin/models/gpt-4o", json=prices)
    yield call("post /admin/setprompt", json={"prompt": "Be brief."})
    for path, item in client.get("/openapi.json").json["paths"].items():
        if "get" in item and "{" not in path:
            yield call(f"get {path}")
    yield call("put /admin/groups/{name}", "/admin/groups/seminar", json=examples.GROUP_REQUEST)
    yield call("get /admin/groups/{name}", "/admin/groups/seminar")
    yield call("patch /admin/groups/{name}", "/admin/groups/seminar", json={"limits": {"parallel_requests": 9}})
    yield call("post /admin/groups/{name}/revoke", "/admin/groups/seminar/revoke")
    yield call("delete /admin/groups/{name}", "/admin/groups/seminar")
    yield call("put /admin/limits", json=examples.ORGANISATION_LIMITS)
    yield call("patch /admin/limits", json={"parallel_requests": 9})
    yield call("get /v1/me")
    yield call("put /admin/prompt", "/admin/prompt?group=ml", json={"prompt": "Be kind."})
    yield call("get /admin/prompt/versions", "/admin/prompt/versions?group=ml")
    yield call("post /admin/prompt/preview", json=examples.PREVIEW_REQUEST | {"group": "ml"})
    yield call("delete /admin/prompt", "/admin/prompt?group=ml")
    yield call("post /admin/keys/import", data="user,group\nada,ml\n", content_type="text/csv")
    yield call("post /admin/keys/{key_id}/rotate", f"{one}/rotate", json={"overlap_seconds": 60})
    yield call("get /admin/audit", "/admin/audit?limit=2")
    yield call("get /v1/models/{model}", "/v1/models/gpt-4o-mini")
    yield call("post /admin/addapikey", json={"user": "alan"})
    yield call("get /admin/keys", "/admin/keys?limit=1")
    yield call("post /admin/keys", json={"user": "grace"})
    yield call("get /admin/keys/{key_id}", f"/admin/keys/{mine['id']}")
    yield call("patch /admin/keys/{key_id}", one, json={"note": "until June", "starts_at": "2026-01-01"})
    yield call("delete /admin/keys/{key_id}", one)
    yield call("post /admin/removeapikey", json={"id": mine["id"]})
    yield call("put /admin/prompt", json={"prompt": ""})
    yield call("get /admin/usage", "/admin/usage?by=day,month,user,key,group,model")
    yield call("get /admin/usage", "/admin/usage?by=day&format=csv")
    yield call("post /admin/setllmkey", json={"key": AZURE_KEY})
    yield call("get /admin/models/{name}", "/admin/models/gpt-4o")
    yield call("delete /admin/models/{name}", "/admin/models/gpt-4o")


def test_real_answers_are_as_documented(client, admin, new_key, document):
    """Every operation is called, and answers with a status, a type and fields that are documented."""
    called = set()
    for name, answer in answers(client, admin, new_key):
        method, path = name.split(" ")
        called.add(name)
        response = document["paths"][path][method]["responses"][str(answer.status_code)]
        assert answer.status_code < 300, (name, answer.text)
        if answer.status_code == 204:
            assert "content" not in response
            continue
        schema = response["content"][answer.mimetype]["schema"]
        check(document, schema, answer.json if answer.is_json else answer.text, strict="$ref" in str(schema))
    assert {name for name, _ in operations(document)} == called


def test_a_report_has_rows_to_check(client, admin, new_key):
    """The call above sees every field of a row; the groupings come first."""
    reports = [answer.json for name, answer in answers(client, admin, new_key) if name == "get /admin/usage"]
    [grouped] = [report for report in reports if report and report["rows"]]

    assert 2 == grouped["total"]["requests"]
    assert ["day", "month", "user", "key", "group", "model", "requests"] == list(grouped["rows"][0])[:7]
