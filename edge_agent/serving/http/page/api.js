// The box's API: requests with its token, sessions, and news as they come.

const TOKEN = "edgewright-token";
const QUIET_MS = 45_000; // without a byte of news, not even a comment: the connection is dead
const FIRST_WAIT_MS = 500;
const MOST_WAIT_MS = 15_000;
const inFlight = new Set();

export class ApiError extends Error {
  // kind: "answer" as the box said, "lost" without an answer, "left" because this page gave it up
  constructor(message, { kind = "answer", hint = "", status = 0 } = {}) {
    super(message);
    Object.assign(this, { kind, hint, status });
  }
}

// Return what people are told of a request that failed; a command that got no answer may have been done.
export function failureText({ kind, message, hint }) {
  if (kind === "lost") return "The box did not answer. It is not known whether this was done.";
  if (kind === "left") return "This was given up before the box answered. What was begun may be done.";
  const sentences = [message, hint].filter(Boolean);
  return sentences.map((text) => `${text.charAt(0).toUpperCase()}${text.slice(1).replace(/\.$/, "")}.`).join(" ");
}

let askForToken = null; // gives a promise of a token; set by token.js

export function onTokenNeeded(ask) {
  askForToken = ask;
}

export function token() {
  return sessionStorage.getItem(TOKEN) ?? "";
}

export function keepToken(value) {
  sessionStorage.setItem(TOKEN, value);
}

// Give up every request on its way.
export function giveUpAll() {
  for (const one of inFlight) one.abort();
}

export function get(path) {
  return call("GET", path, undefined, new AbortController());
}

export function post(path, body, controller = new AbortController()) {
  return call("POST", path, body ?? {}, controller);
}

async function call(method, path, body, controller) {
  if (path !== "stop") inFlight.add(controller); // a stop is never given up
  try {
    const response = await open(method, path, body, controller.signal);
    return await response.json();
  } catch (error) {
    if (error instanceof ApiError) throw error;
    if (controller.signal.aborted) throw new ApiError("This was given up.", { kind: "left" });
    throw new ApiError("The box did not answer.", { kind: "lost" });
  } finally {
    inFlight.delete(controller);
  }
}

// Return the response of a request that the box let in and took; asks for a token as often as one is needed.
async function open(method, path, body, signal) {
  for (;;) {
    const used = token();
    const response = await fetch(`api/${path}`, {
      method,
      signal,
      cache: "no-store",
      priority: path === "stop" ? "high" : "auto",
      keepalive: path === "stop",
      headers: {
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...(used ? { Authorization: `Bearer ${used}` } : {}),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (response.ok) return response;
    if (response.status === 401 && askForToken) {
      await askForToken(used);
      continue;
    }
    throw await refusal(response);
  }
}

async function refusal(response) {
  let said = {};
  try {
    said = (await response.json()).error ?? {};
  } catch {
    // what is no JSON comes from another server before the box
  }
  const message = said.message || `The box answered with ${response.status}.`;
  return new ApiError(message, { hint: said.hint ?? "", status: response.status });
}

// One conversation, opened when it is first used and anew when the box has forgotten it.
export class Session {
  #id = null;

  // Do one of ask, command, confirm. A yes of a forgotten session is never given to another.
  async do(what, body, controller) {
    const isNew = this.#id === null;
    this.#id ??= (await post("sessions")).session;
    try {
      return await post(`sessions/${encodeURIComponent(this.#id)}/${what}`, body, controller);
    } catch (error) {
      if (isNew || what === "confirm" || !/no such session/.test(error.message)) throw error;
      this.#id = null;
      return this.do(what, body, controller);
    }
  }
}

// Hear news until the page goes. `hear(event, body)` gets each piece; `tell(isThere, waitMs, reason)`
// how the connection is.
export class News {
  #controller = null;
  #wake = null;

  constructor(hear, tell) {
    Object.assign(this, { hear, tell });
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#controller?.abort() : this.again()));
    window.addEventListener("online", () => this.again());
    this.#run();
  }

  // Try now, if there is no connection.
  again() {
    this.#wake?.();
  }

  // Let go of the connection; it comes back by itself.
  drop() {
    this.#controller?.abort();
  }

  async #run() {
    let waitMs = FIRST_WAIT_MS;
    for (;;) {
      let isHeard = false;
      let reason = "";
      try {
        await this.#listen(() => (isHeard = true));
      } catch (error) {
        reason = error instanceof ApiError ? failureText(error) : ""; // whatever else ended it: the next try is the answer
      }
      if (isHeard) waitMs = FIRST_WAIT_MS;
      if (!document.hidden) this.tell(false, waitMs, reason);
      await new Promise((resolve) => {
        this.#wake = resolve;
        if (!document.hidden) setTimeout(resolve, waitMs); // in a hidden tab: when it is seen again
      });
      this.#wake = null;
      waitMs = Math.min(2 * waitMs, MOST_WAIT_MS);
    }
  }

  async #listen(opened) {
    this.#controller = new AbortController();
    const { signal } = this.#controller;
    let timer = setTimeout(() => this.drop(), QUIET_MS);
    try {
      const response = await open("GET", "events", undefined, signal);
      opened();
      this.tell(true, 0);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        clearTimeout(timer);
        timer = setTimeout(() => this.drop(), QUIET_MS);
        const parts = (rest + value.replaceAll("\r", "")).split("\n\n");
        rest = parts.pop();
        for (const part of parts) this.#take(part);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #take(part) {
    const field = (name) => part.split("\n").filter((line) => line.startsWith(`${name}:`))
      .map((line) => line.slice(name.length + 1).trimStart()).join("\n");
    const data = field("data");
    if (data) this.#tellLater(field("event") || "message", JSON.parse(data));
  }

  // Hand it on outside of the reading: a mistake there is ours, and no loss of the connection.
  #tellLater(event, body) {
    queueMicrotask(() => this.hear(event, body));
  }
}
