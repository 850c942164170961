// One worker in full, on a sheet at the side: all that is known of it, and what can be done.

import { act, fitting } from "./actions.js";
import { average, ending, sparkPath } from "./card.js";
import { arrange, attr, byId, cell, el, fill, head, parts, picture, show, svg, write } from "./dom.js";
import { NONE, STATES, capital, clock, count, counting, duration, factor, mood, plural, progress } from "./words.js";

const LATEST = 8;

export class Details {
  constructor(store) {
    this.store = store;
    this.id = null;
    this.node = byId("details");
    this.buttons = new Map();
    this.build();
    this.node.addEventListener("close", () => {
      if (!this.node.open) this.id = null; // it may be open again already
    });
    this.node.addEventListener("click", (event) => {
      if (event.target === this.node) this.node.close(); // beside the sheet
    });
  }

  build() {
    const part = (tag, name, attributes = {}) => el(tag, { "data-part": name, ...attributes });
    const close = el("button", { type: "button", class: "quiet icon", "aria-label": "Close" }, picture("i-close", "glyph"));
    close.addEventListener("click", () => this.node.close());
    const use = svg("use", { "data-part": "shape" });
    const title = el("h2", { id: "details-title" }, part("span", "name", { class: "odd" }));
    const top = el("div", { class: "line" }, svg("svg", { class: "shape", "aria-hidden": "true" }, use), title, close);
    const job = el("div", { class: "block", "data-part": "job" }, el("h3", {}, "Now"), part("p", "now", { class: "odd" }),
      el("div", { class: "bar", "data-part": "bar" }, part("i", "fill")), part("p", "until", { class: "muted" }));
    const spark = svg("svg", { class: "spark", viewBox: "0 0 90 24", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("path", { "data-part": "spark" }));
    const past = el("div", { class: "block" }, el("h3", {}, "Last 15 minutes"), spark, part("p", "busy", { class: "muted" }));
    const error = el("div", { class: "block", "data-part": "trouble" }, el("h3", {}, "Last error"), part("p", "error", { class: "error odd" }));
    const speeds = el("div", { class: "block", "data-part": "speeds" }, el("h3", {}, "Learned speed"), part("table", "learned", { class: "plain" }));
    const facts = el("div", { class: "block" }, el("h3", {}, "Facts"), part("dl", "facts", { class: "facts" }));
    const latest = el("div", { class: "block", "data-part": "recent" }, el("h3", {}, "Latest requests"), part("table", "latest", { class: "plain" }));
    const body = el("div", { class: "body" }, top, part("p", "state", { class: "said" }), part("div", "actions", { class: "buttons left" }), error, job, past, speeds, facts, latest);
    this.node.append(body);
    this.part = parts(this.node);
  }

  open(worker) {
    this.id = worker.worker_id;
    this.draw();
    if (!this.node.open) this.node.showModal();
    this.node.scrollTop = 0;
  }

  /** Take what changed in the store. */
  update(changes) {
    if (this.id === null) return;
    if (!this.store.workers.has(this.id)) this.node.close();
    else if (changes.whole || changes.workers.has(this.id) || changes.sparks || changes.requests) this.draw();
  }

  draw() {
    const { part } = this;
    const worker = this.store.workers.get(this.id);
    const state = mood(worker);
    const [word, sentence] = STATES[state] ?? [capital(state), ""];
    attr(this.node, "data-state", state);
    attr(part.shape, "href", `#s-${state}`);
    write(part.name, worker.display_id);
    write(part.state, `${word}. ${sentence}`);
    this.drawActions(worker);
    show(part.trouble, Boolean(worker.last_error));
    write(part.error, worker.last_error ?? "");
    const points = this.store.sparks.get(this.id) ?? [];
    attr(part.spark, "d", sparkPath(points));
    write(part.busy, points.length ? `Busy ${average(points)} % of the last ${points.length < 12 ? counting(points.length * 10) : `${Math.round(points.length / 6)} minutes`}.` : "Nothing is known yet.");
    this.drawLearned(worker);
    this.drawFacts(worker);
    this.drawLatest(worker);
    this.tick(this.store.now());
  }

  drawActions(worker) {
    const nodes = fitting(worker).map(({ name, label, danger }) => {
      if (!this.buttons.has(name)) {
        const button = el("button", { type: "button", class: danger ? "danger" : null, "data-action": name }, label);
        button.addEventListener("click", () => act(name, this.store.workers.get(this.id)));
        this.buttons.set(name, button);
      }
      return this.buttons.get(name);
    });
    const focused = document.activeElement;
    arrange(this.part.actions, nodes);
    if (focused?.dataset?.action && !focused.isConnected) nodes[0].focus();
  }

  tick(now) {
    if (this.id === null || !this.store.workers.has(this.id)) return;
    const { part } = this;
    const job = this.store.workers.get(this.id).current;
    const done = job ? progress(job, now) : null;
    attr(part.job, "class", `block job ${!job ? "idle" : !done ? "open" : done.real ? "real" : "predicted"}`);
    show(part.bar, Boolean(done));
    fill(part.fill, done?.share);
    if (!job) {
      write(part.now, "Nothing.");
      write(part.until, "");
      return;
    }
    write(part.now, `${capital(job.kind)} of ${job.client ?? NONE}, for ${counting(now - job.since)}.`);
    const share = done ? `${Math.floor(done.share * 100)} % ${done.real ? "as its worker tells" : "predicted"}; ` : "";
    write(part.until, `${share}${ending(job, now)}. Job ${job.id ?? job.job}.`);
  }

  drawLearned(worker) {
    const kinds = Object.entries(worker.learned ?? {});
    show(this.part.speeds, kinds.length > 0);
    const rows = kinds.map(([kind, fit]) =>
      el("tr", {}, el("th", { scope: "row" }, kind), cell("number", factor(fit.relative_speed)), cell("number", count(fit.samples)),
        cell("number", fit.error === null ? NONE : `${(100 * fit.error).toFixed(1)} %`)),
    );
    const titles = [["kind", ""], ["speed (1× is usual)", "number"], ["measured", "number"], ["typical miss", "number"]];
    this.part.learned.replaceChildren(head(titles), el("tbody", {}, ...rows));
  }

  drawFacts(worker) {
    const known = (value) => (value === null || value === undefined ? NONE : String(value));
    const facts = [
      ["Address", worker.url],
      ["Model", known(worker.model)],
      ["Serves", worker.capabilities ? worker.capabilities.join(", ") || "nothing" : "not known yet"],
      ["Weights epoch", `${known(worker.weights_epoch)}${worker.is_stale ? ", behind" : ""}`],
      ["Weights from", known(worker.weights)],
      ["In flight", plural(worker.active_requests, "request")],
      ["Open jobs", count(worker.jobs)],
      ["Sessions", count(worker.sessions)],
      ["Before a new job", plural(worker.load, "job")],
      ["Slots", worker.slots ? `${worker.slots}${worker.concurrency === null ? "" : ", set for this worker"}` : "no limit"],
      ["Replicas", known(worker.replicas)],
      ["Speed set by hand", worker.speed === null ? "no" : factor(worker.speed)],
      ["Failed health checks", `${count(worker.consecutive_failures)} in a row`],
    ];
    const nodes = facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", { class: "odd" }, value)]);
    this.part.facts.replaceChildren(...nodes);
  }

  drawLatest(worker) {
    const found = this.store.requests.filter((each) => each.worker === worker.url).slice(0, LATEST);
    show(this.part.recent, found.length > 0);
    const rows = found.map((each) =>
      el("tr", {}, cell("", clock(each.time)), cell("odd", each.path), cell(each.code === "done" ? "" : "bad", each.code), cell("number", duration(each.total))),
    );
    const titles = [["ended", ""], ["path", ""], ["code", ""], ["total", "number"]];
    this.part.latest.replaceChildren(head(titles), el("tbody", {}, ...rows));
  }
}
