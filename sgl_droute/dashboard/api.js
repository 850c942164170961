// Calls of the router's public API, and the admin key that they carry. Relative to this file, so
// that the page works below any prefix.

const ROOT = new URL("../", import.meta.url);
const KEY = "sgl-droute.key";

let unkept = ""; // where the session's storage is switched off

/** The key that calls carry, "" if none. It lasts as long as the browser's tab. */
export function key() {
  try {
    return sessionStorage.getItem(KEY) ?? unkept;
  } catch {
    return unkept;
  }
}

export function keepKey(value) {
  unkept = value;
  try {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  } catch {
    // It lasts until the page is left.
  }
}

export class CallError extends Error {
  /** @param status 0 if the router did not answer. */
  constructor(status, message) {
    super(message);
    this.status = status;
  }

  /** Whether another key may help. */
  get locked() {
    return this.status === 401 || this.status === 403;
  }
}

/**
 * What the router answers to a call.
 * @returns `{status, body}`.
 * @throws CallError if it is no 2xx, with the router's own sentence.
 */
export async function call(method, path, body) {
  const response = await send(path, {
    method,
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await response.text().catch(() => "");
  const told = parsed(text);
  if (!response.ok) throw new CallError(response.status, sentence(response, told));
  return { status: response.status, body: told };
}

/** A request that carries the key. Throws CallError if there is no answer at all. */
export async function send(path, options) {
  const headers = { ...options.headers };
  if (key()) headers.Authorization = `Bearer ${key()}`;
  try {
    return await fetch(new URL(path, ROOT), { cache: "no-store", ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (error instanceof TypeError && /header|ISO-8859|ByteString/i.test(error.message)) {
      throw new CallError(401, "The key has characters that no key can have.");
    }
    throw new CallError(0, "The router does not answer.");
  }
}

/** What the router says of itself in an answer that is no 2xx. */
export async function refusal(response) {
  return sentence(response, parsed(await response.text().catch(() => "")));
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function sentence(response, told) {
  if (typeof told?.error === "string") return told.error;
  return `The router answered ${response.status} ${response.statusText}`.trim();
}
