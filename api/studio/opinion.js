// @ts-check
// What the two critics say of one image: the pixels that were scored, the verdict, the reading.

import { make, percent } from "./dom.js";
import { SIDE, clear, paintPng } from "./pixels.js";

/**
 * @typedef {object} Score an entry of the answer of /score with `labels` and `fitted_images`
 * @property {number} probability
 * @property {boolean} ink whether any was found: without, verdict, digit and the like are null, with a reason
 * @property {string | null} reason
 * @property {"real" | "fake"} verdict
 * @property {number} digit
 * @property {number} confidence
 * @property {number[]} digit_probabilities
 * @property {string} png
 */

/**
 * @param {HTMLElement} place
 * @param {string} whose said to those who don't see the picture
 * @returns {(score: Score | null) => void} shows a score there, or that there is none
 */
export function opinion(place, whose) {
  const canvas = make("canvas", { class: "plate", width: `${SIDE}`, height: `${SIDE}`, role: "img" });
  const verdict = make("p", { class: "word" });
  const gauge = make("div", { class: "gauge", role: "img" }, make("i"));
  const ends = make("p", { class: "ends", "aria-hidden": "true" }, make("span", {}, "fake"), make("span", {}, "real"));
  const reading = make("p", { class: "word" });
  const columns = Array.from({ length: 10 }, (_, digit) => make("li", {}, make("i"), make("span", {}, `${digit}`)));
  const bars = make("ol", { class: "bars", "aria-hidden": "true" }, ...columns);
  place.append(canvas, verdict, gauge, ends, reading, bars);
  return (score) => {
    place.classList.toggle("blank", !score);
    canvas.setAttribute("aria-label", score ? `${whose}, the 28×28 pixels that were scored` : "Nothing yet");
    verdict.textContent = score ? `${percent(score.probability)} real` : "–";
    gauge.setAttribute(
      "aria-label",
      score ? `Verdict: ${score.verdict}, ${percent(score.probability)} real` : "No verdict",
    );
    gauge.style.setProperty("--value", `${score?.probability ?? 0}`);
    reading.textContent = score ? `reads as ${score.digit}, ${percent(score.confidence)}` : "–";
    columns.forEach((column, digit) => {
      column.style.setProperty("--value", `${score?.digit_probabilities[digit] ?? 0}`);
      column.classList.toggle("most", score?.digit === digit);
    });
    if (score) paintPng(canvas, score.png);
    else clear(canvas);
  };
}
