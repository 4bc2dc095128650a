// One picture's course from a file to an answer: every state it can be in, and what leads from one to the next.
import { Unreachable, ask, nextKey, send } from "./api.js";
import { pixelsOf } from "./pixels.js";
import { SHRUNK_FROM_BYTES, SHRUNK_SIDE, isCommon, shrunk, thumbnail } from "./prepare.js";

/** States that end a course; all others are on their way. */
const ENDED = new Set(["done", "empty", "refused", "failed", "cancelled"]);

// How often one upload may break while the server is there, and how often it may be too busy, before we give up.
const MAX_BROKEN = 3;
const MAX_BUSY = 10;
const REFUSALS = new Set([400, 413, 415, 422]);
const BUSY = new Set([429, 503]);
const UNAUTHENTICATED = 401;
// What browsers say of a file that was moved, changed or taken away since it was chosen.
const GONE = new Set(["NotFoundError", "NotReadableError"]);
const LOOK_AFTER_MS = 300;
const LOOK_EVERY_MS = 700;
const AWAY_PAUSES_MS = [500, 1000, 2000, 4000];

let count = 0;

export class Picture extends EventTarget {
  constructor(file, name) {
    super();
    this.id = ++count;
    this.file = file;
    this.name = name;
    this.state = "waiting";
    this.mustShrink = false;
    this.thumbnail = null;
    this.side = 0;
    this.drawnByServer = false;
    this.#clear();
  }

  #clear() {
    this.result = null;
    this.error = null;
    this.detail = {};
    this.sent = null;
    this.marks = { added: performance.now() };
    this.controller = new AbortController();
  }

  get ended() {
    return ENDED.has(this.state);
  }

  /** Whether another try may end otherwise: the server refuses the same file for the same reason every time. */
  get retriable() {
    return this.state === "failed" || this.state === "cancelled";
  }

  /** Whether it was too big, and could be shrunk to fit. */
  get shrinkable() {
    return this.error?.code === "input_too_large" && this.side > SHRUNK_SIDE && !this.mustShrink;
  }

  /** Whether there is a result to show. */
  get answered() {
    return this.state === "done" || this.state === "empty";
  }

  become(state, detail = {}) {
    this.state = state;
    this.detail = detail;
    this.dispatchEvent(new Event("change"));
  }

  cancel() {
    if (this.ended) return;
    this.controller.abort(new DOMException("cancelled", "AbortError"));
    this.become("cancelled");
  }

  /** Back to the start, for another try. */
  reset({ mustShrink = this.mustShrink } = {}) {
    this.#clear();
    this.mustShrink = mustShrink;
    this.become("waiting");
  }

  /** Go all the way; never throws. `settings` are the page's, `limits` the server's as far as they are known. */
  async run(settings, limits) {
    const { signal } = this.controller;
    try {
      const parcel = await this.#prepare(settings, limits, signal);
      if (parcel) await this.#deliver(parcel, signal);
    } catch (error) {
      if (signal.aborted) return;
      const code = GONE.has(error.name) ? "unreadable" : "internal";
      this.#end("failed", { code, message: String(error) });
    }
  }

  /** What is to be sent: a common kind that need not be shrunk leaves before it is open. Null ends the course. */
  async #prepare(settings, limits, signal) {
    this.become("preparing");
    if (this.file.size === 0) {
      await this.file.arrayBuffer(); // Chromium gives no size to a file that has gone either; this throws then
      signal.throwIfAborted();
      this.#end("refused", { code: "empty" });
      return null;
    }
    const opening = this.#open();
    const mayShrink = this.mustShrink || (settings.shrink && this.file.size > SHRUNK_FROM_BYTES);
    let blob = this.file;
    if (mayShrink || !(await isCommon(this.file))) {
      const bitmap = await opening;
      if (bitmap && mayShrink) blob = (await shrunk(this.file, bitmap)) ?? this.file;
    }
    const isTooBig = limits && blob.size > limits.body_bytes;
    if (isTooBig) await opening; // to offer to shrink it
    signal.throwIfAborted();
    if (isTooBig) {
      this.#end("refused", { code: "input_too_large", size: blob.size, limit: limits.body_bytes });
      return null;
    }
    this.sent = { bytes: blob.size };
    return blob;
  }

  async #open() {
    const bitmap = await pixelsOf(this);
    this.drawnByServer = bitmap === null;
    if (bitmap && !this.thumbnail) {
      this.thumbnail = thumbnail(bitmap);
      this.side = Math.max(bitmap.width, bitmap.height);
      this.dispatchEvent(new Event("change"));
    }
    return bitmap;
  }

  async #deliver(blob, signal) {
    const tries = { broken: 0, busy: 0 };
    while (!this.ended) {
      try {
        await this.#answer(await this.#send(blob, signal), tries, signal);
      } catch (error) {
        if (!(error instanceof Unreachable)) throw error;
        await this.#outlast(tries, signal);
      }
    }
  }

  async #send(blob, signal) {
    this.become("uploading", { share: 0 });
    this.marks.sending = performance.now();
    const looking = new AbortController();
    try {
      return await send(blob, {
        query: this.drawnByServer ? "annotate=base64" : "",
        signal,
        onProgress: (share) => this.state === "uploading" && this.become("uploading", { share }),
        onSent: () => {
          this.become("analysing");
          this.#watchQueue(looking.signal);
        },
      });
    } finally {
      looking.abort();
    }
  }

  /** While the answer takes its time, look whether a queue is the reason. */
  async #watchQueue(signal) {
    const pause = (ms) => sleep(ms, signal);
    try {
      for (await pause(LOOK_AFTER_MS); !this.ended; await pause(LOOK_EVERY_MS)) {
        const { body } = await ask("/v1/status", { signal });
        const length = body?.queue?.length ?? 0;
        if (signal.aborted) return;
        this.become(length > 0 ? "queued" : "analysing", { length });
      }
    } catch {
      // Only curiosity: what becomes of the picture is told elsewhere.
    }
  }

  async #answer({ status, body, retryAfter }, tries, signal) {
    this.marks.answered = performance.now();
    const error = body?.error ?? { code: "internal", message: `status ${status}` };
    if (status === 200) this.#finish(body, error);
    else if (status === UNAUTHENTICATED) await this.#waitForKey(signal);
    else if (BUSY.has(status) && ++tries.busy <= MAX_BUSY) await this.#waitFor(retryAfter, signal);
    else this.#end(REFUSALS.has(status) ? "refused" : "failed", error);
  }

  #finish(result, error) {
    if (!Array.isArray(result.faces) || !(result.image?.width > 0)) {
      this.#end("failed", error);
      return;
    }
    this.result = result;
    Object.assign(this.sent, { width: result.image.width, height: result.image.height });
    this.become(result.faces.length ? "done" : "empty");
  }

  #end(state, error) {
    this.error = error;
    this.become(state);
  }

  async #waitForKey(signal) {
    this.become("locked");
    await nextKey(signal);
  }

  async #waitFor(seconds, signal) {
    for (let left = seconds; left > 0; left--) {
      this.become("overloaded", { seconds: left });
      await sleep(1000, signal);
    }
  }

  /** The connection broke: wait until the server is there again, and give up if it is there and breaks every time. */
  async #outlast(tries, signal) {
    this.become("away");
    for (let round = 0; ; round++) {
      try {
        await ask("/livez", { signal });
        break;
      } catch (error) {
        if (!(error instanceof Unreachable)) throw error;
        tries.broken = 0;
        await sleep(AWAY_PAUSES_MS[Math.min(round, AWAY_PAUSES_MS.length - 1)], signal);
      }
    }
    await this.file.arrayBuffer(); // a file that has gone breaks uploads too, and throws here
    if (++tries.broken >= MAX_BROKEN) this.#end("failed", { code: "broken" });
  }
}

function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, ms);
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
  });
}
