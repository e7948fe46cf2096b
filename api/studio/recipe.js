// @ts-check
// "The same by a program": the request just made, as a curl command and as Python.

import { curl, python } from "./api.js";
import { make, one } from "./dom.js";

/**
 * @param {string} name of the place in the page
 * @returns {(request: import("./api.js").Request) => void} shows a request there
 */
export function recipe(name) {
  const place = one(`[data-recipe="${name}"]`, HTMLElement);
  const shell = make("code");
  const script = make("code");
  const block = (/** @type {string} */ title, /** @type {HTMLElement} */ code) => {
    const button = make("button", { type: "button", class: "quiet", "aria-label": `Copy the ${title}` }, "Copy");
    button.addEventListener("click", async () => {
      button.textContent = (await copy(code.textContent || "")) ? "Copied" : "Select it by hand";
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
    const text = make("pre", { tabindex: "0", role: "group", "aria-label": title }, code);
    return make("div", { class: "block" }, make("p", {}, title, button), text);
  };
  const details = make(
    "details",
    {},
    make("summary", {}, "The same by curl and Python"),
    make("div", { class: "blocks" }, block("curl", shell), block("Python", script)),
  );
  place.replaceChildren(details);
  return (request) => {
    shell.textContent = curl(request);
    script.textContent = python(request);
  };
}

/** @param {string} text @returns {Promise<boolean>} whether it is in the clipboard now */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = make("textarea", { class: "unseen" }); // Pages without TLS have no clipboard of the newer kind.
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
