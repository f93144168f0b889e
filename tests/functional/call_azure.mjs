// Calls the gateway with AzureOpenAI. Takes {"endpoint", "key", "version", "model"} from standard input, and prints
// what came back.

import { AzureOpenAI } from "openai";

let text = "";
process.stdin.setEncoding("utf8");
for await (const piece of process.stdin) text += piece;
const { endpoint, key, version, model } = JSON.parse(text);

const client = new AzureOpenAI({ endpoint, apiKey: key, apiVersion: version, maxRetries: 0 });
const body = { model, messages: [{ role: "user", content: "Hello" }] };
const plain = await client.chat.completions.create(body);
let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...body, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}
const response = await client.responses.create({ model, input: "Hello" });
const embeddings = await client.embeddings.create({ model: "text-embedding-3-small", input: "one" });
const models = await client.models.list();
const seen = { plain: plain.object, streamed: streamed.length > 0, response: response.status };
console.log(JSON.stringify({ ...seen, embedding: embeddings.data[0].embedding.length, models: models.object }));
