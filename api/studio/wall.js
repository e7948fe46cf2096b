// @ts-check
// The wall: digits from seed to seed, a screenful a request, as far as one scrolls.

import { Problem, send } from "./api.js";
import { make, one } from "./dom.js";
import { kept, onKept, toggle } from "./kept.js";
import { SIDE, fromNpy, paint, seedIn } from "./pixels.js";
import { recipe } from "./recipe.js";

const MOST = 256; // Seeds of a digit that fit into the header X-Seeds.
const LEAST = 100;
const ALL = "That is all of them.";

const wall = one("#tiles", HTMLElement);
const tools = one("#wall-tools", HTMLFormElement);
const status = one("#wall-status", HTMLElement);
const printed = recipe("wall");

/** What is on the wall. @type {{digit: number | null, curated: boolean, next: number, ended: boolean, version: number}} */
const now = { digit: null, curated: false, next: 0, ended: false, version: 0 };
/** @type {AbortController | null} */
let loading = null;

/** @returns {number} whole rows, enough for the screen; of the first one, for what the wall has of it */
function screenful() {
  const columns = getComputedStyle(wall).gridTemplateColumns.split(" ").length;
  const tile = wall.clientWidth / columns || 72;
  const height = wall.childElementCount ? innerHeight : innerHeight - Math.max(0, wall.getBoundingClientRect().top);
  const rows = Math.max(Math.ceil(height / tile), Math.ceil(LEAST / columns));
  return Math.min(rows, Math.floor(MOST / columns)) * columns;
}

/** @param {string} header "0-99" or "3,17,42" @returns {number[]} */
function seedsIn(header) {
  if (header.includes(",") || !header.includes("-")) return header.split(",").map(Number);
  const [first, last] = header.split("-").map(Number);
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}

async function more() {
  if (loading || now.ended) return;
  const mine = (loading = new AbortController());
  const request = {
    path: "/generate",
    accept: "application/x-npy",
    file: "digits.npy",
    body: {
      count: screenful(),
      start: now.next,
      ...(now.digit !== null && { digit: now.digit }),
      ...(now.curated && { curated: true }),
    },
  };
  printed(request);
  status.textContent = "Making digits …";
  try {
    const answer = await send(request, mine.signal);
    const version = Number(answer.headers.get("X-Model-Version"));
    const seeds = seedsIn(answer.headers.get("X-Seeds") || "");
    const digits = fromNpy(await answer.arrayBuffer());
    if (now.version && now.version !== version) wall.replaceChildren(); // A newer generator has taken over.
    now.version = version;
    wall.append(...seeds.map((seed, index) => tile(seed, digits[index])));
    now.next = seeds[seeds.length - 1] + 1;
    if (!wall.querySelector('[tabindex="0"]')) wall.firstElementChild?.setAttribute("tabindex", "0");
    now.ended = seeds.length < request.body.count; // Of the index: without it there are seeds for ever.
    status.textContent = now.ended ? ALL : "";
  } catch (error) {
    if (mine.signal.aborted) return;
    if (error instanceof Problem && error.places.includes("/start")) {
      now.ended = true;
      status.textContent = wall.childElementCount ? ALL : `${error.message}.`;
    } else {
      const retry = make("button", { type: "button" }, "Try again");
      retry.addEventListener("click", more);
      now.ended = false;
      status.replaceChildren(`${/** @type {Error} */ (error).message} `, retry);
      return;
    }
  } finally {
    if (loading === mine) loading = null;
  }
  // The observer tells changes only; a wall that is hidden has time.
  if (!now.ended && wall.offsetParent && status.getBoundingClientRect().top < 2 * innerHeight) more();
}

/** @param {number} seed @param {Uint8Array} pixels */
function tile(seed, pixels) {
  const canvas = make("canvas", { width: `${SIDE}`, height: `${SIDE}` });
  paint(canvas, pixels);
  const name = now.digit === null ? `Seed ${seed}` : `Seed ${seed}, a ${now.digit}`;
  const pressed = `${kept().includes(seed)}`;
  return make(
    "button",
    {
      type: "button",
      "data-seed": `${seed}`,
      "aria-label": name,
      "aria-pressed": pressed,
      title: name,
      tabindex: "-1",
    },
    canvas,
  );
}

function begin() {
  loading?.abort();
  loading = null;
  const data = new FormData(tools);
  const digit = data.get("digit");
  now.digit = digit === "all" || digit === null ? null : Number(digit);
  now.curated = data.has("curated");
  now.next = seedIn(`${data.get("start")}`) ?? 0;
  now.ended = false;
  wall.replaceChildren();
  more();
}

/** @param {KeyboardEvent} event arrows move through the wall */
function move(event) {
  const tiles = [...wall.children];
  const columns = getComputedStyle(wall).gridTemplateColumns.split(" ").length;
  const here = tiles.indexOf(/** @type {Element} */ (event.target));
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
  const step = steps[/** @type {keyof typeof steps} */ (event.key)];
  const there = tiles[here + step];
  if (here < 0 || step === undefined) return;
  event.preventDefault();
  if (!(there instanceof HTMLElement)) return;
  there.focus();
}

function build() {
  const options = ["all", ..."0123456789"].map((value) => {
    const radio = make("input", { type: "radio", name: "digit", value });
    radio.checked = value === "all";
    return make("label", {}, radio, make("span", {}, value));
  });
  one("#wall-digits", HTMLFieldSetElement).append(...options);
  tools.addEventListener("submit", (event) => event.preventDefault());
  tools.addEventListener("change", begin);
  one('[name="shuffle"]', HTMLButtonElement, tools).addEventListener("click", () => {
    const indexed = now.digit !== null || now.curated;
    one('[name="start"]', HTMLInputElement, tools).value =
      `${Math.floor(Math.random() * (indexed ? 60_000 : 10 ** 9))}`;
    begin();
  });
  wall.addEventListener("keydown", move);
  wall.addEventListener("focusin", (event) => {
    for (const other of wall.querySelectorAll('[tabindex="0"]')) other.setAttribute("tabindex", "-1");
    /** @type {Element} */ (event.target).setAttribute("tabindex", "0");
  });
  wall.addEventListener("click", (event) => {
    const button = /** @type {Element} */ (event.target).closest("button");
    if (button) toggle(Number(button.dataset.seed));
  });
  onKept((seeds) => {
    for (const button of wall.querySelectorAll("button"))
      button.setAttribute("aria-pressed", `${seeds.includes(Number(button.dataset.seed))}`);
  });
  const reached = (/** @type {IntersectionObserverEntry[]} */ entries) => {
    // After a failure it is the button's turn.
    if (entries.some((entry) => entry.isIntersecting) && !status.childElementCount) more();
  };
  new IntersectionObserver(reached, { rootMargin: "100% 0px" }).observe(status);
}

build();

/** @param {URLSearchParams} parameters */
export function open(parameters) {
  for (const name of ["digit", "start"]) {
    const value = parameters.get(name);
    const field = value === null ? null : tools.elements.namedItem(name);
    if (field instanceof RadioNodeList || field instanceof HTMLInputElement) field.value = value || "";
  }
  if (parameters.size || !wall.childElementCount) begin();
}
