"""
Who holds what, and whose jobs are open: true after any history of the fleet.
"""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import Any

import pytest
from attrs import define, evolve, field, frozen
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sgl_droute.fleet.holdings import Holdings
from sgl_droute.fleet.job import JOBS
from sgl_droute.fleet.jobs import OpenJobs
from sgl_droute.fleet.owners import Owners
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Probe, Worker

GOOD = Probe(healthy=True)
GONE = Probe(healthy=False, silent=True, gone=True, reason="connection refused")
A, B = "http://a:1", "http://b:1"
KINDS = ("image", *JOBS)


@define(eq=False)
class Stage:
    """
    A pool and what is known of its workers' holdings, at a time that is set by hand.
    """

    now: float = 1000.0
    pool: Pool = field(factory=Pool)
    holdings: Holdings = field(init=False)

    def __attrs_post_init__(self) -> None:
        owners = Owners(ttl=1e6)
        self.holdings = Holdings(self.pool, owners, OpenJobs(), lambda: self.now)

    def owner(self, kind: str, id: str) -> str | None:
        entry = self.holdings.owners.entry(kind, id)
        return None if entry is None else entry.worker

    def jobs(self) -> list[int]:
        return [worker.jobs for worker in self.pool]


def stage(*urls: str) -> Stage:
    made = Stage()
    for url in urls:
        made.pool.add(url)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_made(kind: str) -> None:
    """
    A creation teaches the owner; a video or mesh is an open job too, an image is not.
    """
    fleet = stage(A, B)
    fleet.holdings.made(kind, fleet.pool[B], {"id": "x", "status": "queued"})
    assert fleet.owner(kind, "x") == B
    assert fleet.jobs() == [0, int(kind in JOBS)]
    assert [fleet.owner(other, "x") for other in KINDS if other != kind] == [None, None]


@pytest.mark.parametrize("id", [None, "", 5, ["x"], {}, True])
def test_made_without_an_id(id: object) -> None:
    """
    An answer without a usable id teaches nothing.
    """
    fleet = stage(A)
    for kind in KINDS:
        fleet.holdings.made(kind, fleet.pool[A], {"id": id, "status": "queued"})
        fleet.holdings.row(kind, fleet.pool[A], {"id": id})
    assert (len(fleet.holdings.owners), len(fleet.holdings.jobs)) == (0, 0)


def test_made_and_done_at_once() -> None:
    """
    A job that is finished in the answer to its creation is none.
    """
    fleet = stage(A)
    fleet.holdings.made("video", fleet.pool[A], {"id": "x", "status": "completed"})
    assert (fleet.owner("video", "x"), fleet.jobs()) == (A, [0])


def test_answers_of_a_former_registration() -> None:
    """
    What a worker says after it was removed teaches nothing, also when its URL is registered again.
    """
    fleet = stage(A)
    former = fleet.pool[A]
    fleet.pool.remove(A)
    fleet.pool.add(A)
    fleet.holdings.made("video", former, {"id": "x", "status": "queued"})
    fleet.holdings.seen("video", "y", former, {"status": "queued"})
    fleet.holdings.row("video", former, {"id": "z", "status": "queued"})
    assert (len(fleet.holdings.owners), fleet.jobs()) == (0, [0])


def test_somewhere_else() -> None:
    """
    When another worker tells of an id, it is that one's, the job too.
    """
    fleet = stage(A, B)
    fleet.holdings.made("video", fleet.pool[A], {"id": "x", "status": "queued"})
    fleet.holdings.seen("video", "x", fleet.pool[B], {"status": "queued"})
    assert (fleet.owner("video", "x"), fleet.jobs()) == (B, [0, 1])


def test_deleted_and_lost() -> None:
    """
    Nobody holds what was deleted or lost; the work of a deleted job goes on, that of a lost one
    does not.
    """
    fleet = stage(A)
    for id in ("deleted", "lost"):
        fleet.holdings.made("video", fleet.pool[A], {"id": id, "status": "queued"})
    fleet.holdings.lost("video", "lost")
    assert fleet.jobs() == [1]
    fleet.holdings.deleted("video", "deleted")
    assert fleet.jobs() == [1]
    assert len(fleet.holdings.owners) == 0
    fleet.holdings.lost("video", "deleted")
    assert fleet.jobs() == [1]


def test_a_worker_leaves() -> None:
    """
    The jobs of a worker that is removed are nobody's load; who holds an id stays known for when it
    comes back.
    """
    fleet = stage(A)
    fleet.holdings.made("video", fleet.pool[A], {"id": "x", "status": "queued"})
    fleet.pool.remove(A)
    assert len(fleet.holdings.jobs) == 0
    fleet.pool.add(A)
    assert (fleet.owner("video", "x"), fleet.jobs()) == (A, [0])


def test_the_last_job_of_one_that_leaves() -> None:
    """
    A worker that was to leave is gone with its last job.
    """
    fleet = stage(A)
    fleet.holdings.made("video", fleet.pool[A], {"id": "x", "status": "queued"})
    fleet.pool.change(fleet.pool[A], lambda now: evolve(now, draining=True, leaving=True))
    assert A in fleet.pool
    fleet.holdings.seen("video", "x", fleet.pool[A], {"status": "completed"})
    assert A not in fleet.pool
    assert fleet.owner("video", "x") == A
    holder = fleet.pool.holder(A)
    assert holder is not None
    assert holder.url == A


def test_who_may_know() -> None:
    """
    That nobody knows an id is believed until somebody new registers; other changes say nothing.
    """
    fleet = stage(A)
    owners = fleet.holdings.owners
    owners.unknown("video", "x", fleet.now)
    fleet.pool.add(A)
    fleet.pool.record_probe(fleet.pool[A], GOOD, threshold=3)
    assert owners.is_unknown("video", "x", fleet.now)
    fleet.pool.add(B)
    assert not owners.is_unknown("video", "x", fleet.now)


def test_epochs() -> None:
    """
    A thing keeps the epoch of its creation, whatever is heard of it later at its worker; elsewhere,
    and of what nobody holds, no epoch is known.
    """
    fleet = stage(A, B)
    for kind in KINDS:
        fleet.holdings.made(kind, fleet.pool[A], {"id": "x", "status": "queued"}, "7-8")
        fleet.holdings.seen(kind, "x", fleet.pool[A], {"status": "queued"})
        fleet.holdings.row(kind, fleet.pool[A], {"id": "x", "status": "completed"})
    assert [fleet.holdings.epoch(kind, "x") for kind in KINDS] == ["7-8"] * len(KINDS)
    fleet.holdings.seen("video", "x", fleet.pool[B], {"status": "queued"})
    fleet.holdings.deleted("mesh", "x")
    assert fleet.holdings.epoch("video", "x") == fleet.holdings.epoch("mesh", "x") == ""
    fleet.holdings.seen("video", "y", fleet.pool[B], {"status": "queued"})
    fleet.holdings.seen("video", "y", fleet.pool[B], {"status": "queued"}, "7")
    assert fleet.holdings.epoch("video", "y") == "7"


@frozen
class Thing:
    """Something that a worker made."""

    kind: str
    id: str
    url: str


@define(eq=False)
class Process:
    """
    What is really at a URL: the status of each thing that it remembers, and the jobs before it.
    """

    status: dict[Thing, str] = field(factory=dict)
    line: list[Thing] = field(factory=list)

    def make(self, thing: Thing) -> dict[str, Any]:
        if thing.kind in JOBS:
            self.line.append(thing)
        self.status[thing] = "queued"
        return {"id": thing.id, "status": "queued"}

    def work(self, how: str) -> None:
        """The job at the front runs, or ends."""
        if self.line:
            thing = self.line[0]
            if how != "in_progress":
                del self.line[0]
            if thing in self.status:
                self.status[thing] = how

    def tells(self, thing: Thing) -> dict[str, Any] | None:
        return {"id": thing.id, "status": self.status[thing]} if thing in self.status else None


URLS = st.sampled_from([f"http://w{number}:1" for number in range(4)])
PICK = st.integers(0, 1000)
FACETS = st.sampled_from(["draining", "disabled", "asleep", "stale", "dead"])


class AnyHistory(RuleBasedStateMachine):
    """
    Workers come, go, drain and restart, clients create, poll and delete, in any order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Stage()
        self.processes: dict[str, Process] = {}
        self.things: list[Thing] = []
        self.open: list[Worker] = []
        self.names = count()

    @property
    def pool(self) -> Pool:
        return self.fleet.pool

    @property
    def holdings(self) -> Holdings:
        return self.fleet.holdings

    # Workers.

    @rule(url=URLS)
    def register(self, url: str) -> None:
        self.processes.setdefault(url, Process())
        self.pool.add(url)

    @rule(url=URLS)
    def remove(self, url: str) -> None:
        if url in self.pool:
            self.pool.remove(url)

    @rule(url=URLS)
    def drain_and_leave(self, url: str) -> None:
        if url in self.pool:
            now = self.pool[url]
            self.pool.change(now, lambda now: evolve(now, draining=True, leaving=True))
            assert (url in self.pool) == bool(now.in_flight or now.jobs)

    @rule(url=URLS, facet=FACETS, value=st.booleans())
    def set_facet(self, url: str, facet: str, value: bool) -> None:
        facets: dict[str, Any] = {facet: value}
        if url in self.pool:
            self.pool.change(self.pool[url], lambda now: evolve(now, **facets))

    @rule(url=URLS, probe=st.sampled_from([GOOD, GONE]))
    def check(self, url: str, probe: Probe) -> None:
        if url in self.pool:
            self.pool.record_probe(self.pool[url], probe, threshold=3)

    @rule(url=URLS)
    def restart(self, url: str) -> None:
        if url in self.processes:
            self.processes[url] = Process()

    @rule(url=URLS, how=st.sampled_from(["in_progress", "completed", "failed"]))
    def work(self, url: str, how: str) -> None:
        if url in self.processes:
            self.processes[url].work(how)

    # Clients.

    @rule(pick=PICK)
    def send(self, pick: int) -> None:
        able = [worker for worker in self.pool if worker.eligible]
        if able:
            worker = able[pick % len(able)]
            self.pool.count(worker, 1)
            self.open.append(worker)

    @precondition(lambda self: self.open)
    @rule(pick=PICK, kind=st.sampled_from(KINDS))
    def answer(self, pick: int, kind: str) -> None:
        worker = self.open.pop(pick % len(self.open))
        thing = Thing(kind, f"id{next(self.names)}", worker.url)
        self.things.append(thing)
        fields = self.processes[worker.url].make(thing)
        self.holdings.made(kind, worker, fields)
        self.pool.count(worker, -1)

    @precondition(lambda self: self.open)
    @rule(pick=PICK)
    def break_off(self, pick: int) -> None:
        self.pool.count(self.open.pop(pick % len(self.open)), -1)

    @precondition(lambda self: self.things)
    @rule(pick=PICK, delete=st.booleans())
    def read_or_delete(self, pick: int, delete: bool) -> None:
        thing = self.things[pick % len(self.things)]
        url = self.holdings.owners.owner(thing.kind, thing.id, self.fleet.now)
        holder = None if url is None else self.pool.holder(url)
        if holder is None:
            self.search(thing)
            return
        assert holder.url == thing.url
        with self.pool.visit(holder):
            self.tell(holder, thing, delete=delete)

    def tell(self, worker: Worker, thing: Thing, *, delete: bool = False) -> None:
        process = self.processes[worker.url]
        fields = process.tells(thing)
        if fields is None:
            self.holdings.lost(thing.kind, thing.id)
        elif delete and thing.kind in JOBS:
            del process.status[thing]
            self.holdings.deleted(thing.kind, thing.id)
        else:
            self.holdings.seen(thing.kind, thing.id, worker, fields)

    def search(self, thing: Thing) -> None:
        for worker in self.pool:
            fields = self.processes[worker.url].tells(thing)
            if fields is not None:
                self.holdings.seen(thing.kind, thing.id, worker, fields)
                return
        self.holdings.owners.unknown(thing.kind, thing.id, self.fleet.now)

    @rule(url=URLS)
    def list(self, url: str) -> None:
        if url in self.pool:
            process = self.processes[url]
            for thing in process.status:
                if thing.kind in JOBS:
                    self.holdings.row(thing.kind, self.pool[url], process.tells(thing) or {})

    # Time.

    @rule(seconds=st.sampled_from([0.0, 5.0, 60.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.fleet.now += seconds
        self.follow()

    def follow(self) -> None:
        """As the router's own polling does."""
        self.holdings.jobs.tick(self.fleet.now)
        for worker in self.pool:
            for job in self.holdings.jobs.front(worker.url, worker.serial):
                self.tell(worker, Thing(job.kind, job.id, worker.url))

    # What holds at any time.

    @invariant()
    def owners_are_makers(self) -> None:
        for thing in self.things:
            assert self.fleet.owner(thing.kind, thing.id) in (None, thing.url)
            for kind in KINDS:
                assert kind == thing.kind or self.fleet.owner(kind, thing.id) is None

    @invariant()
    def counts_are_true(self) -> None:
        jobs = self.holdings.jobs
        assert all(worker.jobs == jobs.count(worker.url, worker.serial) for worker in self.pool)
        assert sum(worker.jobs for worker in self.pool) == len(jobs)
        sent = Counter(worker.serial for worker in self.open)
        assert all(worker.in_flight == sent[worker.serial] for worker in self.pool)

    @invariant()
    def jobs_are_their_workers(self) -> None:
        made = {(thing.kind, thing.id): thing.url for thing in self.things}
        for worker in self.pool:
            for job in self.holdings.jobs.front(worker.url, worker.serial, 1000):
                assert made[job.kind, job.id] == worker.url

    @invariant()
    def nobody_idle_is_leaving(self) -> None:
        assert not any(worker.leaving and worker.idle for worker in self.pool)

    def teardown(self) -> None:
        """
        At rest nothing is left.
        """
        while self.open:
            self.pool.count(self.open.pop(), -1)
        for process in self.processes.values():
            while process.line:
                process.work("completed")
        for _ in range(len(self.things) + 1):
            self.fleet.now += 10_000.0
            self.follow()
        self.counts_are_true()
        assert all(worker.idle for worker in self.pool)
        assert len(self.holdings.jobs) == 0


TestAnyHistory = AnyHistory.TestCase
