// Live mode: the camera's picture, what is seen in it drawn over it, and how fast that goes.
import { cameraObstacle, explainCamera, listCameras, openCamera } from "./camera.js";
import { byId, el } from "./dom.js";
import { drawFaces, subjectsOf } from "./draw.js";
import { FrameStream } from "./frames.js";
import { digits, onLanguage, t } from "./texts.js";
import { labelOf } from "./words.js";

// Numbers and names that change more often cannot be read.
const WORDS_EVERY_MS = 500;
// Of the window's height.
const HEIGHT_VH = 64;
const TROUBLE = { busy: "live.busy", closed: "live.closed", locked: "state.locked" };

export class Live {
  #onKeep;
  #onToggle;
  #onLocked;
  #video = byId("video");
  #overlay = byId("overlay");
  #media = null;
  #frames = null;
  #result = null;
  #timer = 0;
  #turn = 0;
  #note = () => "";

  /**
   * `onKeep({file, name})` gets a picture that the user wants to keep; `onToggle()` is told of opening and closing,
   * `onLocked()` of a server that wants a key.
   */
  constructor({ onKeep, onToggle, onLocked }) {
    this.#onKeep = onKeep;
    this.#onToggle = onToggle;
    this.#onLocked = onLocked;
    byId("live-stop").addEventListener("click", () => this.stop());
    byId("live-snap").addEventListener("click", () => this.#keep());
    byId("live-mirror").addEventListener("change", () => this.#mirror());
    byId("live-device").addEventListener("change", (event) => this.start(event.target.value));
    onLanguage(() => {
      this.#say(this.#note);
      if (this.#frames) this.#tell();
    });
    new ResizeObserver(() => this.#draw()).observe(this.#video);
  }

  get isOpen() {
    return !byId("live").hidden;
  }

  async start(deviceId = "") {
    this.#halt();
    const turn = this.#turn;
    const isNew = byId("live").hidden;
    byId("live").hidden = false;
    this.#onToggle();
    if (isNew) byId("live-stop").focus();
    this.#say(() => cameraObstacle() ?? t("live.start"));
    if (cameraObstacle()) return;
    try {
      await this.#begin(await openCamera(deviceId), turn);
    } catch (error) {
      if (turn === this.#turn) this.#say(() => explainCamera(error));
    }
  }

  async #begin(media, turn) {
    if (turn !== this.#turn) {
      release(media); // stopped, or started anew, while the browser asked
      return;
    }
    this.#media = media;
    this.#video.srcObject = media;
    await this.#video.play();
    await this.#offerDevices(media);
    if (turn !== this.#turn) return;
    const ratio = this.#video.videoWidth / this.#video.videoHeight;
    this.#video.style.width = `min(100%, ${HEIGHT_VH * ratio}vh)`;
    this.#mirror();
    this.#say(() => "");
    for (const track of media.getTracks()) track.addEventListener("ended", () => this.#lose(turn));
    this.#frames = new FrameStream(this.#video);
    this.#frames.addEventListener("answer", ({ detail }) => this.#show(detail));
    this.#frames.addEventListener("trouble", ({ detail }) => {
      this.#say(() => (detail ? t(TROUBLE[detail]) : ""));
      if (detail === "locked") this.#onLocked();
    });
    this.#timer = setInterval(() => this.#tell(), WORDS_EVERY_MS);
  }

  /** The camera off, the connection closed, the room given back. */
  stop() {
    this.#halt();
    if (byId("live").contains(document.activeElement)) byId("camera").focus();
    byId("live").hidden = true;
    this.#onToggle();
  }

  #halt() {
    this.#turn += 1;
    clearInterval(this.#timer);
    this.#frames?.stop();
    release(this.#media);
    this.#video.srcObject = null;
    this.#frames = this.#media = this.#result = null;
    this.#draw();
  }

  /** Somebody pulled the plug, or another program took the camera. */
  #lose(turn) {
    if (turn !== this.#turn) return;
    this.#halt();
    this.#say(() => t("live.lost"));
  }

  /** `words` gives the text, and gives it again when the language has changed. */
  #say(words) {
    this.#note = words;
    byId("live-note").textContent = words();
  }

  async #offerDevices(media) {
    const cameras = await listCameras();
    const current = media.getVideoTracks()[0].getSettings().deviceId;
    const select = byId("live-device");
    select.replaceChildren(...cameras.map(({ deviceId, label }) => el("option", { value: deviceId, text: label })));
    select.value = current;
    byId("live-devices").hidden = cameras.length < 2;
  }

  #mirror() {
    this.#video.classList.toggle("mirrored", byId("live-mirror").checked);
    this.#draw();
  }

  #show(result) {
    this.#result = result;
    this.#draw();
  }

  #draw() {
    const { clientWidth, clientHeight } = this.#video;
    const ratio = devicePixelRatio || 1;
    const frame = [Math.round(clientWidth * ratio), Math.round(clientHeight * ratio)];
    [this.#overlay.width, this.#overlay.height] = frame;
    Object.assign(this.#overlay.style, { width: `${clientWidth}px`, height: `${clientHeight}px` });
    if (!this.#result || !frame[0]) return;
    const mirrored = byId("live-mirror").checked;
    const scale = frame[0] / this.#result.image.width;
    const subjects = subjectsOf(this.#result.faces, { scale, frame, unit: ratio, mirrored });
    drawFaces(this.#overlay.getContext("2d"), subjects, frame);
  }

  #tell() {
    const { fps, delay } = this.#frames.pace;
    byId("live-rate").textContent = t("live.rate", { fps: digits(fps) });
    byId("live-latency").textContent = delay === null ? "" : t("live.latency", { ms: Math.round(delay) });
    const faces = this.#result?.faces ?? [];
    byId("live-faces").replaceChildren(...faces.map((face) => el("li", { class: face.status, text: labelOf(face) })));
  }

  #keep() {
    const canvas = document.createElement("canvas");
    canvas.width = this.#video.videoWidth;
    canvas.height = this.#video.videoHeight;
    if (!canvas.width) return;
    canvas.getContext("2d").drawImage(this.#video, 0, 0);
    const time = new Date().toTimeString().slice(0, 8).replaceAll(":", "-");
    canvas.toBlob((file) => this.#onKeep({ file, name: t("live.name", { time }) }), "image/jpeg", 0.92);
  }
}

function release(media) {
  for (const track of media?.getTracks() ?? []) track.stop();
}
