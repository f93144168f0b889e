// Reads streams as programs in Node do, with OpenAI's client or with nothing but fetch.
//
// Takes {"kind", "gateway", "simulator", "key", "cases": [{"script", "body"}]} from standard input, and prints for
// each case {"text", "usage"}, or {"error"}.

const { kind, gateway, simulator, key, cases } = JSON.parse(await readInput());
const read = kind === "node" ? await officialClient() : withFetch;
const results = [];
for (const { script, body } of cases) {
  const told = await fetch(`${simulator}/simulator/script`, { method: "POST", body: JSON.stringify(script) });
  if (told.status !== 200) throw new Error(await told.text());
  await told.text();
  let timer;
  const patience = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("the answer did not end within 10 s")), 10_000);
  });
  try {
    results.push(await Promise.race([read(body), patience]));
  } catch (error) {
    results.push({ error: String(error) });
  }
  clearTimeout(timer);
}
console.log(JSON.stringify(results));

async function readInput() {
  let text = "";
  process.stdin.setEncoding("utf8");
  for await (const piece of process.stdin) text += piece;
  return text;
}

// OpenAI's own example, without a guard.
async function officialClient() {
  const { default: OpenAI } = await import("openai");
  const client = new OpenAI({ baseURL: `${gateway}/v1`, apiKey: key, maxRetries: 0 });
  return async (body) => {
    let text = "";
    for await (const chunk of await client.chat.completions.create(body)) {
      text += chunk.choices[0].delta.content || "";
    }
    return { text };
  };
}

async function withFetch(body) {
  const response = await fetch(`${gateway}/v1/chat/completions`, {
    method: "POST",
    headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (response.status !== 200) throw new Error(`${response.status} ${await response.text()}`);
  let text = "";
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return { text };
    text += JSON.parse(data).choices[0].delta.content ?? "";
  }
  return { text };
}

// The data of each event, as the HTML standard reads them ("Server-sent events").
async function* events(body) {
  let rest = "";
  let data = [];
  const decoder = new TextDecoder(); // takes a byte order mark away
  for await (const piece of body) {
    rest += decoder.decode(piece, { stream: true });
    // A CR at the end may be half of a CRLF.
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
      if (line === "" && data.length) {
        yield data.join("\n");
        data = [];
      }
    }
  }
  if (rest.replace("\r", "") === "" && data.length) yield data.join("\n");
}
