// The state of a picture in words, and how far it is: used by its card and by the large view alike.
import { bytes, counted, t } from "./texts.js";
import { explained } from "./words.js";

export function stateText(picture) {
  const { state, detail, result } = picture;
  if (state === "uploading") return t("state.uploading", { percent: Math.round(detail.share * 100) });
  if (state === "queued") return counted("state.queued", detail.length);
  if (state === "overloaded") return t("state.overloaded", { seconds: detail.seconds });
  if (state === "done") return counted("state.done", result.faces.length);
  return t(`state.${state}`);
}

/** Why there is no answer, in one or two sentences; empty while there may be one. */
export function reasonText({ error }) {
  if (!error) return "";
  if (error.limit === undefined) return explained(error);
  return `${explained(error)} ${t("error.limit", { size: bytes(error.size), limit: bytes(error.limit) })}`;
}

/** 0 to 1 where that is known, null where it just takes a while. */
export function shareDone({ state, detail }) {
  return state === "uploading" ? detail.share : null;
}
