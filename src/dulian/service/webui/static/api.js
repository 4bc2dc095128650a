// What the page says to its server, and hears. The key is a variable in here and nowhere else.
let key = "";
const waitingForKey = [];

/** The server cannot be reached, or went away while it was being spoken to. */
export class Unreachable extends Error {}

export function hasKey() {
  return key !== "";
}

/** Use a key from now on; whoever waits for one goes on. */
export function useKey(text) {
  key = text.trim();
  for (const go of waitingForKey.splice(0)) go();
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

/** `{status, body, retryAfter}` of a GET for JSON; the body is null where there is none. */
export async function ask(path, { signal } = {}) {
  let answer;
  try {
    answer = await fetch(path, { headers: headers(), signal, cache: "no-store" });
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    throw new Unreachable(String(error));
  }
  const body = await answer.json().catch(() => null);
  return heard(answer.status, body, answer.headers.get("Retry-After"));
}

/**
 * What our server says has a body in JSON, or says when to come back where it has no room for one. Anything else is said
 * in its place, by a proxy that cannot reach it.
 */
function heard(status, body, retryAfter) {
  if (body === null && retryAfter === null) throw new Unreachable(`status ${status} without an answer in JSON`);
  return { status, body, retryAfter: seconds(retryAfter) };
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
