// Ways in: the file dialog, drag and drop anywhere, paste.
import { byId } from "./dom.js";
import { t } from "./texts.js";

// Browsers tell of a drag that goes on every 50 to 350 ms.
const DRAG_PAUSE_MS = 600;
// Some systems know no type for these.
const PICTURE_NAME = /\.(avif|bmp|gif|heic|heif|jpe?g|png|tiff?|webp)$/i;

/** Call `onFiles([{file, name}])` for whatever comes in, and `onNothing()` for what brings no file along. */
export function openIntake({ onFiles, onNothing }) {
  const take = (found) => (found.length ? onFiles(found) : onNothing());
  openDialog(take);
  catchDrops(take);
  document.addEventListener("paste", (event) => {
    if (event.target.closest?.("input[type=password]")) return;
    event.preventDefault();
    take(named(event.clipboardData.files));
  });
}

function named(files) {
  return [...files].map((file) => ({ file, name: file.name || t("intake.pasted") }));
}

function openDialog(take) {
  const input = byId("file-input");
  byId("choose").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    if (input.files.length) take(named(input.files));
    input.value = ""; // so that the same file can be chosen again
  });
}

function catchDrops(take) {
  const veil = byId("veil");
  let timer = 0;
  // Enter and leave come for every element on the way, and not for those that vanish under the pointer.
  const show = (shown) => {
    clearTimeout(timer);
    veil.hidden = !shown;
    if (shown) timer = setTimeout(() => show(false), DRAG_PAUSE_MS);
  };
  addEventListener("dragover", (event) => {
    event.preventDefault();
    if (event.dataTransfer.types.includes("Files")) show(true);
  });
  addEventListener("drop", async (event) => {
    event.preventDefault();
    show(false);
    take(await contentsOf(event.dataTransfer));
  });
}

// ── folders ────────────────────────────────────────────────────────────────────────────────────────

/** The files of a drop, and the pictures in its folders. All is asked for at once: afterwards browsers say nothing. */
async function contentsOf(transfer) {
  const files = named(transfer.files);
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some(({ isDirectory }) => isDirectory)) return files;
  const found = await Promise.all(entries.map((entry) => (entry.isDirectory ? picturesIn(entry) : fileOf(entry))));
  return found.flat();
}

async function picturesIn(folder) {
  const reader = folder.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([]))); // a hundred at a time
    if (!some.length) break;
    for (const entry of some) found.push(...(entry.isDirectory ? await picturesIn(entry) : await fileOf(entry)));
  }
  return found.filter(({ file, name }) => file.type.startsWith("image/") || PICTURE_NAME.test(name));
}

/** One file in a list; an empty list where it cannot be opened. */
async function fileOf(entry) {
  const file = await new Promise((resolve) => entry.file(resolve, () => resolve(null)));
  return file ? [{ file, name: entry.fullPath.replace(/^\//, "") }] : [];
}
