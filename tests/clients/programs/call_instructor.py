"""instructor: answers of a given type, with OpenAI's classes for OpenAI and for Azure."""

from __future__ import annotations

import instructor
import openai
from calls import KEY, MODEL, QUESTION, URL, V1, VERSION, call
from pydantic import BaseModel


class City(BaseModel):
    name: str
    rain: bool


def ask(name: str, client: instructor.Instructor) -> None:
    with call(name):
        answer = client.create(
            model=MODEL,
            messages=[{"role": "user", "content": QUESTION}],
            response_model=City,
            max_retries=0,
        )
        assert isinstance(answer, City)


plain = openai.OpenAI(base_url=V1, api_key=KEY, max_retries=0)
azure = openai.AzureOpenAI(azure_endpoint=URL, api_key=KEY, api_version=VERSION, max_retries=0)
for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA, instructor.Mode.RESPONSES_TOOLS):
    ask(f"OpenAI: {mode.name}", instructor.from_openai(plain, mode=mode))
ask("AzureOpenAI: TOOLS", instructor.from_openai(azure))
