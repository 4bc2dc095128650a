// The chosen picture, large: drawn at the screen's own resolution, and asked which face the pointer is on.
import { composed, drawComposed, subjectsOf } from "./draw.js";

export class Viewer extends EventTarget {
  #canvas;
  #shown = null;
  #chosen = null;
  #subjects = [];
  #scaled = document.createElement("canvas");
  #scaledOf = null;
  #composition = null;

  /** `canvas` fills its parent; `point` and `pick` events carry the id of a face, or null. */
  constructor(canvas) {
    super();
    this.#canvas = canvas;
    new ResizeObserver(() => this.#compose()).observe(canvas.parentElement);
    canvas.addEventListener("pointermove", (event) => this.#tell("point", event));
    canvas.addEventListener("pointerleave", () => this.dispatchEvent(new CustomEvent("point", { detail: null })));
    canvas.addEventListener("click", (event) => this.#tell("pick", event));
  }

  /** Show pixels, with the faces of a result or without; `drawn` says that the faces are in the pixels already. */
  show(bitmap, result, { drawn = false } = {}) {
    this.#shown = bitmap && { bitmap, result, drawn };
    this.#chosen = null;
    this.#canvas.parentElement.style.aspectRatio = bitmap ? `${bitmap.width} / ${bitmap.height}` : "";
    this.#compose();
  }

  choose(id) {
    if (id === this.#chosen) return;
    this.#chosen = id;
    this.#draw();
  }

  /** Scale the picture and place the labels anew: what stays as it is while the pointer moves. */
  #compose() {
    this.#canvas.hidden = !this.#shown;
    if (!this.#shown) {
      this.#scaledOf = null; // its pixels are not ours to keep
      return;
    }
    const { bitmap, result } = this.#shown;
    const ratio = devicePixelRatio || 1;
    const [width, height] = this.#fit(bitmap);
    const frame = [Math.round(width * ratio), Math.round(height * ratio)];
    Object.assign(this.#canvas.style, { width: `${width}px`, height: `${height}px` });
    const pen = this.#scale(bitmap, frame);
    const scale = result ? frame[0] / result.image.width : 0;
    this.#subjects = result ? subjectsOf(result.faces, { scale, frame, unit: ratio }) : [];
    this.#composition = composed(pen, this.#subjects, frame);
    this.#draw();
  }

  /** The picture in the frame's size, as long as it is the same one it was. */
  #scale(bitmap, frame) {
    const pen = this.#scaled.getContext("2d");
    const isSame = this.#scaledOf === bitmap && this.#scaled.width === frame[0] && this.#scaled.height === frame[1];
    if (isSame) return pen;
    for (const canvas of [this.#canvas, this.#scaled]) [canvas.width, canvas.height] = frame;
    this.#scaledOf = bitmap;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(bitmap, 0, 0, ...frame);
    return pen;
  }

  #draw() {
    if (!this.#shown) return;
    const pen = this.#canvas.getContext("2d");
    pen.drawImage(this.#scaled, 0, 0);
    if (!this.#shown.drawn) {
      drawComposed(pen, this.#composition, { chosen: this.#chosen });
    } else if (this.#chosen !== null) {
      const chosen = this.#subjects.filter(({ id }) => id === this.#chosen);
      drawComposed(pen, composed(pen, chosen, this.#composition.frame), { chosen: this.#chosen });
    }
  }

  /** As large as the room allows, and small pictures at most three times their size. */
  #fit({ width, height }) {
    const room = this.#canvas.parentElement;
    const scale = Math.min(room.clientWidth / width, room.clientHeight / height, 3);
    return [Math.max(1, Math.floor(width * scale)), Math.max(1, Math.floor(height * scale))];
  }

  #tell(name, event) {
    const rim = this.#canvas.getBoundingClientRect();
    const x = ((event.clientX - rim.left) / rim.width) * this.#canvas.width;
    const y = ((event.clientY - rim.top) / rim.height) * this.#canvas.height;
    // Of several, the smallest: it would be out of reach otherwise.
    const under = this.#subjects.filter(({ box: [x1, y1, x2, y2] }) => x >= x1 && x <= x2 && y >= y1 && y <= y2);
    under.sort((a, b) => (a.box[2] - a.box[0]) * (a.box[3] - a.box[1]) - (b.box[2] - b.box[0]) * (b.box[3] - b.box[1]));
    this.dispatchEvent(new CustomEvent(name, { detail: under[0]?.id ?? null }));
  }
}
