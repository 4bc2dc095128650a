// From a file to pixels the page can show, and to bytes worth sending. EXIF orientation is applied by the browser.
export const SHRUNK_SIDE = 2048;
const QUALITY = 0.92;
const THUMBNAIL_SIDE = 360;

/** The upright picture of a file, or null where the browser cannot read it; `shrunk` bounds its longer side. */
export async function decode(file, { side = Infinity } = {}) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return null;
  }
  return Math.max(bitmap.width, bitmap.height) > side ? resized(bitmap, side) : bitmap;
}

async function resized(bitmap, side) {
  const scale = side / Math.max(bitmap.width, bitmap.height);
  const smaller = await createImageBitmap(bitmap, {
    resizeWidth: Math.max(1, Math.round(bitmap.width * scale)),
    resizeHeight: Math.max(1, Math.round(bitmap.height * scale)),
    resizeQuality: "high",
  });
  bitmap.close();
  return smaller;
}

/** A small copy for the grid, as a canvas. */
export function thumbnail(bitmap) {
  const scale = Math.min(1, THUMBNAIL_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/** A JPEG of the picture with its longer side shrunk; null where it is small enough, or where damage would be hidden. */
export async function shrunk(file, bitmap) {
  if (Math.max(bitmap.width, bitmap.height) <= SHRUNK_SIDE || !(await isWhole(file))) return null;
  const copy = await resized(await createImageBitmap(bitmap), SHRUNK_SIDE);
  const blob = await toJpeg(copy);
  copy.close();
  return blob.size < file.size ? blob : null;
}

/** A picture as JPEG; what was transparent is white, as the server sees it. */
export function toJpeg(bitmap, draw = () => {}) {
  const canvas = document.createElement("canvas");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(bitmap, 0, 0);
  draw(pen);
  return new Promise((resolve, reject) => {
    const take = (blob) => (blob ? resolve(blob) : reject(new Error("the picture is too large for this browser")));
    canvas.toBlob(take, "image/jpeg", QUALITY);
  });
}

// A cut file that a lenient browser fills with grey would reach the server as a whole one. What does not end as its
// kind has to is sent as it is.
async function isWhole(file) {
  const bytes = async (from, to) => new Uint8Array(await file.slice(from, to).arrayBuffer());
  const head = await bytes(0, 12);
  const tail = await bytes(-12);
  const reads = (array, at, text) => [...text].every((letter, i) => array[at + i] === letter.charCodeAt(0));
  if (head[0] === 0xff && head[1] === 0xd8) return tail.at(-2) === 0xff && tail.at(-1) === 0xd9;
  if (reads(head, 1, "PNG")) return reads(tail, 4, "IEND");
  if (reads(head, 0, "RIFF")) return new DataView(head.buffer).getUint32(4, true) + 8 <= file.size;
  return false;
}
