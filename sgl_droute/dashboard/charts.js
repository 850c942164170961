// The charts of the last 15 minutes: drawn as SVG, read with the pointer or the arrow keys, and
// there as a table too.

import { attr, byId, cell, el, head, show, svg, write } from "./dom.js";
import { CHARTS, roundUp, summary, ticks } from "./series.js";
import { clock, shortClock } from "./words.js";

const HEIGHT = 132;
const PAD = { left: 4, right: 44, top: 8, bottom: 20 };
const WINDOW = 900;

/** A value at an axis: without zeros that tell nothing. */
function mark(chart, value) {
  return value === 0 ? "0" : chart.text(value).replace(/\.0+(?= )/, "").replace(/(\.\d)0(?= )/, "$1");
}

class Chart {
  constructor(chart, group) {
    this.chart = chart;
    this.group = group;
    this.width = 0;
    this.build();
  }

  build() {
    const { chart } = this;
    this.values = chart.series.map(({ id }) => el("b", { class: id }));
    const legend = chart.series.map(({ id, label }, index) =>
      el("span", {}, el("i", { class: `swatch ${id}`, "aria-hidden": "true" }), `${label} `, this.values[index]),
    );
    this.time = el("span", { class: "muted time" });
    this.grid = svg("g", { class: "gridlines" });
    this.paths = chart.series.map(({ id, area }) => ({
      area: area ? svg("path", { class: `area ${id}` }) : null,
      line: svg("path", { class: `line ${id}` }),
    }));
    this.cursor = svg("line", { class: "cursor", y1: PAD.top, y2: HEIGHT - PAD.bottom, visibility: "hidden" });
    const drawn = this.paths.flatMap(({ area, line }) => (area ? [area, line] : [line]));
    this.svg = svg("svg", { height: HEIGHT, "aria-hidden": "true" }, this.grid, ...drawn, this.cursor);
    this.plot = el("div", {
      class: "plot", tabindex: 0, role: "slider", "aria-label": `${chart.title}, point in time`,
      "aria-orientation": "horizontal", "aria-describedby": `chart-${chart.id}`,
    }, this.svg);
    this.words = el("p", { class: "hidden", id: `chart-${chart.id}` });
    const title = el("h3", {}, chart.title, chart.unit ? el("small", {}, ` ${chart.unit}`) : "");
    const top = el("div", { class: "line" }, title, this.time);
    this.node = el("div", { class: "chart" }, top, el("div", { class: "legend" }, ...legend), this.plot, this.words);
    this.listen();
  }

  listen() {
    this.plot.addEventListener("pointermove", (event) => this.group.point(this.at(event)));
    this.plot.addEventListener("pointerleave", () => this.group.point(null));
    this.plot.addEventListener("blur", () => this.group.point(null));
    this.plot.addEventListener("keydown", (event) => this.group.key(event));
    new ResizeObserver(([entry]) => {
      this.width = Math.round(entry.contentRect.width);
      attr(this.svg, "width", this.width);
      this.group.draw();
    }).observe(this.plot);
  }

  /** The number of the point nearest to the pointer. */
  at(event) {
    const { points } = this.group;
    const x = event.clientX - this.plot.getBoundingClientRect().left;
    const time = this.begin + ((x - PAD.left) / (this.width - PAD.left - PAD.right)) * WINDOW;
    let best = null;
    points.forEach(([end], index) => {
      if (best === null || Math.abs(end - time) < Math.abs(points[best][0] - time)) best = index;
    });
    return best;
  }

  draw(points, step) {
    this.end = points.length ? points.at(-1)[0] : Date.now() / 1000;
    this.begin = this.end - WINDOW;
    this.numbers = this.chart.series.map(({ of }) => of(points, step));
    const known = this.numbers.flat().filter((value) => value !== null);
    this.top = roundUp(Math.max(0, ...known));
    if (this.chart.id !== "latency") this.top = Math.max(4, this.top);
    write(this.words, summary(this.chart, this.numbers));
    if (this.width) this.drawGrid();
    this.paths.forEach(({ area, line }, index) => {
      const d = this.width ? this.path(points, this.numbers[index], step) : { line: "", area: "" };
      attr(line, "d", d.line);
      if (area) attr(area, "d", d.area);
    });
  }

  x(time) {
    return PAD.left + ((time - this.begin) / WINDOW) * (this.width - PAD.left - PAD.right);
  }

  y(value) {
    return PAD.top + (1 - value / this.top) * (HEIGHT - PAD.top - PAD.bottom);
  }

  drawGrid() {
    const right = this.width - PAD.right;
    const lines = [0, 0.5, 1].flatMap((share) => {
      const y = this.y(share * this.top);
      const text = svg("text", { x: right + 6, y: y + 3.5 });
      text.append(mark(this.chart, share * this.top));
      return [svg("line", { x1: PAD.left, x2: right, y1: y, y2: y }), text];
    });
    const times = ticks(this.begin, this.end, this.width < 300 ? 600 : 300).map((time) => {
      const x = this.x(time);
      const text = svg("text", { x, y: HEIGHT - 4, "text-anchor": x < 20 ? "start" : x > right - 16 ? "end" : "middle" });
      text.append(shortClock(time));
      return text;
    });
    this.grid.replaceChildren(...lines, ...times);
  }

  path(points, numbers, step) {
    let line = "";
    let area = "";
    let first = null;
    let last = null;
    const floor = this.y(0).toFixed(1);
    const close = () => {
      if (first !== null) area += `L${last} ${floor}L${first} ${floor}Z`;
      first = null;
    };
    points.forEach(([time], index) => {
      const value = numbers[index];
      const gap = index > 0 && time - points[index - 1][0] > step * 2.5;
      if (value === null || gap) close();
      if (value === null) return;
      const x = this.x(time).toFixed(1);
      const move = `${first === null ? "M" : "L"}${x} ${this.y(value).toFixed(1)}`;
      line += move;
      area += move;
      first ??= x;
      last = x;
    });
    close();
    return { line, area };
  }

  /** Show the values of a point, of the last one if `index` is null. */
  read(points, index) {
    const at = index ?? points.length - 1;
    this.values.forEach((node, which) => write(node, at < 0 ? this.chart.text(null) : this.chart.text(this.numbers[which][at])));
    write(this.time, at < 0 ? "" : index === null ? "now" : clock(points[at][0]));
    attr(this.cursor, "visibility", index === null ? "hidden" : "visible");
    if (index !== null && this.width) {
      attr(this.cursor, "x1", this.x(points[at][0]).toFixed(1));
      attr(this.cursor, "x2", this.x(points[at][0]).toFixed(1));
    }
    attr(this.plot, "aria-valuemin", 0);
    attr(this.plot, "aria-valuemax", Math.max(0, points.length - 1));
    attr(this.plot, "aria-valuenow", Math.max(0, at));
    attr(this.plot, "aria-valuetext", this.spoken(points, at));
  }

  spoken(points, at) {
    if (at < 0) return "nothing yet";
    const told = this.chart.series.map(({ label }, which) => `${label} ${this.chart.text(this.numbers[which][at])}`);
    return `${clock(points[at][0])}: ${told.join(", ")}`;
  }
}

/** All charts, which show one moment together. */
export class Charts {
  constructor() {
    this.points = [];
    this.step = 5;
    this.time = null; // of the point that is read, epoch seconds
    this.charts = CHARTS.map((chart) => new Chart(chart, this));
    byId("charts").append(...this.charts.map(({ node }) => node));
    byId("charts-details").addEventListener("toggle", () => this.drawTable());
  }

  update({ points, step }) {
    this.points = points;
    this.step = step;
    this.draw();
    this.drawTable();
  }

  draw() {
    for (const chart of this.charts) chart.draw(this.points, this.step);
    this.read();
  }

  get index() {
    if (this.time === null) return null;
    const found = this.points.findIndex(([end]) => end >= this.time);
    return found < 0 ? null : found;
  }

  read() {
    const { index } = this;
    for (const chart of this.charts) chart.read(this.points, index);
  }

  point(index) {
    this.time = index === null ? null : this.points[index][0];
    this.read();
  }

  key(event) {
    const last = this.points.length - 1;
    const at = this.index ?? last;
    const minute = Math.round(60 / this.step);
    const moves = {
      ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1,
      PageDown: at - minute, PageUp: at + minute, Home: 0, End: last,
    };
    if (!(event.key in moves) || last < 0) return;
    event.preventDefault();
    this.point(Math.max(0, Math.min(last, moves[event.key])));
  }

  /** One row for each minute, the latest first. */
  drawTable() {
    if (!byId("charts-details").open) return;
    const columns = this.charts.flatMap(({ chart, numbers }) =>
      chart.series.map(({ label }, which) => ({
        label: chart.unit ? `${label} ${chart.unit}` : label,
        text: (at) => chart.text(numbers[which][at]),
      })),
    );
    const every = Math.round(60 / this.step);
    const rows = [];
    for (let at = this.points.length - 1; at >= 0; at -= every) {
      const cells = columns.map(({ text }) => cell("number", text(at)));
      const time = el("th", { scope: "row" }, clock(this.points[at][0]));
      rows.push(el("tr", {}, time, ...cells));
    }
    const titles = [["time", ""], ...columns.map(({ label }) => [label, "number"])];
    byId("charts-table").replaceChildren(head(titles), el("tbody", {}, ...rows));
    show(byId("charts-table"), true);
  }
}
