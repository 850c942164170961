// The form for the admin key, its own dialog: it may come up while another one asks something.

import { key, keepKey } from "./api.js";
import { byId, el, show } from "./dom.js";

const listeners = [];
let node = null;
let input, reason, forget;

/** Call `listener` when another key was given, or the key was forgotten. */
export function onKey(listener) {
  listeners.push(listener);
}

/** Show the form; `error` tells why it is needed. */
export function askKey(error) {
  if (!node) build();
  reason.textContent = error ? error.message : "";
  show(reason, Boolean(error));
  show(forget, Boolean(key()));
  input.value = "";
  if (!node.open) node.showModal();
  input.focus();
}

function build() {
  input = el("input", { type: "password", id: "key-input", autocomplete: "off", spellcheck: "false" });
  reason = el("p", { class: "answer odd", role: "alert" });
  forget = el("button", { type: "button", class: "plain" }, "Forget the key");
  const close = el("button", { type: "button" }, "Cancel");
  const buttons = el("div", { class: "buttons" }, forget, close, el("button", { type: "submit", class: "main" }, "Use this key"));
  const label = el("label", { class: "field column" }, el("span", {}, "Key"), input);
  const text = el("p", {}, "The router asks for an admin key (its option --admin-keys). This tab keeps it until it is closed, and sends it to this router only.");
  const form = el("form", { novalidate: true }, el("h2", { id: "key-title" }, "Admin key"), text, label, reason, buttons);
  node = el("dialog", { id: "key", "aria-labelledby": "key-title" }, form);
  document.body.append(node);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (input.value.trim()) change(input.value.trim());
  });
  forget.addEventListener("click", () => change(""));
  close.addEventListener("click", () => node.close());
}

function change(value) {
  keepKey(value);
  node.close();
  mark();
  for (const listener of listeners) listener(value);
}

function mark() {
  const label = key() ? "Admin key: one is in use. Change or forget it" : "Admin key: none is in use. Enter one";
  byId("key-button").setAttribute("aria-label", label);
  byId("key-button").title = label;
  byId("key-button").classList.toggle("on", Boolean(key()));
}

byId("key-button").addEventListener("click", () => askKey());
mark();
