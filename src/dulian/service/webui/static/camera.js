// The camera itself: asking for it, and why it cannot be had.
import { t } from "./texts.js";

const WANTED = { width: { ideal: 1280 }, height: { ideal: 720 } };

/** A stream of the named camera, or of the one towards the user. */
export function openCamera(deviceId) {
  const which = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "user" };
  return navigator.mediaDevices.getUserMedia({ audio: false, video: { ...WANTED, ...which } });
}

/** The cameras there are, by id and name; names are known only once one was allowed. */
export async function listCameras() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter(({ kind }) => kind === "videoinput");
}

/** Why the camera is not to be had, in words; null where nothing stands against asking. */
export function cameraObstacle() {
  return navigator.mediaDevices?.getUserMedia ? null : t("live.insecure");
}

export function explainCamera(error) {
  if (error.name === "NotAllowedError") return t("live.denied");
  if (error.name === "NotFoundError" || error.name === "OverconstrainedError") return t("live.missing");
  return t("live.failed", { reason: error.message || error.name });
}
