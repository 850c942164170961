// What is said in passing: notices that leave by themselves, and alerts for those who cannot see
// the page change.

import { byId, el } from "./dom.js";

const SECONDS = 8;

/** What is outside of a modal dialog can neither be reached nor heard: go where the reader is. */
function place() {
  const dialogs = [...document.querySelectorAll("dialog:modal")];
  const host = dialogs.at(-1) ?? document.body;
  for (const id of ["notices", "alerts"]) if (byId(id).parentNode !== host) host.append(byId(id));
}

document.addEventListener("close", place, true);

/** Show a sentence for some seconds; it stays while it is pointed at. */
export function notice(text) {
  const node = el("p", { class: "notice odd" });
  const close = el("button", { type: "button", class: "quiet icon", "aria-label": "Close this notice" }, "×");
  const leave = () => node.remove();
  let timer = setTimeout(leave, SECONDS * 1000);
  node.append(el("span", {}, text), close);
  node.addEventListener("pointerenter", () => clearTimeout(timer));
  node.addEventListener("pointerleave", () => (timer = setTimeout(leave, 2000)));
  close.addEventListener("click", leave);
  place();
  byId("notices").append(node);
  while (byId("notices").children.length > 3) byId("notices").firstChild.remove();
}

let waiting = [];
let timer = 0;

/** Have a screen reader say a sentence; those of one second are said together. */
export function alert(text) {
  waiting.push(text);
  if (timer) return;
  timer = setTimeout(() => {
    const said = waiting.length > 4 ? `${waiting.slice(0, 3).join(" ")} And ${waiting.length - 3} more changes.` : waiting.join(" ");
    place();
    byId("alerts").textContent = said;
    waiting = [];
    timer = 0;
  }, 1000);
}
