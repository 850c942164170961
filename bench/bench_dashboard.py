"""
What the live page costs the router: the time of a look at a busy fleet, and what it sends.

Run it with ``python bench/bench_dashboard.py --workers 200``. The fleet is one in memory, on a
clock that this program moves; CPU time is measured, which other programs disturb less than the time
that passes.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

from attrs import define, evolve, field
from twisted.internet.task import Clock

from sgl_droute.api.telemetry.account import Account
from sgl_droute.fleet.capabilities import ANYTHING
from sgl_droute.fleet.job import Job
from sgl_droute.fleet.worker import Worker
from sgl_droute.service import RouterService
from sgl_droute.settings import RouterSettings

MODEL = "Qwen/Qwen-Image"
IMAGE = evolve(ANYTHING, kind="image")
WAITING = 100
WARM_UP = 200


@define(eq=False)
class BusyFleet:
    """
    A router whose workers all have work.

    Args:
        workers: How many (count).
        rate: Requests that end, and come, each second (count).
    """

    workers: int
    rate: int
    clock: Clock = field(factory=Clock, init=False)
    service: RouterService = field(init=False)
    _chance: random.Random = field(factory=lambda: random.Random(1), init=False)
    _jobs: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.clock.rightNow = 1.8e9
        urls = tuple(f"http://gpu-{n:03d}.cluster.internal:30000" for n in range(self.workers))
        options = RouterSettings(worker_urls=urls, worker_concurrency="auto")
        self.service = RouterService(self.clock, options)
        for worker in self.service.pool:
            self.service.pool.change(worker, _serving)
        for _ in range(self.workers + WAITING):
            self._submit()

    def second(self) -> None:
        """
        Let a second pass.
        """
        self.clock.rightNow += 1.0
        running = list(self.service.turns.scheduler.floor.running.values())
        for each in self._chance.sample(running, self.rate):
            self._end(each.job, each.station.worker.url)
            self._submit()

    def _submit(self) -> None:
        self._jobs += 1
        now, id = self.clock.seconds(), f"7f3a90c1-{self._jobs}"
        job = Job(id=id, want=IMAGE, submitted=now, client="key:render-farm")
        self.service.turns.scheduler.submit(job, now)

    def _end(self, job: Job, url: str) -> None:
        now = self.clock.seconds()
        self.service.turns.scheduler.finish(job.id, now, took=self._chance.uniform(8, 12))
        account = Account(
            id=f"{self._chance.getrandbits(128):032x}",
            method="POST",
            path="/v1/images/generations",
            began=job.submitted,
            ready=job.submitted,
            bound=now - 10,
            answered=now - 0.1,
            status=200,
            worker=url,
        )
        account.of_job(job)
        self.service.accounts.close(account)


def _serving(worker: Worker) -> Worker:
    capabilities = evolve(worker.capabilities, model=MODEL)
    return evolve(worker, proven=True, capabilities=capabilities)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """
    CPU time of *work* (ms), and what it gives.
    """
    begun = time.process_time()
    result = work()
    return 1000 * (time.process_time() - begun), result


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--rate", type=int, default=20)
    parser.add_argument("--looks", type=int, default=100)
    asked = parser.parse_args(words)
    fleet = BusyFleet(asked.workers, asked.rate)
    view, measuring = fleet.service.dashboard.view, fleet.service.dashboard.measuring
    looks, points, wholes, sent, changed = [], [], [], [], []
    for second in range(WARM_UP + asked.looks):
        fleet.second()
        if second % 5 == 0:
            points.append(timed(measuring.measure)[0])
        if second >= WARM_UP:
            took, message = timed(lambda: view.look(fleet.clock.seconds()))
            took_whole, whole = timed(view.whole)
            looks.append(took)
            wholes.append(took_whole)
            if message:
                sent.append(len(message))
                changed.append(len(json.loads(message).get("workers", {})))
    print(f"{asked.workers} workers, {asked.rate} requests a second")
    print(f"a look             {statistics.median(looks):7.1f} ms")
    print(f"sent               {statistics.median(sent) / 1000:7.1f} kB")
    print(f"  workers changed  {statistics.median(changed):7.0f}")
    print(f"the whole          {statistics.median(wholes):7.1f} ms, {len(whole) / 1000:.0f} kB")
    print(f"a point            {statistics.median(points):7.1f} ms")


if __name__ == "__main__":
    main()
