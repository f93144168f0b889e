"""chatlas: its class for OpenAI (by default over the Responses API), the one for chat, and the one for Azure."""

from __future__ import annotations

from calls import KEY, MODEL, QUESTION, URL, V1, VERSION, call, weather
from chatlas import Chat, ChatAzureOpenAI, ChatOpenAI, ChatOpenAICompletions


def ask(name: str, chat: Chat) -> None:
    with call(f"{name}: chat, streamed"):
        assert str(chat.chat("Hello", echo="none"))
    with call(f"{name}: chat"):
        assert str(chat.chat("Hello", echo="none", stream=False))
    with call(f"{name}: tool loop"):
        chat.register_tool(weather)
        told = str(chat.chat(QUESTION, echo="none"))
        assert "sunny in Paris" in told, told


ask("ChatOpenAI", ChatOpenAI(model=MODEL, base_url=V1, api_key=KEY))
ask("ChatOpenAICompletions", ChatOpenAICompletions(model=MODEL, base_url=V1, api_key=KEY))
ask("ChatAzureOpenAI", ChatAzureOpenAI(endpoint=URL, deployment_id=MODEL, api_key=KEY, api_version=VERSION))
