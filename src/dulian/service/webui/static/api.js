// What the page says to its server, and hears. The key is a variable in here and nowhere else.

// A question about the server that takes longer is no answer.
const PATIENCE_MS = 5000;
// What a key may consist of: nothing else can stand in a header, or name a subprotocol.
const KEY = /^[\x21-\x7e]+$/;
// Words for what a proxy says in the server's place, by status; what is not here has to be waited out.
const BY_STATUS = { 401: "access_denied", 403: "access_denied", 413: "input_too_large" };
const OK = 200;
const AWAY = new Set([0, 502, 503, 504]);

let key = "";
const waitingForKey = [];

/** The server cannot be reached, or went away while it was being spoken to. */
export class Unreachable extends Error {}

export function hasKey() {
  return key !== "";
}

/** Use a key from now on, if it can be one; whoever waits for one goes on. */
export function useKey(text) {
  if (!KEY.test(text.trim())) return false;
  key = text.trim();
  for (const go of waitingForKey.splice(0)) go();
  return true;
}

export function nextKey(signal) {
  return new Promise((resolve, reject) => {
    waitingForKey.push(resolve);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

function headers() {
  return key ? { "X-API-Key": key } : {};
}

/** `{status, body, retryAfter}` of a GET for JSON. */
export async function ask(path, { signal } = {}) {
  const patience = new AbortController();
  const stop = () => patience.abort();
  const timer = setTimeout(stop, PATIENCE_MS);
  signal?.addEventListener("abort", stop);
  try {
    const answer = await fetch(path, { headers: headers(), signal: patience.signal, cache: "no-store" });
    return heard(answer.status, await answer.json().catch(() => null), answer.headers.get("Retry-After"));
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    throw error instanceof Unreachable ? error : new Unreachable(String(error));
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  }
}

/**
 * An answer as our server gives it: JSON with a result, or with an error that has a code; or a bare status that says when
 * to come back. Anything else is said in its place by a proxy, that cannot reach it or has limits of its own.
 */
function heard(status, body, retryAfter) {
  const isOurs = status === OK ? body !== null : typeof body?.error?.code === "string";
  if (!isOurs && retryAfter === null && (AWAY.has(status) || status === OK)) {
    throw new Unreachable(`status ${status} that is not the server's own`);
  }
  const code = BY_STATUS[status] ?? "internal";
  return { status, body: isOurs ? body : { error: { code, message: `status ${status}` } }, retryAfter: seconds(retryAfter) };
}

function seconds(text) {
  return Math.max(1, Number.parseInt(text ?? "", 10) || 1);
}

/**
 * Send a picture, and tell how far it is; `{status, body, retryAfter}` comes back.
 * By XMLHttpRequest, because fetch does not say how much has been uploaded.
 */
export function send(blob, { query, signal, onProgress, onSent }) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const request = new XMLHttpRequest();
    request.open("POST", `/v1/analyze${query ? `?${query}` : ""}`);
    request.responseType = "json";
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    // Never the type that a file claims: the server looks at the bytes.
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", (event) => onProgress(event.total ? event.loaded / event.total : 0));
    request.upload.addEventListener("load", onSent);
    request.addEventListener("load", () => {
      try {
        resolve(heard(request.status, request.response, request.getResponseHeader("Retry-After")));
      } catch (error) {
        reject(error);
      }
    });
    request.addEventListener("error", () => reject(new Unreachable("the connection failed")));
    request.addEventListener("abort", () => reject(signal.reason));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(blob);
  });
}

/** A stream of frames; a browser can give a WebSocket no header, so a key goes along as a subprotocol. */
export function openStream() {
  const address = new URL("/v1/stream", location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  return new WebSocket(address, key ? ["dulian.v1", key] : ["dulian.v1"]);
}
