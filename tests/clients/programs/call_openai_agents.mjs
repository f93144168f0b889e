// OpenAI's Agents SDK for JavaScript with its defaults: the Responses API, and a loop of tools.

import { Agent, run, tool } from "@openai/agents";
import { z } from "zod";
import { call, expect, MODEL, QUESTION } from "./calls.mjs";

// OPENAI_BASE_URL and OPENAI_API_KEY say where the gateway is.
const weather = tool({
  name: "weather",
  description: "Return the weather in a city.",
  parameters: z.object({ city: z.string() }),
  execute: async ({ city }) => `sunny in ${city}`,
});
const agent = new Agent({ name: "assistant", instructions: "Be brief.", model: MODEL, tools: [weather] });

await call("tool loop", async () => {
  const result = await run(agent, QUESTION);
  expect(result.finalOutput.includes("sunny in Paris"), result.finalOutput);
});
await call("tool loop, streamed", async () => {
  const result = await run(agent, QUESTION, { stream: true });
  for await (const _ of result) void _;
  await result.completed;
  expect(result.finalOutput.includes("sunny in Paris"), result.finalOutput);
});
await call("output with a schema", async () => {
  const typed = new Agent({ name: "typed", model: MODEL, outputType: z.object({ city: z.string() }) });
  const result = await run(typed, QUESTION);
  expect(typeof result.finalOutput.city === "string", result.finalOutput);
});
