// What the router told: its messages put together. Knows nothing of the page.

const REQUESTS = 300;
const POINTS = 180;
const SPARKS = 90;

export class Store {
  constructor() {
    this.offset = 0;
    this.clear();
  }

  clear() {
    this.hello = null;
    this.fresh = true;
    this.fleet = null;
    this.workers = new Map();
    this.sparks = new Map();
    this.queue = { waiting_count: 0, running_count: 0, waiting: [] };
    this.videos = { count: 0, open: [] };
    this.requests = [];
    this.charts = { step: 5, points: [] };
  }

  /** Epoch seconds on the router's clock. */
  now() {
    return Date.now() / 1000 + this.offset;
  }

  greet(hello) {
    this.hello = hello;
    this.fresh = true;
    this.offset = hello.now - Date.now() / 1000;
  }

  /**
   * Take a message.
   * @returns What changed: `{fleet, workers: Set of ids, gone: ids, sparks, queue, videos,
   *   requests: new ones, charts}`, each missing or empty if it did not; `whole` for the first.
   */
  take(message) {
    const whole = this.fresh;
    if (whole) this.startOver();
    const changes = { whole, workers: new Set(), gone: [] };
    if (message.fleet) changes.fleet = this.fleet = message.fleet;
    this.takeWorkers(message, changes);
    if (message.sparks) this.takeSparks(message.sparks, changes);
    if (message.queue) changes.queue = this.queue = message.queue;
    if (message.videos) changes.videos = this.videos = message.videos;
    if (message.requests?.length) {
      changes.requests = message.requests;
      this.requests = [...[...message.requests].reverse(), ...this.requests].slice(0, REQUESTS);
    }
    if (message.charts?.points.length) {
      changes.charts = true;
      this.charts.step = message.charts.step;
      this.charts.points = [...this.charts.points, ...message.charts.points].slice(-POINTS);
    }
    return changes;
  }

  startOver() {
    const hello = this.hello;
    this.clear();
    this.hello = hello;
    this.fresh = false;
  }

  takeWorkers(message, changes) {
    for (const id of message.gone ?? []) {
      if (this.workers.delete(id)) changes.gone.push(id);
      this.sparks.delete(id);
    }
    for (const [id, worker] of Object.entries(message.workers ?? {})) {
      this.workers.set(id, worker);
      changes.workers.add(id);
    }
  }

  takeSparks(sparks, changes) {
    changes.sparks = true;
    for (const [id, points] of Object.entries(sparks.points)) {
      this.sparks.set(id, [...(this.sparks.get(id) ?? []), ...points].slice(-SPARKS));
    }
  }
}
