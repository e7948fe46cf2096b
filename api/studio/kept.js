// @ts-check
// The digits that were kept: the dock at the bottom, and what can be done with them.

import { address, download, send } from "./api.js";
import { make, one, percent } from "./dom.js";
import { SIDE, digitsOf, paint, paintPng } from "./pixels.js";
import { copy, recipe } from "./recipe.js";

const STORE = "digitgan.kept";
const MOST = 256;

const dock = one("#dock", HTMLElement);
const shelf = one("#dock-kept", HTMLElement);
const status = one("#dock-status", HTMLElement);
const printed = recipe("dock");

/** @type {number[]} */
let seeds = load();
/** @type {number | null} */
let chosen = null;
/** @type {((seeds: number[]) => void)[]} */
const listeners = [];

function load() {
  try {
    const stored = JSON.parse(localStorage.getItem(STORE) || "[]");
    return Array.isArray(stored) ? stored.filter((seed) => Number.isSafeInteger(seed) && seed >= 0).slice(0, MOST) : [];
  } catch {
    return [];
  }
}

export const kept = () => seeds;

/** @param {(seeds: number[]) => void} listener */
export const onKept = (listener) => void listeners.push(listener);

/** Keeps a digit, or lets it go. @param {number} seed */
export function toggle(seed) {
  const there = seeds.includes(seed);
  seeds = there ? seeds.filter((one) => one !== seed) : [...seeds, seed].slice(-MOST);
  changed(there ? (seeds[seeds.length - 1] ?? null) : seed);
}

/** @param {number | null} choose */
function changed(choose) {
  try {
    localStorage.setItem(STORE, JSON.stringify(seeds));
  } catch {
    // A browser that stores nothing forgets them when the page is closed.
  }
  for (const listener of listeners) listener(seeds);
  show(choose);
}

/** @param {number | null} choose */
async function show(choose) {
  const [view] = location.hash.slice(1).split("?");
  dock.hidden = !seeds.length || !["", "wall"].includes(view);
  document.body.classList.toggle("docked", !dock.hidden);
  chosen = choose;
  if (dock.hidden || choose === null) return;
  const mine = seeds;
  const pixels = await digitsOf(mine).catch(() => null);
  if (!pixels || chosen !== choose || seeds !== mine) return;
  shelf.replaceChildren(
    ...seeds.map((seed, index) => {
      const canvas = make("canvas", { width: `${SIDE}`, height: `${SIDE}` });
      paint(canvas, pixels[index]);
      const current = `${seed === choose}`;
      const button = make("button", { type: "button", "aria-label": `Seed ${seed}`, "aria-pressed": current }, canvas);
      button.addEventListener("click", () => show(seed));
      return button;
    }),
  );
  one('[name="walk"]', HTMLButtonElement, dock).disabled = seeds.length < 2;
  one("#dock-seed", HTMLElement).textContent = `Seed ${choose}`;
  describe(choose);
}

/** What classifier and discriminator say of a digit. @param {number} seed */
async function describe(seed) {
  const request = { path: "/generate", body: { seeds: [seed], labels: true } };
  printed(request);
  status.textContent = "";
  const reading = one("#dock-reading", HTMLElement);
  reading.textContent = "";
  try {
    const made = await (await send(request)).json();
    const { digit, confidence, png } = made.images[0];
    if (chosen !== seed) return;
    paintPng(one("#dock-digit", HTMLCanvasElement), png);
    const judged = await (await send({ path: "/score", body: { images: [png] } })).json();
    if (chosen === seed)
      reading.textContent = `reads as ${digit} (${percent(confidence)}), ${percent(judged.scores[0].probability)} real`;
  } catch (error) {
    if (chosen === seed) status.textContent = /** @type {Error} */ (error).message;
  }
}

/** @param {string} accept @param {string} file */
async function take(accept, file) {
  const request = { path: "/generate", accept, file, body: { seeds, scale: accept === "image/png" ? 4 : 1 } };
  printed(request);
  try {
    await download(request);
    status.textContent = `Saved ${file}.`;
  } catch (error) {
    status.textContent = /** @type {Error} */ (error).message;
  }
}

/** @type {Record<string, () => void>} */
const ACTIONS = {
  png: () => take("image/png", "digits.png"),
  zip: () => take("application/zip", "digits.zip"),
  clear: () => {
    seeds = [];
    changed(null);
  },
  walk: () => {
    const [from, to] = seeds.slice(-2);
    location.hash = `#walk?from=${from}&to=${to}`;
  },
  link: async () => {
    const path = `/digits/${chosen}.png?scale=8`;
    printed({ path, file: `${chosen}.png` });
    const link = address(path);
    status.replaceChildren((await copy(link)) ? "Copied " : "The link: ", make("a", { href: link }, link));
  },
};

dock.addEventListener("click", (event) => {
  const target = event.target;
  if (target instanceof HTMLButtonElement) ACTIONS[target.name]?.();
});
document.addEventListener("view", () => show(chosen ?? seeds[seeds.length - 1] ?? null));
show(seeds[seeds.length - 1] ?? null);
