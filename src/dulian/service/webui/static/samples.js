// Sample pictures: two that the server has where they were pulled, and what the browser makes of them.
import { el, once } from "./dom.js";
import { t } from "./texts.js";

const FOLDER = "/static/samples/";
const PORTRAIT = "astronaut.png";
const CAT = "chelsea.png";
// The portrait's face, and how large it is in the group.
const FACE = { x: 100, y: 0, width: 250, height: 260 };
const SCALES = [1, 0.8, 0.6];

const SAMPLES = [
  { key: "portrait", source: PORTRAIT },
  { key: "group", source: PORTRAIT, make: group },
  { key: "dark", source: PORTRAIT, make: dark },
  { key: "cat", source: CAT },
];

/** Buttons for the samples that the server has; `onPick([{file, name}])` gets the one that was chosen. */
export async function offerSamples(section, list, onPick) {
  const bitmaps = new Map();
  for (const name of [PORTRAIT, CAT]) {
    const answer = await fetch(FOLDER + name).catch(() => null);
    if (answer?.ok) bitmaps.set(name, await createImageBitmap(await answer.blob()));
  }
  const known = SAMPLES.filter(({ source }) => bitmaps.has(source));
  list.replaceChildren(...known.map((sample) => offer(sample, bitmaps.get(sample.source), onPick)));
  section.hidden = known.length === 0;
}

function offer({ key, make }, bitmap, onPick) {
  const canvas = (make ?? copy)(bitmap);
  canvas.setAttribute("aria-hidden", "true");
  const pick = () => {
    canvas.toBlob((blob) => onPick([{ file: blob, name: `${t(`sample.${key}`)}.png` }]), "image/png");
  };
  const label = el("span", { data: { text: `sample.${key}` }, text: t(`sample.${key}`) });
  return el("li", {}, el("button", { type: "button", class: "sample", on: { click: once(pick) } }, canvas, label));
}

function canvasOf(width, height) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  return [canvas, canvas.getContext("2d")];
}

function copy(bitmap) {
  const [canvas, pen] = canvasOf(bitmap.width, bitmap.height);
  pen.drawImage(bitmap, 0, 0);
  return canvas;
}

function dark(bitmap) {
  const canvas = copy(bitmap);
  const pen = canvas.getContext("2d");
  pen.fillStyle = "rgb(0 0 0 / 90%)";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  return canvas;
}

/** Eight portraits in three sizes, every other one mirrored. */
function group(bitmap) {
  const [canvas, pen] = canvasOf(880, 520);
  pen.fillStyle = "#696969";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  for (let index = 0; index < 8; index++) {
    const scale = SCALES[index % SCALES.length];
    const [width, height] = [FACE.width * scale, FACE.height * scale];
    pen.setTransform(1, 0, 0, 1, (index % 4) * 215, Math.floor(index / 4) * 255);
    if (index % 2) pen.transform(-1, 0, 0, 1, width, 0);
    pen.drawImage(bitmap, FACE.x, FACE.y, FACE.width, FACE.height, 0, 0, width, height);
  }
  return canvas;
}
