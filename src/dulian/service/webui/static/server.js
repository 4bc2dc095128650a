// The drawer about the server: whether it is ready, how it is doing, and the key it may want.
import { Unreachable, ask, hasKey, useKey } from "./api.js";
import { byId } from "./dom.js";
import { Trend } from "./sparkline.js";
import { bytes, digits, duration, onLanguage, t } from "./texts.js";

const OPEN_EVERY_MS = 1000;
const CLOSED_EVERY_MS = 10_000;
const UNAUTHENTICATED = 401;

const milliseconds = (value) => t("unit.ms", { value: digits(value) });
const percent = (value) => `${Math.round(value)} %`;
const of = (value, limit, unit = String) => (limit === null ? unit(value) : t("server.of", { value: unit(value), limit: unit(limit) }));

// What is shown, in order: its name, where it is in /v1/status, its limit there, and how it is written.
const ROWS = [
  { key: "queue", read: (s) => s.queue.length, limit: (s) => s.queue.limit, write: of },
  { key: "requests", read: (s) => s.requests_per_s, write: digits },
  { key: "latency", read: (s) => s.latency_ms.p50, write: milliseconds },
  { key: "slowest", read: (s) => s.latency_ms.p99, write: milliseconds },
  { key: "cpu", read: (s) => s.cpu_percent, limit: (s) => s.workers * 100, write: (v, l) => of(v, l, percent) },
  {
    key: "memory",
    read: (s) => s.memory.used_bytes,
    limit: (s) => s.memory.limit_bytes,
    write: (v, l) => of(v, l, bytes),
  },
];

export class ServerDrawer {
  #trends = ROWS.map(() => new Trend());
  #latest = null;
  #state = "unknown";
  #timer = 0;
  #keyNote = "";
  #onBack;

  /** `onBack()` is called when the server answers again, or accepts a key. */
  constructor({ onBack }) {
    this.#onBack = onBack;
    byId("trends").replaceChildren(...this.#trends.map(({ element }) => element));
    byId("server-toggle").addEventListener("click", () => (this.isOpen ? this.close() : this.open()));
    byId("server-close").addEventListener("click", () => this.close());
    byId("server").addEventListener("keydown", ({ key }) => key === "Escape" && this.close());
    byId("key-form").addEventListener("submit", (event) => this.#submitKey(event));
    document.addEventListener("visibilitychange", () => document.hidden || this.#look());
    onLanguage(() => this.#render());
    this.#look();
  }

  get isOpen() {
    return !byId("server").hidden;
  }

  open() {
    byId("server").hidden = false;
    for (const trend of this.#trends) trend.reset();
    byId("server-toggle").setAttribute("aria-expanded", "true");
    (this.#state === "locked" ? byId("key") : byId("server-close")).focus();
    this.#look();
  }

  close() {
    byId("server").hidden = true;
    byId("server-toggle").setAttribute("aria-expanded", "false");
    byId("server-toggle").focus();
  }

  async #look() {
    clearTimeout(this.#timer);
    if (!document.hidden) await this.#ask();
    clearTimeout(this.#timer); // another look may have begun meanwhile
    this.#timer = setTimeout(() => this.#look(), this.isOpen ? OPEN_EVERY_MS : CLOSED_EVERY_MS);
  }

  async #ask() {
    let answer;
    try {
      answer = await ask("/v1/status");
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
      answer = { status: 0, body: null };
    }
    const before = this.#state;
    this.#take(answer);
    if (this.#state === "ready" && before !== "ready") this.#onBack();
  }

  #take({ status, body }) {
    const known = status === 200;
    if (known) {
      this.#latest = body;
      this.#state = body.ready ? "ready" : "busy";
    } else {
      this.#state = status === UNAUTHENTICATED ? "locked" : status ? "busy" : "away";
    }
    if (this.isOpen) this.#follow(known ? body : null);
    this.#render();
  }

  /** The drawer's lines go on by one step a second; while it is closed nobody looks that often. */
  #follow(body) {
    ROWS.forEach(({ read, limit }, i) => {
      this.#trends[i].add(body && read(body), { limit: (body && limit?.(body)) || null });
    });
  }

  #render() {
    const state = t(`server.${this.#state}`);
    byId("server-toggle").dataset.state = this.#state;
    byId("server-dot-label").textContent = state;
    // It is read out when it changes, and must not be each second.
    if (byId("server-state").textContent !== state) byId("server-state").textContent = state;
    byId("key-note").textContent = this.#keyNote ? t(this.#keyNote) : "";
    byId("server-state").dataset.state = this.#state;
    byId("key-form").hidden = this.#state !== "locked" && !hasKey();
    byId("trends").hidden = this.#latest === null;
    if (this.#latest) this.#renderNumbers(this.#latest);
  }

  #renderNumbers(status) {
    ROWS.forEach(({ key, read, limit, write }, i) => {
      const trend = this.#trends[i];
      const value = read(status);
      const text = value === null ? "–" : write(value, limit?.(status) ?? null);
      const { count, low, high } = trend.range;
      const range = { low: write(low, null), high: write(high, null) };
      const name = t(`server.${key}`);
      trend.say(name, text, t("server.trend", { name, value: text, count, ...range }));
    });
    const { profile, engine, uptime_s: uptime, process, processes } = status;
    const about = [t("result.engine", { profile, engine }), t("server.uptime", { time: duration(uptime) })];
    if (processes > 1) about.push(t("server.process", { number: process + 1, count: processes }));
    byId("server-about").textContent = about.join(" · ");
  }

  async #submitKey(event) {
    event.preventDefault();
    const isPossible = useKey(byId("key").value);
    byId("key").value = "";
    this.#keyNote = "";
    if (isPossible) await this.#ask();
    const isAccepted = isPossible && (this.#state === "ready" || this.#state === "busy");
    if (isAccepted) this.#keyNote = "server.key.right";
    else if (this.#state === "locked") this.#keyNote = "server.key.wrong";
    this.#render();
  }
}
