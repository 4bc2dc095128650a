// Frames of a video to the server and answers back, over one WebSocket that is opened again when it breaks.
// While a frame is analysed one more waits there; what comes meanwhile is not sent at all, so the newest always wins.
import { ask, nextKey, openStream } from "./api.js";

// The detector looks at 640 pixels: more would only take longer to send.
const FRAME_SIDE = 640;
const QUALITY = 0.8;
const UNDERWAY = 2;
const WINDOW_MS = 2000;
const REOPEN_MS = 1000;
const UNAUTHENTICATED = 401;

export class FrameStream extends EventTarget {
  #video;
  #canvas = document.createElement("canvas");
  #socket = null;
  #stopped = new AbortController();
  #underway = new Map();
  #count = 0;
  #pausedUntil = 0;
  #encoding = false;
  #answers = [];

  /** `answer` events carry a result, `trouble` events a state: busy, closed or locked; null when it is over. */
  constructor(video) {
    super();
    this.#video = video;
    this.#open();
    this.#follow();
  }

  /** Answers per second and the latest delay in milliseconds, over the last seconds. */
  get pace() {
    const since = performance.now() - WINDOW_MS;
    this.#answers = this.#answers.filter(({ at }) => at > since);
    const delays = this.#answers.map(({ delay }) => delay).sort((a, b) => a - b);
    return { fps: this.#answers.length / (WINDOW_MS / 1000), delay: delays[Math.floor(delays.length / 2)] ?? null };
  }

  stop() {
    this.#stopped.abort(new DOMException("stopped", "AbortError"));
    this.#socket?.close();
  }

  // ── the connection ───────────────────────────────────────────────────────────────────────────────

  #open() {
    if (this.#stopped.signal.aborted) return;
    this.#underway.clear();
    let socket;
    try {
      socket = openStream();
    } catch {
      this.#reopen(); // a key that no subprotocol can spell
      return;
    }
    this.#socket = socket;
    socket.addEventListener("open", () => this.#trouble(null));
    socket.addEventListener("message", ({ data }) => this.#hear(JSON.parse(data)));
    socket.addEventListener("close", () => this.#reopen());
  }

  async #reopen() {
    const { signal } = this.#stopped;
    if (signal.aborted) return;
    this.#trouble("closed");
    try {
      const { status } = await ask("/v1/status", { signal }).catch(() => ({ status: 0 }));
      if (status === UNAUTHENTICATED) {
        this.#trouble("locked");
        await nextKey(signal);
      } else {
        await new Promise((resolve) => setTimeout(resolve, REOPEN_MS));
      }
    } catch {
      return; // stopped
    }
    this.#open();
  }

  #trouble(state) {
    this.dispatchEvent(new CustomEvent("trouble", { detail: state }));
  }

  #hear(message) {
    for (const id of message.dropped ?? []) this.#underway.delete(id);
    const sentAt = this.#underway.get(message.id);
    this.#underway.delete(message.id);
    if (message.error) {
      const pause = message.error.retry_after_s;
      this.#pausedUntil = pause ? performance.now() + pause * 1000 : 0;
      if (pause) this.#trouble("busy");
    } else if (message.faces) {
      const at = performance.now();
      if (sentAt !== undefined) this.#answers.push({ at, delay: at - sentAt });
      this.#trouble(null);
      this.dispatchEvent(new CustomEvent("answer", { detail: message }));
    }
  }

  // ── the frames ───────────────────────────────────────────────────────────────────────────────────

  #follow() {
    if (this.#stopped.signal.aborted) return;
    this.#offer();
    const next = () => this.#follow();
    if (this.#video.requestVideoFrameCallback) this.#video.requestVideoFrameCallback(next);
    else requestAnimationFrame(next);
  }

  #offer() {
    const open = this.#socket?.readyState === WebSocket.OPEN;
    const paused = performance.now() < this.#pausedUntil;
    const seen = this.#video.videoWidth > 0;
    if (!open || paused || !seen || this.#encoding || this.#underway.size >= UNDERWAY) return;
    const id = ++this.#count;
    this.#underway.set(id, performance.now());
    this.#encoding = true;
    this.#snap().toBlob(
      (blob) => {
        this.#encoding = false;
        if (!blob || this.#socket.readyState !== WebSocket.OPEN) {
          this.#underway.delete(id);
          return;
        }
        this.#socket.send(JSON.stringify({ id }));
        this.#socket.send(blob);
      },
      "image/jpeg",
      QUALITY,
    );
  }

  #snap() {
    const { videoWidth, videoHeight } = this.#video;
    const scale = Math.min(1, FRAME_SIDE / Math.max(videoWidth, videoHeight));
    this.#canvas.width = Math.round(videoWidth * scale);
    this.#canvas.height = Math.round(videoHeight * scale);
    this.#canvas.getContext("2d").drawImage(this.#video, 0, 0, this.#canvas.width, this.#canvas.height);
    return this.#canvas;
  }
}
