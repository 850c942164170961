"""
The simulation: workers are lines that cannot cancel, and every request has one end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from bench.harness.virtual.engine import Machine, Simulation, Stuck, Task, Thing, simulate
from bench.harness.virtual.figures import figures
from bench.harness.virtual.workloads import IMAGES, poisson
from sgl_droute.errors import Refused
from sgl_droute.fleet.decisions import Bound, Decision, Dropped
from sgl_droute.fleet.job import Job, Known
from sgl_droute.fleet.worker import Worker


@define(eq=False)
class Stand:
    """
    A scheduler without a line: the worker with the smallest value of `_value` has the job.
    """

    workers: dict[str, float]
    given: Counter[str] = field(factory=Counter)
    free: dict[str, float] = field(factory=dict)
    touched: Counter[str] = field(factory=Counter)
    where: dict[str, str] = field(factory=dict)
    calls: list[tuple[str, str, float]] = field(factory=list)

    def submit(self, job: Job, now: float) -> list[Decision]:
        self.calls.append(("submit", job.id, now))
        url = min(self.workers, key=lambda url: self._value(url, job, now))
        self.where[job.id] = url
        self.given[url] += 1
        self.touched[url] = len(self.calls)
        end = self._end(url, job, now)
        self.free[url] = end
        return [Bound(job, Worker(url=url, serial=1), now, end)]

    def finish(self, id: str, now: float, *, took: float | None = None) -> list[Decision]:
        self.calls.append(("finish", id, now))
        self.given[self.where[id]] -= 1
        self.touched[self.where[id]] = len(self.calls)
        return []

    def abandon(self, id: str, now: float) -> list[Decision]:
        self.calls.append(("abandon", id, now))
        return []

    def made(self, id: str, thing: Thing) -> None:
        self.calls.append(("made", id, -1.0))

    def thing_ended(self, thing: Thing, now: float, *, took: float | None = None) -> list[Decision]:
        self.calls.append(("thing_ended", thing[1], now))
        return []

    def tick(self, now: float) -> list[Decision]:
        return []

    def due(self) -> float | None:
        return None

    def _end(self, url: str, job: Job, now: float) -> float:
        work = job.demand.work(None)
        assert work is not None
        return max(now, self.free.get(url, 0.0)) + work / self.workers[url]

    def _value(self, url: str, job: Job, now: float) -> tuple[float, ...]:
        raise NotImplementedError


class LeastRequest(Stand):
    def _value(self, url: str, job: Job, now: float) -> tuple[float, ...]:
        return (self.given[url], self.touched[url])


class EarliestEnd(Stand):
    def _value(self, url: str, job: Job, now: float) -> tuple[float, ...]:
        return (self._end(url, job, now),)


class Keeps(Stand):
    """Has every job wait for ever."""

    def submit(self, job: Job, now: float) -> list[Decision]:
        return []


def task(number: int, at: float, seconds: float, patience: float | None = None) -> Task:
    job = Job(id=str(number), demand=Known(seconds), submitted=at)
    return Task(job, seconds, patience)


def one_worker(speed: float = 1.0, replicas: int = 1) -> dict[str, Machine]:
    return {"http://w": Machine(speed, replicas)}


def test_worker_is_a_line() -> None:
    """
    What a worker is given runs in order of arrival, as fast as the worker is.
    """
    tasks = [task(0, 1.0, 4.0), task(1, 1.5, 2.0), task(2, 9.0, 2.0)]
    simulate(LeastRequest({"http://w": 1.0}), one_worker(speed=2.0), tasks)
    assert [each.ended for each in tasks] == [3.0, 4.0, 10.0]
    assert [each.took for each in tasks] == [2.0, 1.0, 1.0]


def test_replicas_work_side_by_side() -> None:
    """
    Two replicas: the third job waits for the first that ends.
    """
    tasks = [task(0, 0.0, 5.0), task(1, 0.0, 3.0), task(2, 0.0, 1.0)]
    simulate(LeastRequest({"http://w": 1.0}), one_worker(replicas=2), tasks)
    assert [each.ended for each in tasks] == [5.0, 3.0, 4.0]


def test_replicas_change() -> None:
    """
    A replica that is added is free at once; of those that are taken away the idle ones go first,
    and what they work on runs to its end.
    """
    machine = Machine()
    assert [machine.end(0.0, 10.0), machine.free] == [10.0, 10.0]
    machine.resize(2)
    assert [machine.end(3.0, 4.0), machine.free] == [7.0, 10.0]
    machine.resize(1)
    assert machine.end(4.0, 1.0) == 11.0


def test_workers_change_when_told() -> None:
    """
    A change happens at its time, behind what ends then and before what arrives, and what the
    scheduler decides of it is carried out.
    """

    class Late(LeastRequest):
        """Has everybody wait for a worker."""

        waits: Job

        def submit(self, job: Job, now: float) -> list[Decision]:
            if self.workers:
                return super().submit(job, now)
            self.waits = job
            return []

    scheduler, machines = Late({}), one_worker()

    def came(now: float) -> list[Decision]:
        scheduler.workers["http://w"] = 1.0
        return scheduler.submit(scheduler.waits, now)

    tasks = [task(0, 0.0, 2.0), task(1, 5.0, 1.0)]
    Simulation(scheduler, machines, tasks, [(5.0, came)]).run()
    assert [(each.given, each.ended) for each in tasks] == [(5.0, 7.0), (5.0, 8.0)]


def test_jobs_may_be_left_waiting() -> None:
    """
    A run that is not to bring all to their ends leaves those that wait for ever without a fate.
    """
    waits = task(0, 0.0, 1.0)
    assert Simulation(Keeps({"http://w": 1.0}), one_worker(), [waits]).run() == 1
    assert waits.fate is None


def test_abandoned_work_runs_on() -> None:
    """
    A client that leaves frees nothing, and the scheduler is not told when its work ends.
    """
    tasks = [task(0, 0.0, 5.0, patience=1.0), task(1, 2.0, 1.0)]
    scheduler = LeastRequest({"http://w": 1.0})
    simulate(scheduler, one_worker(), tasks)
    assert tasks[0].left
    assert tasks[0].ended is None
    assert tasks[1].ended == 6.0
    assert [call for call in scheduler.calls if call[1] == "0"] == [
        ("submit", "0", 0.0),
        ("abandon", "0", 1.0),
    ]


def test_client_that_is_served_stays() -> None:
    """
    Patience that lasts longer than the request changes nothing.
    """
    tasks = [task(0, 0.0, 5.0, patience=5.0)]
    scheduler = LeastRequest({"http://w": 1.0})
    simulate(scheduler, one_worker(), tasks)
    assert tasks[0].ended == 5.0
    assert not tasks[0].left
    assert "abandon" not in {name for name, _, _ in scheduler.calls}


def test_video_jobs_are_answered_before_they_are_made() -> None:
    """
    The worker has the job at once and ends it like any other; its client no longer waits there, so
    it cannot leave.
    """
    made = task(0, 1.0, 5.0, patience=2.0)
    made.thing = ("video", "0")
    scheduler = LeastRequest({"http://w": 1.0})
    simulate(scheduler, one_worker(), [made])
    assert made.ended == 6.0
    assert not made.left
    assert scheduler.calls == [
        ("submit", "0", 1.0),
        ("made", "0", -1.0),
        ("finish", "0", 1.0),
        ("thing_ended", "0", 6.0),
    ]


def test_end_comes_before_arrival_at_one_moment() -> None:
    """
    A worker that gets free at the moment of an arrival is free for it.
    """
    scheduler = LeastRequest({"http://w": 1.0})
    simulate(scheduler, one_worker(), [task(0, 0.0, 2.0), task(1, 2.0, 1.0)])
    assert [name for name, _, _ in scheduler.calls] == ["submit", "finish", "submit", "finish"]


def test_refusals_are_told() -> None:
    """
    A request that the scheduler refuses or drops has that error and no end.
    """
    error = Refused("full", "queue_full")

    class Refuses(LeastRequest):
        def submit(self, job: Job, now: float) -> list[Decision]:
            if job.id == "0":
                raise error
            return [Dropped(job, error)]

    tasks = [task(0, 0.0, 1.0), task(1, 0.0, 1.0)]
    simulate(Refuses({"http://w": 1.0}), one_worker(), tasks)
    assert [each.error for each in tasks] == [error, error]
    assert [each.ended for each in tasks] == [None, None]
    assert [each.fate for each in tasks] == ["refused", "dropped"]


def test_jobs_that_wait_for_ever_are_found() -> None:
    """
    A scheduler that holds jobs back and waits for nothing is in error.
    """
    with pytest.raises(Stuck, match="1 jobs wait"):
        simulate(Keeps({"http://w": 1.0}), one_worker(), [task(0, 0.0, 1.0)])


def test_moment_without_end_is_found() -> None:
    """
    A scheduler that is due again at once, though nothing came of it, is in error.
    """

    class Restless(Keeps):
        def due(self) -> float | None:
            return 0.0

    with pytest.raises(Stuck, match="due again"):
        simulate(Restless({"http://w": 1.0}), one_worker(), [task(0, 0.0, 1.0)])


def test_job_given_twice_is_found() -> None:
    """
    A scheduler that gives a running job to a worker once more is in error.
    """

    class Twice(LeastRequest):
        def submit(self, job: Job, now: float) -> list[Decision]:
            return 2 * super().submit(job, now)

    with pytest.raises(Stuck, match="not in line"):
        simulate(Twice({"http://w": 1.0}), one_worker(), [task(0, 0.0, 1.0)])


def test_ticks_come_when_due() -> None:
    """
    `tick` is called at the time that `due` says, if nothing happens before.
    """

    class Later(LeastRequest):
        job: Job | None = None

        def submit(self, job: Job, now: float) -> list[Decision]:
            self.job = job
            return []

        def due(self) -> float | None:
            return None if self.job is None else self.job.submitted + 7.0

        def tick(self, now: float) -> list[Decision]:
            assert self.job is not None
            job, self.job = self.job, None
            return super().submit(job, now)

    tasks = [task(0, 1.0, 2.0)]
    simulate(Later({"http://w": 1.0}), one_worker(), tasks)
    assert tasks[0].given == 8.0
    assert tasks[0].ended == 10.0


@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.floats(0.1, 50), st.none() | st.floats(0, 50)),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_every_request_ends_once(
    requests: list[tuple[float, float, float | None]], workers: int, replicas: int
) -> None:
    """
    Each one is served or its client leaves, not both, and none is done sooner than it takes.
    """
    tasks = [task(number, *request) for number, request in enumerate(requests)]
    speeds = {f"http://w{number}": 1.0 for number in range(workers)}
    scheduler = EarliestEnd(speeds)
    simulate(scheduler, {url: Machine(1.0, replicas) for url in speeds}, tasks)
    for each in tasks:
        assert (each.ended is None) == each.left
        assert each.ended is None or each.ended >= each.job.submitted + each.seconds
    ends = Counter(id for name, id, _ in scheduler.calls if name != "submit")
    assert ends == Counter(each.job.id for each in tasks)


def tail(make: Callable[[dict[str, float]], Stand], speeds: Sequence[float], seed: int) -> float:
    requests = poisson(IMAGES, speeds, 0.85)(Random(seed), 2000)
    urls = {f"http://w{number}": speed for number, speed in enumerate(speeds)}
    tasks = [task(number, each.at, each.seconds) for number, each in enumerate(requests)]
    simulate(make(urls), {url: Machine(speed) for url, speed in urls.items()}, tasks)
    return figures(requests, [each.ended for each in tasks], speeds).p99


@pytest.mark.parametrize(
    ("speeds", "least", "most"),
    [((1.0,) * 8, 0.70, 0.83), ((1.0,) * 6 + (0.5,) * 2, 0.52, 0.68)],
    ids=["even", "a quarter at half speed"],
)
def test_model_shows_what_counting_requests_costs(
    speeds: tuple[float, ...], least: float, most: float
) -> None:
    """
    With exact costs, the earliest end has three quarters of the p99 that the least number of
    requests has on equal workers, and less where a quarter of them is slow.
    """
    seeds = range(8)
    counting = sum(tail(LeastRequest, speeds, seed) for seed in seeds)
    knowing = sum(tail(EarliestEnd, speeds, seed) for seed in seeds)
    assert least < knowing / counting < most
