// What an operator may do: the sentence that each action is confirmed with, and the one request
// of the public API that it is.

import { call } from "./api.js";
import { ask } from "./dialog.js";
import { plural } from "./words.js";

function path(worker) {
  return `workers/${worker.worker_id}`;
}

async function put(worker, change, done) {
  const { status, body } = await call("PUT", path(worker), change);
  if (status === 202) return `${worker.display_id}: not in force yet: ${body?.reason ?? "pending"}`;
  return `${worker.display_id} ${done}`;
}

function has(worker) {
  const work = [];
  if (worker.active_requests) work.push(plural(worker.active_requests, "request"));
  if (worker.jobs) work.push(plural(worker.jobs, "open job"));
  return work.length ? `what it has (${work.join(" and ")})` : "what it has (nothing now)";
}

const ACTIONS = {
  drain: {
    label: "Drain",
    title: "Drain this worker?",
    text: (w) => `It gets nothing new and finishes ${has(w)}. It stays registered.`,
    run: (w) => put(w, { draining: true }, "is draining."),
    fits: (w) => !w.draining,
  },
  undrain: {
    label: "Stop draining",
    title: "Take this worker back?",
    yes: "Take it back",
    text: () => "It gets new work again.",
    run: (w) => put(w, { draining: false }, "gets work again."),
    fits: (w) => w.draining,
  },
  disable: {
    label: "Disable",
    title: "Disable this worker?",
    text: (w) => `It gets nothing new and finishes ${has(w)}. Updates of weights and adapters pass it by.`,
    run: (w) => put(w, { disabled: true }, "is disabled."),
    fits: (w) => !w.disabled,
  },
  enable: {
    label: "Enable",
    title: "Enable this worker?",
    text: () => "It gets new work again, once it has the weights that its model is to have.",
    run: (w) => put(w, { disabled: false }, "is enabled."),
    fits: (w) => w.disabled,
  },
  quarantine: {
    label: "Quarantine",
    title: "Quarantine this worker?",
    danger: true,
    text: () => "It counts as dead: it gets nothing new and is not asked for its health until somebody recovers it.",
    run: (w) => put(w, { is_dead: true }, "is quarantined."),
    fits: (w) => !w.is_dead,
  },
  recover: {
    label: "Recover",
    title: "Recover this worker?",
    text: () => "The router checks its health now, and gives it work again if it answers.",
    run: (w) => put(w, { is_dead: false }, "is back."),
    fits: (w) => w.is_dead,
  },
  leave: {
    label: "Remove when idle",
    title: "Remove this worker when it is idle?",
    yes: "Drain and remove",
    danger: true,
    text: (w) => `It gets nothing new, finishes ${has(w)}, and is removed then.`,
    run: async (w) => {
      const { body } = await call("DELETE", `${path(w)}?drain=true`);
      return body?.state === "draining" ? `${w.display_id} leaves when it is idle.` : `${w.display_id} is removed.`;
    },
    fits: () => true,
  },
  remove: {
    label: "Remove now",
    title: "Remove this worker now?",
    danger: true,
    text: () => "Answers under way end in peace. Files and jobs that it holds cannot be reached through the router any more.",
    run: async (w) => {
      await call("DELETE", path(w));
      return `${w.display_id} is removed.`;
    },
    fits: () => true,
  },
};

/** Names and labels of the actions that make sense for a worker. */
export function fitting(worker) {
  return Object.entries(ACTIONS)
    .filter(([, action]) => action.fits(worker))
    .map(([name, action]) => ({ name, label: action.label, danger: Boolean(action.danger) }));
}

/** Ask for an action on a worker, and do it. */
export function act(name, worker) {
  const action = ACTIONS[name];
  ask({
    title: action.title,
    subject: worker.url,
    text: action.text(worker),
    yes: action.yes ?? action.label,
    danger: action.danger,
    run: () => action.run(worker),
  });
}

export function addWorker() {
  ask({
    title: "Add a worker",
    text: "The router checks its health, and gives it work as soon as it answers.",
    yes: "Add worker",
    field: { label: "Address", placeholder: "http://10.0.0.5:30000", required: "Type the worker's address, such as http://10.0.0.5:30000" },
    run: async (url) => {
      const { body } = await call("POST", "workers", { url });
      return `${body?.worker?.url ?? url} is registered.`;
    },
  });
}

async function fleetwide(route, done) {
  const { body } = await call("POST", route);
  const results = body?.results ?? [];
  const failed = results.filter((each) => each.status_code >= 300 || each.body?.success === false);
  if (failed.length) return failed.map((each) => [each.worker_url, trouble(each)]);
  return results.length ? `${plural(results.length, "worker")} ${done}` : (body?.message ?? "There was nothing to do.");
}

function trouble(result) {
  const body = result.body ?? {};
  return String(body.error ?? body.message ?? body.detail ?? body.raw ?? `answered ${result.status_code}`);
}

export function sleepFleet(store) {
  ask({
    title: "Put the whole fleet to sleep?",
    text: `Each of ${plural(store.workers.size, "worker")} finishes what it was sent and releases its GPU memory. Until the fleet is woken, new requests are refused.`,
    yes: "Put to sleep",
    danger: true,
    run: () => fleetwide("release_memory_occupation", "asleep."),
  });
}

export function wakeFleet() {
  ask({
    title: "Wake the fleet?",
    text: "Each sleeping worker loads its model into GPU memory again, and gets work when it has.",
    yes: "Wake fleet",
    run: () => fleetwide("resume_memory_occupation", "awake."),
  });
}

/** Take a request out of the line. */
export function cancelWaiting(turn) {
  ask({
    title: "Cancel this request?",
    subject: turn.id,
    text: `It leaves the line, and its client (${turn.client}) is told 409. No worker hears of it.`,
    yes: "Cancel request",
    danger: true,
    run: async () => {
      await call("DELETE", `queue/${encodeURIComponent(turn.id)}`);
      return `${turn.id} is cancelled.`;
    },
  });
}
