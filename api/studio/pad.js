// @ts-check
// The writing pad: white ink on black, from a pointer or from the keyboard.

const STEP = 10;
const PAPER = "#000";
const INK = "#fff";

/** @typedef {{width: number, points: [number, number][]}} Stroke */

/** A pad on a canvas. `onInk` is called after every change. */
export class Pad {
  /** @param {HTMLCanvasElement} canvas @param {() => void} onInk */
  constructor(canvas, onInk) {
    this.canvas = canvas;
    this.onInk = onInk;
    this.width = 22;
    /** @type {Stroke[]} */
    this.strokes = [];
    /** @type {[number, number]} */
    this.pen = [canvas.width / 2, canvas.height / 4];
    this.down = false;
    this.byKeys = false;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      this.byKeys = false;
      this.begin(this.place(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!canvas.hasPointerCapture(event.pointerId)) return;
      for (const one of event.getCoalescedEvents?.() ?? [event]) this.extend(this.place(one));
    });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => {
      this.byKeys = this.down = false;
      this.draw();
    });
    this.draw();
  }

  get empty() {
    return !this.strokes.length;
  }

  clear() {
    this.strokes = [];
    this.changed();
  }

  undo() {
    this.strokes.pop();
    this.changed();
  }

  /** @returns {Promise<Blob>} a PNG of the ink */
  picture() {
    this.draw(false);
    const png = new Promise((resolve) => this.canvas.toBlob(resolve, "image/png"));
    this.draw();
    return /** @type {Promise<Blob>} */ (png);
  }

  /** @param {MouseEvent} event @returns {[number, number]} */
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.canvas.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  }

  /** @param {[number, number]} point */
  begin(point) {
    this.strokes.push({ width: this.width, points: [point] });
    this.changed();
  }

  /** @param {[number, number]} point */
  extend(point) {
    this.strokes[this.strokes.length - 1]?.points.push(point);
    this.changed();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const moves = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
    const move = moves[/** @type {keyof typeof moves} */ (event.key)];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    this.byKeys = true;
    if (!move) {
      this.down = !this.down;
      if (this.down) this.begin([...this.pen]);
      else this.draw();
      return;
    }
    const inside = (/** @type {number} */ value) => Math.min(this.canvas.width - STEP, Math.max(STEP, value));
    this.pen = [inside(this.pen[0] + move[0]), inside(this.pen[1] + move[1])];
    if (this.down) this.extend([...this.pen]);
    else this.draw();
  }

  changed() {
    this.draw();
    this.onInk();
  }

  /** @param {boolean} [withPen] */
  draw(withPen = true) {
    const context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    context.fillStyle = PAPER;
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    context.strokeStyle = INK;
    context.lineCap = context.lineJoin = "round";
    for (const { width, points } of this.strokes) {
      context.lineWidth = width;
      context.beginPath();
      context.moveTo(...points[0]);
      for (const point of points) context.lineTo(...point);
      context.stroke();
    }
    if (!withPen || !this.byKeys) return;
    context.lineWidth = 3;
    context.strokeStyle = this.down ? "#ff9a5c" : "#a09c92";
    context.beginPath();
    context.arc(...this.pen, this.width / 2 + 2, 0, 2 * Math.PI);
    context.stroke();
  }
}
