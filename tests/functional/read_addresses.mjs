// Calls the gateway with one base_url after the other, as programs in Node do.
//
// Takes {"kind", "key", "bases", "body"} from standard input, and prints for each base the object of a completion and
// of the list of models, or the error.

const { kind, key, bases, body } = JSON.parse(await readInput());
const results = [];
for (const base of bases) {
  try {
    results.push(await (kind === "node" ? withClient(base) : withFetch(base)));
  } catch (error) {
    results.push([String(error)]);
  }
}
console.log(JSON.stringify(results));

async function readInput() {
  let text = "";
  process.stdin.setEncoding("utf8");
  for await (const piece of process.stdin) text += piece;
  return text;
}

async function withClient(baseURL) {
  const { default: OpenAI } = await import("openai");
  const client = new OpenAI({ baseURL, apiKey: key, maxRetries: 0 });
  const completion = await client.chat.completions.create(body);
  const models = await client.models.list();
  return [completion.object, models.object];
}

async function withFetch(base) {
  const headers = { Authorization: `Bearer ${key}`, "Content-Type": "application/json" };
  const options = { method: "POST", headers, body: JSON.stringify(body), redirect: "error" };
  const completion = await (await fetch(`${base}/chat/completions`, options)).json();
  const models = await (await fetch(`${base}/models`, { headers, redirect: "error" })).json();
  return [completion.object ?? completion.error.message, models.object];
}
