// The cards of a picture's faces: what was seen, how sure that is, and why not surer.
import { el, svg } from "./dom.js";
import { genderOf, labelOf, sentence, years } from "./words.js";
import { t } from "./texts.js";

const CROP_SIDE = 96;
// Of the box's longer side, on each side of the crop.
const CROP_MARGIN = 0.3;
const AXIS_END = 100;
const AXIS_STEP = 20;

/** A card as a list item. `onPoint(id | null)` is told when it is looked at, by pointer or by focus. */
export function faceCard(face, { bitmap, scale, onPoint }) {
  const enter = () => onPoint(face.id);
  const leave = () => onPoint(null);
  return el(
    "li",
    { class: `face ${face.status}`, data: { face: face.id }, on: { pointerenter: enter, pointerleave: leave } },
    heading(face, bitmap, scale, enter, leave),
    face.age && ageRow(face.age),
    face.gender && genderRow(face),
    qualityRow(face),
    face.message && el("p", { class: "reason", text: sentence(face.message) }),
  );
}

function heading(face, bitmap, scale, enter, leave) {
  const label = labelOf(face);
  return el(
    "button",
    {
      type: "button",
      class: "face-head",
      "aria-label": t("face.show", { number: face.id, label }),
      on: { focus: enter, blur: leave, click: enter },
    },
    bitmap && cropOf(face, bitmap, scale),
    el(
      "span",
      { class: "face-title" },
      el("span", { class: "face-label", text: label }),
      el(
        "span",
        { class: "face-facts" },
        el("span", { class: "number", text: `#${face.id}` }),
        el("span", { class: "badge", text: t(`status.${face.status}`) }),
        el("span", { text: t("face.size", { size: face.quality.size_px }) }),
      ),
    ),
  );
}

function cropOf(face, bitmap, scale) {
  const [x1, y1, x2, y2] = face.bbox.map((edge) => edge * scale);
  const side = Math.max(x2 - x1, y2 - y1) * (1 + 2 * CROP_MARGIN);
  const ratio = Math.min(devicePixelRatio || 1, 2);
  const canvas = el("canvas", { class: "crop", "aria-hidden": "true" });
  canvas.width = canvas.height = CROP_SIDE * ratio;
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  const left = (x1 + x2 - side) / 2;
  const top = (y1 + y2 - side) / 2;
  pen.drawImage(bitmap, left, top, side, side, 0, 0, canvas.width, canvas.height);
  return canvas;
}

function row(name, value, figure, note = null) {
  return el(
    "div",
    { class: "row" },
    el("span", { class: "row-name", text: name }),
    el("span", { class: "row-value", text: value }),
    figure,
    note && el("span", { class: "row-note", text: note }),
  );
}

// ── age ────────────────────────────────────────────────────────────────────────────────────────────

function ageRow(age) {
  const words = { value: years(age.value), low: years(age.low), high: years(age.high) };
  return row(
    t("face.age"),
    `${t("face.years", words)} · ${t("face.interval", words)}`,
    axis(age, t("face.axis", words)),
    t("face.coverage", { percent: Math.round(age.coverage * 100) }),
  );
}

/** 0 to 100 years as a line, the interval as a band on it, the value as a point. */
function axis({ value, low, high }, label) {
  const ticks = [];
  for (let year = 0; year <= AXIS_END; year += AXIS_STEP) {
    const anchor = year === 0 ? "start" : year === AXIS_END ? "end" : "middle";
    ticks.push(
      svg("line", { class: "tick", x1: at(year), x2: at(year), y1: 14, y2: 18 }),
      svg("text", { class: "tick-text", x: at(year), y: 30, "text-anchor": anchor, text: String(year) }),
    );
  }
  return svg(
    "svg",
    { class: "axis", viewBox: "0 0 300 32", role: "img", "aria-label": label },
    svg("line", { class: "track", x1: at(0), x2: at(AXIS_END), y1: 9, y2: 9 }),
    svg("rect", { class: "band", x: at(low), y: 4, width: Math.max(2, at(high) - at(low)), height: 10, rx: 5 }),
    svg("circle", { class: "point", cx: at(value), cy: 9, r: 6 }),
    ...ticks,
  );
}

function at(year) {
  return 6 + (Math.min(Math.max(year, 0), AXIS_END) / AXIS_END) * 288;
}

// ── gender, quality ────────────────────────────────────────────────────────────────────────────────

/** From the middle, where nothing is known, to the side that is likelier. */
function genderRow(face) {
  const { female_probability: female, probability } = face.gender;
  const likelier = t(female >= 0.5 ? "gender.female" : "gender.male");
  const percent = Math.round(probability * 100);
  const [from, to] = female >= 0.5 ? [1 - female, 0.5] : [0.5, 1 - female];
  const bar = svg(
    "svg",
    {
      class: "balance",
      viewBox: "0 0 300 32",
      role: "img",
      "aria-label": t("face.gender.bar", { percent, gender: likelier }),
    },
    svg("line", { class: "track", x1: 6, x2: 294, y1: 9, y2: 9 }),
    svg("rect", { class: "band", x: 6 + from * 288, y: 4, width: Math.max(2, (to - from) * 288), height: 10, rx: 5 }),
    svg("line", { class: "middle", x1: 150, x2: 150, y1: 2, y2: 16 }),
    svg("text", { class: "tick-text", x: 6, y: 30, text: t("gender.female") }),
    svg("text", { class: "tick-text", x: 294, y: 30, "text-anchor": "end", text: t("gender.male") }),
  );
  const said = t("face.gender.bar", { percent, gender: likelier });
  return row(t("face.gender"), face.gender.value ? said : `${genderOf(face)} · ${said}`, bar);
}

function qualityRow({ quality }) {
  const percent = Math.round(quality.score * 100);
  const bar = svg(
    "svg",
    { class: "meter", viewBox: "0 0 300 18", role: "img", "aria-label": t("face.quality.bar", { percent }) },
    svg("line", { class: "track", x1: 6, x2: 294, y1: 9, y2: 9 }),
    svg("rect", { class: "band", x: 6, y: 6, width: Math.max(4, (percent / 100) * 288), height: 6, rx: 3 }),
  );
  const reasons = quality.reasons.map((code) => t(`reason.${code}`)).join(t("list.join"));
  return row(t("face.quality"), reasons ? `${percent} · ${reasons}` : String(percent), bar);
}
