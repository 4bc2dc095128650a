// What a person can take away: the drawn picture, the answers as JSON, and as a table.
import { drawFaces, subjectsOf } from "./draw.js";
import { el } from "./dom.js";
import { pixelsOf } from "./pixels.js";
import { toJpeg } from "./prepare.js";

// The columns of dulian.to_dataframe, after the picture's name and what was wrong with it.
const COLUMNS = [
  ["picture", ({ picture }) => picture.name],
  ["error", ({ picture }) => picture.error?.code ?? (picture.answered ? "" : picture.state)],
  // Boxes are in the pixels of what was sent, which may be a shrunk copy.
  ["image_width", ({ picture }) => picture.result?.image.width],
  ["image_height", ({ picture }) => picture.result?.image.height],
  ["face", ({ face }) => face?.id],
  ...["x1", "y1", "x2", "y2"].map((name, i) => [name, ({ face }) => face?.bbox[i]]),
  ["confidence", ({ face }) => face?.confidence],
  ["age", ({ face }) => face?.age?.value],
  ["age_low", ({ face }) => face?.age?.low],
  ["age_high", ({ face }) => face?.age?.high],
  ["age_bucket", ({ face }) => face?.age?.bucket],
  ["gender", ({ face }) => face?.gender?.value],
  ["gender_probability", ({ face }) => face?.gender?.probability],
  ["female_probability", ({ face }) => face?.gender?.female_probability],
  ["quality", ({ face }) => face?.quality.score],
  ["size_px", ({ face }) => face?.quality.size_px],
  ["status", ({ face }) => face?.status],
  ["reasons", ({ face }) => face?.quality.reasons.join(",")],
  ["label", ({ face }) => face?.label],
];
// What a spreadsheet would take for a formula.
const FORMULA = /^[=+\-@\t\r]/;
// So that spreadsheets read the names as UTF-8.
const MARK = "\ufeff";

/** The picture in its own size with boxes and labels. */
export async function saveJpeg(picture) {
  const bitmap = await pixelsOf(picture);
  const frame = [bitmap.width, bitmap.height];
  const scale = bitmap.width / picture.result.image.width;
  // Lines as fine as on a page that shows the picture 1000 pixels wide.
  const unit = Math.max(1, Math.max(...frame) / 1000);
  const subjects = picture.drawnByServer ? [] : subjectsOf(picture.result.faces, { scale, frame, unit });
  save(await toJpeg(bitmap, (pen) => drawFaces(pen, subjects, frame)), `${stem(picture.name)}-dulian.jpg`);
}

/** One answer, or a list of them: the service's own words, with the name of the picture beside them. */
export function saveJson(pictures) {
  const records = pictures.map(({ name, result, error, state }) => {
    const { annotated_image: _, ...answer } = result ?? { error: error ?? { code: state } };
    return { source: name, ...answer };
  });
  const text = JSON.stringify(records.length === 1 ? records[0] : records, null, 2);
  save(new Blob([text], { type: "application/json" }), `${nameFor(pictures)}.json`);
}

/** A row for each face, and one for each picture without any, so that none is lost. */
export function saveCsv(pictures) {
  const rows = pictures.flatMap((picture) => {
    const faces = picture.result?.faces ?? [];
    return faces.length ? faces.map((face) => ({ picture, face })) : [{ picture }];
  });
  const lines = rows.map((row) => COLUMNS.map(([, value]) => cell(value(row))).join(","));
  const text = [COLUMNS.map(([name]) => name).join(","), ...lines, ""].join("\r\n");
  save(new Blob([MARK, text], { type: "text/csv" }), `${nameFor(pictures)}.csv`);
}

function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = FORMULA.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function nameFor(pictures) {
  return pictures.length === 1 ? stem(pictures[0].name) : "dulian";
}

function stem(name) {
  return name.replace(/\.[^.]*$/, "") || "dulian";
}

function save(blob, name) {
  const address = URL.createObjectURL(blob);
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
