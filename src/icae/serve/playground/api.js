// Requests to the server, and its errors in plain words.

import { ask, byId } from "./dom.js";

const BASE = new URL("../", document.baseURI);
const KEPT_KEY = "icae-key";

/** An error that can be shown as it is. */
export class Refused extends Error {
  constructor(message, { status = 0, code = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

const WORDS = {
  context_length_exceeded: "This does not fit the model's context window.",
  incompatible_memory: "This memory was made with another model or adapter than the server runs.",
  invalid_api_key: "The server does not know this key.",
  invalid_memory_file: "This is not a whole and unchanged memory file.",
  memory_changed: "This memory was changed in the meantime. Send it again.",
  memory_in_progress: "This memory is being worked on. Wait until it is ready.",
  memory_not_found: "This memory is no longer there.",
  memory_not_ready: "This memory is not ready yet.",
  precondition_failed: "This memory was changed in the meantime. Load the page again to see it as it is.",
  queue_full: "The server has too much to do. Try again in a moment.",
  shutting_down: "The server is shutting down.",
  timeout: "The server took too long.",
  too_many_requests: "Too many requests at a time. Try again in a moment.",
};

let asking = null;

/** Whether a key is kept in this tab. */
export function hasKey() {
  return sessionStorage.getItem(KEPT_KEY) !== null;
}

/** Forget the key. */
export function forgetKey() {
  sessionStorage.removeItem(KEPT_KEY);
}

/**
 * Send a request; a server that wants a key gets one, from the person if need be.
 * @param {string} path Path below the server's root, e.g. "v1/memories".
 * @param {RequestInit} [options] As for `fetch`; `json` is a body to be sent as JSON, `onSent`
 *   gets the share 0..1 of the body that is sent.
 * @returns {Promise<Response>} A response that is no error.
 * @throws {Refused} With words for people.
 */
export async function send(path, { json, headers = {}, ...options } = {}) {
  const body = json === undefined ? options.body : JSON.stringify(json);
  for (;;) {
    const key = sessionStorage.getItem(KEPT_KEY);
    const sent = { ...headers };
    if (json !== undefined) sent["Content-Type"] = "application/json";
    if (key !== null) sent.Authorization = `Bearer ${key}`;
    let response;
    try {
      response = await fetched(new URL(path, BASE), { ...options, body, headers: sent });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused("The server does not answer. Is it still running?");
    }
    if (response.ok) return response;
    const refused = await refusal(response);
    if (response.status !== 401) throw refused;
    if (sessionStorage.getItem(KEPT_KEY) === key) await askForKey(key === null ? null : refused);
  }
}

/** As `fetch`, which does not tell how much of a body is sent: with `onSent` the older way. */
function fetched(url, { onSent, ...options }) {
  if (onSent === undefined) return fetch(url, options);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(options.method, url);
    for (const [name, value] of Object.entries(options.headers)) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", ({ loaded, total }) => onSent(loaded / total));
    request.addEventListener("load", () => {
      resolve(new Response(request.response, { status: request.status }));
    });
    request.addEventListener("error", () => reject(new TypeError("no response")));
    request.send(options.body);
  });
}

/** As `send`; the body of the response as JSON. */
export async function receive(path, options) {
  return (await send(path, options)).json();
}

/** What an error body, or a response without one, says. */
async function refusal(response) {
  try {
    return worded((await response.json()).error, response.status);
  } catch {
    return new Refused(`The server answered with an error (${response.status}).`, response);
  }
}

/** An error of the server in plain words. */
export function worded(error, status = 0) {
  return new Refused(WORDS[error.code] ?? sentences(error.message), { status, code: error.code });
}

/** "What. (got: a; expected: b; fix: c)" as sentences, without what was got. */
function sentences(message) {
  const [, what, notes] = message.match(/^(.*?) \(((?:got|expected|fix): .*)\)$/s) ?? [];
  if (what === undefined) return message;
  const told = notes.split(/; (?=(?:expected|fix): )/).map((note) => {
    const [, label, text] = note.match(/^(\w+): (.*)$/s);
    if (label === "got") return "";
    const said = label === "fix" ? text.charAt(0).toUpperCase() + text.slice(1) : `Expected: ${text}`;
    return ` ${said.replace(/\.$/, "")}.`;
  });
  return what + told.join("");
}

/**
 * Ask the person for a key, once however many requests wait for it.
 * @throws {Refused} If they would rather not give one.
 */
export function askForKey(refused) {
  asking ??= (async () => {
    if (refused !== null) byId("key-reason").textContent = `${refused.message} Try another.`;
    byId("key").value = "";
    const outcome = await ask(byId("key-dialog"));
    const key = byId("key").value.trim();
    byId("key").value = "";
    if (outcome !== "use" || key === "") throw new Refused("The server asks for an API key.");
    sessionStorage.setItem(KEPT_KEY, key);
  })().finally(() => {
    asking = null;
    showKeyButton();
  });
  return asking;
}

/** Say on the button of the header what it does: enter a key, or forget it. */
export function showKeyButton() {
  const button = byId("key-button");
  button.hidden = false;
  button.textContent = hasKey() ? "Forget the key" : "Enter a key";
}

/**
 * A streamed answer.
 * @param {Object} chat Body of the request, without `stream`.
 * @param {AbortSignal} signal Ends it.
 * @param {function(string): void} onText Gets each piece.
 * @returns {Promise<{usage: Object, figures: Object, finish: string}>} What it cost.
 */
export async function streamChat(chat, signal, onText) {
  const json = { ...chat, stream: true, stream_options: { include_usage: true } };
  const response = await send("v1/chat/completions", { method: "POST", json, signal });
  const told = { usage: null, figures: null, finish: null };
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return told;
    const piece = JSON.parse(data);
    if (piece.error) throw worded(piece.error);
    if (piece.usage) told.usage = piece.usage;
    if (piece.icae) told.figures = piece.icae;
    const [choice] = piece.choices;
    if (choice?.finish_reason) told.finish = choice.finish_reason;
    if (choice?.delta.content) onText(choice.delta.content);
  }
  throw new Refused("The answer broke off. Is the server still running?");
}

/** The data of server-sent events. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let kept = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused("The answer broke off. Is the server still running?");
    }
    if (part.done) return;
    const pieces = (kept + part.value).split("\n\n");
    kept = pieces.pop();
    for (const piece of pieces) if (piece.startsWith("data: ")) yield piece.slice(6);
  }
}
