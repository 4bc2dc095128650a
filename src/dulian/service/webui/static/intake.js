// Ways in: the file dialog, drag and drop anywhere, paste.
import { byId } from "./dom.js";
import { t } from "./texts.js";

/** Call `onFiles([{file, name}])` for whatever comes in, and `onNothing()` for what brings no file along. */
export function openIntake({ onFiles, onNothing }) {
  const take = (found) => (found.length ? onFiles(found) : onNothing());
  openDialog(take);
  catchDrops(take);
  document.addEventListener("paste", (event) => {
    if (event.target.closest?.("input")) return;
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
  const holdsFiles = ({ dataTransfer }) => dataTransfer.types.includes("Files");
  let depth = 0; // enter and leave come for every element on the way
  const show = (change) => {
    depth = change === 0 ? 0 : Math.max(0, depth + change);
    veil.hidden = depth === 0;
  };
  addEventListener("dragenter", (event) => holdsFiles(event) && show(1));
  addEventListener("dragleave", (event) => holdsFiles(event) && show(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", async (event) => {
    event.preventDefault();
    show(0);
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
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // a hundred at a time
    if (!some.length) break;
    for (const entry of some) found.push(...(entry.isDirectory ? await picturesIn(entry) : await fileOf(entry)));
  }
  return found.filter(({ file }) => file.type.startsWith("image/"));
}

async function fileOf(entry) {
  const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
  return [{ file, name: entry.fullPath.replace(/^\//, "") }];
}
