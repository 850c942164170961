// One worker's card.

import { attr, byId, fill, parts, show, write } from "./dom.js";
import { NONE, STATES, capital, clock, counting, mood, plural, progress, speed } from "./words.js";

const template = bare(byId("card-template").content.firstElementChild);
const POINTS = 90;
const HEIGHT = 24;
const WORKS = ["ready", "joining", "suspect"];

export class Card {
  /** @param open Called with the worker when its name is chosen. */
  constructor(worker, open) {
    this.node = template.cloneNode(true);
    this.part = parts(this.node);
    this.part.name.addEventListener("click", () => open(this.worker));
    this.worker = worker;
  }

  update(worker) {
    const { part } = this;
    this.worker = worker;
    const state = mood(worker);
    attr(this.node, "data-state", state);
    attr(part.shape, "href", `#s-${state}`);
    write(part.name, worker.display_id);
    attr(part.name, "title", worker.url);
    write(part.state, STATES[state]?.[0] ?? capital(state));
    write(part.model, worker.model ?? "model not known yet");
    attr(part.model, "title", worker.model);
    this.drawEpoch();
    this.drawLoad();
    write(part.speed, speed(worker));
    write(part.error, brief(worker));
    show(part.error, Boolean(worker.last_error));
  }

  drawEpoch() {
    const { weights_epoch: epoch, is_stale: stale } = this.worker;
    const known = epoch === null || epoch === undefined ? "epoch unknown" : `epoch ${epoch}`;
    write(this.part.epoch, stale ? `${known}, behind` : known);
    attr(this.part.epoch, "class", stale ? "epoch behind" : "epoch");
  }

  drawLoad() {
    const { load, slots, queued } = this.worker;
    this.part.pips.style.setProperty("--load", Math.min(load, 12));
    this.part.pips.style.setProperty("--slots", Math.min(slots ?? 0, 12));
    write(this.part.load, slots ? `${load} of ${plural(slots, "slot")}` : plural(load, "job"));
    attr(this.part.load, "title", queued ? `jobs before it, ${queued} of them queued there` : "jobs before it");
  }

  /** Show what passes with time: the job. */
  tick(now) {
    const { part, worker } = this;
    const job = worker.current;
    if (!job) {
      attr(part.job, "class", "job idle");
      write(part.what, worker.load > 0 ? "Busy" : WORKS.includes(worker.state) ? "Idle" : "Gets no work");
      attr(part.what, "title", null);
      write(part.much, "");
      write(part.until, "");
      write(part.source, "");
      fill(part.fill, 0);
      return;
    }
    const done = progress(job, now);
    write(part.what, `${capital(job.kind)} · ${job.client ?? NONE}`);
    attr(part.what, "title", job.client);
    attr(part.job, "class", done ? (done.real ? "job real" : "job predicted") : "job open");
    write(part.much, done ? `${Math.floor(done.share * 100)} %` : counting(now - job.since));
    fill(part.fill, done?.share);
    write(part.until, ending(job, now));
    write(part.source, done ? (done.real ? "measured" : "predicted") : "");
  }

  /** Draw the busy share (percent) of the last 15 minutes, oldest first. */
  drawSpark(points = []) {
    attr(this.part.spark, "d", sparkPath(points));
    write(this.part.busy, points.length ? `${average(points)} % busy` : "no history");
  }
}

/** A worker's last error without its own address, which stands above it. */
function brief({ last_error: error, url }) {
  return error ? error.replace(`${url}: `, "") : "";
}

/** `node` without the white space of its markup, which every clone would carry. */
function bare(node) {
  const walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) found.push(walker.currentNode);
  for (const text of found) text.remove();
  return node;
}

/** When a job ends, as far as is known. */
export function ending(job, now) {
  if (job.end === null || job.end === undefined) return job.since ? `since ${clock(job.since)}` : "";
  const left = job.end - now;
  if (left > 0.5) return `${counting(left)} left, ends ${clock(job.end)}`;
  return left > -1.5 ? "due now" : `${counting(-left)} over its prediction`;
}

export function average(points) {
  return Math.round(points.reduce((sum, each) => sum + each, 0) / points.length);
}

/** An area, a unit wide for each point, that ends at the right. */
export function sparkPath(points) {
  if (!points.length) return "";
  let x = POINTS - points.length;
  let d = `M${x} ${HEIGHT}`;
  for (const point of points) {
    const y = (HEIGHT * (1 - point / 100)).toFixed(1);
    d += `V${y}H${(x += 1)}`;
  }
  return `${d}V${HEIGHT}Z`;
}
