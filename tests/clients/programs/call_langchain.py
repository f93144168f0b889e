"""langchain-openai: chat, the Responses API, embeddings, and the classes for Azure."""

from __future__ import annotations

import asyncio

from calls import EMBEDDING_MODEL, KEY, MODEL, QUESTION, URL, V1, VERSION, call, weather
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import AzureChatOpenAI, AzureOpenAIEmbeddings, ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

TOOL = tool(weather)


class City(BaseModel):
    """A city."""

    name: str


def ask(name: str, model: ChatOpenAI) -> None:
    with call(f"{name}: invoke"):
        answer = model.invoke("Hello")
        assert answer.text
        assert answer.usage_metadata
    with call(f"{name}: stream"):
        assert "".join(chunk.text for chunk in model.stream("Hello"))
    with call(f"{name}: async"):
        assert loop.run(model.ainvoke("Hello")).text
    with call(f"{name}: tool loop"):
        bound = model.bind_tools([TOOL])
        messages = [HumanMessage(QUESTION)]
        messages.append(bound.invoke(messages))
        [wanted] = messages[-1].tool_calls
        messages.append(ToolMessage(TOOL.invoke(wanted["args"]), tool_call_id=wanted["id"]))
        assert "sunny in Paris" in bound.invoke(messages).text
    with call(f"{name}: structured output"):
        assert isinstance(model.with_structured_output(City).invoke(QUESTION), City)


def embed(name: str, model: OpenAIEmbeddings) -> None:
    with call(f"{name}: documents and a query"):
        assert 2 == len(model.embed_documents(["one", "two"]))
        assert model.embed_query("one")


of_openai = {"base_url": V1, "api_key": KEY, "max_retries": 0}
of_azure = {"azure_endpoint": URL, "api_key": KEY, "api_version": VERSION, "max_retries": 0}
# Not asyncio.run: the classes share one client, which belongs to the first loop.
with asyncio.Runner() as loop:
    ask("ChatOpenAI", ChatOpenAI(model=MODEL, **of_openai))
    ask("ChatOpenAI, responses", ChatOpenAI(model=MODEL, use_responses_api=True, **of_openai))
    ask("AzureChatOpenAI", AzureChatOpenAI(azure_deployment=MODEL, **of_azure))
# langchain counts tokens before it sends, with a vocabulary that tiktoken would load from elsewhere.
embed("OpenAIEmbeddings", OpenAIEmbeddings(model=EMBEDDING_MODEL, check_embedding_ctx_length=False, **of_openai))
embed(
    "AzureOpenAIEmbeddings", AzureOpenAIEmbeddings(model=EMBEDDING_MODEL, check_embedding_ctx_length=False, **of_azure)
)
