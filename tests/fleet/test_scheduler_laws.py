"""
What holds for the scheduler whatever happens, in whatever order.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from itertools import count
from random import Random
from typing import Any

import pytest
from attrs import define, evolve, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sgl_droute.errors import (
    BadRequest,
    Cancelled,
    DeadlinePassed,
    NotFound,
    NotWaiting,
    NoWorker,
    PreconditionFailed,
    Refused,
    RouterError,
    TooLate,
)
from sgl_droute.fleet.capabilities import (
    ANYTHING,
    EDIT,
    IMAGE,
    MESH,
    READING,
    REALTIME,
    VIDEO,
    RequiredEpoch,
    Want,
)
from sgl_droute.fleet.decisions import Bound, Decision, Event
from sgl_droute.fleet.epochs import Epochs
from sgl_droute.fleet.job import Job, Known
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.rules import Rules
from sgl_droute.fleet.scheduler import Scheduler
from sgl_droute.fleet.selection import ALGORITHMS, LeastWork
from sgl_droute.fleet.speeds import Rate, Speeds
from sgl_droute.fleet.station import Running, Station
from sgl_droute.fleet.weights import DISK, Actual, Update
from sgl_droute.fleet.worker import Probe, Worker
from tests.fleet.scheduling import able, name_of, url_of

GOOD = Probe(healthy=True)
BAD = Probe(healthy=False, reason="/health answered 503")

NAMES = st.sampled_from("abcd")
PICK = st.integers(0, 1000)
WORKS = st.sampled_from([None, 0.3, 1.0, 2.0, 5.0, 20.0, 100.0])
WAITS = st.sampled_from([0.0, 0.5, 1.0, 3.0, 10.0, 40.0, 200.0])
CONCURRENCIES = st.sampled_from([0, 1, 2, "auto"])
TASKS = st.sampled_from([("T2I",), ("T2I", "TI2I"), ("T2V",), ("T2V", "T2I"), ("I2M",)])
MODELS = st.sampled_from(["org/a", "org/b"])
FACETS = st.sampled_from(["draining", "disabled", "asleep", "unreached"])
WANTS = st.sampled_from(
    [
        ANYTHING,
        IMAGE,
        IMAGE,
        IMAGE,
        EDIT,
        VIDEO,
        MESH,
        READING,
        REALTIME,
        evolve(IMAGE, model="org/a"),
        evolve(IMAGE, model="org/c"),
        evolve(IMAGE, epoch=RequiredEpoch(1)),
        evolve(IMAGE, epoch=RequiredEpoch(2, exact=True)),
        evolve(EDIT, epoch=RequiredEpoch(2)),
        evolve(VIDEO, epoch=RequiredEpoch(1, exact=True)),
        evolve(ANYTHING, epoch=RequiredEpoch(0, exact=True)),
    ]
)
CLIENTS = st.fixed_dictionaries(
    {
        "priority": st.sampled_from([0, 0, 0, 1, 3, -1]),
        "client": st.sampled_from(["x", "y", "z"]),
        "batch": st.sampled_from([None, None, None, "one", "two"]),
        "group": st.sampled_from([None, None, None, "g", "h"]),
        "why": st.booleans(),
    }
)
LIMITS = st.fixed_dictionaries(
    {
        name: st.one_of(st.none(), st.none(), st.sampled_from(seconds))
        for name, seconds in {
            "deadline": (1.0, 10.0, 100.0),
            "expires": (1.0, 10.0, 100.0),
            "hand_over": (0.0, 2.0, 20.0),
        }.items()
    }
)
# Measurements of a worker before all, and seconds for a unit of work.
LEARNED = st.dictionaries(
    NAMES, st.tuples(st.sampled_from([1, 5, 9]), st.sampled_from([0.1, 1.0, 4.0]))
)
RULES = st.builds(
    Rules,
    algorithm=st.sampled_from(sorted(ALGORITHMS)),
    random=st.builds(Random, st.just(5)),
    strict_model=st.booleans(),
    concurrency=CONCURRENCIES,
    bind_ahead=st.sampled_from([1.0, 1.0, 0.0, 5.0]),
    max_running=st.sampled_from([1, 3, 1000, 1000]),
    queue_size=st.sampled_from([0, 2, 1000, 1000]),
    fair=st.booleans(),
)

# By what part of a job's time a choice may be off: workers of about the same speed are compared by
# their backlogs alone, and small changes of what is learned are followed later.
OFF = 0.15


@define(eq=False)
class Entry:
    """
    A job as its client and its worker know it.

    Attributes:
        state: "waiting", "open" while its request is, "left" when its client has gone from an open
            one, "ended".
        worker: Whose it is while it is open.
        thing: What it makes.
        answered: Whether the GPU is done with it.
    """

    job: Job
    state: str = "waiting"
    worker: Worker | None = None
    thing: tuple[str, str] | None = None
    answered: bool = False


@define(eq=False)
class Process:
    """
    What runs at a URL: jobs by id, first in, first out, on some replicas.
    """

    replicas: int = 1
    line: list[str] = field(factory=list)


def of_one(job: Job) -> tuple[object, ...]:
    """Equal for jobs that nobody but their client orders."""
    return job.client, job.priority, job.want, job.without


class AnyTraffic(RuleBasedStateMachine):
    """
    Clients come, wait, leave and cancel; workers work, come, go and change; time passes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.entries: dict[str, Entry] = {}
        self.processes: dict[str, Process] = {}
        self.names = count(1)
        self.told: Counter[tuple[str, str]] = Counter()
        self.last_full = 0.0
        self.last_nobody: dict[str, float] = {}

    @initialize(
        rules=RULES, names=st.sets(NAMES, min_size=1), learned=LEARNED, tolerant=st.booleans()
    )
    def begin(
        self,
        rules: Rules,
        names: set[str],
        learned: dict[str, tuple[int, float]],
        tolerant: bool,
    ) -> None:
        self.pool = Pool(Epochs(tolerant=tolerant))
        self.options = rules
        self.speeds = Speeds(Rate(0.5))
        for name in sorted(names):
            self.add(name)
            times, pace = learned.get(name, (0, 1.0))
            for work in range(1, times + 1):
                self.speeds.learn(self.pool[url_of(name)], "image", Known(work), work * pace)
        self.scheduler = Scheduler(self.pool, self.speeds, rules)
        self.scheduler.watch(self.heard)

    # What was decided.

    def follow(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            entry = self.entries[decision.job.id]
            assert entry.job is decision.job
            if isinstance(decision, Bound):
                assert entry.state == "open", "told when it was bound"
                assert entry.worker is decision.worker
                assert decision.job.why == bool(decision.candidates)
            else:
                assert entry.state == "dropped"
                entry.state = "ended"
                self.check_dropped(decision.job, decision.error)

    def heard(self, event: Event) -> None:
        entry = self.entries.get(event.job.id)
        if entry is None:
            assert event.name in ("ended",), "nobody knows that job"
            return
        self.told[event.job.id, event.name] += 1
        assert event.time == self.now
        self.note_full()
        if event.name == "bound":
            assert entry.state == "waiting"
            running = self.scheduler.floor.running[event.job.id]
            entry.state, entry.worker = "open", running.station.worker
            self.processes[running.station.worker.url].line.append(event.job.id)
            self.check_bound(running, event)
        elif event.name in ("dropped", "cancelled") and entry.state == "waiting":
            entry.state = "dropped"
        elif event.name == "refused":
            assert entry.state == "waiting"
            entry.state = "ended"

    def check_bound(self, running: Running, event: Event) -> None:
        job, station = running.job, running.station
        worker = self.pool[station.worker.url]
        before = evolve(worker, sessions=worker.sessions - job.want.session)
        assert before.may_take(job.want)
        assert not before.updating
        assert not before.stale or self.pool.epochs.tolerant
        assert job.want.epoch is None or job.want.epoch.met_by(before.epoch)
        assert worker.url not in job.without
        assert self.open_requests() <= self.options.max_running
        assert event.start is not None
        assert event.end is not None
        assert self.now <= event.start <= event.end
        handed_over = job.hand_over is not None and job.hand_over <= self.now + 1.0
        if job.want.slot and not handed_over:
            self.check_slot(running)
        if job.batch is None and job.group is None and not handed_over:
            self.check_order(running, event.start)

    def check_slot(self, running: Running) -> None:
        """It had a free slot, or one that will be free at once."""
        station, lane = running.station, running.lane
        assert lane is not None
        told = station.worker.concurrency
        rule = self.options.concurrency if told is None else told
        limit = station.worker.capabilities.replicas if rule == "auto" else rule
        if not limit or station.taken <= limit:
            return
        assert rule == "auto"
        first = lane.first
        assert first is not None
        assert first is not running
        assert first.sure
        assert len(lane) == 2
        assert lane.first_end - self.options.bind_ahead <= self.now + 1e-9

    def check_order(self, running: Running, start: float) -> None:
        """Whoever came earlier and wants the same would rather wait for a faster worker."""
        job = running.job
        for entry in self.entries.values():
            other = entry.job
            same = (other.want, other.without, other.priority) == (
                job.want,
                job.without,
                job.priority,
            )
            if entry.state != "waiting" or not same or other.id not in self.scheduler.line:
                continue
            if other.batch is not None or (self.options.fair and other.client != job.client):
                continue
            if (other.submitted, other.number) < (job.submitted, job.number):
                assert self.options.algorithm == "least-work", (other.id, job.id)
                end = start + self.seconds(other, running.station)
                better = [
                    self.end(other, station)
                    for station in self.best(other)
                    if not station.room and station is not running.station
                ]
                assert better
                assert min(better) <= end * (1 + 1e-9) + OFF * self.slowest(other)

    def check_dropped(self, job: Job, error: RouterError) -> None:
        if isinstance(error, DeadlinePassed):
            assert job.deadline is not None
            assert job.deadline <= self.now
        elif isinstance(error, Cancelled):
            assert error.reason == "cancelled"
        elif isinstance(error, PreconditionFailed):
            assert not self.best(job)
            limits = [each for each in (job.deadline, job.expires) if each is not None]
            in_time = min(limits, default=self.now + 1) > self.now
            assert self.never(job.want) or not (in_time or self.has_epoch(job.want))
        elif isinstance(error, Refused):
            assert error.reason == "queue_timeout"
            assert job.expires is not None
            assert job.expires <= self.now
        else:
            assert isinstance(error, (NoWorker, BadRequest))
            assert not self.best(job)
        if isinstance(error, Refused) and "Retry-After" in error.headers:
            assert int(error.headers["Retry-After"]) >= 1

    def check_refused(self, job: Job, error: RouterError, waiting: int) -> None:
        best = self.best(job)
        if isinstance(error, PreconditionFailed):
            assert not best
            assert self.never(job.want)
            return
        if isinstance(error, Refused):
            assert int(error.headers["Retry-After"]) >= 1
        if isinstance(error, TooLate):
            assert job.deadline is not None
            assert any(self.speeds.learned(each.worker, job.kind) for each in best)
        elif isinstance(error, Refused):
            assert error.reason == "queue_full"
            assert waiting >= self.options.queue_size
            room = any(station.room or not job.want.slot for station in best)
            shared = self.held_for_others(job, best)
            least_work = self.options.algorithm == "least-work"
            assert not room or self.scheduler.full or shared or least_work
        elif isinstance(error, NotFound):
            assert self.options.strict_model
            assert not any(job.want.serves_model(worker.capabilities) for worker in self.pool)
        else:
            assert isinstance(error, (NoWorker, BadRequest))
            assert not best
            assert not any(worker.updating for worker in self.catching_up(job))

    # What can be reckoned without the scheduler's indexes.

    def best(self, job: Job) -> list[Station]:
        """
        The workers among which the choice is.
        """
        tiers: dict[int, list[Station]] = {}
        for url, station in self.scheduler.floor.stations.items():
            worker = self.pool[url]
            if url in job.without or not worker.may_take(job.want):
                continue
            facets = (
                station.held_back,
                worker.doubtful,
                worker.in_session,
                job.want.unable(worker.capabilities),
            )
            rank = max((rank for rank, facet in enumerate(facets, 1) if facet), default=0)
            tiers.setdefault(rank, []).append(station)
        if min(tiers, default=0) == 4 and self.comes(job):
            return []
        return tiers[min(tiers)] if tiers else []

    def comes(self, job: Job) -> bool:
        """Whether somebody able only has not got the right weights yet."""
        required = job.want.epoch
        return any(
            worker.in_rotation
            and worker.url not in job.without
            and job.want.allows(worker.capabilities)
            and not job.want.unable(worker.capabilities)
            and (
                worker.updating
                or (worker.eligible and required is not None and not required.met_by(worker.epoch))
            )
            for worker in self.pool
        )

    def catching_up(self, job: Job) -> list[Worker]:
        return [
            worker
            for worker in self.pool
            if worker.catching_up
            and worker.url not in job.without
            and job.want.allows(worker.capabilities)
        ]

    def held_for_others(self, job: Job, best: list[Station]) -> bool:
        """Whether all who could take it have work, and others are back soon to share that."""
        if self.options.concurrency or not job.want.slot:
            return False
        plain = evolve(job.want, epoch=None)
        busy = all(
            not station.room or (not station.limit and station.taken >= len(station.lanes))
            for station in best
        )
        return busy and self.comes(Job(id="x", want=plain, without=job.without))

    def serving(self, want: Want) -> list[Worker]:
        allowed = [each for each in self.pool if want.allows(each.capabilities)]
        return [each for each in allowed if not want.unable(each.capabilities)] or allowed

    def has_epoch(self, want: Want) -> bool:
        assert want.epoch is not None
        return any(
            worker.in_rotation and want.epoch.met_by(worker.epoch) for worker in self.serving(want)
        )

    def never(self, want: Want) -> bool:
        """Whether nobody will have the epoch any more."""
        if want.epoch is None or not want.epoch.exact:
            return False
        desired = self.pool.epochs.desired
        return all(
            desired(worker.capabilities.model).epoch > want.epoch.number
            and (worker.epoch != want.epoch.number or (worker.stale and not worker.tolerated))
            for worker in self.serving(want)
        )

    def seconds(self, job: Job, station: Station) -> float:
        if not job.want.slot:
            return 0.0
        return self.speeds.seconds(station.worker, job.kind, job.demand)

    def end(self, job: Job, station: Station) -> float:
        return max(station.free, self.now) + self.seconds(job, station)

    def slowest(self, job: Job) -> float:
        return max(self.seconds(job, station) for station in self.best(job))

    def open_requests(self) -> int:
        return sum(entry.state == "open" for entry in self.entries.values())

    def those(self, *states: str) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.state in states]

    # Operators.

    @rule(rules=RULES)
    def adopt(self, rules: Rules) -> None:
        """
        Nobody who waits is let go by that, a client's jobs that want the same keep their order, but
        for batches that clients share, and so do all where turns are none of what changes.
        """
        self.tick_until(self.now)
        before = list(self.scheduler.line.in_order())
        fair, self.options = self.options.fair, rules
        decisions = self.scheduler.adopt(rules, self.now)
        assert all(isinstance(each, Bound) for each in decisions)
        self.follow(decisions)
        after = list(self.scheduler.line.in_order())
        left = [job for job in before if job in after]
        assert len(after) == len(left)
        if fair == rules.fair:
            assert after == left
        else:
            whose = {(job.batch, job.client) for job in before if job.batch is not None}
            shared = {
                batch for batch, count in Counter(each for each, _ in whose).items() if count > 1
            }
            for same in {of_one(job) for job in before}:
                own = [
                    [job for job in jobs if of_one(job) == same and job.batch not in shared]
                    for jobs in (left, after)
                ]
                assert own[0] == own[1]

    # Workers.

    def add(self, name: str) -> None:
        self.pool.add(url_of(name))
        self.processes.setdefault(url_of(name), Process())

    @rule(name=NAMES)
    def join(self, name: str) -> None:
        self.add(name)

    @rule(name=NAMES)
    def leave(self, name: str) -> None:
        url = url_of(name)
        if url in self.pool:
            self.pool.remove(url)
            self.forget_things(url)

    @rule(name=NAMES, facet=FACETS, holds=st.booleans())
    def set_facet(self, name: str, facet: str, holds: bool) -> None:
        facets: dict[str, Any] = {facet: holds}
        self.change(name, **facets)

    @rule(name=NAMES, healthy=st.booleans())
    def probe(self, name: str, healthy: bool) -> None:
        if url_of(name) in self.pool:
            worker = self.pool[url_of(name)]
            self.pool.record_probe(worker, GOOD if healthy else BAD, threshold=2)

    @rule(name=NAMES)
    def restart(self, name: str) -> None:
        url = url_of(name)
        if url not in self.pool:
            return
        self.pool.record_lapse(self.pool[url])
        line, self.processes[url].line = self.processes[url].line, []
        for id in line:
            if self.entries[id].state == "open":
                self.end_request(self.entries[id], took=None, well=False)
        if url in self.pool:
            self.pool.record_probe(self.pool[url], GOOD, threshold=2)
        self.forget_things(url)

    @rule(name=NAMES, concurrency=st.one_of(st.none(), CONCURRENCIES))
    def set_concurrency(self, name: str, concurrency: Any) -> None:
        self.change(name, concurrency=concurrency)

    @rule(name=NAMES, speed=st.sampled_from([None, 0.2, 1.0, 3.0]))
    def set_speed(self, name: str, speed: float | None) -> None:
        self.change(name, speed=speed)

    @rule(name=NAMES, tasks=TASKS, model=MODELS, replicas=st.sampled_from([1, 1, 2, 3]))
    def say(self, name: str, tasks: tuple[str, ...], model: str, replicas: int) -> None:
        if url_of(name) in self.pool:
            able(self.pool, name, *tasks, model=model, replicas=replicas)
            self.processes[url_of(name)].replicas = replicas

    @rule(name=NAMES)
    def update_begins(self, name: str) -> None:
        if url_of(name) in self.pool:
            self.pool.epochs.updating.add(self.pool[url_of(name)].serial)
            self.pool.judge()

    @rule(name=NAMES, took=st.booleans(), others=st.sampled_from(["wait", "stale"]))
    def update_ends(self, name: str, took: bool, others: str) -> None:
        """
        A worker answers an update; the others of its model have their turn later, or missed it.
        """
        epochs = self.pool.epochs
        if url_of(name) not in self.pool:
            return
        worker = self.pool[url_of(name)]
        epochs.updating.discard(worker.serial)
        if took:
            model = worker.capabilities.model
            before, update = epochs.desired(model), Update(epochs.next_number(), DISK)
            now = before.updated(update)
            for other in self.pool:
                if others == "wait" and other.capabilities.model == model:
                    epochs.pending.setdefault(other.serial, before)
            epochs.pending.pop(worker.serial, None)
            epochs.set(model, now)
            self.change(name, actual=worker.actual.took(update, now))
        self.pool.judge()

    @rule(name=NAMES, catches_up=st.booleans())
    def turn_ends(self, name: str, catches_up: bool) -> None:
        """
        A worker that waited, or was stale, is up to date, or has missed its turn.
        """
        epochs = self.pool.epochs
        if url_of(name) not in self.pool:
            return
        worker = self.pool[url_of(name)]
        epochs.updating.discard(worker.serial)
        epochs.pending.pop(worker.serial, None)
        if catches_up:
            desired = epochs.desired(worker.capabilities.model)
            self.change(name, actual=Actual(has=desired.numbers), lapsed=False)
        self.pool.judge()

    @rule(models=st.sets(st.sampled_from([None, "org/a", "org/b"])))
    def close(self, models: set[str | None]) -> None:
        self.pool.epochs.closed = frozenset(models)
        self.pool.judge()

    def change(self, name: str, **facts: Any) -> None:
        if url_of(name) in self.pool:
            self.pool.change(self.pool[url_of(name)], lambda worker: evolve(worker, **facts))

    def forget_things(self, url: str) -> None:
        for entry in self.entries.values():
            if entry.thing is not None and entry.worker is not None and entry.worker.url == url:
                self.end_thing(entry, took=None, well=False)

    # Clients.

    @rule(want=WANTS, work=WORKS, client=CLIENTS, limits=LIMITS)
    def submit(
        self, want: Want, work: float | None, client: dict[str, Any], limits: dict[str, Any]
    ) -> None:
        times = {name: after and self.now + after for name, after in limits.items()}
        job = Job(
            id=f"j{next(self.names)}",
            want=want,
            demand=Known(work),
            submitted=self.now,
            **client,
            **times,
        )
        self.entries[job.id] = Entry(job)
        waiting = len(self.scheduler.line)
        try:
            decisions = self.scheduler.submit(job, self.now)
        except RouterError as error:
            self.check_refused(job, error, waiting)
            assert self.entries[job.id].state == "ended"
        else:
            self.follow(decisions)

    @rule(want=WANTS, works=st.lists(WORKS, min_size=2, max_size=6), client=CLIENTS)
    def submit_many(self, want: Want, works: list[float | None], client: dict[str, Any]) -> None:
        nothing = dict.fromkeys(["deadline", "expires", "hand_over"])
        for work in works:
            self.submit(want, work, client, nothing)

    @precondition(lambda self: self.those("waiting", "open"))
    @rule(pick=PICK)
    def abandon(self, pick: int) -> None:
        entries = self.those("waiting", "open")
        entry = entries[pick % len(entries)]
        if entry.state == "waiting":
            entry.state = "ended"
        else:
            entry.state = "left"
            if not entry.job.want.slot or entry.job.want.session:
                self.gone_from_process(entry)
        self.follow(self.scheduler.abandon(entry.job.id, self.now))

    @precondition(lambda self: self.entries)
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        entries = list(self.entries.values())
        entry = entries[pick % len(entries)]
        if entry.state == "waiting":
            self.follow(self.scheduler.cancel(entry.job.id, self.now))
            assert entry.state == "ended"
            return
        with pytest.raises((NotWaiting, NotFound)):
            self.scheduler.cancel(entry.job.id, self.now)

    # What workers do.

    @rule(name=NAMES, pick=PICK, how=st.sampled_from(["well", "badly", "slowly", "making"]))
    def work(self, name: str, pick: int, how: str) -> None:
        """
        A replica is done with one of the jobs at the front.
        """
        process = self.processes.get(url_of(name))
        if process is None or not process.line:
            return
        front = process.line[: process.replicas]
        entry = self.entries[front[pick % len(front)]]
        if how == "making" and entry.state == "open" and entry.thing is None:
            self.make(entry)
            return
        if entry.thing is None or entry.state == "open":
            process.line.remove(entry.job.id)
        took = [None, 0.5, 1.0, 7.0][pick % 4]
        if entry.thing is not None:
            self.end_thing(entry, took=took, well=how != "badly")
        elif entry.state == "open" and how == "slowly":
            entry.answered = True
            self.follow(self.scheduler.answered(entry.job.id, self.now))
        elif entry.state == "open":
            self.end_request(entry, took=took, well=how != "badly")

    def make(self, entry: Entry) -> None:
        """The answer to the creation of a video, which is not there yet."""
        if entry.answered or not entry.job.want.slot or entry.job.want.session:
            return
        entry.thing = "video", entry.job.id
        self.scheduler.made(entry.job.id, entry.thing)
        if entry.job.number % 3:
            self.end_request(entry, took=None, well=True)

    @precondition(lambda self: self.those("open"))
    @rule(pick=PICK)
    def answer_out_of_turn(self, pick: int) -> None:
        """
        An answer has arrived, or a worker has failed at once, or read something.
        """
        entries = self.those("open")
        entry = entries[pick % len(entries)]
        if entry.thing is None:
            self.gone_from_process(entry)
        self.end_request(entry, took=None, well=bool(pick % 2))

    @precondition(lambda self: self.those("open"))
    @rule(pick=PICK)
    def unreached(self, pick: int) -> None:
        entries = [entry for entry in self.those("open") if entry.thing is None]
        if not entries:
            return
        entry = entries[pick % len(entries)]
        if entry.answered:
            return
        assert entry.worker is not None
        self.gone_from_process(entry)
        self.pool.record_unreached(entry.worker)
        entry.state = "waiting"
        url = entry.worker.url
        try:
            decisions = self.scheduler.unreached(entry.job.id, self.now)
        except (NoWorker, BadRequest):
            entry.state = "ended"
            assert not self.best(entry.job)
        except PreconditionFailed:
            entry.state = "ended"
            assert not self.best(entry.job)
            assert self.never(entry.job.want)
        else:
            self.follow(decisions)
        assert url in entry.job.without

    @rule(name=NAMES, number=st.integers(1, 3), kind=st.sampled_from(["video", "mesh"]))
    def somebody_else_asks(self, name: str, number: int, kind: str) -> None:
        """
        The worker tells of a thing that was asked for past this scheduler, and of its end.
        """
        url = url_of(name)
        thing = kind, f"{name}{number}"
        if url in self.pool and thing not in self.scheduler._things:
            self.scheduler.thing_opened(thing, self.pool[url], self.now)
        else:
            self.follow(self.scheduler.thing_ended(thing, self.now, took=3.0))

    def gone_from_process(self, entry: Entry) -> None:
        assert entry.worker is not None
        line = self.processes[entry.worker.url].line
        if entry.job.id in line:
            line.remove(entry.job.id)

    def end_request(self, entry: Entry, *, took: float | None, well: bool) -> None:
        entry.state = "ended" if entry.thing is None else "left"
        self.follow(self.scheduler.finish(entry.job.id, self.now, took=took, well=well))

    def end_thing(self, entry: Entry, *, took: float | None, well: bool) -> None:
        thing, entry.thing = entry.thing, None
        assert thing is not None
        self.gone_from_process(entry)
        self.follow(self.scheduler.thing_ended(thing, self.now, took=took, well=well))

    # Time.

    @rule(seconds=WAITS)
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        self.tick_until(until)
        self.now = until

    def tick_until(self, until: float) -> None:
        ticks = 0
        self.note_full()
        while (due := self.scheduler.due()) is not None and due <= until:
            ticks = 0 if due > self.now else ticks + 1
            assert ticks < 4, "still due at the same time"
            self.now = max(self.now, due)
            self.note_full()
            self.follow(self.scheduler.tick(self.now))
        self.note_full()

    def note_full(self) -> None:
        if self.scheduler.full:
            self.last_full = self.now
        for entry in self.those("waiting"):
            if not self.best(entry.job):
                self.last_nobody[entry.job.id] = self.now

    # What holds at any time.

    @invariant()
    def everything_holds(self) -> None:
        self.time_has_no_debts()
        self.counts_are_true()
        self.every_job_is_somewhere_once()
        self.stations_add_up()
        self.desks_are_up_to_date()
        self.nobody_idle_while_others_wait()
        self.nobody_waits_for_too_long()

    def time_has_no_debts(self) -> None:
        self.tick_until(self.now)
        self.follow(self.scheduler.tick(self.now))
        due = self.scheduler.due()
        assert due is None or due > self.now

    def counts_are_true(self) -> None:
        open_at = Counter[int]()
        sessions = Counter[int]()
        for entry in self.those("open"):
            assert entry.worker is not None
            open_at[entry.worker.serial] += 1
            sessions[entry.worker.serial] += entry.job.want.session
        for worker in self.pool:
            assert worker.in_flight == open_at[worker.serial]
            assert worker.sessions == sessions[worker.serial]
        assert self.scheduler._open == self.open_requests()

    def every_job_is_somewhere_once(self) -> None:
        running = self.scheduler.floor.running
        for id, entry in self.entries.items():
            assert (id in self.scheduler.line) == (entry.state == "waiting")
            assert id in running or entry.state != "open"
            assert id not in running or entry.state in ("open", "left")
            ends = sum(self.told[id, name] for name in ("refused", "dropped", "cancelled"))
            ends += self.told[id, "ended"] + self.told[id, "abandoned"]
            assert ends <= 1
            assert ends == 1 or entry.state in ("open", "waiting") or id in running
            assert self.told[id, "bound"] <= 1 + self.told[id, "unreached"]
        assert len(self.scheduler.line) == len(self.those("waiting"))

    def stations_add_up(self) -> None:
        stations = self.scheduler.floor.stations
        assert set(stations) == {worker.url for worker in self.pool}
        for url, station in stations.items():
            now = self.pool[url]  # how much is in flight to it only the pool knows
            assert evolve(station.worker, in_flight=now.in_flight) == now
            here = [each for each in self.running() if each.station is station]
            assert station.count == len(here)
            lanes = [list(lane.plan()) for lane in station.lanes]
            assert sorted(id(each) for lane in lanes for each, _, _ in lane) == sorted(
                id(each) for each in here if each.lane is not None
            )
            assert station.taken == sum(len(lane) for lane in station.lanes)
            for lane, plan in zip(station.lanes, lanes, strict=True):
                end = lane.first_end + sum(each.seconds for each, _, _ in plan[1:])
                assert abs(lane.free - end) < 1e-6
                assert not plan or lane.first_end > self.now, "late, and nobody looked"
            if not station.taken:
                assert station.free == 0
                assert len(station.lanes) == station.worker.capabilities.replicas

    def desks_are_up_to_date(self) -> None:
        floor = self.scheduler.floor
        desks = list(floor.desks._desks.values())
        assert all(desk.want.epoch is None for desk in desks)
        for desk in [*desks, *(each for one in desks for each in one._required.values())]:
            want = desk.want
            for url, station in floor.stations.items():
                place = desk._places.get(url)
                home = None if place is None else place.tier
                assert place is None or place.epoch == self.pool[url].epoch
                assert (home is not None) == self.pool[url].may_take(want)
                if home is None:
                    continue
                room = station.room
                station.look(self.now)
                assert station.room == room, "nobody looked"
                free = room or not want.slot
                assert (url in home.room, url in home.full) == (free, not free)
                index = home.room if free else home.full
                if isinstance(index, LeastWork):
                    load, now = index.load(url), floor.placement.load(station, want)
                    assert (load.jobs, load.model) == (now.jobs, now.model)
                    assert abs(load.free - now.free) < 1e-6
                    seconds = [each.pace * 5.0 + each.fixed for each in (load, now)]
                    guess = self.speeds._shared(now.model, want.kind) is None
                    assert guess or max(seconds) <= 1.4 * min(seconds)
        for want in [desk.want for desk in desks] + self.required_epochs():
            for without in (frozenset[str](), frozenset(list(floor.stations)[:1])):
                tier = floor.tier(want, without)
                best = self.best(Job(id="x", want=want, without=without))
                found = set() if tier is None else tier.urls - without
                assert found == {station.worker.url for station in best}
        different = len({worker.epoch for worker in self.pool})
        assert all(len(desk._required) <= 2 * different for desk in desks)

    def required_epochs(self) -> list[Want]:
        return [
            evolve(want, epoch=RequiredEpoch(number, exact=exact))
            for want in (IMAGE, VIDEO)
            for number in range(3)
            for exact in (True, False)
        ]

    def nobody_idle_while_others_wait(self) -> None:
        """
        A job waits while there is room only for a worker where it ends sooner, behind those before
        it in line that do the same.
        """
        if self.scheduler.full:
            return
        free = {url: station.free for url, station in self.scheduler.floor.stations.items()}
        for job in self.scheduler.line.in_order():
            best = self.best(job)
            if not best:
                anybody = Job(id="x", want=evolve(job.want, epoch=None), without=job.without)
                later = job.want.epoch is not None and self.best(anybody)
                assert later or self.catching_up(job), "nobody may ever take it"
                assert not self.never(job.want)
                continue
            ends = {
                station.worker.url: max(free[station.worker.url], self.now)
                + self.seconds(job, station)
                for station in best
            }
            roomy = [each.worker.url for each in best if each.room or not job.want.slot]
            if not roomy or self.held_for_others(job, best):
                continue
            assert self.options.algorithm == "least-work"
            full = [url for url in ends if url not in roomy]
            end, url = min((ends[url], url) for url in full)
            assert end <= min(ends[url] for url in roomy) + OFF * self.slowest(job)
            if len(self.scheduler.floor.stations[url].lanes) == 1:
                free[url] = end

    def nobody_waits_for_too_long(self) -> None:
        for job in self.scheduler.line.in_order():
            assert job.deadline is None or job.deadline > self.now
            assert job.expires is None or job.expires > self.now
            if job.hand_over is not None and job.hand_over <= self.now:
                nobody = self.last_nobody.get(job.id, 0.0)
                assert self.now <= max(self.last_full, nobody) + 1.0

    def running(self) -> Iterator[Running]:
        return iter(self.scheduler.floor.running.values())

    def teardown(self) -> None:
        """
        At rest nothing is left.
        """
        if not hasattr(self, "scheduler"):
            return
        for _ in range(10 * len(self.entries) + 10):
            self.end_all()
            self.wait(1.0)
        for entry in self.those("waiting"):
            self.follow(self.scheduler.cancel(entry.job.id, self.now))
        self.end_all()
        for thing in list(self.scheduler._things):
            self.follow(self.scheduler.thing_ended(thing, self.now))
        self.now += 1e9
        self.follow(self.scheduler.tick(self.now))
        self.counts_are_true()
        self.every_job_is_somewhere_once()
        self.stations_add_up()
        assert not self.those("open", "waiting")
        assert all(worker.in_flight == worker.sessions == 0 for worker in self.pool)
        assert not self.scheduler.floor.running
        assert not self.scheduler._things
        assert len(self.scheduler.line) == 0
        assert len(self.scheduler._alarms) == 0
        assert not name_of(url_of("")), "names are reversible"

    def end_all(self) -> None:
        for entry in self.those("open"):
            if entry.thing is None:
                self.gone_from_process(entry)
            self.end_request(entry, took=None, well=True)
        for entry in self.those("left"):
            if entry.thing is not None:
                self.end_thing(entry, took=None, well=True)


# Set SGL_DROUTE_LONG_TESTS for thousands of histories.
LONG = bool(os.environ.get("SGL_DROUTE_LONG_TESTS"))
AnyTraffic.TestCase.settings = settings(max_examples=1000 if LONG else 40)
TestAnyTraffic = AnyTraffic.TestCase
