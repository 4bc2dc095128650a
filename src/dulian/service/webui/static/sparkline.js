// One value and how it came about: a small line without axes.
import { el, svg } from "./dom.js";

const WIDTH = 160;
const HEIGHT = 32;

/** A trend that keeps its last `length` values; `floor` is the least height of the scale. */
export class Trend {
  #values = [];
  #length;
  #floor;
  #line = svg("path", { class: "spark-line" });
  #area = svg("path", { class: "spark-area" });
  #limit = svg("line", { class: "spark-limit", x1: 0, x2: WIDTH });
  #name = el("dt");
  #value = el("dd", { class: "trend-value" });
  #figure;

  constructor({ length = 60, floor = 1 } = {}) {
    this.#length = length;
    this.#floor = floor;
    const viewBox = `0 0 ${WIDTH} ${HEIGHT}`;
    const box = { class: "spark", viewBox, preserveAspectRatio: "none", role: "img" };
    this.#figure = svg("svg", box, this.#area, this.#limit, this.#line);
    this.element = el("div", { class: "trend" }, this.#name, this.#value, el("dd", { class: "trend-line" }, this.#figure));
  }

  /** Take in a value (null is a gap), and say it; `limit` is drawn as a line where there is one. */
  add(value, { limit = null } = {}) {
    this.#values.push(value);
    this.#values = this.#values.slice(-this.#length);
    const top = Math.max(this.#floor, limit ?? 0, this.range.high);
    this.#draw(top);
    const y = at(limit ?? 0, top);
    this.#limit.toggleAttribute("hidden", limit === null);
    this.#limit.setAttribute("y1", y);
    this.#limit.setAttribute("y2", y);
  }

  /** How many values are known, the least and the greatest of them. */
  get range() {
    const known = this.#values.filter((one) => one !== null);
    return { count: known.length, low: known.length ? Math.min(...known) : 0, high: Math.max(0, ...known) };
  }

  say(name, value, description) {
    this.#name.textContent = name;
    this.#value.textContent = value;
    this.#figure.setAttribute("aria-label", description);
  }

  /** Forget what was. */
  reset() {
    this.#values = [];
  }

  #draw(top) {
    const step = WIDTH / (this.#length - 1);
    const start = this.#length - this.#values.length;
    const runs = [[]];
    this.#values.forEach((value, i) => {
      if (value === null) runs.push([]);
      else runs.at(-1).push([((start + i) * step).toFixed(1), at(value, top)]);
    });
    const known = runs.filter((run) => run.length);
    const path = (run) => run.map((point) => point.join(" ")).join("L");
    this.#line.setAttribute("d", known.map((run) => `M${path(run)}`).join(""));
    const area = (run) => `M${run[0][0]} ${HEIGHT}L${path(run)}L${run.at(-1)[0]} ${HEIGHT}Z`;
    this.#area.setAttribute("d", known.map(area).join(""));
  }
}

function at(value, top) {
  return (HEIGHT - 2 - (value / top) * (HEIGHT - 4)).toFixed(1);
}
