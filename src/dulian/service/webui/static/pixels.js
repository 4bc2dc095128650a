// The pixels of the pictures looked at last. A photo takes up to 160 MB when it is open, so few are.
import { decode } from "./prepare.js";

const KEPT = 3;
const kept = new Map();
let shown = null;

/** Keep the open pixels of a picture, in place of those that nobody has looked at for longest. */
export function keepPixels(picture, bitmap) {
  dropPixels(picture);
  kept.set(picture, bitmap);
  const droppable = [...kept.keys()].filter((one) => one !== shown && one !== picture);
  for (const oldest of droppable.slice(0, Math.max(0, kept.size - KEPT))) dropPixels(oldest);
}

/** The picture whose pixels are on the screen: they stay until another is shown. */
export function showsPixelsOf(picture) {
  shown = picture;
}

export function dropPixels(picture) {
  kept.get(picture)?.close();
  kept.delete(picture);
}

/** The pixels of a picture, opened again if need be; null where neither browser nor server has any. */
export async function pixelsOf(picture) {
  const bitmap = kept.get(picture) ?? (await reopened(picture));
  if (bitmap) {
    kept.delete(picture); // the newest comes last
    kept.set(picture, bitmap);
  }
  return bitmap;
}

async function reopened(picture) {
  const bitmap = picture.drawnByServer ? await fromServer(picture) : await decode(picture.file);
  if (!bitmap) return null;
  if (kept.has(picture)) {
    bitmap.close(); // somebody else was quicker
    return kept.get(picture);
  }
  keepPixels(picture, bitmap);
  return bitmap;
}

function fromServer(picture) {
  const encoded = picture.result?.annotated_image;
  if (!encoded) return null;
  const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
  return decode(new Blob([bytes], { type: "image/jpeg" }));
}
