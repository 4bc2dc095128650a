// From a file to pixels the page can show, and to bytes worth sending. EXIF orientation is applied by the browser.
export const SHRUNK_SIDE = 2048;
// Smaller files are sent as they are: shrinking takes longer than it saves.
export const SHRUNK_FROM_BYTES = 2 ** 20;
const QUALITY = 0.92;
const THUMBNAIL_SIDE = 300;

/** The upright picture of a file, or null where the browser cannot read it. */
export function decode(file) {
  return createImageBitmap(file).catch(() => null);
}

function resized(bitmap, side) {
  const scale = side / Math.max(bitmap.width, bitmap.height);
  return createImageBitmap(bitmap, {
    resizeWidth: Math.max(1, Math.round(bitmap.width * scale)),
    resizeHeight: Math.max(1, Math.round(bitmap.height * scale)),
    resizeQuality: "high",
  });
}

/** A small copy for the grid, as a canvas. */
export function thumbnail(bitmap) {
  const scale = Math.min(1, THUMBNAIL_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.setAttribute("aria-hidden", "true");
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
  const copy = await resized(bitmap, SHRUNK_SIDE);
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

/** Whether a file begins as one of the kinds that every browser shows. */
export async function isCommon(file) {
  const head = await bytesOf(file, 0, 12);
  return Object.values(KINDS).some(({ begins }) => begins(head));
}

// A cut file that a lenient browser fills with grey would reach the server as a whole one. What does not end as its
// kind has to is sent as it is.
async function isWhole(file) {
  const [head, tail] = [await bytesOf(file, 0, 12), await bytesOf(file, -12)];
  return Object.values(KINDS).some(({ begins, ends }) => begins(head) && ends?.(tail, head, file));
}

const KINDS = {
  jpeg: { begins: (head) => isMarker(head, 0, 0xd8), ends: (tail) => isMarker(tail, tail.length - 2, 0xd9) },
  png: { begins: (head) => reads(head, 1, "PNG"), ends: (tail) => reads(tail, 4, "IEND") },
  webp: { begins: (head) => reads(head, 8, "WEBP"), ends: (_, head, { size }) => riffSize(head) <= size },
  gif: { begins: (head) => reads(head, 0, "GIF8") },
  bmp: { begins: (head) => reads(head, 0, "BM") },
};

async function bytesOf(file, from, to) {
  return new Uint8Array(await file.slice(from, to).arrayBuffer());
}

function isMarker(bytes, at, code) {
  return bytes[at] === 0xff && bytes[at + 1] === code;
}

function reads(bytes, at, text) {
  return [...text].every((letter, i) => bytes[at + i] === letter.charCodeAt(0));
}

function riffSize(head) {
  return new DataView(head.buffer).getUint32(4, true) + 8;
}
