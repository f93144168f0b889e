"""The Responses API with the official client, on every combination of stores."""

from __future__ import annotations

import json
import secrets

import openai
import pydantic
import pytest

from llmgateway.simulator import FILTERED_PHRASE, Script
from tests.folders import contents_below
from tests.functional.conftest import mongo_environ, redis_environ
from tests.gateway_process import GatewayProcess
from tests.servers import MongoServer, RedisServer, wait_until

MODEL = "gpt-4o-mini"
WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture
def other(gateway: GatewayProcess):
    """The client of somebody else."""
    with user_of(gateway) as made:
        yield made


def user_of(gateway: GatewayProcess, *, user: str | None = None) -> openai.OpenAI:
    key = gateway.key(user=user or f"user-{secrets.token_hex(4)}")
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0)


def last_body(azure) -> dict:
    return json.loads(azure.served[-1].body)


def test_a_response_is_answered_recorded_and_counted(client, gateway, key, azure, records):
    """Plain: what Azure counts is in the record, and what Azure stores is named there."""
    response = client.responses.create(model=MODEL, input="Hello")

    [record] = records(gateway, key)
    assert response.output_text
    assert ("/v1/responses", "ok", "upstream") == (record["endpoint"], record["outcome"], record["usage_source"])
    assert response.usage.input_tokens == record["prompt_tokens"]
    assert response.usage.output_tokens == record["completion_tokens"]
    assert response.id == record["response_id"]
    ids = record["stored_ids"]
    assert [item.id for item in response.output] == (json.loads(ids) if isinstance(ids, str) else ids)
    assert record["cost_usd"] > 0


def test_a_streamed_response_is_relayed_byte_for_byte(client, gateway, key, azure, records):
    """The usage is in the last event, and there is no [DONE]."""
    stream = gateway.request("POST", "/v1/responses", key=key, json={"model": MODEL, "input": "Hi", "stream": True})

    [record] = records(gateway, key)
    assert azure.served[0].body_sent == stream.body
    assert b"[DONE]" not in stream.body
    assert ("ok", "upstream") == (record["outcome"], record["usage_source"])
    assert azure.served[0].usage.prompt_tokens == record["prompt_tokens"]
    assert azure.served[0].usage.completion_tokens == record["completion_tokens"]


def test_the_official_clients_stream_and_parse(client, azure):
    """Its helpers read the events, and turn an answer into an object."""

    class Answer(pydantic.BaseModel):
        city: str

    with client.responses.stream(model=MODEL, input="Hello") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    parsed = client.responses.parse(model=MODEL, input="Which city?", text_format=Answer)

    assert ("response.created", "response.completed") == (kinds[0], kinds[-1])
    assert final.output_text
    assert isinstance(parsed.output_parsed, Answer)


def test_a_loop_of_tools_goes_on_with_the_previous_response(client, azure):
    """As agents do it: the call, its result, and the answer."""
    azure.script(Script(tool_call="weather"))
    asked = client.responses.create(model=MODEL, input="What is the weather in Graz?", tools=[WEATHER])
    [call] = [item for item in asked.output if item.type == "function_call"]

    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    answered = client.responses.create(model=MODEL, input=[result], previous_response_id=asked.id, tools=[WEATHER])

    assert answered.previous_response_id == asked.id
    assert answered.usage.input_tokens > 0


def test_the_prompt_goes_in_front_of_the_instructions_of_every_call(client, azure, prompt):
    """Also if a response is continued: Azure does not carry instructions over."""
    prompt("Be kind.")

    first = client.responses.create(model=MODEL, input="Hello", instructions="Be brief.")
    assert "Be kind.\n\nBe brief." == last_body(azure)["instructions"]

    client.responses.create(model=MODEL, input="And now?", previous_response_id=first.id)
    assert "Be kind." == last_body(azure)["instructions"]


def test_a_stored_response_is_read_continued_and_deleted_by_its_user_only(client, other, gateway, key, azure, records):
    """To anybody else it does not exist, in Azure's own words; nothing of that reaches Azure."""
    made = client.responses.create(model=MODEL, input="My secret is 42.")
    item = {"type": "item_reference", "id": made.output[0].id}
    served = len(azure.served)

    for attempt in (
        lambda: other.responses.retrieve(made.id),
        lambda: other.responses.delete(made.id),
        lambda: other.responses.cancel(made.id),
        lambda: other.responses.input_items.list(made.id),
        lambda: other.responses.create(model=MODEL, input="Say it.", previous_response_id=made.id),
        lambda: other.responses.create(model=MODEL, input=[item]),
        lambda: other.responses.create(model=MODEL, input=[{"id": made.output[0].id}]),
        lambda: other.responses.create(model=MODEL, input="x", previous_response_id=made.id, stream=True),
    ):
        with pytest.raises(openai.NotFoundError) as refused:
            attempt()
        assert "not found" in refused.value.body["message"]
        assert refused.value.body["code"] in (None, "previous_response_not_found")
    assert served == len(azure.served)

    assert made.id == client.responses.retrieve(made.id).id
    assert client.responses.input_items.list(made.id).data
    continued = client.responses.create(model=MODEL, input="Go on.", previous_response_id=made.id)
    assert continued.usage.input_tokens > made.usage.input_tokens + made.usage.output_tokens
    client.responses.create(model=MODEL, input=[item, {"role": "user", "content": "Go on."}])
    assert 3 == len(records(gateway, key, count=3)), "to read costs nothing and leaves no record"
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_what_does_not_exist_looks_like_what_belongs_to_somebody_else(client, other, azure):
    """But for the identifier, which the client has sent itself."""
    made = client.responses.create(model=MODEL, input="Hello").id
    unknown = "resp_" + "0" * 48

    answers = []
    for id_ in (made, unknown):
        with pytest.raises(openai.NotFoundError) as refused:
            other.responses.retrieve(id_)
        answers.append(json.dumps(refused.value.body).replace(id_, "ID"))

    assert 1 == len(set(answers))


def test_all_keys_of_a_user_have_the_same_responses(gateway, azure):
    """A response belongs to the person, not to the key."""
    name = f"user-{secrets.token_hex(4)}"
    with user_of(gateway, user=name) as laptop, user_of(gateway, user=name) as phone:
        made = laptop.responses.create(model=MODEL, input="Hello")

        assert made.id == phone.responses.retrieve(made.id).id


def test_a_streamed_response_can_be_continued_at_once_on_every_process(pair, azure):
    """Its owner is known everywhere before its last byte has arrived, whichever process gets the next request."""
    with user_of(pair) as client:
        for _ in range(10):
            *_, last = client.responses.create(model=MODEL, input="Hello", stream=True)
            for _ in range(3):  # over connections of their own
                assert 200 == pair.request("GET", f"/v1/responses/{last.response.id}", key=client.api_key).status


def test_a_running_response_is_owned_before_its_end(pair, azure):
    """A client can read its identifier in the first event, and send it to another process."""
    azure.script(Script(stall_after_events=4))
    with user_of(pair) as client, user_of(pair) as other:
        stream = client.responses.create(model=MODEL, input="Hello", stream=True)
        created = next(iter(stream)).response.id
        for _ in range(4):
            with pytest.raises(openai.NotFoundError):
                other.responses.create(model=MODEL, input="x", previous_response_id=created)
            continued = client.responses.create(model=MODEL, input="x", previous_response_id=created)
            assert continued.previous_response_id == created
        azure.release()
        stream.close()


def test_responses_are_owned_after_a_crash_and_a_restart(start_gateway, azure):
    """The journal names them before their first byte, and the usage log keeps them."""
    gateway = start_gateway()
    with user_of(gateway) as client, user_of(gateway) as other:
        made = client.responses.create(model=MODEL, input="Hello")
        keys = client.api_key, other.api_key
    gateway.kill()
    gateway.start()

    owner, thief = (openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) for key in keys)
    with owner, thief:
        assert made.id == owner.responses.retrieve(made.id).id
        with pytest.raises(openai.NotFoundError):
            thief.responses.retrieve(made.id)


def test_its_events_can_be_read_again(client, azure):
    """Behind a number that the client names."""
    *events, last = client.responses.create(model=MODEL, input="Hello", stream=True)

    again = [event.sequence_number for event in client.responses.retrieve(last.response.id, stream=True)]
    rest = client.responses.retrieve(last.response.id, stream=True, starting_after=events[2].sequence_number)

    assert [event.sequence_number for event in (*events, last)] == again
    assert again[3:] == [event.sequence_number for event in rest]


@pytest.mark.parametrize(
    ("field", "value"),
    [("background", True), ("background", "true"), ("conversation", "conv_1"), ("conversation", {"id": "conv_1"})],
)
def test_refuses_what_cannot_be_accounted_for(client, azure, field, value):
    """And says why, and what to do instead."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=MODEL, input="Hello", extra_body={field: value})

    assert field == refused.value.body["param"]
    assert "is not served here" in refused.value.body["message"]
    assert not azure.served


@pytest.mark.parametrize("stream", [False, True])
def test_a_rate_limit_after_status_200_costs_nothing(client, gateway, key, azure, records, stream):
    """Azure bills nothing then."""
    azure.script(Script(failed="rate_limit_exceeded"))

    answer = gateway.request("POST", "/v1/responses", key=key, json={"model": MODEL, "input": "Hi", "stream": stream})

    [record] = records(gateway, key)
    assert 200 == answer.status
    assert azure.served[0].billed is None
    assert ("upstream_error", "none", 0, "rate_limit_exceeded") == (
        record["outcome"],
        record["usage_source"],
        record["total_tokens"],
        record["error_code"],
    )


@pytest.mark.parametrize("form", ["nested", "flat"])
def test_azures_error_event_is_passed_on_and_booked(gateway, key, azure, records, form):
    """In both of its shapes. What was written until then is billed."""
    azure.script(Script(tokens=50, error_event_after=12, error_event=form))

    answer = gateway.request("POST", "/v1/responses", key=key, json={"model": MODEL, "input": "Hi", "stream": True})

    [record] = records(gateway, key)
    assert azure.served[0].body_sent == answer.body
    assert ("upstream_error", "estimated") == (record["outcome"], record["usage_source"])
    assert record["completion_tokens"] >= azure.served[0].billed.completion_tokens > 0


def test_a_stream_that_breaks_off_ends_with_an_error_event(client, gateway, key, azure, records):
    """The official client raises an exception for it."""
    azure.script(Script(tokens=50, cut_after_events=8))

    with pytest.raises(openai.APIError) as broken:
        list(client.responses.create(model=MODEL, input="Hello", stream=True))

    [record] = records(gateway, key)
    assert "upstream_unreachable" == broken.value.code
    assert "broken" == record["outcome"]
    assert record["response_id"]
    assert record["completion_tokens"] >= azure.served[0].billed.completion_tokens > 0


def test_a_response_that_azure_does_not_find_yet_is_asked_for_once_more(client, gateway, key, azure, records):
    """Just after its end Azure may not know it."""
    made = client.responses.create(model=MODEL, input="Hello")
    azure.script(Script(fault="previous_response_not_found"))

    continued = client.responses.create(model=MODEL, input="Go on.", previous_response_id=made.id)

    assert continued.previous_response_id == made.id
    assert 3 == len(azure.served)
    assert 2 == len(records(gateway, key, count=2))


def test_it_is_asked_for_only_once_more(client, azure):
    """Then Azure's own error goes to the client."""
    made = client.responses.create(model=MODEL, input="Hello")
    azure.script(Script(fault="previous_response_not_found"), times=2)

    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=MODEL, input="Go on.", previous_response_id=made.id)

    assert "previous_response_not_found" == refused.value.code
    assert 3 == len(azure.served)


def test_tools_that_azure_bills_by_use_are_a_part_of_the_cost(client, gateway, key, azure, records):
    """Each search of the web is billed."""
    azure.script(Script(hosted_calls={"web_search": 2}))
    client.responses.create(model=MODEL, input="What is new?", tools=[{"type": "web_search"}])
    client.responses.create(model=MODEL, input="What is new?")

    with_tools, without = records(gateway, key, count=2)
    uses = with_tools["tool_uses"]
    assert {"web_search": 2} == (json.loads(uses) if isinstance(uses, str) else dict(uses))
    assert with_tools["cost_usd"] > 2 * 0.014
    assert without["cost_usd"] < 0.014


def test_credentials_of_mcp_servers_are_in_no_file_of_the_gateway(start_gateway, azure, stores):
    """They pass through, to Azure only."""
    secret = f"mcp-{secrets.token_hex(8)}"
    gateway = start_gateway(LLMGATEWAY_LOG_LEVEL="debug")
    server = {
        "type": "mcp",
        "server_label": "docs",
        "server_url": "https://mcp.example",
        "headers": {"Authorization": f"Bearer {secret}", "Name": "x"},
        "require_approval": "never",
    }
    with user_of(gateway) as client:
        client.responses.create(model=MODEL, input="Hello", tools=[server])
        azure.script(Script(fault="unknown_parameter"))
        with pytest.raises(openai.APIStatusError):
            client.responses.create(model=MODEL, input="Hello", tools=[server])
    assert secret.encode() in azure.served[0].body
    gateway.stop()

    contents = [*contents_below(gateway.folder), *contents_below(stores.instance)]
    assert [] == [path for path, content in contents if secret.encode() in content]
    assert secret not in gateway.output


def test_requests_for_stored_responses_count_as_requests(gateway, azure):
    """As requests per minute, also those that find nothing; and they need a valid key."""
    key = gateway.key(user=f"user-{secrets.token_hex(4)}", limits={"requests_per_minute": 3})
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
        made = client.responses.create(model=MODEL, input="Hello")
        client.responses.retrieve(made.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve("resp_unknown")
        with pytest.raises(openai.RateLimitError):
            client.responses.retrieve(made.id)
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="wrong").responses.retrieve(made.id)


def test_a_filtered_prompt_is_booked(client, gateway, key, azure, records):
    """Azure evaluates it and bills that. Its error has another shape than for chat completions."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=MODEL, input=f"Please {FILTERED_PHRASE}.")

    [record] = records(gateway, key)
    assert refused.value.body["content_filters"]
    assert ("upstream_error", "estimated", "content_filter") == (
        record["outcome"],
        record["usage_source"],
        record["error_code"],
    )
    assert record["prompt_tokens"] >= azure.served[0].billed.prompt_tokens > 0
    fired = record["content_filter"]
    assert json.loads(fired) if isinstance(fired, str) else fired


@pytest.mark.parametrize("stream", [False, True])
def test_a_filtered_answer_is_incomplete_and_counted(gateway, key, azure, records, stream):
    """With Azure's count, and the categories that have fired."""
    azure.script(Script(filter="completion"))

    answer = gateway.request("POST", "/v1/responses", key=key, json={"model": MODEL, "input": "Hi", "stream": stream})

    [record] = records(gateway, key)
    assert b"content_filter" in answer.body
    assert ("ok", "upstream") == (record["outcome"], record["usage_source"])
    assert azure.served[0].usage.completion_tokens == record["completion_tokens"]
    fired = record["content_filter"]
    assert json.loads(fired) if isinstance(fired, str) else fired


def test_a_client_that_leaves_pays_for_what_was_written(gateway, key, azure, records):
    """Azure's count never comes then."""
    azure.script(Script(tokens=500, tokens_per_second=100))
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
        stream = client.responses.create(model=MODEL, input="Hello", stream=True)
        for event in stream:
            if event.type == "response.output_text.delta":
                break
        stream.close()

    [record] = records(gateway, key)
    wait_until(lambda: azure.served[0].peer_left, what="the end of the connection")
    assert "client_closed" == record["outcome"]
    assert record["completion_tokens"] >= azure.served[0].billed.completion_tokens > 0


def test_the_classic_form_of_the_address_works(start_alone, azure, simulator):
    """It names a deployment. Responses are beside it, and name the deployment in the body."""
    base = f"{simulator.url}/openai/deployments/{MODEL}"
    gateway = start_alone(LLM_BASE_URL=base, LLM_API_VERSION="2025-04-01-preview")
    with user_of(gateway) as client:
        made = client.responses.create(model="any-name", input="Hello")

        assert made.id == client.responses.retrieve(made.id).id
        assert client.responses.create(model="any-name", input="Hi", previous_response_id=made.id).output_text
    assert MODEL == last_body(azure)["model"]
    assert {"/openai/responses", f"/openai/responses/{made.id}"} == {served.path for served in azure.served}


@pytest.fixture
def own_stores():
    """A Redis and a MongoDB that a test can stop."""
    servers = RedisServer(), MongoServer()
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.remove()


def test_a_store_that_is_away_is_no_reason_to_say_that_there_is_no_response(start_alone, azure, own_stores):
    """Nor to serve one whose owner is not known: 503, until the store is back."""
    cache, durable = own_stores
    gateway = start_alone(**redis_environ(cache), **mongo_environ(durable))
    with user_of(gateway) as client, user_of(gateway) as other:
        keys = {"owner": client.api_key, "thief": other.api_key}
        made = [client.responses.create(model=MODEL, input="Hello").id for _ in range(3)]

    def status(who: str, response_id: str) -> int:
        return gateway.request("GET", f"/v1/responses/{response_id}", key=keys[who]).status

    wait_until(lambda: 3 == len(gateway.admin("GET", "/admin/logs").json()["items"]), what="the records")
    gateway.restart()  # which forgets what it had in memory
    assert [200, 200] == [gateway.request("GET", "/v1/me", key=key).status for key in keys.values()]

    cache.stop()
    assert [200, 404] == [status("owner", made[0]), status("thief", made[0])]
    assert [503, 503] == [status("owner", "resp_unknown"), status("thief", "resp_unknown")]
    durable.stop()
    assert [503, 503] == [status("owner", made[1]), status("thief", made[1])]
    asked = {"model": MODEL, "input": "Go on.", "previous_response_id": made[1]}
    answer = gateway.request("POST", "/v1/responses", key=keys["thief"], json=asked)
    assert (503, "store_unavailable") == (answer.status, answer.json()["error"]["code"])
    assert 200 == status("owner", made[0]), "it is known meanwhile"

    durable.start()
    wait_until(lambda: 200 == status("owner", made[1]), what="the return of the store")
    assert 404 == status("thief", made[1])
    cache.start()
    wait_until(lambda: 404 == status("owner", "resp_unknown"), what="the return of Redis")
