// @ts-check
// The page's elements, found and made.

/**
 * @template {Element} T
 * @param {string} selector
 * @param {new (...args: never[]) => T} kind
 * @param {ParentNode} [root]
 * @returns {T} the one element there is
 */
export function one(selector, kind, root = document) {
  const found = root.querySelector(selector);
  if (!(found instanceof kind)) throw new Error(`no ${kind.name} ${selector}`);
  return found;
}

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string>} [attributes]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** @param {number} share 0 to 1 */
export function percent(share) {
  if (share > 0 && share < 0.001) return "less than 0.1\u00a0%"; // A line does not end before the sign.
  const digits = share > 0.99 || share < 0.01 ? 1 : 0;
  return `${(Math.floor(share * 100 * 10 ** digits) / 10 ** digits).toFixed(digits)}\u00a0%`;
}

/** @param {number} number */
export const thousands = (number) => number.toLocaleString("en");

export const calm = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * Calls `tick` every `ms` until it is told to stop; the button says which.
 * @param {HTMLButtonElement} button
 * @param {number} ms
 * @param {() => boolean} tick returns whether to go on
 */
export function player(button, ms, tick) {
  let timer = 0;
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    button.setAttribute("aria-pressed", "false");
    button.textContent = "Play";
  };
  const start = () => {
    timer = setInterval(() => tick() || stop(), ms);
    button.setAttribute("aria-pressed", "true");
    button.textContent = "Pause";
  };
  button.addEventListener("click", () => (timer ? stop() : start()));
  return stop;
}
