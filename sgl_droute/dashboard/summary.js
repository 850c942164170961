// The fleet at a glance: the row of figures.

import { attr, byId, parts, write } from "./dom.js";
import { NONE, count, counting, plural, span } from "./words.js";

const part = parts(byId("figures"));

/** Show the fleet's figures. */
export function drawFigures(fleet) {
  write(part.usable, count(fleet.usable));
  write(part.workers, `of ${count(fleet.workers)}`);
  write(part.busy, count(fleet.busy));
  write(part.share, fleet.usable ? `${Math.round((100 * Math.min(fleet.busy, fleet.usable)) / fleet.usable)} %` : "");
  write(part.waiting, count(fleet.waiting));
  write(part.running, count(fleet.running));
  write(part.flight, `${count(fleet.in_flight)} open`);
  write(part.rate, count(fleet.per_minute));
  write(part.failed, count(fleet.failed_per_minute));
  attr(part.failures, "class", fleet.failed_per_minute > 0 ? "bad" : null);
  attr(part.usable, "class", fleet.workers > 0 && fleet.usable === 0 ? "bad" : null);
  quantile(part.p50, part["p50-unit"], fleet.p50);
  quantile(part.p95, part["p95-unit"], fleet.p95);
  drawEpochs(fleet);
}

function quantile(value, unit, seconds) {
  const [number, name] = span(seconds);
  write(value, number);
  write(unit, seconds === null || seconds === undefined ? "in 5 min" : name);
}

function drawEpochs(fleet) {
  const listed = Object.entries(fleet.epochs ?? {});
  const different = [...new Set(listed.map(([, epoch]) => epoch))].sort((a, b) => a - b);
  if (fleet.epoch === null && different.length > 1) {
    write(part.epoch, `${different[0]}–${different.at(-1)}`);
  } else {
    write(part.epoch, fleet.epoch ?? different[0] ?? NONE);
  }
  write(part.epochs, listed.length > 1 ? plural(listed.length, "model") : "");
  attr(part.epoch, "title", listed.length > 1 ? listed.map(([model, epoch]) => `${model}: ${epoch}`).join("\n") : null);
}

/** Show what is known of the router itself. */
export function drawAbout(hello, fleet, now) {
  const pieces = [];
  if (hello?.version) pieces.push(hello.version);
  if (fleet?.algorithm) pieces.push(fleet.algorithm);
  if (hello?.started) pieces.push(`up ${counting(now - hello.started)}`);
  write(byId("about"), pieces.join(" · "));
}

/** The window's title: trouble shows in a tab that nobody looks at. */
export function drawTitle(fleet, live) {
  const state = live ? `${count(fleet.usable)}/${count(fleet.workers)} usable` : "not connected";
  const line = live && fleet.waiting ? `, ${count(fleet.waiting)} waiting` : "";
  const title = `${state}${line} · sgl-droute`;
  if (document.title !== title) document.title = title;
}
