// The one dialog that asks before something is done, and shows what the router said to it.

import { byId, el, show, write } from "./dom.js";
import { notice } from "./notices.js";
import { askKey } from "./key.js";

const node = byId("confirm");
const form = byId("confirm-form");
const input = byId("confirm-input");
const yes = byId("confirm-yes");
const cancel = byId("confirm-cancel");
const answer = byId("confirm-answer");

let asked = null;

/**
 * Ask, and do it.
 *
 * `question` has `title`, `text` (a sentence that tells what will happen), `yes` (the verb), and
 * perhaps `subject` (what it is about), `danger`, `field` (`{label, placeholder, required}`, the
 * last one said if it is left empty), and `run(value)`, which does it and returns a sentence, or a
 * list of `[what, sentence]` that failed. The dialog stays open with the error if it throws.
 */
export function ask(question) {
  asked = question;
  write(byId("confirm-title"), question.title);
  write(byId("confirm-text"), question.text);
  write(byId("confirm-subject"), question.subject ?? "");
  show(byId("confirm-subject"), Boolean(question.subject));
  askField(question.field);
  write(yes, question.yes);
  write(cancel, "Cancel");
  show(yes, true);
  yes.classList.toggle("danger", Boolean(question.danger));
  show(answer, false);
  setBusy(false);
  node.showModal();
  (question.field ? input : question.danger ? cancel : yes).focus();
}

function askField(field) {
  show(byId("confirm-field"), Boolean(field));
  if (!field) return;
  write(byId("confirm-label"), field.label);
  input.value = "";
  input.placeholder = field.placeholder;
}

function setBusy(busy) {
  yes.disabled = busy;
  form.setAttribute("aria-busy", busy);
}

function showAnswer(...children) {
  answer.replaceChildren(...children);
  show(answer, true);
}

async function run() {
  const question = asked;
  if (question.field?.required && !input.value.trim()) {
    showAnswer(question.field.required);
    input.focus();
    return;
  }
  show(answer, false);
  setBusy(true);
  try {
    const said = await question.run(input.value.trim());
    if (asked === question) done(said);
  } catch (error) {
    if (asked === question) failed(error);
  } finally {
    if (asked === question) setBusy(false);
  }
}

function done(said) {
  if (!Array.isArray(said)) {
    node.close();
    if (said) notice(said);
    return;
  }
  const rows = said.map(([what, text]) => el("li", { class: "odd" }, el("strong", {}, what), ` ${text}`));
  showAnswer(el("p", {}, "Not all of it was done:"), el("ul", {}, ...rows));
  show(yes, false);
  write(cancel, "Close");
  cancel.focus();
}

function failed(error) {
  if (!error.message) throw error;
  showAnswer(el("span", { class: "odd" }, error.message));
  if (error.locked) askKey(error);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
cancel.addEventListener("click", () => node.close());
node.addEventListener("close", () => {
  if (!node.open) asked = null; // it may ask again already
});
