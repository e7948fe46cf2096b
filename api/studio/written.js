// @ts-check
// The real digits of the game: MNIST's, those drawn in this tab, or MNIST's from a file.

import { SIDE } from "./pixels.js";

const STORE = "digitgan.written";
const MOST = 50;
const IDX_IMAGES = 0x00000803; // Unsigned bytes in three dimensions.

/** @typedef {{png: string, digit: number}} Written */

/** @returns {Written[]} */
export function written() {
  try {
    return JSON.parse(sessionStorage.getItem(STORE) || "[]");
  } catch {
    return [];
  }
}

/** @param {Written} one */
export function remember(one) {
  const all = written().filter((other) => other.png !== one.png);
  try {
    sessionStorage.setItem(STORE, JSON.stringify([...all, one].slice(-MOST)));
  } catch {
    // Without storage, drawn digits are not kept for the game.
  }
}

/** @returns {Promise<{pixels: Uint8Array, digit: number}[]>} the digits of mnist.png: a row for each of 0 to 9 */
export async function mnistDigits() {
  const answer = await fetch(new URL("mnist.png", import.meta.url));
  const image = await createImageBitmap(await answer.blob());
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.drawImage(image, 0, 0);
  const { data, width } = context.getImageData(0, 0, image.width, image.height);
  const columns = width / SIDE;
  return Array.from({ length: 10 * columns }, (_, index) => {
    const digit = Math.floor(index / columns);
    const corner = digit * SIDE * width + (index % columns) * SIDE;
    const red = (/** @type {number} */ pixel) =>
      data[4 * (corner + Math.floor(pixel / SIDE) * width + (pixel % SIDE))];
    return { pixels: Uint8Array.from({ length: SIDE * SIDE }, (_, pixel) => red(pixel)), digit };
  });
}

/**
 * Reads a file of MNIST's images, as it is distributed: IDX, with gzip or without.
 * @param {File} file
 * @returns {Promise<Uint8Array[]>} 784 bytes for each image
 */
export async function readIdx(file) {
  const zipped = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  const stream =
    zipped[0] === 0x1f && zipped[1] === 0x8b
      ? file.stream().pipeThrough(new DecompressionStream("gzip"))
      : file.stream();
  const content = await new Response(stream).arrayBuffer().catch(() => new ArrayBuffer(0));
  const head = new DataView(content);
  const size = SIDE * SIDE;
  if (
    content.byteLength < 16 + size ||
    head.getUint32(0) !== IDX_IMAGES ||
    head.getUint32(8) !== SIDE ||
    head.getUint32(12) !== SIDE
  )
    throw new Error(`${file.name} is no IDX file of 28×28 images.`);
  const count = Math.min(head.getUint32(4), Math.floor((content.byteLength - 16) / size));
  return Array.from({ length: count }, (_, index) => new Uint8Array(content, 16 + index * size, size));
}

/** @param {HTMLCanvasElement} canvas of 28×28 @returns {string} base64 of its PNG */
export const pngFrom = (canvas) => canvas.toDataURL("image/png").split(",")[1];
