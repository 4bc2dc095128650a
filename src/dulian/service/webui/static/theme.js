// Light or dark before the first paint: as the address says, else as the system has it. Not a module: those come later.
(function () {
  const asked = new URLSearchParams(location.search).get("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  function apply() {
    const choice = root.dataset.choice;
    root.dataset.theme = choice === "auto" ? (dark.matches ? "dark" : "light") : choice;
  }
  root.dataset.choice = asked === "light" || asked === "dark" ? asked : "auto";
  dark.addEventListener("change", apply);
  new MutationObserver(apply).observe(root, { attributes: true, attributeFilter: ["data-choice"] });
  apply();
})();
