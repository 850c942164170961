// The page: what comes from the router goes to the store, and what changed there to the views.

import { addWorker, sleepFleet, wakeFleet } from "./actions.js";
import { Charts } from "./charts.js";
import { Details } from "./details.js";
import { byId } from "./dom.js";
import { Jobs } from "./jobs.js";
import { onKey } from "./key.js";
import { Link } from "./link.js";
import { alert } from "./notices.js";
import { Line } from "./queue.js";
import { Requests } from "./requests.js";
import { Store } from "./store.js";
import { Follower } from "./stream.js";
import { drawAbout, drawFigures, drawTitle } from "./summary.js";
import { Workers } from "./workers.js";

const store = new Store();
const link = new Link();
const details = new Details(store);
const workers = new Workers(store, (worker) => details.open(worker), addWorker);
const charts = new Charts();
const line = new Line(store);
const jobs = new Jobs(store);
const requests = new Requests(store);

let missed = false; // something changed while the page could not be seen

const EVENTS = {
  hello(hello) {
    store.greet(hello);
    link.interval = hello.interval ?? 1;
  },

  state(message) {
    performance.clearMeasures("update");
    const begun = performance.now();
    const before = new Map(store.workers);
    const changes = store.take(message);
    if (document.hidden) missed = true;
    else draw(changes);
    tick(); // in the same frame
    if (!changes.whole) tellOf(changes, before);
    performance.measure("update", { start: begun });
  },
};

function draw(changes) {
  const now = store.now();
  if (changes.fleet) drawFigures(changes.fleet);
  if (changes.whole || changes.charts) charts.update(store.charts);
  workers.update(changes, now);
  if (changes.whole || changes.queue) line.update(now);
  if (changes.whole || changes.videos) jobs.update(now);
  requests.update(changes);
  details.update(changes);
  if (changes.whole) byId("main").setAttribute("aria-busy", "false");
}

function drawAll() {
  missed = false;
  draw({
    whole: true,
    fleet: store.fleet,
    workers: new Set(store.workers.keys()),
    gone: [],
    sparks: true,
  });
}

function tellOf(changes, before) {
  for (const id of changes.gone) {
    if (before.has(id)) alert(`Worker ${before.get(id).display_id} was removed.`);
  }
  for (const id of changes.workers) {
    const news = Workers.news(before.get(id), store.workers.get(id));
    if (news) alert(news);
  }
}

let ticked = 0;

function tick() {
  if (document.hidden) return;
  ticked = performance.now();
  const now = store.now();
  link.draw();
  workers.tick(now);
  line.tick(now);
  jobs.tick(now);
  details.tick(now);
  drawAbout(store.hello, store.fleet, now);
  if (store.fleet) drawTitle(store.fleet, link.state.name === "live");
}

const follower = new Follower({
  event(name, data) {
    link.hear();
    EVENTS[name]?.(data);
  },
  state: (state) => link.set(state),
});

link.reconnect = () => follower.now();
onKey(() => follower.now());
byId("add-button").addEventListener("click", addWorker);
byId("sleep-button").addEventListener("click", () => sleepFleet(store));
byId("wake-button").addEventListener("click", wakeFleet);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  if (missed && store.fleet) drawAll();
  tick();
});
setInterval(() => {
  if (performance.now() - ticked > 1050) tick(); // no message came
}, 250);
follower.now();
