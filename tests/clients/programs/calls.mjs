// What every program of a client needs: where the gateway is, and how to say what became of a call.

export const URL = process.env.GATEWAY_URL; // without a path, as classes for Azure want it
export const V1 = `${URL}/v1`; // as classes for OpenAI want it
export const KEY = process.env.GATEWAY_KEY;
export const VERSION = "2024-10-21";
export const MODEL = "gpt-4o-mini";
export const EMBEDDING_MODEL = "text-embedding-3-small";
export const QUESTION = "What is the weather in Paris?"; // the simulator calls a tool whose name has a word of it

// Print on a line whether the calls of the function have succeeded, and go on if they have not.
export async function call(name, calls) {
  let error = null;
  try {
    await calls();
  } catch (raised) {
    console.error(raised);
    error = `${raised.name}: ${raised.message}`.slice(0, 500);
  }
  console.log(JSON.stringify({ call: name, error }));
}

export function expect(condition, ...seen) {
  if (!condition) throw new Error(`unexpected: ${JSON.stringify(seen).slice(0, 400)}`);
}
