// Boxes and labels on a canvas, in its own pixels; the colours are those of the server's drawings.
import { arrange, penOf } from "./labels.js";
import { captionOf } from "./words.js";

export const COLOURS = { ok: "#6ce0c4", uncertain: "#ffc45c", low_quality: "#c6cdd6" };
const INK = "#121b26";
// Dash and gap in line widths: the status must not hang on the colour alone.
const DASHES = { ok: [], uncertain: [5, 4], low_quality: [2, 3.2] };
const FONT = '600 {px}px system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "Noto Sans SC", sans-serif';
const PADDING = { x: 0.45, y: 0.28 };
const LEADING = 1.25;
const SHADE = "rgb(10 14 20 / 55%)";

/** Faces of a result as things to draw: `scale` is canvas pixels per picture pixel, `unit` the pixels of a thin line. */
export function subjectsOf(faces, { scale, frame, unit, mirrored = false }) {
  const at = ([x, y]) => [mirrored ? frame[0] - x * scale : x * scale, y * scale];
  return faces.map((face) => {
    const [x1, y1] = at(face.bbox.slice(0, 2));
    const [x2, y2] = at(face.bbox.slice(2));
    const box = [Math.min(x1, x2), y1, Math.max(x1, x2), y2];
    const eyes = face.landmarks && [at(face.landmarks.right_eye), at(face.landmarks.left_eye)];
    return { id: face.id, face, box, eyes, status: face.status, pen: penOf(box, unit), caption: captionOf(face) };
  });
}

/** Where everything goes, worked out once for as long as faces and frame stay: big faces first, and their labels. */
export function composed(pen, subjects, frame) {
  const big = [...subjects].sort((a, b) => area(b.box) - area(a.box));
  return { big, labels: arrange(frame, big, (lines, px) => plateSize(pen, lines, px)), frame };
}

/** Draw a composition; `chosen` is the id of one face that stands out. */
export function drawComposed(pen, { big, labels, frame }, { chosen = null } = {}) {
  const subject = big.find(({ id }) => id === chosen);
  if (subject) shadeAllBut(pen, subject.box, frame);
  for (const one of big) outline(pen, one, frame, one === subject);
  for (const [index, { placement }] of labels) {
    if (placement.leader) stroke(pen, big[index], () => line(pen, placement.leader));
  }
  for (const [index, label] of labels) plate(pen, big[index].status, label);
}

/** Both at once, for what is drawn only once. */
export function drawFaces(pen, subjects, frame) {
  drawComposed(pen, composed(pen, subjects, frame));
}

function area([x1, y1, x2, y2]) {
  return (x2 - x1) * (y2 - y1);
}

// ── lines ──────────────────────────────────────────────────────────────────────────────────────────

function outline(pen, subject, frame, stands_out) {
  const { box, status } = subject;
  const width = stands_out ? subject.pen.line * 2 : subject.pen.line;
  const inset = width / 2;
  const [x1, x2] = [box[0], box[2]].map((x) => clamp(x, inset, frame[0] - inset));
  const [y1, y2] = [box[1], box[3]].map((y) => clamp(y, inset, frame[1] - inset));
  const radius = Math.min(0.08 * (x2 - x1), 0.08 * (y2 - y1), 5 * subject.pen.line);
  const dashes = DASHES[status].map((share) => share * Math.max(2, subject.pen.line));
  stroke(pen, { ...subject, pen: { ...subject.pen, line: width } }, () => roundRect(pen, x1, y1, x2, y2, radius), dashes);
}

/** A line over a wider, dark copy of itself: one of the two stands out from any ground. */
function stroke(pen, { pen: { line: width, halo }, status }, path, dashes = []) {
  pen.save();
  pen.setLineDash(dashes);
  for (const [colour, lineWidth] of [[INK, width + 2 * halo], [COLOURS[status], width]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = lineWidth;
    pen.beginPath();
    path();
    pen.stroke();
  }
  pen.restore();
}

function line(pen, [[x1, y1], [x2, y2]]) {
  pen.moveTo(x1, y1);
  pen.lineTo(x2, y2);
}

function roundRect(pen, x1, y1, x2, y2, radius) {
  pen.roundRect(x1, y1, Math.max(0, x2 - x1), Math.max(0, y2 - y1), Math.max(0, radius));
}

function shadeAllBut(pen, [x1, y1, x2, y2], [width, height]) {
  pen.save();
  pen.fillStyle = SHADE;
  pen.beginPath();
  pen.rect(0, 0, width, height);
  roundRect(pen, x1, y1, x2, y2, 0.08 * Math.min(x2 - x1, y2 - y1));
  pen.fill("evenodd");
  pen.restore();
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), Math.max(low, high));
}

// ── plates ─────────────────────────────────────────────────────────────────────────────────────────

function font(px) {
  return FONT.replace("{px}", px);
}

function plateSize(pen, lines, px) {
  pen.font = font(px);
  const width = Math.max(...lines.map((text) => pen.measureText(text).width));
  return [Math.ceil(width + 2 * PADDING.x * px), Math.ceil(lines.length * LEADING * px + 2 * PADDING.y * px)];
}

function plate(pen, status, { placement: { label }, lines, textPx }) {
  const [x1, y1, x2, y2] = label;
  pen.save();
  pen.fillStyle = COLOURS[status];
  pen.strokeStyle = "rgb(18 27 38 / 45%)";
  pen.lineWidth = 1;
  pen.beginPath();
  roundRect(pen, x1 + 0.5, y1 + 0.5, x2 - 0.5, y2 - 0.5, textPx * 0.3);
  pen.fill();
  pen.stroke();
  pen.fillStyle = INK;
  pen.font = font(textPx);
  pen.textBaseline = "middle";
  const row = (y2 - y1 - 2 * PADDING.y * textPx) / lines.length;
  lines.forEach((text, i) => pen.fillText(text, x1 + PADDING.x * textPx, y1 + PADDING.y * textPx + (i + 0.53) * row));
  pen.restore();
}
