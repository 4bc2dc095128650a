// The page's language: from the address, else the browser's; words looked up by key and put into the document.
import en from "./texts/en.js";
import zh from "./texts/zh.js";

const TEXTS = { en, zh };
const TAGS = { en: "en", zh: "zh-CN" };

let current = chosen() ?? preferred();
const listeners = [];

function chosen() {
  const asked = new URLSearchParams(location.search).get("lang");
  return Object.hasOwn(TEXTS, asked ?? "") ? asked : null;
}

function preferred() {
  const known = navigator.languages.map((tag) => tag.slice(0, 2).toLowerCase());
  return known.find((tag) => Object.hasOwn(TEXTS, tag)) ?? "en";
}

export function language() {
  return current;
}

/** The other language from now on; the address remembers it, and nothing else does. */
export function switchLanguage() {
  current = current === "zh" ? "en" : "zh";
  remember("lang", current);
  translate();
  for (const listener of listeners) listener();
}

/** Call `listener` whenever the language has changed. */
export function onLanguage(listener) {
  listeners.push(listener);
}

export function remember(name, value) {
  const address = new URL(location.href);
  address.searchParams.set(name, value);
  history.replaceState(null, "", address);
}

/** The text of a key, blanks filled; a key without a text is shown as it is, and tests look for such. */
export function t(key, values = {}) {
  const text = TEXTS[current][key] ?? key;
  return text.replace(/\{(\w+)\}/g, (blank, name) => String(values[name] ?? blank));
}

/** The same for a number of things. */
export function counted(key, count) {
  const form = new Intl.PluralRules(TAGS[current]).select(count) === "one" ? "one" : "other";
  return t(`${key}.${form}`, { count });
}

/** Fill every element that names a text by `data-text`, and every accessible name given by `data-label`. */
export function translate(root = document) {
  document.documentElement.lang = TAGS[current];
  document.title = t("page.title");
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = t(element.dataset.text);
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", t(element.dataset.label));
    if (element.tagName === "BUTTON") element.title = t(element.dataset.label);
  }
}

// ── numbers ────────────────────────────────────────────────────────────────────────────────────────

const SIZES = [["gb", 2 ** 30], ["mb", 2 ** 20], ["kb", 2 ** 10]];

/** Bytes for people: three digits are enough. */
export function bytes(count) {
  for (const [unit, size] of SIZES) {
    if (count >= size) return t(`unit.${unit}`, { value: digits(count / size) });
  }
  return t("unit.bytes", { value: count });
}

/** A positive number with at most three digits that count. */
export function digits(value) {
  return value >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(value >= 10 ? 3 : 2)));
}

export function duration(seconds) {
  if (seconds >= 5400) return t("unit.hours", { value: digits(seconds / 3600) });
  if (seconds >= 90) return t("unit.minutes", { value: Math.round(seconds / 60) });
  return t("unit.seconds", { value: Math.round(seconds) });
}
