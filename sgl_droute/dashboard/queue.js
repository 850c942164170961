// The waiting line.

import { cancelWaiting } from "./actions.js";
import { Items, attr, byId, cell, el, head, picture, show, write } from "./dom.js";
import { NONE, clock, count, counting } from "./words.js";

const COLUMNS = [
  ["#", "number"],
  ["Request", ""],
  ["Waits", "number"],
  ["Starts", "number"],
  ["Ends", "number"],
  [el("span", { class: "hidden" }, "Cancel"), ""],
];

export class Line {
  constructor(store) {
    this.store = store;
    const body = el("tbody", { role: "rowgroup" });
    byId("waiting-table").append(el("caption", { class: "hidden" }, "Requests that wait, in the order in which they will be served"), head(COLUMNS), body);
    attr(byId("waiting-table"), "role", "table");
    this.items = new Items(body, (turn) => turn.id, (turn) => new Turn(turn));
  }

  update(now) {
    const { waiting, waiting_count: total } = this.store.queue;
    this.items.show(waiting);
    this.tick(now);
    show(byId("waiting-table"), waiting.length > 0);
    show(byId("waiting-none"), waiting.length === 0);
    write(byId("nav-waiting"), total ? count(total) : "");
    write(byId("waiting-note"), total > waiting.length ? `first ${count(waiting.length)} of ${count(total)}` : total ? count(total) : "");
  }

  tick(now) {
    for (const row of this.items.known.values()) row.tick(now);
  }
}

class Turn {
  constructor(turn) {
    this.place = cell("number strong");
    this.kind = el("strong");
    this.client = el("span", { class: "odd" });
    this.tags = el("span", { class: "tags" });
    this.why = el("div", { class: "muted odd" });
    this.waits = cell("number", "");
    this.start = cell("number");
    this.end = cell("number");
    this.waits.dataset.label = "waits";
    this.start.dataset.label = "starts";
    this.end.dataset.label = "ends";
    const button = el("button", { type: "button", class: "quiet small icon", "aria-label": `Cancel ${turn.id}`, title: "Cancel" }, picture("i-close", "glyph"));
    button.addEventListener("click", () => cancelWaiting(this.turn));
    const what = cell("what", el("div", {}, this.kind, " · ", this.client, " ", this.tags), this.why);
    this.node = el("tr", { role: "row" }, this.place, what, this.waits, this.start, this.end, cell("end", button));
  }

  update(turn) {
    this.turn = turn;
    write(this.place, turn.position);
    write(this.kind, turn.kind);
    write(this.client, turn.client ?? NONE);
    const tags = [];
    if (turn.priority) tags.push(`priority ${turn.priority}`);
    if (turn.batch) tags.push(`batch ${turn.batch}`);
    write(this.tags, tags.join(" · "));
    write(this.why, turn.why ?? "");
    attr(this.node, "title", turn.id);
  }

  tick(now) {
    write(this.waits, counting(now - this.turn.since));
    write(this.start, ahead(this.turn.start, now));
    write(this.end, ahead(this.turn.end, now));
    attr(this.start, "title", this.turn.start === null ? null : `predicted: ${clock(this.turn.start)}`);
    attr(this.end, "title", this.turn.end === null ? null : `predicted: ${clock(this.turn.end)}`);
  }
}

function ahead(time, now) {
  if (time === null || time === undefined) return NONE;
  return time > now ? `in ${counting(time - now)}` : "now";
}
