"""
What large fleets and long lines cost the scheduler, in real time.
"""

from __future__ import annotations

import gc
import heapq
from collections.abc import Callable
from random import Random
from time import perf_counter, thread_time
from typing import TypeVar

from attrs import define, field, frozen

from bench.harness.summary import percentile
from bench.harness.virtual.arms import Arm, scheduler, tasks
from bench.harness.virtual.engine import Driven, Machine, Task, Thing, simulate
from bench.harness.virtual.workloads import IMAGES, poisson
from sgl_droute.fleet.decisions import Bound, Decision
from sgl_droute.fleet.job import Job

ARMS = (
    Arm("least-work", 0, "exact"),
    Arm("least-work", 1, "exact"),
    Arm("least-work", 1, "learned"),
)
LOAD = 0.85

_T = TypeVar("_T")


@frozen(kw_only=True)
class Scale:
    """
    One long run.

    Attributes:
        wall: Seconds that it took in all.
        inside: CPU seconds in the scheduler.
    """

    arm: Arm
    requests: int
    workers: int
    events: int
    wall: float
    inside: float


@frozen(kw_only=True)
class Burst:
    """
    Calls of the scheduler while a long line waits; times are CPU seconds.

    Attributes:
        waiting: Jobs in line during all of the calls (count).
        slow: Workers at half speed (count).
        call: Which method.
        count: How often it was called.
    """

    arm: Arm
    waiting: int
    workers: int
    slow: int
    call: str
    count: int
    median: float
    p99: float
    worst: float


@define(eq=False)
class Timed:
    """
    A scheduler, and how long each of its calls took (CPU seconds).
    """

    inner: Driven
    times: dict[str, list[float]] = field(factory=dict, init=False)

    def submit(self, job: Job, now: float) -> list[Decision]:
        return self._timed("submit", lambda: self.inner.submit(job, now))

    def finish(self, id: str, now: float, *, took: float | None = None) -> list[Decision]:
        return self._timed("finish", lambda: self.inner.finish(id, now, took=took))

    def abandon(self, id: str, now: float) -> list[Decision]:
        return self._timed("abandon", lambda: self.inner.abandon(id, now))

    def made(self, id: str, thing: Thing) -> None:
        self._timed("made", lambda: self.inner.made(id, thing))

    def thing_ended(self, thing: Thing, now: float, *, took: float | None = None) -> list[Decision]:
        return self._timed("thing_ended", lambda: self.inner.thing_ended(thing, now, took=took))

    def tick(self, now: float) -> list[Decision]:
        return self._timed("tick", lambda: self.inner.tick(now))

    def due(self) -> float | None:
        return self._timed("due", self.inner.due)

    @property
    def total(self) -> float:
        return sum(map(sum, self.times.values()))

    def _timed(self, name: str, call: Callable[[], _T]) -> _T:
        began = thread_time()
        answer = call()
        self.times.setdefault(name, []).append(thread_time() - began)
        return answer


def scale(arm: Arm, requests: int, workers: int) -> Scale:
    """
    The image mix on a large fleet.
    """
    speeds = (1.0,) * workers
    made, machines = scheduler(arm, speeds, 0)
    played = tasks(poisson(IMAGES, speeds, LOAD)(Random("scale"), requests), arm.costs, 0)
    began = perf_counter()
    simulate(made, machines, played)
    wall = perf_counter() - began
    # Once more with a clock around each call, which costs time itself.
    made, machines = scheduler(arm, speeds, 0)
    timed = Timed(made)
    again = tasks(poisson(IMAGES, speeds, LOAD)(Random("scale"), requests), arm.costs, 0)
    events = simulate(timed, machines, again)
    return Scale(
        arm=arm, requests=requests, workers=workers, events=events, wall=wall, inside=timed.total
    )


def burst(arm: Arm, waiting: int, workers: int, slow: int, ends: int) -> list[Burst]:
    """
    The calls while *waiting* jobs wait: each of the next *ends* jobs to end is followed by a new
    one.

    Args:
        slow: Workers at half speed (count); to leave one of them idle for a while can be better
            than to use it, which takes a longer look at the line.
    """
    speeds = (1.0,) * (workers - slow) + (0.5,) * slow
    made, machines = scheduler(arm, speeds, 0)
    requests = poisson(IMAGES, speeds, LOAD)(Random("burst"), workers + waiting + ends)
    jobs = iter(tasks(requests, arm.costs, 0))
    running: list[tuple[float, str]] = []
    known: dict[str, Task] = {}
    timed = Timed(made)

    def submit(now: float) -> None:
        task = next(jobs)
        task.job.submitted = now
        known[task.job.id] = task
        _give(timed.submit(task.job, now), now, known, machines, running)

    for _ in range(workers + waiting):
        submit(0.0)
    timed.times.clear()
    gc.collect()
    gc.disable()  # else collections of everything that waits are taken for decisions
    for _ in range(ends):
        now, id = heapq.heappop(running)
        _give(timed.finish(id, now, took=known[id].took), now, known, machines, running)
        submit(now)
    gc.enable()
    return [
        Burst(
            arm=arm,
            waiting=waiting,
            workers=workers,
            slow=slow,
            call=call,
            count=len(times),
            median=percentile(times, 50),
            p99=percentile(times, 99),
            worst=times[-1],
        )
        for call, times in ((call, sorted(times)) for call, times in timed.times.items())
    ]


def _give(
    decisions: list[Decision],
    now: float,
    known: dict[str, Task],
    machines: dict[str, Machine],
    running: list[tuple[float, str]],
) -> None:
    for decision in decisions:
        if isinstance(decision, Bound):
            task, machine = known[decision.job.id], machines[decision.worker.url]
            task.took = machine.seconds(task)
            heapq.heappush(running, (machine.end(now, task.took), task.job.id))
