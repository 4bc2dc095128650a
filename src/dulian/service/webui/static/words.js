// What is said of a face, in the page's language: on its label, in its card, and of its picture.
import { roundHalfEven } from "./layout.js";
import { language, t } from "./texts.js";

// What follows the first clause of a message is advice, and too long for a label.
const CLAUSE_END = /[,，。;；:：!！]/;

/** Whole years, as the server rounds them. */
export function years(value) {
  return String(roundHalfEven(value));
}

/** As the server's own label: "Female, 31 (26–37)". */
export function labelOf(face) {
  const parts = [];
  if (face.gender) parts.push(genderOf(face, "label.gender.unknown"));
  if (face.age) {
    const { value, low, high } = face.age;
    parts.push(t("label.age", { value: years(value), low: years(low), high: years(high) }));
  }
  return parts.join(t("label.join")) || t("face.none");
}

export function genderOf(face, unknown = "gender.unknown") {
  return t(face.gender.value ? `gender.${face.gender.value}` : unknown);
}

/** The words of a label, from all to next to nothing. */
export function captionOf(face) {
  const initial = face.gender ? t(`label.${face.gender.value ?? "unknown"}`) : "";
  const age = face.age ? years(face.age.value) : "";
  return {
    full: face.gender || face.age ? labelOf(face) : "",
    short: `${initial} ${age}`.trim(),
    reason: face.message ? firstClause(face.message) : "",
  };
}

function firstClause(message) {
  return language() === "zh" ? message.zh.split(CLAUSE_END)[0] : message.code.replaceAll("_", " ");
}

/** A sentence of the server's in the page's language. */
export function sentence(message) {
  return message[language()] ?? message.en;
}

/** Why a picture has no answer, as one sentence; what the server said besides is for whoever wants more. */
export function explained(error) {
  const known = t(`error.${error.code}`);
  return known === `error.${error.code}` ? error.message : known;
}
