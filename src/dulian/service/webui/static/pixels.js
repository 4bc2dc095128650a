// The pixels of the pictures looked at last. A photo takes up to 160 MB when it is open, so few are.
import { decode } from "./prepare.js";

const KEPT = 3;
const kept = new Map();
let shown = null;

/** The pixels of a picture, opened if need be; null where neither browser nor server has any. */
export function pixelsOf(picture) {
  const opening = kept.get(picture) ?? open(picture);
  kept.delete(picture); // the newest comes last
  kept.set(picture, opening);
  const droppable = [...kept.keys()].filter((one) => one !== picture && one !== shown && one.state !== "preparing");
  for (const oldest of droppable.slice(0, Math.max(0, kept.size - KEPT))) dropPixels(oldest);
  return opening;
}

/** The picture whose pixels are on the screen: they stay until another is shown. */
export function showsPixelsOf(picture) {
  shown = picture;
}

export function dropPixels(picture) {
  kept.get(picture)?.then((bitmap) => bitmap?.close());
  kept.delete(picture);
}

async function open(picture) {
  const bitmap = picture.drawnByServer ? await fromServer(picture) : await decode(picture.file);
  if (!bitmap) kept.delete(picture); // there may be more to see when the server has answered
  return bitmap;
}

function fromServer(picture) {
  const encoded = picture.result?.annotated_image;
  if (!encoded) return null;
  const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
  return decode(new Blob([bytes], { type: "image/jpeg" }));
}
