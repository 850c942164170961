// Numbers, times and states in words.

export const NONE = "–";

const COUNT = new Intl.NumberFormat("en");
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const SHORT_CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });

/** States of a worker, the gravest first, with the word and the sentence that the page has for it. */
export const STATES = {
  dead: ["Dead", "Quarantined: it gets no work and is not asked for its health."],
  suspect: ["Suspect", "It failed a health check lately, or could not be reached. It still gets work."],
  stale: ["Stale", "It lacks weights or adapters that its model is to have, and gets no work until it has caught up."],
  disabled: ["Disabled", "By an operator: it gets no work, and no updates of weights."],
  draining: ["Draining", "By an operator: it finishes what it has and gets nothing new."],
  sleeping: ["Asleep", "Its memory is released. It gets no work until the fleet is woken."],
  updating: ["Updating", "Its weights or adapters are being updated. Requests wait for it."],
  joining: ["Joining", "It is registered and has not answered a health check yet."],
  working: ["Working", "It is well and works on a job."],
  ready: ["Ready", "It is well and has nothing to do."],
};
export const GRAVITY = Object.fromEntries(Object.keys(STATES).map((state, rank) => [state, rank]));

/** The state that the page shows: a ready worker that has a job is working. */
export function mood(worker) {
  return worker.state === "ready" && (worker.current || worker.load > 0) ? "working" : worker.state;
}

export function count(number) {
  return number === null || number === undefined ? NONE : COUNT.format(number);
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** Seconds as a number and its unit. */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return [NONE, ""];
  const s = Math.max(0, seconds);
  if (s < 0.00095) return [s === 0 ? "0" : (s * 1000).toFixed(1), "ms"];
  if (s < 0.9995) return [(s * 1000).toFixed(0), "ms"];
  if (s < 9.995) return [s.toFixed(2), "s"];
  if (s < 99.95) return [s.toFixed(1), "s"];
  if (s < 3599.5) return [`${Math.floor(Math.round(s) / 60)}:${two(Math.round(s) % 60)}`, "min"];
  if (s < 172800) return [`${Math.floor(s / 3600)}:${two(Math.floor((s % 3600) / 60))}`, "h"];
  return [(s / 86400).toFixed(1), "days"];
}

export function duration(seconds) {
  return span(seconds).join(" ").trim();
}

/** Seconds that are counted down or up: whole ones. */
export function counting(seconds) {
  const s = Math.max(0, Math.round(seconds));
  return s < 100 ? `${s} s` : duration(s);
}

function two(number) {
  return String(number).padStart(2, "0");
}

export function clock(epoch) {
  return epoch === null || epoch === undefined ? NONE : CLOCK.format(epoch * 1000);
}

export function shortClock(epoch) {
  return SHORT_CLOCK.format(epoch * 1000);
}

export function bytes(number) {
  if (number === null || number === undefined) return NONE;
  if (number < 1000) return `${number} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let value = number / 1000;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 9.95 ? value.toFixed(1) : value.toFixed(0)} ${units[unit]}`;
}

/** A worker's address as short as it stays clear: without its scheme. */
export function address(url) {
  return url ? url.replace(/^https?:\/\//, "") : NONE;
}

export function capital(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : "";
}

/** The share of a job that is done, and whether that is told by its worker or predicted. */
export function progress(job, now) {
  if (job.progress !== null && job.progress !== undefined) {
    return { share: Math.min(1, Math.max(0, job.progress / 100)), real: true };
  }
  const begun = job.since ?? job.created;
  if (job.end === null || job.end === undefined || job.end <= begun) return null;
  return { share: Math.min(1, Math.max(0, (now - begun) / (job.end - begun))), real: false };
}

/** The kind of work that most was learned of, with how fast the worker is at it (1 is usual). */
export function learned(worker) {
  const kinds = Object.entries(worker.learned ?? {});
  if (!kinds.length) return null;
  const [kind, fit] = kinds.reduce((best, each) => (each[1].samples > best[1].samples ? each : best));
  return { kind, speed: fit.relative_speed, samples: fit.samples };
}

export function speed(worker) {
  if (worker.speed !== null && worker.speed !== undefined) return `${factor(worker.speed)} speed, set`;
  const known = learned(worker);
  return known ? `${factor(known.speed)} speed` : "speed unknown";
}

export function factor(number) {
  return `${number >= 9.95 ? number.toFixed(0) : number.toFixed(2)}×`;
}
