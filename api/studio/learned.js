// @ts-check
// How it learned: the milestones of the run as a time-lapse, over its losses on the same axis.

import { Problem, send } from "./api.js";
import { calm, make, one, percent, player, thousands } from "./dom.js";
import { paintPng } from "./pixels.js";
import { along, plot } from "./plot.js";
import { recipe } from "./recipe.js";

const FRAME_MS = 700;
const MARKS = 1000; // Positions of the slider: finer than the milestones, so that it stands where they are.

const TITLES = {
  stable: "The losses were stable.",
  moving: "The losses were still changing.",
  unclear: "It is unclear whether the losses were stable.",
  failed: "The training failed.",
};

/**
 * @typedef {object} Story the answer of GET /story
 * @property {{steps: number, epochs: number, preset: string, images: number, batch_size: number, chosen_step: number | null, chosen?: Record<string, number> | null}} run
 * @property {{step: number, epoch: number, stage: string | null, legible: number | null, png: string}[]} milestones
 * @property {Record<string, (number | null)[]>} log
 * @property {Record<string, number>} guessing
 * @property {{state: keyof typeof TITLES, words: string}} stability
 * @property {Record<string, number | null>[]} evaluations
 */

const request = { path: "/story", file: "story.json" };
const canvas = one("#lapse", HTMLCanvasElement);
const slider = one("#lapse-slider", HTMLInputElement);
const status = one("#learned-status", HTMLElement);
const plots = one("#plots", HTMLElement);

/** @type {Story | null} */
let story = null;
let current = 0;
/** @type {((step: number) => void)[]} */
let cursors = [];

/** The end of the axis. */
const lastStep = () =>
  Math.max(1, ...(story?.log.step.slice(-1) ?? []).map(Number), ...(story?.milestones ?? []).map(({ step }) => step));

async function load() {
  try {
    story = await (await send(request)).json();
  } catch (error) {
    status.textContent =
      error instanceof Problem && error.status === 404
        ? "This version of the generator has no story. “digitgan export RUN” publishes one with it."
        : /** @type {Error} */ (error).message;
    return;
  }
  one("#story", HTMLElement).hidden = false;
  status.textContent = "";
  tell(/** @type {Story} */ (story));
  drawPlots(/** @type {Story} */ (story));
  show(/** @type {Story} */ (story).milestones.length - 1);
}

/** @param {Story} told */
function tell({ run, stability, milestones, evaluations }) {
  one("#learned-lede", HTMLElement).textContent =
    `The same 64 seeds at ${milestones.length} moments of the training: ${thousands(run.steps)} steps, ` +
    `${run.epochs.toFixed(1)} passes over ${thousands(run.images)} handwritten digits. ` +
    served(run);
  const [first, ...rest] = stability.words.split(/(?<=\.) (?=[A-Z])/);
  const note =
    "Flat losses mean that neither network gains on the other. They do not mean that the digits are good, or that all " +
    "ten occur, and digits improve while losses stay flat. Dotted lines: the values for a discriminator that guesses.";
  const measured =
    " So the digits are measured: legible is the share that a classifier reads with confidence, covered the share of " +
    "MNIST’s digits with a generated digit near them.";
  one("#verdict", HTMLElement).replaceChildren(
    make("h2", {}, TITLES[stability.state] ?? stability.state),
    make(
      "div",
      {},
      make("p", { class: "first" }, first),
      ...(rest.length ? [make("ul", {}, ...rest.map((each) => make("li", {}, each)))] : []),
    ),
    make("p", { class: "note" }, note + (worth(evaluations) ? measured : "")),
  );
  slider.max = `${MARKS}`;
}

/** @param {Story["run"]} run */
function served({ chosen, chosen_step: step }) {
  if (chosen?.average_of)
    return (
      `The served generator is the average of ${chosen.average_of} generators, from step ` +
      `${thousands(chosen.from_step)} to ${thousands(chosen.step)}.`
    );
  return step ? `The served generator was trained until step ${thousands(step)}.` : "";
}

/** Whether the digits were measured on the way. @param {Story["evaluations"]} evaluations */
const worth = (evaluations) => evaluations.filter(({ legible }) => typeof legible === "number").length > 1;

/** @param {Story} told */
function drawPlots({ log, guessing, evaluations }) {
  const steps = /** @type {number[]} */ (log.step);
  if (steps.length < 2) return;
  const last = lastStep();
  const width = plots.clientWidth || 600;
  const highest = [...log.generator_loss, ...log.discriminator_loss]
    .filter((value) => value !== null)
    .sort((a, b) => a - b);
  const top = Math.max(guessing.discriminator_loss * 1.2, highest[Math.floor(0.98 * (highest.length - 1))] * 1.1);
  const unit = top > 6 ? 2 : top > 2.5 ? 1 : 0.5;
  const marks = Array.from({ length: Math.floor(top / unit) + 1 }, (_, i) => i * unit);
  const losses = plot(
    "Both losses over the steps",
    steps,
    [
      { name: "generator’s loss", kind: "generator", values: log.generator_loss, guess: guessing.generator_loss },
      {
        name: "discriminator’s loss",
        kind: "discriminator",
        values: log.discriminator_loss,
        guess: guessing.discriminator_loss,
      },
    ],
    { last, top, marks, label: String, width, height: 210, axis: false },
  );
  const shares = { last, top: 1, marks: [0, 0.5, 1], label: (/** @type {number} */ value) => `${100 * value} %`, width };
  const measured = worth(evaluations);
  const accuracy = plot(
    "The discriminator’s accuracy over the steps",
    steps,
    [
      { name: "accuracy on real", kind: "real", values: log.accuracy_real, guess: 0.5 },
      { name: "accuracy on generated", kind: "fake", values: log.accuracy_fake },
    ],
    { ...shares, height: measured ? 134 : 150, axis: !measured },
  );
  const drawn = [losses, accuracy];
  if (measured)
    drawn.push(
      plot(
        "Measures of the digits over the steps",
        evaluations.map(({ step }) => Number(step)),
        [
          { name: "digits legible", kind: "legible", values: evaluations.map(({ legible }) => legible ?? null) },
          { name: "MNIST covered", kind: "covered", values: evaluations.map(({ coverage }) => coverage ?? null) },
        ],
        { ...shares, height: 150, axis: true },
      ),
    );
  plots.replaceChildren(...drawn.map(({ svg }) => svg));
  cursors = drawn.map(({ mark }) => mark);
}

/** @param {number} index of a milestone */
function show(index) {
  const milestone = story?.milestones[index];
  if (!milestone) return;
  current = index;
  paintPng(canvas, milestone.png);
  const { step, epoch, stage, legible } = milestone;
  const words = [stage, legible !== null && stage !== "noise" ? `${percent(legible)} legible` : null]
    .filter(Boolean)
    .join(", ");
  one("#lapse-caption", HTMLElement).textContent = words;
  one("#lapse-where", HTMLElement).textContent = `step ${thousands(step)}, epoch ${epoch.toFixed(epoch < 10 ? 2 : 0)}`;
  slider.value = `${Math.round(along(step, lastStep()) * MARKS)}`;
  slider.setAttribute("aria-valuetext", `step ${step}${words ? `, ${words}` : ""}`);
  for (const mark of cursors) mark(step);
}

/** The slider stops at milestones only. */
function nearest() {
  const share = Number(slider.value) / MARKS;
  const distances = (story?.milestones ?? []).map(({ step }) => Math.abs(along(step, lastStep()) - share));
  show(distances.indexOf(Math.min(...distances)));
}

slider.addEventListener("input", nearest);
slider.addEventListener("keydown", (event) => {
  const moves = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 };
  const move = moves[/** @type {keyof typeof moves} */ (event.key)];
  if (!move) return;
  event.preventDefault();
  show(Math.min(Math.max(0, current + move), (story?.milestones.length ?? 1) - 1));
});
const stop = player(one("#lapse-play", HTMLButtonElement), calm.matches ? 2 * FRAME_MS : FRAME_MS, () => {
  show((current + 1) % (story?.milestones.length ?? 1));
  return current < (story?.milestones.length ?? 1) - 1;
});
document.addEventListener("view", stop);
new ResizeObserver(() => {
  if (!story) return;
  drawPlots(story);
  show(current);
}).observe(plots);
recipe("learned")(request);

export function open() {
  if (!story) load();
}
