// @ts-check
// The game: two digits, one real and one generated. You guess, and so does the discriminator.

import { save, send } from "./api.js";
import { make, one, percent } from "./dom.js";
import { SIDE, paint, paintPng } from "./pixels.js";
import { recipe } from "./recipe.js";
import { mnistDigits, pngFrom, readIdx, written } from "./written.js";

const ROUNDS = 10;

const game = one("#game", HTMLElement);
const cards = [...game.querySelectorAll("button")];
const status = one("#play-status", HTMLElement);
const next = one("#play-next", HTMLButtonElement);
const share = one("#play-share", HTMLButtonElement);
const source = one("#play-source", HTMLFormElement);
const printed = recipe("play");

/** @typedef {{pixels: Uint8Array, digit?: number}} Real a digit of MNIST; those of a file have no label */
/** @typedef {{fake: number, pngs: string[], seed: number}} Round `fake`: the place of the generated one, 0 or 1 */

/** @type {Real[] | null} */
let mnist = null;
let fileName = "";
/** @type {Round | null} */
let round = null;
/** How often digits were dealt. An answer that belongs to an earlier deal changes nothing. */
let deals = 0;
/** @type {(Round & {you: boolean, discriminator: boolean | null})[]} */
let played = [];

/** @template T @param {T[]} all @returns {T} */
const anyOf = (all) => all[Math.floor(Math.random() * all.length)];
const fromDrawings = () => new FormData(source).get("source") === "drawings";
const right = (/** @type {"you" | "discriminator"} */ player) => played.filter((each) => each[player]).length;

function showSource() {
  const own = written().length;
  const drawings = one('[value="drawings"]', HTMLInputElement, source);
  drawings.disabled = !own;
  if (!own) one('[value="mnist"]', HTMLInputElement, source).checked = true;
  const mnistText = mnist ? `${mnist.length} digits of ${fileName || "MNIST’s test set"}.` : "";
  one("#play-stock", HTMLElement).textContent = fromDrawings() ? `Your ${own} drawn digits.` : mnistText;
}

/** @returns {Promise<{png: string, digit: number}>} a real digit, and what it reads as */
async function real() {
  if (fromDrawings()) return anyOf(written());
  mnist ??= await mnistDigits();
  const { pixels, digit } = anyOf(mnist);
  const canvas = make("canvas", { width: `${SIDE}`, height: `${SIDE}` });
  paint(canvas, pixels);
  const png = pngFrom(canvas);
  if (digit !== undefined) return { png, digit };
  const answer = await send({ path: "/score", body: { images: [png], labels: true } });
  return { png, digit: (await answer.json()).scores[0].digit };
}

/** Shows the next two digits, or begins a new game after the last round. */
async function deal() {
  const mine = ++deals;
  round = null;
  game.hidden = next.hidden = share.hidden = true;
  status.textContent = "";
  if (played.length === ROUNDS) played = [];
  try {
    const hand = await real();
    if (mine !== deals) return;
    showSource();
    const request = { path: "/generate", body: { count: 1, digit: hand.digit, curated: true } };
    printed(request);
    const made = (await (await send(request)).json()).images[0];
    if (mine !== deals) return;
    const fake = Math.round(Math.random());
    round = { fake, pngs: fake ? [hand.png, made.png] : [made.png, hand.png], seed: made.seed };
    const { pngs } = round;
    cards.forEach((card, index) => {
      card.className = "card";
      card.disabled = false;
      one("span", HTMLElement, card).textContent = `${index + 1}`;
      card.setAttribute("aria-label", `The ${index ? "second" : "first"} is generated`);
      paintPng(one("canvas", HTMLCanvasElement, card), pngs[index]);
    });
    game.hidden = false;
    status.textContent = `Round ${played.length + 1} of ${ROUNDS}. Which digit is generated?`;
  } catch (error) {
    if (mine !== deals) return;
    status.textContent = /** @type {Error} */ (error).message;
    next.hidden = false;
  }
}

/** @param {number} index of the card that the player takes for the generated one */
async function guess(index) {
  if (!round) return;
  const { fake, pngs, seed } = round;
  const current = round;
  const mine = deals;
  round = null;
  /** @type {boolean | null} */
  let discriminator = null;
  let verdict = "";
  try {
    const { scores } = await (await send({ path: "/score", body: { images: pngs } })).json();
    discriminator = (scores[0].logit < scores[1].logit ? 0 : 1) === fake;
    verdict = ` The discriminator is ${discriminator ? "right" : "wrong"}: it rates the generated digit ${percent(scores[fake].probability)} real, and the other ${percent(scores[1 - fake].probability)}.`;
  } catch (error) {
    verdict = ` The discriminator did not answer: ${/** @type {Error} */ (error).message}`;
  }
  if (mine !== deals) return;
  played.push({ ...current, you: index === fake, discriminator });
  cards.forEach((card, place) => {
    card.disabled = true;
    card.classList.add(place === fake ? "fake" : "real");
    one("span", HTMLElement, card).textContent = place === fake ? `generated, seed ${seed}` : "real";
  });
  status.textContent = `${index === fake ? "Right." : "Wrong."}${verdict}`;
  one("#play-tally", HTMLElement).textContent =
    `After ${played.length}: you ${right("you")}, the discriminator ${right("discriminator")}.`;
  const over = played.length === ROUNDS;
  next.textContent = over ? "Play again" : "Next two";
  next.hidden = false;
  share.hidden = !over;
  next.focus();
}

/** @returns {Promise<Blob>} a picture of the game: each pair, the generated one framed, and both results */
async function picture() {
  const side = 3 * SIDE;
  const row = side + 12;
  const canvas = make("canvas", { width: "640", height: `${90 + (row * ROUNDS) / 2}` });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = "#000";
  context.font = "bold 24px sans-serif";
  context.fillText(`I found ${right("you")} of ${ROUNDS} generated digits.`, 20, 40);
  context.font = "16px sans-serif";
  context.fillText(`The discriminator found ${right("discriminator")}. The generated digits have a frame.`, 20, 68);
  context.imageSmoothingEnabled = false;
  for (const [index, { pngs, fake, you }] of played.entries()) {
    const top = 90 + row * Math.floor(index / 2);
    const left = 20 + 310 * (index % 2);
    for (const [place, png] of pngs.entries()) {
      const small = make("canvas", { width: `${SIDE}`, height: `${SIDE}` });
      await paintPng(small, png);
      const x = left + place * row;
      context.drawImage(small, x, top, side, side);
      if (place !== fake) continue;
      context.lineWidth = 4;
      context.strokeStyle = "#c2410c";
      context.strokeRect(x - 2, top - 2, side + 4, side + 4);
    }
    context.fillText(you ? "found" : "missed", left + 2 * row, top + side / 2);
  }
  return new Promise((resolve) => canvas.toBlob((blob) => resolve(/** @type {Blob} */ (blob)), "image/png"));
}

cards.forEach((card, index) => card.addEventListener("click", () => guess(index)));
next.addEventListener("click", deal);
share.addEventListener("click", async () => save(await picture(), "real-or-generated.png"));
source.addEventListener("change", async (event) => {
  const input = /** @type {HTMLInputElement} */ (event.target);
  const file = input.type === "file" ? input.files?.[0] : null;
  if (input.type === "file" && !file) return;
  try {
    if (file) {
      mnist = (await readIdx(file)).map((pixels) => ({ pixels }));
      fileName = file.name;
      one('[value="mnist"]', HTMLInputElement, source).checked = true;
    }
    showSource();
    await deal();
  } catch (error) {
    status.textContent = /** @type {Error} */ (error).message;
  }
});

export function open() {
  showSource();
  if (!round && !played.length) deal();
}
