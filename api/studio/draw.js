// @ts-check
// Writing: each change of the ink is scored, one request at a time, beside a digit of the generator's.

import { save, send } from "./api.js";
import { make, one, percent } from "./dom.js";
import { opinion } from "./opinion.js";
import { Pad } from "./pad.js";
import { recipe } from "./recipe.js";
import { remember } from "./written.js";

const PAUSE_MS = 80;

const status = one("#draw-status", HTMLElement);
const printed = recipe("draw");
const showYours = opinion(one("#opinion-yours", HTMLElement), "Your digit");
const showOther = opinion(one("#opinion-other", HTMLElement), "The generator’s digit");
const pad = new Pad(one("#pad", HTMLCanvasElement), changed);

let busy = false;
let stale = false;
/** How often the other digit was requested. Only the last answer is shown. */
let fetches = 0;
/** @type {{png: string, seed: number} | null} */
let other = null;
/** @type {import("./opinion.js").Score | null} */
let last = null;

const seedLine = make("p", { class: "data" });
const another = make("button", { type: "button", class: "quiet" }, "Another");
one("#opinion-other", HTMLElement).append(seedLine, another);
const saved = make("button", { type: "button", class: "quiet" }, "Save the picture");
one("#opinion-yours", HTMLElement).append(saved);

const requestFor = (/** @type {string[]} */ images, /** @type {string} */ upload) => ({
  path: "/score",
  body: { images, labels: true, fitted_images: true },
  upload,
});

/** @param {Blob} blob @returns {Promise<string>} */
async function base64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

function changed() {
  stale = true;
  if (!busy) work();
}

async function work() {
  busy = true;
  while (stale) {
    stale = false;
    await look().catch((/** @type {Error} */ error) => (status.textContent = error.message));
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  busy = false;
}

async function look() {
  if (pad.empty) {
    last = null;
    showYours(null);
    status.textContent = "Write a digit on the black square.";
    return;
  }
  const request = requestFor([await base64(await pad.picture())], "drawing.png");
  printed(request);
  const [score] = (await (await send(request)).json()).scores;
  if (pad.empty) return;
  if (!score.ink) {
    last = null;
    showYours(null);
    status.textContent = `Not scored: ${score.reason}.`;
    return;
  }
  last = score;
  showYours(score);
  status.textContent = `Yours reads as ${score.digit}; ${percent(score.probability)} real.`;
}

/** A digit of the generator's: what you wrote, if that can be read. */
async function fetchOther() {
  const wanted = last && last.confidence > 0.9 ? { digit: last.digit } : {};
  const mine = ++fetches;
  try {
    const made = await (await send({ path: "/generate", body: { count: 1, ...wanted } })).json();
    const scored = await (await send(requestFor([made.images[0].png], "digit.png"))).json();
    if (mine !== fetches) return;
    other = made.images[0];
    showOther(scored.scores[0]);
    seedLine.textContent = `seed ${made.images[0].seed}`;
  } catch (error) {
    if (mine === fetches) status.textContent = /** @type {Error} */ (error).message;
  }
}

/** What was written goes to the game before the pad is empty again. */
function keep() {
  if (last && last.confidence > 0.5) remember({ png: last.png, digit: last.digit });
}

one("#pad-clear", HTMLButtonElement).addEventListener("click", () => {
  keep();
  pad.clear();
  fetchOther();
});
one("#pad-undo", HTMLButtonElement).addEventListener("click", () => pad.undo());
one("#pad-pen", HTMLInputElement).addEventListener("input", (event) => {
  pad.width = Number(/** @type {HTMLInputElement} */ (event.target).value);
});
another.addEventListener("click", fetchOther);
saved.addEventListener("click", async () => save(await pad.picture(), "drawing.png"));
document.addEventListener("view", (event) => {
  if (/** @type {CustomEvent} */ (event).detail !== "draw") keep();
});
showYours(null);
showOther(null);
printed(requestFor([], "drawing.png"));

export function open() {
  if (!other) fetchOther();
}
