// @ts-check
// Curves over the steps of a run, as SVG. The axis is the square root of the step: the early steps have room.

import { thousands } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 44; // The slider in views.css has the same margins.
const RIGHT = 12;
const TOP = 24;
const FOOT = 22;
const LEGEND = 148;

/**
 * @typedef {object} Curve
 * @property {string} name
 * @property {string} kind its class
 * @property {(number | null)[]} values
 * @property {number} [guess] a dotted line: what guessing would give
 */

/**
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {...(Node | string)} children
 */
function draw(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, `${value}`);
  made.append(...children);
  return made;
}

/** @param {number} step @param {number} last @returns {number} 0 to 1 */
export const along = (step, last) => Math.sqrt(step / last);

/** @param {number} last @returns {number[]} round steps for the axis */
function ticks(last) {
  const unit = 10 ** Math.floor(Math.log10(last));
  const top = unit * Math.floor(last / unit);
  const wanted = [0, unit / 10, unit / 2, unit, ...[2, 3, 4, 5, 6, 8].map((factor) => factor * unit), top];
  const kept = [];
  for (const step of [...new Set(wanted)].sort((a, b) => a - b))
    if (
      step <= last &&
      Number.isInteger(step) &&
      (!kept.length || along(step, last) - along(kept[kept.length - 1], last) > 0.1)
    )
      kept.push(step);
  return kept;
}

/**
 * @param {string} title
 * @param {number[]} steps
 * @param {Curve[]} curves
 * @param {{last: number, top: number, label: (value: number) => string, marks: number[], width: number, height: number, axis: boolean}} options
 * @returns {{svg: Element, mark: (step: number) => void}} the plot, and what moves its cursor
 */
export function plot(title, steps, curves, { last, top, label, marks, width, height, axis }) {
  const bottom = height - (axis ? FOOT : 6);
  const x = (/** @type {number} */ step) => LEFT + along(step, last) * (width - LEFT - RIGHT);
  const y = (/** @type {number} */ value) => bottom - (value / top) * (bottom - TOP);
  const inside = `inside-${curves[0].kind}`; // A curve leaves the plot at its top.
  const frame = draw("rect", { x: LEFT, y: TOP - 6, width: width - LEFT - RIGHT, height: bottom - TOP + 7 });
  const legend = curves.map((curve, index) =>
    draw("text", { x: LEFT + LEGEND * index, y: 12, class: `key ${curve.kind}` }, curve.name),
  );
  const grid = marks.map((value) =>
    draw(
      "g",
      { class: "grid" },
      draw("line", { x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      draw("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, label(value)),
    ),
  );
  const lines = curves.map(({ values, kind }) => {
    let path = "";
    let pen = "M";
    values.forEach((value, index) => {
      if (value !== null) path += `${pen}${x(steps[index]).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = value === null ? "M" : "L";
    });
    return draw("path", { d: path, class: `curve ${kind}`, "clip-path": `url(#${inside})` });
  });
  const guesses = curves.flatMap(({ guess, kind }) =>
    guess === undefined
      ? []
      : [draw("line", { x1: LEFT, x2: width - RIGHT, y1: y(guess), y2: y(guess), class: `guess ${kind}` })],
  );
  const feet = axis
    ? [
        draw("text", { x: LEFT - 12, y: height - 6, "text-anchor": "end", class: "foot" }, "step"),
        ...ticks(last).map((step) =>
          draw("text", { x: x(step), y: height - 6, "text-anchor": "middle", class: "foot" }, thousands(step)),
        ),
      ]
    : [];
  const cursor = draw("line", { x1: LEFT, x2: LEFT, y1: TOP - 6, y2: bottom, class: "cursor" });
  const svg = draw(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title },
    draw("clipPath", { id: inside }, frame),
    ...grid,
    ...guesses,
    ...lines,
    ...legend,
    ...feet,
    cursor,
  );
  return {
    svg,
    mark: (step) => {
      cursor.setAttribute("x1", `${x(step)}`);
      cursor.setAttribute("x2", `${x(step)}`);
    },
  };
}
