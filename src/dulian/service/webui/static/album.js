// All pictures of this visit, in order, a few of them on their way at a time.
import { ask } from "./api.js";
import { Picture } from "./picture.js";
import { dropPixels } from "./pixels.js";

const AT_A_TIME = 3;

export class Album extends EventTarget {
  pictures = [];
  settings = { shrink: true };
  limits = null;

  /** Take files in; `picture` events tell of every change of any of them. */
  add(files) {
    const added = [];
    for (const { file, name } of files) {
      const picture = new Picture(file, name);
      picture.addEventListener("change", () => this.#tell(picture));
      this.pictures.push(picture);
      added.push(picture);
    }
    if (!added.length) return;
    this.dispatchEvent(new CustomEvent("added", { detail: added }));
    this.#pump();
  }

  retry(picture, options = {}) {
    picture.reset(options);
    this.#pump();
  }

  cancelAll() {
    this.#cancel(this.pictures);
  }

  clear() {
    const cleared = this.pictures;
    this.pictures = [];
    this.#cancel(cleared);
    this.dispatchEvent(new Event("cleared"));
    cleared.forEach(dropPixels);
  }

  /** Those that wait first: otherwise each that ends would let one of them begin. */
  #cancel(pictures) {
    for (const picture of pictures.filter(({ state }) => state === "waiting")) picture.cancel();
    for (const picture of pictures) picture.cancel();
  }

  /** What the server takes; unknown where it wants a key first. */
  async learnLimits() {
    const { status, body } = await ask("/v1/limits").catch(() => ({ status: 0 }));
    if (status === 200) this.limits = body;
  }

  #tell(picture) {
    if (!this.pictures.includes(picture)) return;
    this.dispatchEvent(new CustomEvent("picture", { detail: picture }));
    if (picture.ended) this.#pump();
  }

  #pump() {
    const underway = this.pictures.filter((picture) => picture.state !== "waiting" && !picture.ended).length;
    const next = this.pictures.filter((picture) => picture.state === "waiting");
    for (const picture of next.slice(0, Math.max(0, AT_A_TIME - underway))) picture.run(this.settings, this.limits);
  }
}
