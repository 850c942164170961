// The workers' cards: which are shown, and in which order.

import { Card } from "./card.js";
import { arrange, attr, byId, el, picture, show, write } from "./dom.js";
import { GRAVITY, STATES, count, learned, mood } from "./words.js";

// More workers than these are shown in little unless the operator wants otherwise.
const MANY = 40;
// Seconds between two changes of an order that depends on what workers do.
const REST = 5;
// Pixels: cards of a small fleet get no wider.
const WIDEST = 440;

const text = (worker) => worker.display_id;
const rates = (worker) => worker.speed ?? learned(worker)?.speed ?? Infinity;
const ORDERS = {
  order: (a, b) => a.order - b.order,
  trouble: (a, b) => trouble(a) - trouble(b) || a.order - b.order,
  load: (a, b) => b.load - a.load || a.order - b.order,
  slow: (a, b) => (rates(a) === rates(b) ? a.order - b.order : rates(a) - rates(b)),
  model: (a, b) => (a.model ?? "").localeCompare(b.model ?? "") || a.order - b.order,
  name: (a, b) => text(a).localeCompare(text(b), "en", { numeric: true }) || a.order - b.order,
};

function trouble(worker) {
  return GRAVITY[mood(worker)] ?? 0;
}

export class Workers {
  /** @param open Called with a worker that is chosen. */
  constructor(store, open, add) {
    this.store = store;
    this.open = open;
    this.cards = new Map();
    this.wanted = ""; // a state
    this.sorted = 0;
    this.grid = byId("grid");
    this.chips = new Map();
    byId("find").addEventListener("input", () => this.arrange());
    byId("sort").addEventListener("change", () => this.arrange({ sort: true }));
    byId("view").addEventListener("change", () => this.arrange());
    const button = el("button", { type: "button", class: "main" }, "Add worker");
    button.addEventListener("click", add);
    byId("workers-empty").append(
      el("p", { class: "strong" }, "There are no workers."),
      el("p", {}, "Add one by its address, or start the router with --worker-urls. Requests are refused until then."),
      button,
    );
  }

  /** Take what changed in the store. */
  update(changes, now) {
    for (const id of changes.gone) this.drop(id);
    if (changes.whole) {
      for (const id of this.cards.keys()) if (!this.store.workers.has(id)) this.drop(id);
    }
    let added = false;
    for (const id of changes.workers) {
      added = !this.cards.has(id) || added;
      const card = this.card(id);
      card.update(this.store.workers.get(id));
      card.tick(now);
    }
    if (changes.sparks) {
      for (const [id, points] of this.store.sparks) this.cards.get(id)?.drawSpark(points);
    }
    if (changes.workers.size || changes.gone.length || changes.whole) this.arrange({ sort: added });
  }

  tick(now) {
    for (const card of this.cards.values()) if (card.worker.current) card.tick(now);
  }

  card(id) {
    let card = this.cards.get(id);
    if (!card) {
      card = new Card(this.store.workers.get(id), this.open);
      card.drawSpark(this.store.sparks.get(id));
      this.cards.set(id, card);
    }
    return card;
  }

  drop(id) {
    this.cards.get(id)?.node.remove();
    this.cards.delete(id);
  }

  /** Filter, and sort where the order may have changed. */
  arrange({ sort = false } = {}) {
    const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { node, worker } of this.cards.values()) {
      const fits = (!this.wanted || mood(worker) === this.wanted) && words.every((word) => matches(worker, word));
      show(node, fits);
      if (fits) shown += 1;
    }
    this.sort(sort);
    this.drawChips();
    const total = this.cards.size;
    write(byId("workers-shown"), shown === total ? "" : `${count(shown)} of ${count(total)} shown`);
    write(byId("nav-workers"), total ? count(total) : "");
    show(byId("workers-empty"), total === 0);
    show(byId("filters"), total > 0);
    const view = byId("view").value;
    this.grid.style.maxWidth = `${shown * WIDEST}px`;
    this.grid.classList.toggle("compact", view === "compact" || (view === "auto" && total > MANY));
  }

  sort(now) {
    const order = byId("sort").value;
    const due = order !== "order" && performance.now() - this.sorted > REST * 1000;
    if (!now && !(due && !this.held())) return;
    this.sorted = performance.now();
    const cards = [...this.cards.values()].sort((a, b) => ORDERS[order](a.worker, b.worker));
    arrange(this.grid, cards.map(({ node }) => node));
  }

  /** Whether somebody is about to choose a card: then none moves. */
  held() {
    return this.grid.matches(":hover") || this.grid.contains(document.activeElement);
  }

  drawChips() {
    const states = new Map([["", this.cards.size]]);
    for (const { worker } of this.cards.values()) states.set(mood(worker), (states.get(mood(worker)) ?? 0) + 1);
    if (this.wanted && !states.has(this.wanted)) states.set(this.wanted, 0);
    const listed = [...states.keys()].sort((a, b) => rank(b) - rank(a));
    for (const state of [...this.chips.keys()]) if (!states.has(state)) this.chips.delete(state);
    for (const state of listed) this.drawChip(state, states.get(state));
    const chips = listed.map((state) => this.chips.get(state));
    arrange(byId("chips"), chips.map(({ node }) => node));
    arrange(byId("spread"), chips.slice(1).map(({ share }) => share));
  }

  drawChip(state, number) {
    const chip = this.chip(state);
    write(chip.number, count(number));
    attr(chip.node, "aria-pressed", String(this.wanted === state));
    if (state) chip.share.style.flexGrow = number;
  }

  chip(state) {
    let chip = this.chips.get(state);
    if (!chip) {
      const number = el("span", { class: "count" });
      const word = STATES[state]?.[0] ?? state;
      const node = state
        ? el("button", { type: "button", "data-state": state, title: STATES[state]?.[1] }, picture(`s-${state}`), `${word} `, number)
        : el("button", { type: "button" }, "All ", number);
      node.addEventListener("click", () => {
        this.wanted = this.wanted === state ? "" : state;
        this.arrange();
      });
      chip = { node, number, share: el("i", { "data-state": state }) };
      this.chips.set(state, chip);
    }
    return chip;
  }

  /** What changed that an operator would want to hear. */
  static news(before, worker) {
    if (!before) return `Worker ${worker.display_id} was added.`;
    if (before.state === worker.state) return null;
    const grave = ["dead", "disabled", "draining", "sleeping", "stale"];
    if (grave.includes(worker.state)) return `Worker ${worker.display_id} is ${STATES[worker.state][0].toLowerCase()}.`;
    if (grave.includes(before.state)) return `Worker ${worker.display_id} is back.`;
    return null;
  }
}

/** All before the states, and well ones before grave ones. */
function rank(state) {
  return state ? (GRAVITY[state] ?? -1) : Infinity;
}

function matches(worker, word) {
  const said = [worker.url, worker.model, worker.state, mood(worker), worker.last_error, worker.current?.client, worker.current?.kind];
  return said.some((each) => each?.toLowerCase().includes(word));
}
