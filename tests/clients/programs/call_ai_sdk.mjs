// Vercel's AI SDK: the provider for OpenAI with its default (the Responses API) and the one for Azure.

import { createAzure } from "@ai-sdk/azure";
import { createOpenAI } from "@ai-sdk/openai";
import { embedMany, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { call, EMBEDDING_MODEL, expect, KEY, MODEL, QUESTION, URL, V1, VERSION } from "./calls.mjs";

const weather = tool({
  description: "Return the weather in a city.",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `sunny in ${city}`,
});

async function ask(name, model) {
  await call(`${name}: text`, async () => {
    const { text, usage } = await generateText({ model, prompt: "Hello", maxRetries: 0 });
    expect(text && usage.outputTokens > 0, text, usage);
  });
  await call(`${name}: streamed`, async () => {
    const result = streamText({ model, prompt: "Hello", maxRetries: 0, onError: ({ error }) => console.error(error) });
    let text = "";
    for await (const piece of result.textStream) text += piece;
    expect(text && (await result.finishReason) === "stop", text);
  });
  await call(`${name}: tool loop`, async () => {
    const stopWhen = stepCountIs(3);
    const { text } = await generateText({ model, prompt: QUESTION, tools: { weather }, stopWhen, maxRetries: 0 });
    expect(text.includes("sunny in Paris"), text);
  });
  await call(`${name}: object`, async () => {
    const output = Output.object({ schema: z.object({ city: z.string() }) });
    const result = await generateText({ model, output, prompt: QUESTION, maxRetries: 0 });
    expect(typeof result.output.city === "string", result.output);
  });
}

async function embed(name, model) {
  await call(`${name}: embeddings`, async () => {
    const { embeddings } = await embedMany({ model, values: ["one", "two"], maxRetries: 0 });
    expect(embeddings.length === 2, embeddings.length);
  });
}

const openai = createOpenAI({ baseURL: V1, apiKey: KEY });
await ask("openai", openai(MODEL));
await ask("openai.chat", openai.chat(MODEL));
await embed("openai", openai.textEmbeddingModel(EMBEDDING_MODEL));
const azure = createAzure({ baseURL: `${URL}/openai`, apiKey: KEY });
await ask("azure", azure(MODEL));
await ask("azure.chat", azure.chat(MODEL));
const older = { useDeploymentBasedUrls: true, apiVersion: VERSION }; // the addresses before v1
await ask("azure.chat, older addresses", createAzure({ baseURL: `${URL}/openai`, apiKey: KEY, ...older }).chat(MODEL));
await embed("azure", azure.textEmbeddingModel(EMBEDDING_MODEL));
