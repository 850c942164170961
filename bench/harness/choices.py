"""
What one request costs in the scheduler, by algorithm and size of the fleet.

In process and without a network: only `sgl_droute.fleet` is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import count
from random import Random
from time import perf_counter

from attrs import define, field, frozen

from bench.harness.report import table
from sgl_droute.fleet.capabilities import IMAGE
from sgl_droute.fleet.decisions import Bound
from sgl_droute.fleet.job import Job, Known
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.rules import Rules
from sgl_droute.fleet.scheduler import Scheduler
from sgl_droute.fleet.speeds import Speeds

SIZES = (1, 10, 100, 1000, 10000)

# Seconds between two requests, and work of the shortest and the longest.
_PAUSE = 1e-3
_WORK = 1e4, 1e6


@define(eq=False)
class BusyFleet:
    """
    A scheduler under constant load: as many requests at workers as there are workers.

    Args:
        algorithm: Chooses the workers.
        size: Workers.
        random: Decides which request ends next and how much work the new one is, and is the
            algorithm's chance.
    """

    algorithm: str
    size: int
    random: Random
    pool: Pool = field(factory=Pool, init=False)
    _scheduler: Scheduler = field(init=False)
    _running: list[Bound] = field(factory=list, init=False)
    _now: float = field(default=0.0, init=False)
    _ids: count[int] = field(factory=count, init=False)

    def __attrs_post_init__(self) -> None:
        rules = Rules(algorithm=self.algorithm, random=self.random, max_running=self.size)
        for number in range(self.size):
            self.pool.add(f"http://worker-{number}:30000")
        self._scheduler = Scheduler(self.pool, Speeds(), rules)
        self._running += [self._submitted() for _ in range(self.size)]

    def step(self) -> None:
        """
        End one request, begin another: one release and one choice.
        """
        at = self.random.randrange(self.size)
        self._now += _PAUSE
        ended = self._running[at]
        self._scheduler.finish(ended.job.id, self._now, took=ended.end - ended.start)
        self._running[at] = self._submitted()

    def _submitted(self) -> Bound:
        work = Known(self.random.uniform(*_WORK))
        job = Job(id=f"{next(self._ids)}", want=IMAGE, demand=work, submitted=self._now)
        (decision,) = self._scheduler.submit(job, self._now)
        assert isinstance(decision, Bound)
        return decision


@frozen(kw_only=True)
class Cost:
    """
    Attributes:
        seconds: For one choice and one release.
    """

    algorithm: str
    size: int
    seconds: float


def choice_costs(
    algorithms: Sequence[str],
    sizes: Sequence[int] = SIZES,
    *,
    steps: int = 2000,
    batches: int = 10,
    seconds: Callable[[], float] = perf_counter,
) -> list[Cost]:
    """
    The cost of a choice for each algorithm and number of workers: the mean of the quickest of
    *batches* batches, as whatever else the machine does only adds to the others. The batches of all
    fleets take turns, so that a slow spell of the machine hits them alike.

    Args:
        steps: Choices in a batch; no fewer than there are workers, so that what an index leaves
            behind is cleared away within each.
        seconds: The clock.
    """
    fleets = [BusyFleet(name, size, Random(0)) for name in algorithms for size in sizes]
    quickest = [math.inf] * len(fleets)
    for _ in range(batches):
        for at, fleet in enumerate(fleets):
            choices = max(steps, 2 * fleet.size)
            quickest[at] = min(quickest[at], _timed(fleet, choices, seconds) / choices)
    return [
        Cost(algorithm=fleet.algorithm, size=fleet.size, seconds=each)
        for fleet, each in zip(fleets, quickest, strict=True)
    ]


def costs_table(costs: Sequence[Cost]) -> str:
    """
    *costs* as a table, with the ratio to the smallest fleet of the same algorithm.
    """
    smallest = {cost.algorithm: cost.seconds for cost in reversed(costs)}
    rows = [
        [
            cost.algorithm,
            str(cost.size),
            f"{cost.seconds * 1e6:.2f}",
            f"{cost.seconds / smallest[cost.algorithm]:.2f}",
        ]
        for cost in costs
    ]
    return table(["algorithm", "workers", "us per choice", "ratio"], rows)


def _timed(fleet: BusyFleet, steps: int, seconds: Callable[[], float]) -> float:
    began = seconds()
    for _ in range(steps):
        fleet.step()
    return seconds() - began
