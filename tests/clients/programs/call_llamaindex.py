"""LlamaIndex: the classes for OpenAI and Azure, for text and for embeddings, with a query over documents."""

from __future__ import annotations

import asyncio

from calls import EMBEDDING_MODEL, KEY, MODEL, QUESTION, URL, V1, VERSION, call, weather
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.embeddings.azure_openai import AzureOpenAIEmbedding
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.azure_openai import AzureOpenAI
from llama_index.llms.openai import OpenAI, OpenAIResponses


async def run(agent: FunctionAgent) -> str:
    return str(await agent.run(QUESTION))


def ask(name: str, model: OpenAI | OpenAIResponses) -> None:
    with call(f"{name}: complete"):
        assert model.complete("Hello").text
    with call(f"{name}: chat, streamed"):
        assert list(model.stream_chat([ChatMessage("Hello")]))[-1].message.content
    with call(f"{name}: agent with a tool"):
        told = asyncio.run(run(FunctionAgent(tools=[weather], llm=model)))
        assert "sunny in Paris" in told, told


def embed(name: str, model: OpenAIEmbedding) -> None:
    with call(f"{name}: embeddings"):
        assert 2 == len(model.get_text_embedding_batch(["one", "two"]))


of_azure = {"azure_endpoint": URL, "api_key": KEY, "api_version": VERSION, "max_retries": 0}
openai = OpenAI(model=MODEL, api_base=V1, api_key=KEY, max_retries=0)
embedding = OpenAIEmbedding(model_name=EMBEDDING_MODEL, api_base=V1, api_key=KEY, max_retries=0)
ask("OpenAI", openai)
ask("OpenAIResponses", OpenAIResponses(model=MODEL, api_base=V1, api_key=KEY, max_retries=0))
ask("AzureOpenAI", AzureOpenAI(model=MODEL, engine=MODEL, **of_azure))
embed("OpenAIEmbedding", embedding)
embed("AzureOpenAIEmbedding", AzureOpenAIEmbedding(model=EMBEDDING_MODEL, deployment_name=EMBEDDING_MODEL, **of_azure))
with call("a query over documents"):
    documents = [Document(text="Paris has sun."), Document(text="Bonn has rain.")]
    index = VectorStoreIndex.from_documents(documents, embed_model=embedding)
    assert index.as_query_engine(llm=openai, similarity_top_k=1).query("sun in Paris").source_nodes
