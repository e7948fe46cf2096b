// @ts-check
// Digits as pixels: from the gateway's arrays and pictures onto a canvas.

import { send } from "./api.js";

export const SIDE = 28;
export const MOST_SEEDS = 2 ** 53;

/**
 * @param {ArrayBuffer} file an .npy of uint8 [N, 28, 28]
 * @returns {Uint8Array[]} 784 bytes for each digit
 */
export function fromNpy(file) {
  const length = new DataView(file).getUint16(8, true);
  const pixels = new Uint8Array(file, 10 + length);
  const size = SIDE * SIDE;
  return Array.from({ length: pixels.length / size }, (_, index) => pixels.subarray(index * size, (index + 1) * size));
}

/** @param {HTMLCanvasElement} canvas of 28×28 @param {Uint8Array} pixels */
export function paint(canvas, pixels) {
  const context = canvas.getContext("2d");
  const image = new ImageData(SIDE, SIDE);
  const rgba = new Uint32Array(image.data.buffer);
  for (let index = 0; index < rgba.length; index++) rgba[index] = 0xff000000 | (pixels[index] * 0x010101);
  context?.putImageData(image, 0, 0);
}

/** @param {string} base64 a PNG @returns {Blob} */
export function pngOf(base64) {
  return new Blob([Uint8Array.from(atob(base64), (char) => char.charCodeAt(0))], { type: "image/png" });
}

/** What was painted last, or is being decoded. @type {WeakMap<HTMLCanvasElement, Blob>} */
const latest = new WeakMap();

/** @param {HTMLCanvasElement} canvas @param {string} base64 a PNG of the canvas' size */
export async function paintPng(canvas, base64) {
  const png = pngOf(base64);
  latest.set(canvas, png);
  const image = await createImageBitmap(png);
  if (latest.get(canvas) === png) canvas.getContext("2d")?.drawImage(image, 0, 0);
}

/** @param {HTMLCanvasElement} canvas of 28×28 */
export function clear(canvas) {
  latest.delete(canvas);
  canvas.getContext("2d")?.clearRect(0, 0, SIDE, SIDE);
}

/** @param {number[]} seeds @returns {Promise<Uint8Array[]>} */
export async function digitsOf(seeds) {
  const answer = await send({ path: "/generate", accept: "application/x-npy", body: { seeds } });
  return fromNpy(await answer.arrayBuffer());
}

/** @returns {number} a seed anywhere in the first hundred thousand: short enough to be read out */
export const anySeed = () => Math.floor(Math.random() * 100_000);

/** @param {string} text @returns {number | null} */
export function seedIn(text) {
  const seed = Number(text);
  return text.trim() !== "" && Number.isInteger(seed) && seed >= 0 && seed < MOST_SEEDS ? seed : null;
}
