// How much each label says, and where it goes: all of it while there is room for everybody, less in a crowd.
// The ladder is that of dulian/render.py; sizes are those of a screen. Nothing here draws.
import { placeLabels } from "./layout.js";

// The thickest line, the smallest and the largest text, in units of the screen.
const MAX_LINE = 2.25;
const MIN_TEXT = 13;
const MAX_TEXT = 16;
// A full label is about nine times as wide as its text is high, so this one is as wide as the face.
const FACE_PER_TEXT = 9;
const FACE_PER_LINE = 14;
const HALO = 0.35;
const SMALL = 0.75;
const SMALLEST_TEXT = 9;

const FOR_ALL = ["reason", "full", "small"];
// With whether the label may then lie on a face; never on eyes.
const FOR_THE_REST = [["short", false], ["short", true], ["index", true]];

/** Sizes in pixels for one face; `unit` is how many pixels a thin line has. */
export function penOf([x1, y1, x2, y2], unit) {
  const side = Math.min(x2 - x1, y2 - y1);
  const line = Math.max(1, Math.round(Math.min(MAX_LINE * unit, side / FACE_PER_LINE)));
  const text = Math.min(Math.max((x2 - x1) / FACE_PER_TEXT, MIN_TEXT * unit), MAX_TEXT * unit);
  return { line, halo: Math.max(1, Math.round(line * HALO)), text: Math.round(text), least: SMALLEST_TEXT * unit };
}

/**
 * The labels that find room, by index of the subject: `{placement, lines, textPx}`.
 *
 * A subject is `{id, box, eyes, pen, caption: {full, short, reason}}`, the big ones first. `measure(lines, textPx)`
 * tells how large a label would be, in whole pixels.
 */
export function arrange(frameWh, subjects, measure) {
  const talkative = subjects.filter(({ caption }) => caption.full).length;
  let found = new Map();
  for (const detail of FOR_ALL) {
    found = place(frameWh, subjects, measure, detail, { coverFaces: false });
    if (found.size >= talkative) return found;
  }
  for (const [detail, coverFaces] of FOR_THE_REST) {
    const more = place(frameWh, subjects, measure, detail, { found, coverFaces });
    for (const [index, label] of more) found.set(index, label);
  }
  return found;
}

/** Labels of one detail for the faces that have none yet. */
function place(frameWh, subjects, measure, detail, { found = new Map(), coverFaces }) {
  const offers = subjects.map((subject, index) => {
    if (found.has(index) || (detail === "index" && subjects.length === 1)) return [];
    return offersOf(subject, detail, measure).filter(({ size }) => size.every((side, i) => side <= frameWh[i]));
  });
  const faces = subjects.map(({ box, eyes }, i) => ({ box, eyes, sizes: offers[i].map(({ size }) => size) }));
  const taken = [...found.values()].map(({ placement }) => placement);
  const reach = Math.max(0, ...subjects.map(({ pen }) => pen.line / 2 + pen.halo));
  const placements = placeLabels(frameWh, faces, { gapPx: Math.ceil(reach) + 1, coverFaces, taken });
  const made = new Map();
  for (const [index, placement] of placements.entries()) {
    if (placement) made.set(index, { placement, ...offers[index][placement.sizeIndex] });
  }
  return made;
}

/** The labels a face may have at one level of detail, the more telling one first. */
function offersOf({ id, pen, caption }, detail, measure) {
  const { full, short, reason } = caption;
  const texts = { reason: reason && full ? [[full, reason], [full]] : [[full]], short: [[short]], index: [[`#${id}`]] };
  const isLarge = detail === "reason" || detail === "full";
  const textPx = isLarge ? pen.text : Math.max(Math.round(pen.least), Math.round(pen.text * SMALL));
  return (texts[detail] ?? [[full]])
    .filter((lines) => lines.every(Boolean))
    .map((lines) => ({ lines, textPx, size: measure(lines, textPx) }));
}
