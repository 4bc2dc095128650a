// The chosen picture in full: view, cards of its faces, what it took, and what can be taken away.
import { button, byId, el } from "./dom.js";
import { saveCsv, saveJpeg, saveJson } from "./downloads.js";
import { faceCard } from "./faces.js";
import { pixelsOf, showsPixelsOf } from "./pixels.js";
import { reasonText, shareDone, stateText } from "./states.js";
import { bytes, counted, digits, t } from "./texts.js";
import { Viewer } from "./viewer.js";
import { sentence } from "./words.js";

export class ResultView {
  #album;
  #viewer = new Viewer(byId("canvas"));
  #picture = null;
  #rendered = null;

  constructor(album) {
    this.#album = album;
    this.#viewer.addEventListener("point", ({ detail }) => this.#point(detail));
    this.#viewer.addEventListener("pick", ({ detail }) => this.#pick(detail));
  }

  choose(picture) {
    this.#picture = picture;
    this.#rendered = null;
    this.#viewer.show(null);
    for (const id of ["faces", "facts", "downloads"]) byId(id).replaceChildren();
    for (const id of ["faces-title", "skipped", "download-note"]) byId(id).textContent = "";
    byId("hint").hidden = true;
    showsPixelsOf(picture);
    byId("result").hidden = picture === null;
    if (picture) this.update(picture);
  }

  /** Show what has become of the picture; others are not this view's matter. */
  update(picture) {
    if (picture !== this.#picture) return;
    this.#showState();
    const version = picture.result ?? picture.thumbnail;
    if (this.#rendered !== version || version === null) {
      this.#rendered = version;
      this.#showPicture(picture, version);
    }
  }

  renew() {
    this.choose(this.#picture);
  }

  async #showPicture(picture, version) {
    const bitmap = await pixelsOf(picture);
    if (picture !== this.#picture || version !== this.#rendered) return;
    byId("no-preview").hidden = bitmap !== null;
    this.#viewer.show(bitmap, picture.result, { drawn: picture.drawnByServer });
    byId("canvas").setAttribute("aria-label", this.#describe(picture));
    this.#showFaces(picture, bitmap);
    this.#showFacts(picture, bitmap);
    if (picture.result && !picture.marks.drawn) requestAnimationFrame(() => this.#markDrawn(picture));
  }

  /** For whoever measures: from the file's choice to the frame in which its faces were painted. */
  #markDrawn(picture) {
    if (picture !== this.#picture || !picture.answered) return;
    picture.marks.drawn = performance.now();
    const { added: start, drawn: end } = picture.marks;
    const detail = { ...picture.marks, server: picture.result.timings_ms.total };
    performance.measure("dulian:picture", { start, end, detail });
    this.#listFacts(picture);
  }

  #describe({ name, result }) {
    const faces = result ? counted("result.faces", result.faces.length) : t("state.waiting");
    return t("result.picture", { name, faces });
  }

  // ── what is underway, or went wrong ──────────────────────────────────────────────────────────────

  #showState() {
    const picture = this.#picture;
    const { name, state, ended, answered, error } = picture;
    byId("result-name").textContent = name;
    const panel = byId("result-state");
    panel.hidden = answered;
    panel.dataset.state = state;
    byId("result-state-text").textContent = stateText(picture);
    byId("result-reason").textContent = reasonText(picture);
    byId("result-said").textContent = error?.message && reasonText(picture) !== error.message ? error.message : "";
    const bar = byId("result-progress");
    bar.hidden = ended;
    const share = shareDone(picture);
    if (share === null) bar.removeAttribute("value");
    else bar.value = share;
    this.#offer(picture);
  }

  #offer(picture) {
    const box = byId("result-offers");
    const offers = [];
    if (!picture.ended) offers.push(["pictures.cancel", "cancel", () => picture.cancel()]);
    if (picture.retriable) offers.push(["pictures.retry", "retry", () => this.#album.retry(picture)]);
    if (picture.shrinkable) {
      offers.push(["error.shrink", "image", () => this.#album.retry(picture, { mustShrink: true })]);
    }
    const wanted = [picture.id, ...offers.map(([key]) => t(key))].join();
    if (box.dataset.offers === wanted) return;
    box.dataset.offers = wanted;
    const hadFocus = box.contains(document.activeElement);
    box.replaceChildren(...offers.map(([key, iconName, onClick]) => button(t(key), { iconName, onClick })));
    if (hadFocus) (box.querySelector("button") ?? byId("result-name")).focus();
  }

  // ── faces ────────────────────────────────────────────────────────────────────────────────────────

  #showFaces(picture, bitmap) {
    const list = byId("faces");
    const { result } = picture;
    const scale = bitmap && result ? bitmap.width / result.image.width : 1;
    const onPoint = (id) => this.#viewer.choose(id);
    list.replaceChildren(...(result?.faces ?? []).map((face) => faceCard(face, { bitmap, scale, onPoint })));
    const hint = byId("hint");
    hint.hidden = picture.state !== "empty";
    hint.replaceChildren(t("result.nobody"), el("small", { text: result?.hint ? sentence(result.hint.message) : "" }));
    byId("faces-title").textContent = result?.faces.length ? counted("result.faces", result.faces.length) : "";
    byId("skipped").textContent = result?.skipped ? counted("result.skipped", result.skipped) : "";
  }

  #point(id) {
    this.#viewer.choose(id);
    for (const card of byId("faces").children) card.classList.toggle("pointed", card.dataset.face === String(id));
  }

  #pick(id) {
    const card = [...byId("faces").children].find(({ dataset }) => dataset.face === String(id));
    card?.querySelector("button").focus();
    card?.scrollIntoView({ block: "nearest" });
  }

  // ── facts and downloads ──────────────────────────────────────────────────────────────────────────

  #showFacts(picture, bitmap) {
    this.#listFacts(picture);
    const box = byId("downloads");
    box.hidden = !picture.answered;
    if (!picture.answered) return;
    const offers = [
      ["result.json", () => saveJson([picture])],
      ["result.csv", () => saveCsv([picture])],
    ];
    if (bitmap) offers.unshift(["result.jpeg", () => this.#saveJpeg(picture)]);
    box.replaceChildren(
      el("span", { class: "quiet", text: t("result.download") }),
      ...offers.map(([key, onClick]) => button(t(key), { iconName: "save", onClick, class: "small" })),
    );
  }

  #listFacts(picture) {
    byId("facts").replaceChildren(...facts(picture).map((text) => el("li", { text })));
  }

  async #saveJpeg(picture) {
    byId("download-note").textContent = "";
    try {
      await saveJpeg(picture);
    } catch {
      byId("download-note").textContent = t("result.unsaved");
    }
  }
}

function facts({ result, sent, marks, drawnByServer }) {
  if (!result) return [];
  const { timings_ms: timings, model, image } = result;
  const rounded = Object.fromEntries(Object.entries(timings).map(([stage, ms]) => [stage, digits(ms)]));
  const all = Math.round((marks.drawn ?? performance.now()) - marks.added);
  return [
    t("result.timings", { ...rounded, all }),
    t("result.engine", model),
    t("result.sent", { width: image.width, height: image.height, size: bytes(sent.bytes) }),
    image.rotated ? t("result.turned", { degrees: image.rotated }) : null,
    drawnByServer ? t("result.drawn") : null,
  ].filter(Boolean);
}
