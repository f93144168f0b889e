// OpenAI's own client for JavaScript: the classes for OpenAI and for Azure.

import OpenAI, { AzureOpenAI } from "openai";
import { call, EMBEDDING_MODEL, expect, KEY, MODEL, URL, V1, VERSION } from "./calls.mjs";

const messages = [{ role: "user", content: "Hello" }];

async function ask(client, name) {
  await call(`${name}: chat`, async () => {
    const answer = await client.chat.completions.create({ model: MODEL, messages });
    expect(answer.choices[0].message.content, answer);
  });
  await call(`${name}: chat, streamed`, async () => {
    let text = "";
    for await (const chunk of await client.chat.completions.create({ model: MODEL, messages, stream: true })) {
      text += chunk.choices[0]?.delta?.content ?? "";
    }
    expect(text);
  });
  await call(`${name}: responses`, async () => {
    const response = await client.responses.create({ model: MODEL, input: "Hello" });
    expect(response.output_text, response);
  });
  await call(`${name}: responses, streamed`, async () => {
    let last;
    for await (const event of await client.responses.create({ model: MODEL, input: "Hello", stream: true })) last = event;
    expect(last.type === "response.completed", last);
  });
  await call(`${name}: embeddings`, async () => {
    const made = await client.embeddings.create({ model: EMBEDDING_MODEL, input: ["one", "two"] });
    expect(made.data.length === 2 && typeof made.data[0].embedding[0] === "number", made);
  });
  await call(`${name}: models`, async () => {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    expect(names.includes(MODEL), names);
  });
}

await ask(new OpenAI({ baseURL: V1, apiKey: KEY, maxRetries: 0 }), "OpenAI");
await ask(new AzureOpenAI({ endpoint: URL, apiKey: KEY, apiVersion: VERSION, maxRetries: 0 }), "AzureOpenAI");
