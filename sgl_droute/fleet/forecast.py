"""
When the jobs that wait will run, and why they wait, as things stand now.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice

from attrs import define, field, frozen

from sgl_droute.fleet.desk import Tier
from sgl_droute.fleet.job import Job
from sgl_droute.fleet.line import Key
from sgl_droute.fleet.reach import lacks_epoch
from sgl_droute.fleet.refusals import shown
from sgl_droute.fleet.scheduler import Scheduler
from sgl_droute.fleet.station import Running

_Replica = tuple[str, int]


@frozen
class Prospect:
    """
    What a waiting job may expect.

    Attributes:
        position: Its place in line, from 1.
        start: When it begins, as predicted (seconds); None where nobody can tell.
        end: When it has ended.
        why: What it waits for, in words.
    """

    job: Job
    position: int
    start: float | None
    end: float | None
    why: str


@define(eq=False)
class _Plan:
    """
    Gives out jobs on paper, each to the replica that is free first.
    """

    scheduler: Scheduler
    now: float
    _free: dict[_Replica, float] = field(factory=dict, init=False)
    _heaps: dict[Key, list[tuple[float, _Replica]]] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        for url, station in self.scheduler.floor.stations.items():
            for number, lane in enumerate(station.lanes):
                self._free[url, number] = max(lane.free, self.now)

    def place(self, job: Job, tier: Tier) -> tuple[float, float]:
        """
        The start and end of *job*.
        """
        heap = self._heap(job, tier)
        free, replica = heap[0]
        while free < self._free[replica]:  # it has got more since
            heapq.heapreplace(heap, (self._free[replica], replica))
            free, replica = heap[0]
        station = self.scheduler.floor.stations[replica[0]]
        end = free + self.scheduler.floor.placement.seconds(job, station)
        self._free[replica] = end
        return free, end

    def _heap(self, job: Job, tier: Tier) -> list[tuple[float, _Replica]]:
        key = job.want, job.without
        if key not in self._heaps:
            self._heaps[key] = [
                (self._free[url, number], (url, number))
                for url in tier.urls
                if url not in job.without
                for number in range(len(self.scheduler.floor.stations[url].lanes))
            ]
            heapq.heapify(self._heaps[key])
        return self._heaps[key]


def prospects(scheduler: Scheduler, now: float, most: int) -> Iterator[Prospect]:
    """
    The first *most* jobs in line, in the order in which they will be served.
    """
    planned = islice(_planned(scheduler, now), most)
    for position, (job, tier, start, end) in enumerate(planned, 1):
        yield Prospect(job, position, start, end, _why(scheduler, job, tier))


def _planned(
    scheduler: Scheduler, now: float
) -> Iterator[tuple[Job, Tier | None, float | None, float | None]]:
    """
    The jobs in line with the workers they may go to, and their predicted start and end.
    """
    plan = _Plan(scheduler, now)
    tiers: dict[Key, Tier | None] = {}
    for job in scheduler.line.in_order():
        key = job.want, job.without
        if key not in tiers:
            tiers[key] = scheduler.floor.tier(*key)
        tier = tiers[key]
        start, end = (None, None) if tier is None else plan.place(job, tier)
        yield job, tier, start, end


def running(
    scheduler: Scheduler, most: int
) -> Iterator[tuple[Running, float | None, float | None]]:
    """
    The first *most* jobs at workers with their predicted start and end; None for those that no GPU
    works on.
    """
    planned = {
        job.job.id: (start, end)
        for station in scheduler.floor.stations.values()
        for lane in station.lanes
        for job, start, end in lane.plan()
    }
    for each in islice(scheduler.floor.running.values(), most):
        yield each, *planned.get(each.job.id, (None, None))


def batch_end(scheduler: Scheduler, batch: str, now: float) -> float | None:
    """
    When the last job of *batch* will have ended, as predicted (seconds); None if none is there.
    """
    at_workers = (
        end
        for each, _, end in running(scheduler, len(scheduler.floor.running))
        if each.job.batch == batch and end is not None
    )
    ends = list(at_workers)
    left = len(scheduler.line.of_batch(batch))
    planned = _planned(scheduler, now) if left else iter(())
    for job, _, _, end in planned:
        if job.batch != batch:
            continue
        if end is not None:
            ends.append(end)
        left -= 1
        if not left:
            break
    return max(ends, default=None)


def _why(scheduler: Scheduler, job: Job, tier: Tier | None) -> str:
    if scheduler.full:
        return f"{scheduler.rules.max_running} requests are open to workers"
    if tier is None and job.want.epoch is not None and lacks_epoch(scheduler.pool, job.want):
        return f"no worker has the weights epoch {shown(job.want.epoch)}"
    if tier is None and scheduler.floor.awaits(job.want, job.without):
        return "the workers that can take it are being updated"
    if tier is None:
        return "no worker can take it now"
    if not tier.has_room(job.without):
        able = len(tier.urls) - sum(url in tier.urls for url in job.without)
        return f"all of {able} workers that can take it are busy"
    if scheduler.floor.awaits(job.want, job.without):
        return "others that can take it are being updated"
    return "a busy worker will end it sooner than one that is free"
