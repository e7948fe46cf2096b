// @ts-check
// The walk: sixty steps between two seeds, made at once and then dragged through.

import { download, send } from "./api.js";
import { calm, make, one, player } from "./dom.js";
import { kept } from "./kept.js";
import { SIDE, anySeed, fromNpy, paint, seedIn } from "./pixels.js";
import { recipe } from "./recipe.js";

const STEPS = 60;
const STRIP = 11;
const FILMS = { "image/apng": "walk.png", "image/webp": "walk.webp", "image/gif": "walk.gif" };

const form = one("#walk-form", HTMLFormElement);
const status = one("#walk-status", HTMLElement);
const way = one('[name="way"]', HTMLInputElement, form);
const big = one("#walk-now", HTMLCanvasElement);
const strip = one("#walk-strip", HTMLElement);
const film = one("#walk-film", HTMLElement);
const printed = recipe("walk");

/** @type {Uint8Array[]} */
let frames = [];
/** @type {AbortController | null} */
let loading = null;
let direction = 1;

/** @param {"from" | "to"} name */
const end = (name) => one(`[name="${name}"]`, HTMLInputElement, form);

/** @returns {{seeds: number[], method: string} | null} what is asked for, if both seeds are seeds */
function points() {
  const seeds = [seedIn(end("from").value), seedIn(end("to").value)];
  if (seeds.includes(null)) return null;
  return { seeds: /** @type {number[]} */ (seeds), method: `${new FormData(form).get("method")}` };
}

async function load() {
  loading?.abort(); // its answer would replace what is shown from now on
  const asked = points();
  if (!asked) {
    status.textContent = `A seed is a whole number from 0 to ${Number.MAX_SAFE_INTEGER}.`;
    return;
  }
  const [from, to] = asked.seeds;
  history.replaceState(null, "", `#walk?from=${from}&to=${to}`);
  const mine = (loading = new AbortController());
  const request = {
    path: "/interpolate",
    accept: "application/x-npy",
    file: "walk.npy",
    body: { ...asked, steps: STEPS },
  };
  printed(request);
  try {
    const answer = await send(request, mine.signal);
    frames = fromNpy(await answer.arrayBuffer());
    status.textContent = "";
    paint(one("#walk-from", HTMLCanvasElement), frames[0]);
    paint(one("#walk-to", HTMLCanvasElement), frames[STEPS]);
    strip.replaceChildren(
      ...Array.from({ length: STRIP }, (_, index) => {
        const canvas = make("canvas", { width: `${SIDE}`, height: `${SIDE}` });
        paint(canvas, frames[(index * STEPS) / (STRIP - 1)]);
        return canvas;
      }),
    );
    show(Number(way.value));
  } catch (error) {
    if (!mine.signal.aborted) status.textContent = /** @type {Error} */ (error).message;
  }
}

/** @param {number} step */
function show(step) {
  way.value = `${step}`;
  way.setAttribute("aria-valuetext", `${Math.round((100 * step) / STEPS)} % of the way`);
  one("#walk-where", HTMLOutputElement).value = `${Math.round((100 * step) / STEPS)} % of the way`;
  if (frames[step]) paint(big, frames[step]);
}

async function exported() {
  const asked = points();
  if (!asked) return;
  const data = new FormData(form);
  const accept = /** @type {keyof typeof FILMS} */ (data.get("film"));
  const file = FILMS[accept];
  const body = { ...asked, steps: 30, loop: data.has("loop"), frame_ms: 60, scale: 8 };
  const request = { path: "/interpolate", accept, file, body };
  printed(request);
  status.textContent = "Making the film …";
  try {
    const blob = await download(request);
    const image = one("img", HTMLImageElement, film);
    URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(blob);
    one("p", HTMLElement, film).textContent = `${file}, ${Math.ceil(blob.size / 1024)} KB`;
    film.hidden = false;
    status.textContent = `Saved ${file}.`;
  } catch (error) {
    status.textContent = /** @type {Error} */ (error).message;
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  exported();
});
form.addEventListener("change", (event) => {
  const name = /** @type {HTMLInputElement} */ (event.target).name;
  if (["from", "to", "method"].includes(name)) load();
});
for (const name of /** @type {("from" | "to")[]} */ (["from", "to"]))
  one(`[name="dice-${name}"]`, HTMLButtonElement, form).addEventListener("click", () => {
    end(name).value = `${anySeed()}`;
    load();
  });
way.addEventListener("input", () => show(Number(way.value)));

/** @param {PointerEvent} event */
function drag(event) {
  if (event.type === "pointerdown") big.setPointerCapture(event.pointerId);
  else if (!big.hasPointerCapture(event.pointerId)) return;
  const box = big.getBoundingClientRect();
  const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  show(Math.round(share * STEPS));
}
big.addEventListener("pointerdown", drag);
big.addEventListener("pointermove", drag);

const stop = player(one('[name="play"]', HTMLButtonElement, form), calm.matches ? 250 : 50, () => {
  const step = Number(way.value);
  if (step >= STEPS) direction = -1;
  if (step <= 0) direction = 1;
  show(step + direction);
  return true;
});
document.addEventListener("view", stop);

/** @param {URLSearchParams} parameters */
export function open(parameters) {
  const defaults = kept().length > 1 ? kept().slice(-2) : [7, 42];
  const given = [seedIn(parameters.get("from") || ""), seedIn(parameters.get("to") || "")];
  if (frames.length && given.includes(null)) return;
  end("from").value = `${given[0] ?? defaults[0]}`;
  end("to").value = `${given[1] ?? defaults[1]}`;
  load();
}
