// What was measured of each profile; the same figures as in the documentation, and a test says so.
import { byId, el } from "./dom.js";
import { onLanguage, t } from "./texts.js";

const FIGURES = {
  standard: { gender: 84.7, error: 6.6, coverage: 90.3, width: 28, found: 88.0, precision: 92.8 },
  classic: { gender: 77.7, error: 13.4, coverage: 90.4, width: 50, found: 45.0, precision: 99.6 },
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
  return IN_YEARS.has(key) ? t("about.years", { value }) : `${value.toFixed(1)} %`;
}
