// What was measured of each profile; the same figures as in the documentation, and a test says so.
import { byId, el } from "./dom.js";
import { onLanguage, t } from "./texts.js";

const FIGURES = {
  standard: { gender: 85.5, error: 6.3, coverage: 89.9, width: 27, found: 87.7, precision: 92.8 },
  accurate: { gender: 88.8, error: 4.8, coverage: 90.0, width: 19, found: 87.7, precision: 92.8 },
  classic: { gender: 78.2, error: 10.8, coverage: 90.0, width: 42, found: 44.9, precision: 99.6 },
};
const IN_YEARS = new Set(["error", "width"]);

/** Wire the dialog up; `profileInUse()` names the profile that answers here, as far as it is known. */
export function openAbout(profileInUse) {
  const dialog = byId("about");
  byId("about-open").addEventListener("click", () => {
    render(profileInUse());
    dialog.showModal();
  });
  byId("about-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  onLanguage(() => dialog.open && render(profileInUse()));
}

function render(current) {
  const names = Object.keys(FIGURES);
  const head = names.map((name) =>
    el("th", { scope: "col" }, name, name === current ? el("small", { text: t("about.current") }) : null),
  );
  const rows = Object.keys(FIGURES.standard).map((key) => {
    const cells = names.map((name) => el("td", { text: written(key, FIGURES[name][key]) }));
    return el("tr", {}, el("th", { scope: "row", text: t(`about.${key}`) }), ...cells);
  });
  const corner = el("td", { text: "" });
  byId("figures").replaceChildren(el("thead", {}, el("tr", {}, corner, ...head)), el("tbody", {}, ...rows));
}

function written(key, value) {
  return IN_YEARS.has(key) ? `${value}` : `${value.toFixed(1)} %`;
}
