// The grid: one card for each picture, with its state; a failure is one card and nothing else.
import { COLOURS } from "./draw.js";
import { button, el, icon } from "./dom.js";
import { reasonText, shareDone, stateText } from "./states.js";
import { t } from "./texts.js";

export class Gallery {
  #list;
  #cards = new Map();
  #handlers;
  #chosen = null;

  /** `handlers`: onChoose(picture), onRetry(picture). */
  constructor(list, handlers) {
    this.#list = list;
    this.#handlers = handlers;
  }

  add(picture) {
    const card = this.#make(picture);
    this.#cards.set(picture, card);
    this.#list.append(card.item);
    this.update(picture);
  }

  clear() {
    this.#cards.clear();
    this.#list.replaceChildren();
    this.#chosen = null;
  }

  choose(picture) {
    this.#chosen = picture;
    for (const [one, card] of this.#cards) card.show.setAttribute("aria-pressed", String(one === picture));
  }

  /** Everything anew, as after a change of language. */
  renew() {
    for (const picture of this.#cards.keys()) this.update(picture);
  }

  update(picture) {
    const card = this.#cards.get(picture);
    if (!card) return;
    const { ended, state, name } = picture;
    const text = stateText(picture);
    card.item.dataset.state = state;
    card.state.textContent = text;
    card.reason.textContent = reasonText(picture);
    card.show.setAttribute("aria-label", t("pictures.show", { name, state: text }));
    card.bar.hidden = ended;
    const share = shareDone(picture);
    if (share === null) card.bar.removeAttribute("value");
    else card.bar.value = share;
    this.#showPicture(card, picture);
    this.#offer(card, picture);
  }

  #make(picture) {
    const frame = el("span", { class: "thumb" }, icon("image"));
    const name = el("span", { class: "card-name", text: picture.name, title: picture.name, dir: "auto" });
    const state = el("span", { class: "card-state" });
    const reason = el("span", { class: "card-reason" });
    const bar = el("progress", { max: 1, "aria-hidden": "true" });
    const show = el(
      "button",
      { type: "button", class: "card-show", on: { click: () => this.#handlers.onChoose(picture) } },
      frame,
      name,
      state,
      reason,
    );
    show.setAttribute("aria-pressed", String(picture === this.#chosen));
    const actions = el("span", { class: "card-actions" });
    const item = el("li", { class: "card", data: { picture: picture.id } }, show, bar, actions);
    return { item, show, frame, state, reason, bar, actions, offered: null, drawn: null };
  }

  #showPicture(card, picture) {
    const { thumbnail, result } = picture;
    if (!thumbnail || card.drawn === (result ?? thumbnail)) return;
    card.drawn = result ?? thumbnail;
    const pen = thumbnail.getContext("2d"); // a copy for each of a thousand pictures would fill the memory
    const scale = result ? thumbnail.width / result.image.width : 0;
    for (const { bbox, status } of result?.faces ?? []) {
      const [x1, y1, x2, y2] = bbox.map((edge) => edge * scale);
      pen.strokeStyle = COLOURS[status];
      pen.lineWidth = 3;
      pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
    }
    card.frame.replaceChildren(thumbnail);
  }

  /** The one thing to do about a picture in its state: cancel what is underway, try again what went wrong. */
  #offer(card, picture) {
    const offer = !picture.ended ? "cancel" : picture.retriable ? "retry" : "none";
    const label = offer === "none" ? "" : t(`pictures.${offer}.of`, { name: picture.name });
    if (card.offered === label) return;
    card.offered = label;
    const act = offer === "cancel" ? () => picture.cancel() : () => this.#handlers.onRetry(picture);
    const hadFocus = card.actions.contains(document.activeElement);
    card.actions.replaceChildren();
    if (offer === "none") {
      if (hadFocus) card.show.focus();
      return;
    }
    const made = button(t(`pictures.${offer}`), { iconName: offer, onClick: act, class: "small", "aria-label": label });
    card.actions.append(made);
    if (hadFocus) made.focus();
  }
}
