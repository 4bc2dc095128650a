// Puts the page together: what comes in goes to the album, what changes there is shown.
import { openAbout } from "./about.js";
import { Album } from "./album.js";
import { byId } from "./dom.js";
import { saveCsv, saveJson } from "./downloads.js";
import { Gallery } from "./gallery.js";
import { openIntake } from "./intake.js";
import { Live } from "./live.js";
import { SHRUNK_FROM_BYTES, SHRUNK_SIDE } from "./prepare.js";
import { ResultView } from "./result.js";
import { offerSamples } from "./samples.js";
import { ServerDrawer } from "./server.js";
import { stateText } from "./states.js";
import { bytes, onLanguage, remember, switchLanguage, t, translate } from "./texts.js";

const THEMES = ["auto", "light", "dark"];
const root = document.documentElement;

const album = new Album();
const result = new ResultView(album);
const gallery = new Gallery(byId("pictures-list"), { onChoose: visit, onRetry: (picture) => album.retry(picture) });
const live = new Live({ onKeep: (kept) => album.add([kept]), onToggle: summarise, onLocked: askForKey });
const server = new ServerDrawer({ onBack: () => album.learnLimits() });
let profile = null;

// ── what changes ───────────────────────────────────────────────────────────────────────────────────

function choose(picture) {
  gallery.choose(picture);
  result.choose(picture);
}

/** A card far down the grid was chosen: what it shows is elsewhere. */
function visit(picture) {
  choose(picture);
  byId("result").scrollIntoView({ block: "nearest" });
  announce(`${picture.name}: ${stateText(picture)}`);
}

function announce(text) {
  byId("announcer").textContent = text;
}

album.addEventListener("added", ({ detail: pictures }) => {
  for (const picture of pictures) gallery.add(picture);
  choose(pictures[0]);
  note(null);
  summarise();
});

album.addEventListener("picture", ({ detail: picture }) => {
  gallery.update(picture);
  result.update(picture);
  profile = picture.result?.model.profile ?? profile;
  if (picture.state === "locked") askForKey();
  if (picture.ended) announce(`${picture.name}: ${stateText(picture)}`);
  summarise();
});

album.addEventListener("cleared", () => {
  gallery.clear();
  choose(null);
  summarise();
  byId("choose").focus();
});

function askForKey() {
  if (!server.isOpen) server.open();
}

function summarise() {
  const all = album.pictures.length;
  const done = album.pictures.filter(({ ended }) => ended).length;
  root.classList.toggle("at-work", all > 0 || live.isOpen);
  byId("clear").hidden = all === 0;
  byId("pictures").hidden = all < 2;
  byId("pictures-summary").textContent = t("pictures.summary", { done, all });
  byId("pictures-progress").hidden = done === all;
  byId("pictures-progress").value = all ? done / all : 0;
  byId("cancel-all").hidden = done === all;
  byId("save-all").hidden = done < all;
}

let noted = null;

function note(key) {
  noted = key;
  byId("intake-note").textContent = key ? t(key) : "";
}

// ── what people do ─────────────────────────────────────────────────────────────────────────────────

openIntake({ onFiles: (files) => album.add(files), onNothing: () => note("intake.nothing") });
openAbout(() => profile);
byId("camera").addEventListener("click", () => live.start());
byId("clear").addEventListener("click", () => album.clear());
byId("cancel-all").addEventListener("click", () => {
  album.cancelAll();
  byId("pictures-title").focus();
});
byId("save-all-json").addEventListener("click", () => saveJson(album.pictures));
byId("save-all-csv").addEventListener("click", () => saveCsv(album.pictures));
byId("shrink").addEventListener("change", (event) => Object.assign(album.settings, { shrink: event.target.checked }));
byId("language").addEventListener("click", switchLanguage);
byId("theme").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(root.dataset.choice) + 1) % THEMES.length];
  root.dataset.choice = next;
  remember("theme", next);
  showTheme();
});

function showTheme() {
  byId("theme").dataset.label = `page.theme.${root.dataset.choice}`;
  translate(byId("theme").parentElement);
}

function showWords() {
  byId("shrink-text").textContent = t("intake.shrink", { size: bytes(SHRUNK_FROM_BYTES), side: SHRUNK_SIDE });
  gallery.renew();
  result.renew();
  note(noted);
  summarise();
}

onLanguage(showWords);
translate();
showTheme();
showWords();
album.learnLimits();
offerSamples(byId("samples"), byId("samples-list"), (files) => album.add(files));
