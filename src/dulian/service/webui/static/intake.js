// Ways in: the file dialog, drag and drop anywhere, paste.
import { byId } from "./dom.js";
import { t } from "./texts.js";

/** Call `onFiles([{file, name}])` for whatever comes in, and `onNothing()` for what brings no file along. */
export function openIntake({ onFiles, onNothing }) {
  const take = (files) => {
    const found = [...files].map((file) => ({ file, name: file.name || t("intake.pasted") }));
    if (found.length) onFiles(found);
    else onNothing();
  };
  openDialog(take);
  catchDrops(take);
  document.addEventListener("paste", (event) => {
    if (event.target.closest?.("input")) return;
    event.preventDefault();
    take(event.clipboardData.files);
  });
}

function openDialog(take) {
  const input = byId("file-input");
  byId("choose").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    if (input.files.length) take(input.files);
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
  addEventListener("drop", (event) => {
    event.preventDefault();
    show(0);
    take(event.dataTransfer.files);
  });
}
