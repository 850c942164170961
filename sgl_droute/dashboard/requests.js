// The latest requests: how each ended, and where its time went.

import { Items, attr, byId, cell, el, head, show, write } from "./dom.js";
import { NONE, address, bytes, clock, count, duration, plural } from "./words.js";

const SHOWN = 30;
const PARTS = ["queue", "work", "transfer"];
const NAMES = { queue: "queue", work: "worker", transfer: "transfer" };
const OUTCOMES = [
  ["", "All", () => true],
  ["failed", "Not done", (each) => each.code !== "done" || each.status >= 400],
  ["generations", "Generations", (each) => Boolean(each.kind) && each.kind !== "other"],
];
const COLUMNS = [
  ["Ended", ""],
  ["Request", ""],
  ["Outcome", ""],
  ["Worker", ""],
  ["Client", ""],
  ["Queue, worker, transfer", "spent"],
  ["Total", "number"],
  ["In / out", "number"],
];

export class Requests {
  constructor(store) {
    this.store = store;
    this.wanted = "";
    this.held = false; // by the button
    this.pointed = false; // by the pointer or the focus in it
    this.missed = 0;
    this.all = false;
    const body = el("tbody", { role: "rowgroup" });
    const table = byId("requests-table");
    table.append(el("caption", { class: "hidden" }, "Requests that have ended, the latest first"), head(COLUMNS), body);
    attr(table, "role", "table");
    this.items = new Items(body, (each) => each.n, (each) => new Row(each));
    this.buildFilters();
    table.addEventListener("pointerenter", () => (this.pointed = true));
    table.addEventListener("pointerleave", () => this.letGo());
    this.draw();
  }

  buildFilters() {
    this.chips = OUTCOMES.map(([id, label]) => {
      const chip = el("button", { type: "button", "aria-pressed": String(id === "") }, label);
      chip.addEventListener("click", () => {
        this.wanted = id;
        OUTCOMES.forEach(([other], at) => attr(this.chips[at], "aria-pressed", String(other === id)));
        this.draw();
      });
      return chip;
    });
    byId("request-chips").append(...this.chips);
    byId("find-request").addEventListener("input", () => this.draw());
    byId("more-button").addEventListener("click", () => {
      this.all = !this.all;
      this.draw();
    });
    byId("hold-button").addEventListener("click", () => {
      this.held = !this.held;
      attr(byId("hold-button"), "aria-pressed", String(this.held));
      if (!this.held) this.draw();
      else this.note();
    });
  }

  letGo() {
    this.pointed = false;
    if (this.missed && !this.held) this.draw();
  }

  /** Take the new ones; while the list is held, they are only counted. */
  update(changes) {
    if (changes.whole) this.items.known.clear();
    const still = (this.held || this.pointed) && !changes.whole && this.items.known.size > 0;
    if (still) {
      this.missed += changes.requests?.length ?? 0;
      this.note();
    } else if (changes.requests || changes.whole) {
      this.draw();
    }
  }

  draw() {
    this.missed = 0;
    const fits = OUTCOMES.find(([id]) => id === this.wanted)[2];
    const words = byId("find-request").value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.store.requests.filter((each) => fits(each) && words.every((word) => matches(each, word)));
    this.items.show(this.all ? found : found.slice(0, SHOWN));
    write(byId("more-button"), this.all ? `Show ${SHOWN}` : `Show all ${count(found.length)} that this page keeps`);
    show(byId("more-button"), found.length > SHOWN);
    show(byId("requests-table"), found.length > 0);
    show(byId("requests-none"), found.length === 0);
    write(byId("requests-none"), this.store.requests.length ? "None of the recent requests fits." : "No request has ended yet.");
    this.note();
  }

  note() {
    const shown = this.items.known.size;
    if (this.missed) write(byId("requests-note"), `held while you read, ${plural(this.missed, "new one")}`);
    else if (this.held) write(byId("requests-note"), "held");
    else write(byId("requests-note"), shown ? `latest ${count(shown)}` : "");
  }
}

class Row {
  constructor(each) {
    const ended = cell("when", clock(each.time));
    const path = el("div", { class: "path odd" }, el("strong", {}, each.method), ` ${each.path}`);
    path.title = `${each.method} ${each.path}`;
    const id = el("div", { class: "id odd", title: each.id }, [brief(each.id), each.epoch ? `epoch ${each.epoch}` : ""].filter(Boolean).join(" · "));
    const good = each.code === "done" && each.status < 400;
    const status = el("span", { class: good ? "code" : "code bad" }, each.code === "done" ? String(each.status) : each.code);
    const code = cell("outcome", status, each.code !== "done" && each.status ? el("span", { class: "muted" }, ` ${each.status}`) : "",
      each.code === "done" ? el("span", { class: "muted" }, " done") : "");
    if (each.error) code.append(el("div", { class: "error odd", title: each.error }, each.error));
    const worker = cell("odd where", address(each.worker));
    worker.title = each.worker ?? "";
    worker.dataset.label = "worker";
    const client = cell("odd who", each.client ?? NONE);
    client.dataset.label = "client";
    const total = cell("number total", duration(each.total));
    const size = cell("number size", `${bytes(each.bytes_in)} / ${bytes(each.bytes_out)}`);
    this.node = el("tr", { role: "row", class: good ? null : "failed" }, ended, cell("what", path, id), code, worker, client, split(each), total, size);
  }

  update() {} // what has ended does not change
}

/** An id that is long anyway is cut, so that what stands behind it is seen; its title has it all. */
function brief(id) {
  return id.length > 20 ? `${id.slice(0, 16)}…` : id;
}

/** A bar with the shares of the three parts, and their times. */
function split(each) {
  const sum = PARTS.reduce((total, part) => total + (each[part] ?? 0), 0);
  const bar = el("div", { class: "split", "aria-hidden": "true" });
  for (const part of PARTS) {
    if (!each[part] || !sum) continue;
    const piece = el("i", { class: part });
    piece.style.flexGrow = each[part] / sum;
    bar.append(piece);
  }
  const times = PARTS.map((part) => el("span", { class: part }, el("span", { class: "hidden" }, `${NAMES[part]} `), duration(each[part])));
  return cell("spent", bar, el("div", { class: "times" }, ...times));
}

function matches(each, word) {
  const said = [each.id, each.method, each.path, each.kind, each.code, each.error, each.worker, each.client, String(each.status)];
  return said.some((text) => text?.toLowerCase().includes(word));
}
