// What the charts show: series made from the router's points, and how they are told in words.
// Knows nothing of the page.

import { NONE, count, duration } from "./words.js";

// Of a point: [end of its step, done, failed, p50, p95, waiting, busy].
const MINUTE = 60;

/** What each chart is of; `of(points, step)` gives its values, null where there is none. */
export const CHARTS = [
  {
    id: "throughput",
    title: "Throughput",
    unit: "a minute",
    text: (value) => (value === null ? NONE : count(value)),
    series: [
      { id: "done", label: "done", of: (points, step) => lastMinute(points, 1, step), area: true },
      { id: "failed", label: "failed", of: (points, step) => lastMinute(points, 2, step) },
    ],
  },
  {
    id: "latency",
    title: "Latency",
    unit: "",
    text: duration,
    series: [
      { id: "p95", label: "95th percentile", of: (points) => column(points, 4) },
      { id: "p50", label: "median", of: (points) => column(points, 3) },
    ],
  },
  {
    id: "line",
    title: "Line and workers",
    unit: "",
    text: (value) => (value === null ? NONE : count(value)),
    series: [
      { id: "busy", label: "busy workers", of: (points) => column(points, 6) },
      { id: "waiting", label: "waiting requests", of: (points) => column(points, 5), area: true },
    ],
  },
];

function column(points, index) {
  return points.map((point) => point[index] ?? null);
}

/** The sum of the last 60 seconds at each point. */
function lastMinute(points, index, step) {
  const steps = Math.max(1, Math.round(MINUTE / step));
  let sum = 0;
  return points.map((point, at) => {
    sum += point[index] ?? 0;
    if (at >= steps) sum -= points[at - steps][index] ?? 0;
    return sum;
  });
}

/** The smallest round number that is not below `value`, for the end of an axis. */
export function roundUp(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const found = [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((each) => each * power >= value * 0.9999);
  return found * power;
}

/** Minutes of the clock, every five, that lie from `begin` to `end` (epoch seconds). */
export function ticks(begin, end, every = 300) {
  const found = [];
  for (let time = Math.ceil(begin / every) * every; time <= end; time += every) found.push(time);
  return found;
}

/** A chart in one sentence. */
export function summary(chart, values) {
  const told = chart.series.map(({ label }, index) => {
    const known = values[index].filter((value) => value !== null);
    if (!known.length) return `${label}: nothing yet`;
    const last = values[index].at(-1);
    return `${label}: now ${chart.text(last)}, from ${chart.text(Math.min(...known))} to ${chart.text(Math.max(...known))}`;
  });
  return `${chart.title}${chart.unit ? `, ${chart.unit}` : ""}, last 15 minutes. ${told.join(". ")}.`;
}
