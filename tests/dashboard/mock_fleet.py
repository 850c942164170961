"""
A fleet that only plays: what ``/dashboard/stream`` tells of as many workers as wanted.

It knows nothing of HTTP. Times are epoch seconds and arguments; the same seed plays the same.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from typing import Any
from urllib.parse import quote

from attrs import define, field

MODELS = ("Qwen/Qwen-Image", "nvidia/Cosmos3-Nano", "tencent/Hunyuan3D-2")
KINDS = {MODELS[0]: "image", MODELS[1]: "video", MODELS[2]: "mesh"}
PATHS = {"image": "/v1/images/generations", "video": "/v1/videos", "mesh": "/v1/meshes"}
CLIENTS = ("key:render-farm", "key:trainer", "id:team-a", "ip:10.1.0.7")
WHY = "all of {n} workers that can take it are busy"
UNREACHABLE = (
    "http://gpu-{n:02d}.cluster.internal:30000: could not connect within 5 s: "
    "ConnectionRefusedError: [Errno 111] Connection refused (attempt 3 of 3)"
)
CODES = ("worker_reset", "client_gone_waiting", "queue_timeout", "no_capable_worker")
ERRORS = {
    "worker_reset": "Worker request failed: the connection was closed before its answer",
    "client_gone_waiting": None,
    "queue_timeout": "It waited for 30 s, and no worker was free",
    "no_capable_worker": "No mesh-capable workers available in current worker pool.",
}

Fields = dict[str, Any]


@define(eq=False)
class MockFleet:
    """
    Workers that work on what chance brings.

    Args:
        count: How many workers.
        now: When it begins.
        busy: Requests per second and worker, relative to what they can do.
    """

    count: int
    now: float
    busy: float = 0.9
    workers: dict[str, Fields] = field(factory=dict, init=False)
    history: deque[Fields] = field(factory=lambda: deque(maxlen=100), init=False)
    waiting: list[Fields] = field(factory=list, init=False)
    videos: dict[str, Fields] = field(factory=dict, init=False)
    points: deque[list[Any]] = field(factory=lambda: deque(maxlen=180), init=False)
    sparks: dict[str, deque[int]] = field(factory=dict, init=False)
    _chance: random.Random = field(factory=lambda: random.Random(7), init=False)
    _ids: int = field(default=0, init=False)
    _order: int = field(default=0, init=False)
    _ended: list[tuple[float, float, bool]] = field(factory=list, init=False)
    _running: dict[str, Fields] = field(factory=dict, init=False)
    _seen: dict[str, str] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        for number in range(self.count):
            self.add(f"http://gpu-{number:02d}.cluster.internal:30000", MODELS[number % 7 // 5])
        if self.count > 10:  # room for one of each trouble
            self._spoil()
        begin = self.now - 900
        for step in range(900):
            self._advance(begin + step)
        self._seen = {id: repr(each) for id, each in self.workers.items()}

    def remove(self, id: str) -> None:
        """
        Forget a worker.
        """
        worker = self.workers.pop(id)
        if worker["current"] is not None:
            self.videos.pop(worker["current"]["id"], None)
        del self.sparks[id]

    def add(self, url: str, model: str | None = None) -> Fields:
        """
        Register the worker at *url*.
        """
        self._order += 1
        speed = round(self._chance.uniform(0.8, 1.1), 3)
        kind = KINDS.get(model or "", "image")
        known = model is not None and self._order % 7 != 5
        learned = {kind: _learned(40, speed), "edit": _learned(1, speed)} if known else None
        worker: Fields = {
            "worker_id": quote(url, safe=""),
            "display_id": url.partition("://")[2],
            "url": url,
            "state": "ready" if model else "joining",
            "active_requests": 0,
            "jobs": 0,
            "sessions": 0,
            "is_dead": False,
            "is_sleeping": False,
            "draining": False,
            "disabled": False,
            "consecutive_failures": 0,
            "last_error": None,
            "video_support": kind == "video",
            "capabilities": [kind] if model else None,
            "model": model,
            "weights": "checkpoints/step-1200" if self._order % 7 else None,
            "weights_epoch": 12,
            "is_stale": False,
            "replicas": 1,
            "concurrency": None,
            "speed": None,
            "learned": learned,
            "order": self._order,
            "load": 0,
            "slots": 1,
            "current": None,
            "queued": 0,
        }
        self.workers[worker["worker_id"]] = worker
        self.sparks[worker["worker_id"]] = deque(maxlen=90)
        return worker

    def _spoil(self) -> None:
        listed = list(self.workers.values())
        states = ("dead", "draining", "disabled", "suspect", "sleeping", "stale", "updating")
        for number, state in enumerate(states):
            worker = listed[3 + number * max(1, (self.count - 4) // len(states))]
            worker["state"] = state
            if state in ("dead", "suspect"):
                worker["is_dead"] = state == "dead"
                worker["consecutive_failures"] = 3 if state == "dead" else 1
                worker["last_error"] = UNREACHABLE.format(n=worker["order"] - 1)
            if state == "stale":
                worker.update(is_stale=True, weights_epoch=11)
            worker["draining"] = state == "draining"
            worker["disabled"] = state == "disabled"
            worker["is_sleeping"] = state == "sleeping"

    def step(self, now: float) -> Fields:
        """
        Play until *now*, and what is new since the step before, as an ``event: state`` has it.
        """
        told = self._advance(now)
        seen, self._seen = self._seen, {id: repr(each) for id, each in self.workers.items()}
        news: Fields = {"now": now, "fleet": self._fleet(), "requests": told}
        news["workers"] = {
            id: worker for id, worker in self.workers.items() if seen.get(id) != self._seen[id]
        }
        news["gone"] = [id for id in seen if id not in self._seen]
        news["queue"] = self._queue()
        news["videos"] = self._videos()
        if int(now) % 5 == 0:
            news["charts"] = {"step": 5, "points": [self.points[-1]]}
        if int(now) % 10 == 0:
            points = {id: [points[-1]] for id, points in self.sparks.items() if points}
            news["sparks"] = {"step": 10, "end": now, "points": points}
        return news

    def _advance(self, now: float) -> list[Fields]:
        """
        Play until *now*, and the requests that ended.
        """
        self.now = now
        told: list[Fields] = []
        for worker in self.workers.values():
            self._work(worker, told)
        self._arrive()
        self._advance_videos()
        if int(now) % 5 == 0:
            self.points.append(self._point())
        if int(now) % 10 == 0:
            self._add_sparks()
        return told

    def hello(self, now: float) -> Fields:
        """
        What a stream begins with, as ``event: hello``.
        """
        return {"version": "0.1.0", "now": now, "started": now - 93000, "interval": 1.0}

    def whole(self) -> Fields:
        """
        All that is known, as the first ``event: state`` has it.
        """
        return {
            "now": self.now,
            "fleet": self._fleet(),
            "workers": self.workers,
            "gone": [],
            "sparks": {
                "step": 10,
                "end": self.now,
                "points": {id: list(points) for id, points in self.sparks.items()},
            },
            "queue": self._queue(),
            "videos": self._videos(),
            "requests": list(self.history),
            "charts": {"step": 5, "points": list(self.points)},
        }

    def _new_id(self) -> int:
        self._ids += 1
        return self._ids

    def _usable(self) -> list[Fields]:
        return [w for w in self.workers.values() if w["state"] in ("ready", "joining", "suspect")]

    def _seconds(self, kind: str) -> float:
        mean = {"image": 4.0, "video": 38.0, "mesh": 20.0}[kind]
        return mean * self._chance.uniform(0.6, 1.5)

    def _arrive(self) -> None:
        usable = self._usable()
        wave = 0.75 + 0.35 * math.sin(self.now / 140)
        for kind, mean in (("image", 4.2), ("video", 40.0)):
            able = sum(1 for w in usable if KINDS.get(w["model"] or "", "image") == kind)
            expected = able / mean * wave * self.busy
            while self._chance.random() < expected and len(self.waiting) < 400:
                expected -= 1
                self.wait_in_line(kind)

    def wait_in_line(self, kind: str) -> None:
        """
        Put a request of that kind into the line.
        """
        batch = f"step-{int(self.now) // 300}" if self._chance.random() < 0.3 else None
        self.waiting.append(
            {
                "id": f"7f3a90c1-{self._new_id()}",
                "kind": kind,
                "position": len(self.waiting) + 1,
                "since": self.now,
                "start": self.now + self._chance.uniform(1, 20),
                "end": self.now + self._chance.uniform(21, 60),
                "priority": self._chance.choice((0, 0, 0, 0, 3, 5)),
                "client": self._chance.choice(CLIENTS),
                "batch": batch,
                "why": WHY.format(n=len(self._usable())),
            }
        )

    def _work(self, worker: Fields, told: list[Fields]) -> None:
        current = worker["current"]
        if current is not None:
            job = self._running[worker["worker_id"]]
            done = (self.now - current["since"]) / job["seconds"]
            if done >= 1:
                self._end(worker, job, told)
            elif current["kind"] != "image":
                current["progress"] = int(done * 100)
        if worker["current"] is None and worker["state"] in ("ready", "joining", "suspect"):
            self._begin(worker)

    def _begin(self, worker: Fields) -> None:
        kind = KINDS.get(worker["model"] or "", "image")
        turn = next((each for each in self.waiting if each["kind"] == kind), None)
        if turn is None:
            return
        self.waiting.remove(turn)
        seconds = self._seconds(kind)
        wrong = self._chance.uniform(0.95, 1.05)
        worker["current"] = {
            "kind": kind,
            "job": turn["id"],
            "id": f"{self._chance.getrandbits(64):016x}" if kind != "image" else None,
            "client": turn["client"],
            "since": self.now,
            "progress": 0 if kind != "image" else None,
            "end": round(self.now + seconds * wrong, 3),
        }
        worker.update(active_requests=1, load=1)
        self._running[worker["worker_id"]] = {**turn, "seconds": seconds}
        if kind != "image":
            worker["jobs"] = 1
            id = worker["current"]["id"]
            self.videos[id] = {
                "kind": kind,
                "id": id,
                "worker": worker["url"],
                "status": "in_progress",
                "progress": 0,
                "created": self.now,
                "end": worker["current"]["end"],
            }

    def _end(self, worker: Fields, job: Fields, told: list[Fields]) -> None:
        current = worker["current"]
        failed = self._chance.random() < 0.012
        code = self._chance.choice(CODES) if failed else "done"
        queue = max(0.0002, current["since"] - job["since"])
        self._ended.append((self.now, queue + job["seconds"], failed))
        number = self._new_id()
        seconds = 0.02 if job["kind"] != "image" else job["seconds"]
        transfer = self._chance.uniform(0.002, 0.3)
        served = code in ("done", "worker_reset")
        if not served:
            seconds = transfer = 0.0
        request = {
            "n": number,
            "id": f"{self._chance.getrandbits(48):012x}",
            "time": self.now,
            "method": "POST",
            "path": PATHS[job["kind"]],
            "kind": job["kind"],
            "status": {"done": 200, "worker_reset": 502, "queue_timeout": 503}.get(code, 0),
            "code": code,
            "error": ERRORS.get(code),
            "worker": worker["url"] if served else None,
            "client": job["client"],
            "epoch": "12",
            "queue": round(queue, 4) if served else None,
            "work": round(seconds, 4) if served else None,
            "transfer": round(transfer, 4) if served else None,
            "total": round(queue + seconds + transfer, 4),
            "bytes_in": self._chance.randint(120, 2_000_000),
            "bytes_out": self._chance.randint(400, 4_000_000),
        }
        told.append(request)
        self.history.append(request)
        self.videos.pop(current["id"], None)
        worker.update(current=None, active_requests=0, jobs=0, load=0)

    def _advance_videos(self) -> None:
        for worker in self.workers.values():
            current = worker["current"]
            if current is not None and current["id"] in self.videos:
                self.videos[current["id"]]["progress"] = current["progress"]

    def _queue(self) -> Fields:
        for number, turn in enumerate(self.waiting):
            turn["position"] = number + 1
        running = sum(1 for worker in self.workers.values() if worker["current"])
        return {
            "waiting_count": len(self.waiting),
            "running_count": running,
            "waiting": [dict(turn) for turn in self.waiting[:50]],
        }

    def _videos(self) -> Fields:
        return {"count": len(self.videos), "open": list(self.videos.values())[:100]}

    def _fleet(self) -> Fields:
        recent = [each for each in self._ended if each[0] > self.now - 300]
        self._ended = recent
        minute = [each for each in recent if each[0] > self.now - 60]
        times = sorted(each[1] for each in recent)
        running = sum(1 for worker in self.workers.values() if worker["current"])
        models = Counter(worker["model"] for worker in self.workers.values())
        return {
            "workers": len(self.workers),
            "usable": len(self._usable()),
            "busy": running,
            "waiting": len(self.waiting),
            "running": running,
            "in_flight": running + len(self.waiting),
            "epoch": 12,
            "epochs": {model: 12 for model in models if model},
            "algorithm": "least-work",
            "per_minute": len(minute),
            "failed_per_minute": sum(1 for each in minute if each[2]),
            "p50": _quantile(times, 0.5),
            "p95": _quantile(times, 0.95),
        }

    def _point(self) -> list[Any]:
        step = [each for each in self._ended if each[0] > self.now - 5]
        fleet = self._fleet()
        failed = sum(1 for each in step if each[2])
        done = len(step) - failed
        return [self.now, done, failed, fleet["p50"], fleet["p95"], fleet["waiting"], fleet["busy"]]

    def _add_sparks(self) -> None:
        for id, worker in self.workers.items():
            self.sparks[id].append(self._chance.randint(70, 100) if worker["current"] else 0)


def _learned(samples: int, speed: float) -> Fields:
    return {
        "samples": samples,
        "seconds_per_unit": 5.255e-07,
        "fixed_seconds": 0.0412,
        "relative_speed": speed,
        "error": 0.032 if samples > 1 else None,
    }


def _quantile(ordered: list[float], share: float) -> float | None:
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 4)
