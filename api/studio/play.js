// @ts-check
// The game: two digits, one by a hand and one by the generator. You guess, and so does the discriminator.

import { send } from "./api.js";
import { make, one, percent } from "./dom.js";
import { SIDE, paint, paintPng } from "./pixels.js";
import { recipe } from "./recipe.js";
import { pngFrom, readIdx, written } from "./written.js";

const game = one("#game", HTMLElement);
const cards = [...game.querySelectorAll("button")];
const status = one("#play-status", HTMLElement);
const next = one("#play-next", HTMLButtonElement);
const printed = recipe("play");

/** @type {Uint8Array[]} */
let mnist = [];
/** @type {{fake: number, pngs: string[], seed: number} | null} */
let round = null;
const tally = { rounds: 0, you: 0, discriminator: 0 };

/** @template T @param {T[]} all @returns {T} */
const anyOf = (all) => all[Math.floor(Math.random() * all.length)];

function stock() {
  const own = written().length;
  one("#play-stock", HTMLElement).textContent = mnist.length
    ? `Playing with ${mnist.length} of MNIST’s digits.`
    : own
      ? `${own} ${own === 1 ? "digit" : "digits"} of yours to play with.`
      : "No digit of yours yet.";
  one("#play-write", HTMLElement).textContent = own ? "Write more" : "Write a digit";
  one("#play-write", HTMLElement).classList.toggle("quiet", Boolean(mnist.length || own));
  return mnist.length || own;
}

/** @returns {Promise<{png: string, digit: number}>} a real digit, and what it reads as */
async function real() {
  if (!mnist.length) return anyOf(written());
  const canvas = make("canvas", { width: `${SIDE}`, height: `${SIDE}` });
  paint(canvas, anyOf(mnist));
  const png = pngFrom(canvas);
  const answer = await send({ path: "/score", body: { images: [png], labels: true } });
  return { png, digit: (await answer.json()).scores[0].digit };
}

async function deal() {
  round = null;
  game.hidden = next.hidden = true;
  if (!stock()) {
    status.textContent = "A game needs real digits: write some, or open MNIST’s file.";
    return;
  }
  status.textContent = "";
  try {
    const hand = await real();
    const request = { path: "/generate", body: { count: 1, digit: hand.digit, curated: true } };
    printed(request);
    const made = (await (await send(request)).json()).images[0];
    const fake = Math.round(Math.random());
    round = { fake, pngs: fake ? [hand.png, made.png] : [made.png, hand.png], seed: made.seed };
    cards.forEach((card, index) => {
      card.className = "card";
      card.disabled = false;
      one("span", HTMLElement, card).textContent = `${index + 1}`;
      card.setAttribute("aria-label", `The ${index ? "second" : "first"} is the generator’s`);
      paintPng(one("canvas", HTMLCanvasElement, card), /** @type {{pngs: string[]}} */ (round).pngs[index]);
    });
    game.hidden = false;
    status.textContent = "Which one did the generator make?";
  } catch (error) {
    status.textContent = /** @type {Error} */ (error).message;
    next.hidden = false;
  }
}

/** @param {number} index of the card that is said to be the generator's */
async function guess(index) {
  if (!round) return;
  const { fake, pngs, seed } = round;
  round = null;
  const request = { path: "/score", body: { images: pngs } };
  let verdict = "";
  try {
    const { scores } = await (await send(request)).json();
    const picked = scores[0].logit < scores[1].logit ? 0 : 1;
    tally.discriminator += Number(picked === fake);
    verdict = ` The discriminator is ${picked === fake ? "right" : "wrong"}: it finds the generator’s ${percent(scores[fake].probability)} real, the other ${percent(scores[1 - fake].probability)}.`;
  } catch (error) {
    verdict = ` The discriminator has no opinion: ${/** @type {Error} */ (error).message}`;
  }
  tally.rounds += 1;
  tally.you += Number(index === fake);
  cards.forEach((card, place) => {
    card.disabled = true;
    card.classList.add(place === fake ? "fake" : "real");
    one("span", HTMLElement, card).textContent = place === fake ? `the generator’s, seed ${seed}` : "by a hand";
  });
  status.textContent = `${index === fake ? "Right." : "Wrong."}${verdict}`;
  one("#play-tally", HTMLElement).textContent =
    `After ${tally.rounds}: you ${tally.you}, the discriminator ${tally.discriminator}.`;
  next.hidden = false;
  next.focus();
}

cards.forEach((card, index) => card.addEventListener("click", () => guess(index)));
next.addEventListener("click", deal);
one("#play-file", HTMLInputElement).addEventListener("change", async (event) => {
  const file = /** @type {HTMLInputElement} */ (event.target).files?.[0];
  if (!file) return;
  try {
    mnist = await readIdx(file);
    deal();
  } catch (error) {
    status.textContent = /** @type {Error} */ (error).message;
  }
});

export function open() {
  stock();
  if (!round) deal();
}
