"""
The scheduler on recorded traffic, in virtual time.

Workers do what the contract says: each replica works on one job after the other in the order in
which they came, to its end, whether its client is there or not.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import count

from attrs import define, evolve, field, frozen

from bench.harness.replay.recording import Asked, Change, Present, Recording
from bench.harness.replay.truth import Truth
from sgl_droute.errors import Cancelled, RouterError
from sgl_droute.fleet.decisions import Bound, Decision
from sgl_droute.fleet.job import Job
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.rules import Rules
from sgl_droute.fleet.scheduler import Scheduler
from sgl_droute.fleet.speeds import Speeds

# What becomes of a job.
DONE, REFUSED, DROPPED, LEFT, STUCK = "done", "refused", "dropped", "left", "stuck"


@frozen
class Recorded:
    """
    The `sgl_droute.fleet.job.Demand` of a recorded job.
    """

    by_model: Mapping[str, float]

    def work(self, model: str | None) -> float | None:
        return self.by_model.get(model or "")


@frozen(kw_only=True)
class Outcome:
    """
    What an algorithm made of the traffic.

    Attributes:
        makespan: Seconds from the first arrival until no worker had anything left to do.
        latencies: Of the jobs that were done, ascending (seconds).
        fates: How many jobs were done, refused, dropped from the line, left by their clients, or
            stuck in the line at the end.
        idle: Share of the time of all replicas of eligible workers in which they did nothing; None
            if there was none.
    """

    algorithm: str
    makespan: float
    latencies: tuple[float, ...]
    fates: Mapping[str, int]
    idle: float | None


@define(eq=False)
class _Gpus:
    """
    The replicas of one worker.
    """

    replicas: int
    eligible: bool = True
    working: int = 0
    line: deque[Asked] = field(factory=deque)


@define(eq=False)
class Replay:
    """
    One run; to be used once.
    """

    recording: Recording
    truth: Truth
    rules: Rules
    _pool: Pool = field(factory=Pool, init=False)
    scheduler: Scheduler = field(init=False)
    _gpus: dict[str, _Gpus] = field(factory=dict, init=False)
    _events: list[tuple[float, int, Callable[[], Iterable[Decision]]]] = field(
        factory=list, init=False
    )
    _numbers: count[int] = field(factory=count, init=False)
    _names: dict[int, str] = field(factory=dict, init=False)
    _jobs: dict[str, Asked] = field(factory=dict, init=False)
    _fates: dict[str, str] = field(factory=dict, init=False)
    _latencies: list[float] = field(factory=list, init=False)
    _now: float = field(default=0.0, init=False)
    _busy: float = field(default=0.0, init=False)
    _last_end: float = field(default=0.0, init=False)
    _replicas: list[tuple[float, int]] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.scheduler = Scheduler(self._pool, Speeds(), self.rules)

    def run(self) -> Outcome:
        """
        Let all happen.
        """
        for change in self.recording.changes:
            self._at(max(0.0, change.at), partial(self._changed, change))
        for number, asked in enumerate(self.recording.jobs):
            self._names[id(asked)] = str(number)
            self._at(asked.at, partial(self._arrived, asked))
        while self._step():
            pass
        makespan = max(self._last_end, self.recording.jobs[-1].at)
        fates = Counter(self._fates.get(name, STUCK) for name in self._names.values())
        return Outcome(
            algorithm=self.rules.algorithm,
            makespan=makespan,
            latencies=tuple(sorted(self._latencies)),
            fates=fates,
            idle=self._idle(makespan),
        )

    def _at(self, time: float, act: Callable[[], Iterable[Decision]]) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), act))

    def _step(self) -> bool:
        """
        Let the next thing happen; False if there is none.
        """
        due = self.scheduler.due()
        if self._events and (due is None or self._events[0][0] <= max(due, self._now)):
            self._now, _, act = heapq.heappop(self._events)
            self._carry_out(act())
        elif due is not None:
            before, self._now = self._now, max(due, self._now)
            decisions = self.scheduler.tick(self._now)
            self._carry_out(decisions)
            return bool(self._events or decisions) or self._now > before
        return bool(self._events) or due is not None

    def _carry_out(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            job = self._jobs[decision.job.id]
            if isinstance(decision, Bound):
                self._gpus[decision.worker.url].line.append(job)
                self._work(decision.worker.url)
            else:
                left = isinstance(decision.error, Cancelled)
                self._fates[decision.job.id] = LEFT if left else DROPPED

    # Clients.

    def _arrived(self, asked: Asked) -> list[Decision]:
        name = self._names[id(asked)]
        self._jobs[name] = asked
        if asked.left is not None:
            self._at(asked.at + asked.left, partial(self._left, name))
        try:
            return self.scheduler.submit(self._job(name, asked), self._now)
        except RouterError:
            self._fates[name] = REFUSED
            return []

    def _job(self, name: str, asked: Asked) -> Job:
        def then(seconds: float | None) -> float | None:
            return None if seconds is None else self._now + seconds

        return Job(
            id=name,
            want=asked.want,
            demand=Recorded(asked.work),
            submitted=self._now,
            priority=asked.priority,
            client=asked.client,
            batch=asked.batch,
            group=asked.group,
            deadline=then(asked.deadline),
            expires=then(asked.expires),
            hand_over=then(asked.hand_over),
        )

    def _left(self, name: str) -> list[Decision]:
        if name in self._fates:
            return []
        self._fates[name] = LEFT
        return self.scheduler.abandon(name, self._now)

    # Workers.

    def _changed(self, change: Change) -> list[Decision]:
        if change.now is None:
            self._gpus[change.url].eligible = False
            self._pool.remove(change.url)
        else:
            self._present(change.now)
        eligible = sum(gpus.replicas for gpus in self._gpus.values() if gpus.eligible)
        self._replicas.append((self._now, eligible))
        return self.scheduler.tick(self._now)

    def _present(self, now: Present) -> None:
        replicas = now.capabilities.replicas
        gpus = self._gpus.setdefault(now.url, _Gpus(replicas))
        gpus.replicas, gpus.eligible = replicas, now.eligible
        worker = self._pool.add(now.url)
        self._pool.record_capabilities(worker, now.capabilities)
        self._pool.change(
            worker,
            lambda record: evolve(
                record, concurrency=now.concurrency, speed=now.speed, disabled=not now.eligible
            ),
        )

    def _work(self, url: str) -> None:
        """
        Begin with what waits at a worker, as far as it has replicas for that.
        """
        gpus = self._gpus[url]
        while gpus.line and gpus.working < gpus.replicas:
            asked = gpus.line.popleft()
            gpus.working += 1
            seconds = self.truth.seconds(asked, url)
            self._at(self._now + seconds, partial(self._done, url, asked, seconds))

    def _done(self, url: str, asked: Asked, seconds: float) -> list[Decision]:
        name = self._names[id(asked)]
        self._gpus[url].working -= 1
        self._busy += seconds
        self._last_end = self._now
        self._work(url)
        if name in self._fates:
            return []
        self._fates[name] = DONE
        self._latencies.append(self._now - asked.at)
        return self.scheduler.finish(name, self._now, took=seconds)

    def _idle(self, makespan: float) -> float | None:
        # Each number of replicas holds until the next one.
        ends = [*(at for at, _ in self._replicas), makespan][1:]
        offered = sum(
            replicas * max(0.0, min(end, makespan) - at)
            for (at, replicas), end in zip(self._replicas, ends, strict=True)
        )
        return max(0.0, 1 - self._busy / offered) if offered else None
