// The router's event stream: read with fetch, which can carry a key, and begun again when it ends.

import { CallError, refusal, send } from "./api.js";

const PATH = "dashboard/stream";
const FIRST_WAIT = 0.5;
const LONGEST_WAIT = 10;
// Characters that turn the direction of what follows: text from outside could pose as another one.
const TURNS = /[\u202a-\u202e\u2066-\u2069]|\\u(202[a-e]|206[6-9])/gi;
// The router sends at least a comment every 15 s.
const LONGEST_SILENCE = 35;

/** Takes a stream of server-sent events apart. */
export class Reader {
  constructor(tell) {
    this.tell = tell;
    this.rest = "";
    this.event = "";
    this.data = [];
  }

  feed(text) {
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop();
    for (const line of lines) this.line(line.endsWith("\r") ? line.slice(0, -1) : line);
  }

  line(line) {
    if (line === "") {
      if (this.data.length) this.tell(this.event || "message", this.data.join("\n"));
      this.event = "";
      this.data = [];
    } else if (line.startsWith("data:")) {
      this.data.push(line.slice(line[5] === " " ? 6 : 5));
    } else if (line.startsWith("event:")) {
      this.event = line.slice(6).trim();
    }
  }
}

/**
 * Follows the stream until the page is left.
 *
 * `hooks.event(name, data)` gets each event; `hooks.state(state)` hears of the connection:
 * `{name: "connecting" | "live" | "lost" | "locked", error, retryAt}`, retryAt in milliseconds of
 * Date.now().
 */
export class Follower {
  constructor(hooks) {
    this.hooks = hooks;
    this.heard = 0;
    this.wait = FIRST_WAIT;
    this.abort = null;
    this.timer = 0;
    addEventListener("online", () => this.now());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.checkSilence();
    });
    setInterval(() => this.checkSilence(), 5000);
  }

  /** Connect now, instead of what is under way or waited for. */
  now() {
    clearTimeout(this.timer);
    this.abort?.abort();
    this.connect();
  }

  async connect() {
    const abort = new AbortController();
    this.abort = abort;
    this.hooks.state({ name: "connecting" });
    let error;
    try {
      await this.read(abort.signal);
      error = new CallError(0, "The router ended the stream.");
    } catch (caught) {
      error = caught;
    }
    if (this.abort !== abort) return; // another one has begun
    this.abort = null;
    this.ended(error instanceof CallError ? error : new CallError(0, "The connection broke."));
  }

  ended(error) {
    if (error.locked) {
      this.hooks.state({ name: "locked", error });
      return;
    }
    const wait = this.wait * (0.8 + 0.4 * Math.random());
    this.wait = Math.min(LONGEST_WAIT, this.wait * 2);
    this.timer = setTimeout(() => this.connect(), wait * 1000);
    this.hooks.state({ name: "lost", error, retryAt: Date.now() + wait * 1000 });
  }

  async read(signal) {
    this.heard = Date.now();
    const response = await send(PATH, { headers: { Accept: "text/event-stream" }, signal });
    if (!response.ok) throw new CallError(response.status, await refusal(response));
    const reader = new Reader((name, data) => this.take(name, data));
    const decoder = new TextDecoder();
    const body = response.body.getReader();
    for (;;) {
      const { done, value } = await body.read();
      if (done) return;
      if (signal.aborted) return;
      this.heard = Date.now();
      reader.feed(decoder.decode(value, { stream: true }));
    }
  }

  take(name, data) {
    this.wait = FIRST_WAIT;
    if (name === "hello") this.hooks.state({ name: "live" });
    try {
      this.hooks.event(name, JSON.parse(data.replace(TURNS, "\ufffd")));
    } catch (error) {
      reportError(error); // a fault of the page is no fault of the connection
    }
  }

  checkSilence() {
    if (this.abort && Date.now() - this.heard > LONGEST_SILENCE * 1000) {
      this.abort.abort();
      this.abort = null;
      this.ended(new CallError(0, "The router fell silent."));
    }
  }
}
