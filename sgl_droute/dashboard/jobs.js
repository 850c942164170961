// Video and mesh jobs that are not finished.

import { ending } from "./card.js";
import { Items, attr, byId, cell, el, fill, head, show, write } from "./dom.js";
import { address, capital, count, counting, progress } from "./words.js";

const COLUMNS = [["Job", ""], ["Worker", ""], ["Progress", "wide"], ["Age", "number"]];

export class Jobs {
  constructor(store) {
    this.store = store;
    const body = el("tbody", { role: "rowgroup" });
    byId("jobs-table").append(el("caption", { class: "hidden" }, "Video and mesh jobs that are not finished"), head(COLUMNS), body);
    attr(byId("jobs-table"), "role", "table");
    this.items = new Items(body, (job) => `${job.kind} ${job.id}`, () => new Job());
  }

  update(now) {
    const { open, count: total } = this.store.videos;
    this.items.show(open);
    this.tick(now);
    show(byId("jobs-table"), open.length > 0);
    show(byId("jobs-none"), open.length === 0);
    write(byId("nav-jobs"), total ? count(total) : "");
    write(byId("jobs-note"), total > open.length ? `first ${count(open.length)} of ${count(total)}` : total ? count(total) : "");
  }

  tick(now) {
    for (const row of this.items.known.values()) row.tick(now);
  }
}

class Job {
  constructor() {
    this.kind = el("strong");
    this.status = el("span", { class: "muted" });
    this.id = el("div", { class: "id odd" });
    this.worker = cell("odd where");
    this.fill = el("i");
    this.bar = el("div", { class: "bar" }, this.fill);
    this.much = el("span");
    this.until = el("span");
    this.age = cell("number");
    this.age.dataset.label = "age";
    const done = cell("wide", el("div", { class: "line" }, this.bar, this.much), el("div", { class: "muted" }, this.until));
    this.node = el("tr", { role: "row" }, cell("what", el("div", {}, this.kind, " ", this.status), this.id), this.worker, done, this.age);
  }

  update(job) {
    this.job = job;
    write(this.kind, capital(job.kind));
    write(this.status, (job.status ?? "").replaceAll("_", " "));
    write(this.id, job.id);
    attr(this.id, "title", job.id);
    write(this.worker, address(job.worker));
    attr(this.worker, "title", job.worker);
  }

  tick(now) {
    const { job } = this;
    const done = progress(job, now);
    attr(this.bar, "class", `bar ${done?.real ? "real" : "predicted"}`);
    fill(this.fill, done?.share);
    write(this.much, done ? `${Math.floor(done.share * 100)} %` : "");
    const source = done && !done.real ? "predicted, " : "";
    write(this.until, job.end ? `${source}${ending(job, now)}` : "");
    write(this.age, job.created ? counting(now - job.created) : "");
  }
}
