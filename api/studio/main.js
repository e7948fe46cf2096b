// @ts-check
// The studio: one view at a time, chosen by the address.

import { make, one } from "./dom.js";

/** @type {Record<string, () => Promise<{ open: (parameters: URLSearchParams) => void }>>} */
const VIEWS = {
  wall: () => import("./wall.js"),
  walk: () => import("./walk.js"),
  draw: () => import("./draw.js"),
  play: () => import("./play.js"),
  learned: () => import("./learned.js"),
};

let shown = "";

async function show() {
  const [wanted, query] = location.hash.slice(1).split("?");
  const name = wanted in VIEWS ? wanted : "wall";
  for (const other of Object.keys(VIEWS)) one(`#view-${other}`, HTMLElement).hidden = other !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const title = one(`#view-${name} h1`, HTMLElement);
  document.title = `${title.textContent} – digitgan`;
  if (shown && shown !== name) {
    scrollTo(0, 0);
    one("#main", HTMLElement).focus({ preventScroll: true });
  }
  shown = name;
  document.dispatchEvent(new CustomEvent("view", { detail: name }));
  const view = await VIEWS[name]();
  if (shown === name) view.open(new URLSearchParams(query));
}

document.addEventListener("generator", (event) => {
  const version = /** @type {CustomEvent} */ (event).detail;
  one("#version", HTMLElement).replaceChildren(make("span", { class: "data" }, `generator v${version}`));
});
one(".skip", HTMLElement).addEventListener("click", (event) => {
  event.preventDefault(); // The address says which view is shown.
  one("#main", HTMLElement).focus();
});
addEventListener("hashchange", show);
show();
