// Where labels go: rectangles in, rectangles out; the same rules and numbers as dulian/layout.py, and a test says so.
// Rectangles are [x1, y1, x2, y2], lines are [x, y, x, y]. Nothing here draws, or knows what a label says.

// Where the eyes are when the detector has no landmarks, as shares of the box height.
const EYE_BAND = [0.25, 0.5];
// Half width and half height of the zone round one eye, in eye distances: lids, lashes, brow.
const EYE_ZONE = [0.42, 0.34];
// Seen from the side, eyes lie close together: their distance counts for at least this share of the box.
const MIN_EYE_DISTANCE = 0.3;
// A label on its own face may take this share of the box height, and no more.
const INSIDE_HEIGHT = 0.3;
// Rings round the box on which labels with a leader line stand, in label heights.
const RINGS = [0.8, 1.6, 2.6, 4.0];
// Positions along a side of the box: 0 and 1 are flush with its ends, others hang over them.
const FLUSH = [0.0, 1.0, 0.5];
const HANGING = [-0.45, 1.45, -0.9, 1.9];
// Spots are rounded to whole pixels, away from the box.
const ROUNDING_PX = 1.0;
const NEARLY_NONE = 1e-9;

/**
 * Find a spot for the label of each face, null where none is free: the caller may then offer smaller labels.
 *
 * A face is `{box, eyes: [[x, y], [x, y]] | null, sizes: [[w, h], …]}`, its sizes in order of preference. A spot is
 * `{label, sizeIndex, leader: [[x, y], [x, y]] | null}`. What labels never do is said in layout.py.
 */
export function placeLabels(frameWh, faces, { gapPx = 0, coverFaces = true, taken = [] } = {}) {
  const scene = {
    frameWh,
    boxes: faces.map(({ box }) => clipped(box, frameWh)),
    eyes: faces.flatMap(({ box, eyes }) => eyeZones(box, eyes)),
    gapPx,
  };
  const tiers = ["beside", "inside", "afar"];
  if (coverFaces) tiers.push("beside_over_face", "afar_over_face");
  const standing = [...taken];
  const placements = faces.map(() => null);
  const order = bigFirst(faces);
  for (const tier of tiers) {
    for (const index of order) {
      if (placements[index] !== null) continue;
      placements[index] = serve(scene, index, faces[index].sizes, tier, standing);
      if (placements[index]) standing.push(placements[index]);
    }
  }
  return placements;
}

/** What no label may cover: a rectangle round each eye, or the band they are likely in when they are unknown. */
function eyeZones(box, eyes) {
  const [x1, y1, x2, y2] = box;
  const height = y2 - y1;
  if (!eyes || !eyes.flat().every(Number.isFinite)) {
    return [[x1, y1 + EYE_BAND[0] * height, x2, y1 + EYE_BAND[1] * height]];
  }
  const [[ax, ay], [bx, by]] = eyes;
  const distance = Math.max(hypot(ax - bx, ay - by), MIN_EYE_DISTANCE * Math.min(x2 - x1, height));
  const [across, down] = EYE_ZONE.map((share) => share * distance);
  return eyes.map(([x, y]) => [x - across, y - down, x + across, y + down]);
}

/** As Python rounds: halves to the even neighbour. */
export function roundHalfEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

function clipped([x1, y1, x2, y2], [width, height]) {
  const within = (value, end) => Math.min(Math.max(value, 0), end);
  return [within(x1, width), within(y1, height), within(x2, width), within(y2, height)];
}

/** Indices by size, equal sizes by position: the order of the input does not matter. */
function bigFirst(faces) {
  const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
  const key = faces.map(({ box }) => [-area(box), ...box]);
  return faces.map((_, i) => i).sort((a, b) => compared(key[a], key[b]));
}

function compared(a, b) {
  const differs = a.findIndex((value, i) => value !== b[i]);
  return differs < 0 ? 0 : a[differs] - b[differs];
}

/** The best free spot that one tier has for one face, trying the sizes in turn. */
function serve(scene, index, sizes, tier, standing) {
  const own = scene.boxes[index];
  for (const [sizeIndex, size] of sizes.entries()) {
    const label = spots(scene, index, size, tier).find((spot) => isFree(scene, spot, own, standing));
    if (!label) continue;
    const [x, y, toX, toY] = leaderOf(label, own);
    const near = hypot(toX - x, toY - y) <= scene.gapPx + ROUNDING_PX;
    return { label, sizeIndex, leader: near ? null : [[x, y], [toX, toY]] };
  }
  return null;
}

// ── spots ──────────────────────────────────────────────────────────────────────────────────────────

/** The spots of one tier, best first: inside the frame and off all eyes, whatever other labels do. */
function spots(scene, index, size, tier) {
  const own = scene.boxes[index];
  const propose = tier === "inside" ? inside : tier.startsWith("afar") ? afar : beside;
  const corners = propose(own, size, scene.gapPx);
  if (corners.length === 0) return [];
  const [endX, endY] = scene.frameWh.map((side, i) => Math.max(Math.floor(side - size[i]), 0));
  const proposed = corners.map(([x, y]) => {
    const [left, top] = [Math.min(Math.max(x, 0), endX), Math.min(Math.max(y, 0), endY)];
    return [left, top, left + size[0], top + size[1]];
  });

  // Most faces of a crowd are too far away to matter, and those outside the frame never do.
  const region = grown(hull([...proposed, own]), scene.gapPx);
  const eyes = scene.eyes.filter((zone) => overlap(region, zone));
  const others = scene.boxes.filter((box, i) => i !== index && overlap(region, box));
  const kept = others.map((box) => grown(box, scene.gapPx));

  const off = proposed.filter((spot) => !eyes.some((zone) => overlap(spot, zone)));
  const judged = off.map((spot) => judge(spot, own, others, kept, tier));
  return chosen(judged, tier).map(({ spot }) => spot);
}

function judge(spot, own, others, kept, tier) {
  const leader = leaderOf(spot, own);
  let onFaces = sum(kept.map((box) => sharedArea(spot, box)));
  if (tier !== "inside") onFaces += sharedArea(spot, own);
  const crossed = others.filter((other) => crosses(leader, other)).length;
  const length = hypot(leader[2] - leader[0], leader[3] - leader[1]);
  return { spot, onFaces, crossed, length };
}

function chosen(judged, tier) {
  const clear = judged.filter(({ onFaces, crossed }) => onFaces === 0 && crossed === 0);
  if (tier === "beside" || tier === "inside") return clear;
  if (tier === "afar") return clear.sort((a, b) => a.length - b.length);
  return judged.sort((a, b) => a.crossed - b.crossed || a.onFaces - b.onFaces || a.length - b.length);
}

/** Top left corners of labels that touch the box: above, below, at its sides, hanging over its corners. */
function beside([x1, y1, x2, y2], [w, h], gap) {
  const upright = [Math.floor(y1 - gap - h), Math.ceil(y2 + gap)];
  const [left, right] = [Math.floor(x1 - gap - w), Math.ceil(x2 + gap)];
  const xs = FLUSH.map((along) => roundHalfEven(x1 + along * (x2 - x1 - w)));
  const ys = FLUSH.map((along) => roundHalfEven(y1 + along * (y2 - y1 - h)));
  const hanging = [x1 - 0.3 * w, x2 - 0.7 * w, x1 - 0.7 * w, x2 - 0.3 * w].map(roundHalfEven);
  return [
    ...upright.flatMap((y) => xs.map((x) => [x, y])),
    ...ys.flatMap((y) => [right, left].map((x) => [x, y])),
    ...upright.flatMap((y) => hanging.map((x) => [x, y])),
  ];
}

/** Top left corners at the bottom of the box, none where the label would hide too much of it. */
function inside([x1, y1, x2, y2], [w, h], gap) {
  const fits = h + gap <= INSIDE_HEIGHT * (y2 - y1) && w + 2 * gap <= x2 - x1 - 2 * ROUNDING_PX;
  if (!fits) return [];
  const y = Math.floor(y2 - gap - h);
  return [x1 + gap, x2 - gap - w, (x1 + x2 - w) / 2].map((x) => [roundHalfEven(x), y]);
}

/** Top left corners on rings round the box. */
function afar([x1, y1, x2, y2], [w, h], gap) {
  const xs = FLUSH.map((along) => roundHalfEven(x1 + along * (x2 - x1 - w)));
  xs.push(...[x1 - 0.6 * w, x2 - 0.4 * w].map(roundHalfEven));
  const ys = [...FLUSH, ...HANGING].map((along) => roundHalfEven(y1 + along * (y2 - y1 - h)));
  return RINGS.flatMap((ring) => {
    const away = gap + ring * h;
    const upright = [y1 - away - h, y2 + away].map(roundHalfEven);
    const [left, right] = [x1 - away - w, x2 + away].map(roundHalfEven);
    return [
      ...upright.flatMap((y) => [...xs, left, right].map((x) => [x, y])),
      ...ys.flatMap((y) => [right, left].map((x) => [x, y])),
    ];
  });
}

// ── rectangles and lines ───────────────────────────────────────────────────────────────────────────

/** Whether a spot, with its leader line, disturbs neither the labels and lines that stand nor any eye. */
function isFree(scene, spot, own, standing) {
  const leader = leaderOf(spot, own);
  for (const { label, leader: line } of standing) {
    if (overlap(spot, grown(label, scene.gapPx)) || crosses(leader, label)) return false;
    if (line && (crosses(line.flat(), spot) || intersect(leader, line.flat()))) return false;
  }
  return !scene.eyes.some((zone) => crosses(leader, zone));
}

function grown([x1, y1, x2, y2], margin) {
  return [x1 - margin, y1 - margin, x2 + margin, y2 + margin];
}

/** The smallest rectangle round all of them. */
function hull(boxes) {
  const around = [...boxes[0]];
  for (const [x1, y1, x2, y2] of boxes) {
    around[0] = Math.min(around[0], x1);
    around[1] = Math.min(around[1], y1);
    around[2] = Math.max(around[2], x2);
    around[3] = Math.max(around[3], y2);
  }
  return around;
}

function overlap(a, b) {
  return sharedSide(a, b, 0) > 0 && sharedSide(a, b, 1) > 0;
}

function sharedArea(a, b) {
  return Math.max(sharedSide(a, b, 0), 0) * Math.max(sharedSide(a, b, 1), 0);
}

function sharedSide(a, b, axis) {
  return Math.min(a[axis + 2], b[axis + 2]) - Math.max(a[axis], b[axis]);
}

/** The shortest line from a spot to the box, through the middle of what they share along an axis. */
function leaderOf(spot, box) {
  const line = [0, 0, 0, 0];
  for (const axis of [0, 1]) {
    const low = Math.max(spot[axis], box[axis]);
    const high = Math.min(spot[axis + 2], box[axis + 2]);
    // Where nothing is shared, low and high have changed places: they are the two ends that face each other.
    const after = spot[axis] > box[axis + 2];
    line[axis] = low <= high ? (low + high) / 2 : after ? low : high;
    line[axis + 2] = low <= high ? (low + high) / 2 : after ? high : low;
  }
  return line;
}

/** Whether a line passes through the inside of a rectangle. */
function crosses(line, box) {
  let enter = 0;
  let leave = 1;
  for (const axis of [0, 1]) {
    const whole = line[axis + 2] - line[axis];
    const step = Math.abs(whole) < NEARLY_NONE ? NEARLY_NONE : whole;
    const toLow = (box[axis] - line[axis]) / step;
    const toHigh = (box[axis + 2] - line[axis]) / step;
    enter = Math.max(enter, Math.min(toLow, toHigh));
    leave = Math.min(leave, Math.max(toLow, toHigh));
  }
  return enter < leave;
}

/** Whether two lines cross: the ends of each lie on both sides of the other. */
function intersect(a, b) {
  const divides = (line, other) => side(line, other[0], other[1]) * side(line, other[2], other[3]) < 0;
  return divides(a, b) && divides(b, a);
}

/** Positive for points on one side of a line, negative on the other, 0 on it. */
function side([x1, y1, x2, y2], x, y) {
  return (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1);
}

// ── sums and lengths to the last bit ───────────────────────────────────────────────────────────────
// Spots that are equally good differ in it, so it decides which is taken.

/** As NumPy adds: eight sums side by side, and long lists by halves. */
function sum(values) {
  const count = values.length;
  if (count < 8) return values.reduce((total, value) => total + value, 0);
  if (count > 128) {
    const half = Math.floor(count / 16) * 8;
    return sum(values.slice(0, half)) + sum(values.slice(half));
  }
  const whole = count - (count % 8);
  const r = values.slice(0, 8);
  for (let i = 8; i < whole; i += 1) r[i % 8] += values[i];
  const total = r[0] + r[1] + (r[2] + r[3]) + (r[4] + r[5] + (r[6] + r[7]));
  return values.slice(whole).reduce((all, value) => all + value, total);
}

/** As the C library has it, corrected after the root: Math.hypot(20, 99) is not 101. */
function hypot(a, b) {
  const x = Math.max(Math.abs(a), Math.abs(b));
  const y = Math.min(Math.abs(a), Math.abs(b));
  if (y <= x * Number.EPSILON) return x + y;
  const root = Math.sqrt(x * x + y * y);
  const isSteep = root <= 2 * y;
  const rest = root - (isSteep ? y : x);
  const first = isSteep ? x * (2 * rest - x) : 2 * rest * (x - 2 * y);
  const second = isSteep ? (rest - 2 * (x - y)) * rest : (4 * rest - y) * y + rest * rest;
  return root - (first + second) / (2 * root);
}
