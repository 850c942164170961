"""
What of the fleet's changes is told.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.fleet.capabilities import Capabilities
from sgl_droute.fleet.happenings import Happening, Happenings
from sgl_droute.fleet.jobs import OpenJobs
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.refit import Refit, Verdict
from sgl_droute.fleet.refits import Refits
from sgl_droute.fleet.reporter import KINDS, Alarm, Reporter
from sgl_droute.fleet.weights import Update
from sgl_droute.fleet.worker import Probe

A, B = "http://a:1", "http://b:1"
BAD = Probe(healthy=False, reason="/health answered 503")


class Fleet:
    """
    A fleet that is watched, and what was told of it.
    """

    def __init__(self, threshold: int = 0) -> None:
        self.now = 100.0
        self.waiting = 0
        self.told: list[Happening] = []
        self.pool = Pool()
        self.refits = Refits(self.pool)
        self.jobs = OpenJobs()
        happenings = Happenings("run", lambda: self.now)
        happenings.watch(self.told.append)
        self.reporter = Reporter(
            happenings, self.pool, self.refits, self.jobs, lambda: self.waiting, Alarm(threshold)
        )

    @property
    def kinds(self) -> list[str]:
        return [each.kind for each in self.told]

    def news(self) -> list[dict[str, Any]]:
        """
        What was told since this was asked last, without the time.
        """
        told = [json.loads(each.text) for each in self.told]
        self.told.clear()
        assert {each["type"] for each in told} <= set(KINDS)
        return [{name: each[name] for name in each if name != "time"} for each in told]

    def join(self, url: str) -> None:
        worker = self.pool.add(url)
        self.pool.change(worker, lambda now: evolve(now, capabilities=Capabilities(model="m")))
        self.pool.record_probe(worker, Probe(healthy=True), threshold=2)

    def update(self, **verdicts: Verdict) -> Refit:
        """
        An update that is under way, and was answered so far as the *verdicts* tell.
        """
        change = Update(self.pool.epochs.next_number(), "/update", b"{}", None)
        workers = list(self.pool)
        refit = self.refits.begin(change, "/update", b"{}", "broadcast", workers, self.now)
        for name, verdict in verdicts.items():
            worker = self.pool[f"http://{name}:1"]
            self.refits.calling(refit, worker)
            self.refits.ended_at(refit, self.pool[worker.url], verdict)
        return refit


def test_a_workers_life() -> None:
    """
    A worker is told of when it joins, when its state changes, with the reason of bad ones, and when
    it leaves; health checks that change nothing are not.
    """
    fleet = Fleet()
    fleet.join(A)
    for _ in range(2):
        fleet.pool.record_probe(fleet.pool[A], Probe(healthy=True), threshold=2)
    for _ in range(2):
        fleet.pool.record_probe(fleet.pool[A], BAD, threshold=2)
    fleet.pool.remove(A)
    state = {"type": "worker.state", "worker": A}
    assert fleet.news() == [
        {"type": "worker.added", "worker": A, "state": "joining"},
        {**state, "from": "joining", "to": "ready", "reason": None},
        {**state, "from": "ready", "to": "suspect", "reason": BAD.reason},
        {**state, "from": "suspect", "to": "dead", "reason": BAD.reason},
        {"type": "worker.removed", "worker": A, "state": "dead"},
    ]


def test_an_operators_wish() -> None:
    """
    What an operator does is told without the reason of an old failure, and a reason is cut.
    """
    fleet = Fleet()
    fleet.join(A)
    fleet.news()
    fleet.pool.change(fleet.pool[A], lambda now: evolve(now, last_error="x" * 1000, draining=True))
    fleet.pool.change(fleet.pool[A], lambda now: evolve(now, dead=True))
    draining, dead = fleet.news()
    assert (draining["to"], draining["reason"]) == ("draining", None)
    assert (dead["to"], dead["reason"]) == ("dead", "x" * 300)


def test_an_update() -> None:
    """
    An update is told of when it begins and when it ends, with the epoch then and who is stale.
    """
    fleet = Fleet()
    fleet.join(A)
    fleet.join(B)
    fleet.news()
    refit = fleet.update(a=Verdict.TOOK, b=Verdict.FAILED)
    fleet.refits.end(refit, 1.5)
    begun, *_, ended = fleet.news()
    assert begun == {
        "type": "weights.update",
        "state": "begun",
        "path": "/update",
        "mode": "broadcast",
        "models": ["m"],
    }
    assert ended == {
        "type": "weights.update",
        "state": "ended",
        "path": "/update",
        "mode": "broadcast",
        "models": ["m"],
        "seconds": 1.5,
        "epoch": 1,
        "results": {"took": 1, "failed": 1},
        "consistent": False,
        "stale": 1,
        "stale_workers": [B],
    }


def test_a_good_update() -> None:
    """
    An update that all took leaves the fleet consistent, and is told of once.
    """
    fleet = Fleet()
    fleet.join(A)
    fleet.news()
    refit = fleet.update(a=Verdict.TOOK)
    fleet.refits.end(refit, 1.0)
    updates = [each for each in fleet.news() if each["type"] == "weights.update"]
    assert [each["state"] for each in updates] == ["begun", "ended"]
    assert (updates[1]["consistent"], updates[1]["stale_workers"]) == (True, [])


def test_jobs() -> None:
    """
    The end of each job is told once: how, where, and after how long. Of a job that its client
    deleted nothing is told.
    """
    fleet = Fleet()
    for name in ("done", "failed", "lost", "gone", "deleted"):
        fleet.jobs.created("video", name, A, 1, 100.0)
    fleet.now = 107.5
    fleet.jobs.deleted("video", "deleted", 107.5)
    done = {"status": "completed", "inference_time_s": 6.25}
    for _ in range(2):
        fleet.jobs.seen("video", "done", A, 1, done, 107.5)
        fleet.jobs.seen("video", "failed", A, 1, {"status": "failed"}, 107.5)
        fleet.jobs.lost("video", "lost")
        fleet.jobs.worker_lost(A, 1)
    common = {"kind": "video", "worker": A, "seconds": 7.5}
    assert fleet.news() == [
        {"type": "job.completed", "id": "done", **common, "worker_seconds": 6.25},
        {"type": "job.failed", "id": "failed", **common, "worker_seconds": None},
        {"type": "job.lost", "id": "lost", **common, "worker_seconds": None},
        {"type": "job.lost", "id": "gone", **common, "worker_seconds": None},
    ]


def test_a_long_line() -> None:
    """
    A line that reaches the threshold is told of, and again when it has shrunk well below that; not
    when it goes up and down around it.
    """
    fleet = Fleet(threshold=10)
    for waiting in (9, 10, 9, 10, 11, 9, 8, 9, 10):
        fleet.waiting = waiting
        fleet.reporter.look()
    assert fleet.news() == [
        {"type": "queue.above", "waiting": 10, "threshold": 10},
        {"type": "queue.below", "waiting": 8, "threshold": 8},
        {"type": "queue.above", "waiting": 10, "threshold": 10},
    ]


@given(st.integers(0, 20), st.lists(st.integers(0, 30)))
def test_alarms_alternate(threshold: int, line: list[int]) -> None:
    """
    Above and below take turns; above is told at the threshold and never without one, below only
    when fewer wait than that.
    """
    fleet = Fleet(threshold)
    for waiting in line:
        fleet.waiting = waiting
        fleet.reporter.look()
    news = fleet.news()
    assert [each["type"] for each in news] == [
        ("queue.above", "queue.below")[number % 2] for number in range(len(news))
    ]
    assert all((each["waiting"] >= threshold) == (each["type"] == "queue.above") for each in news)
    assert bool(news) == (bool(threshold) and any(waiting >= threshold for waiting in line))
