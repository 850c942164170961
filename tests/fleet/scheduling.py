"""
A scheduler on a stage: workers by name, a clock that is set by hand, and what was decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from attrs import define, evolve, field

from sgl_droute.errors import RouterError
from sgl_droute.fleet.capabilities import IMAGE, Want, reported
from sgl_droute.fleet.decisions import Bound, Decision, Event
from sgl_droute.fleet.job import Job, Known
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.rules import Rules
from sgl_droute.fleet.scheduler import Scheduler
from sgl_droute.fleet.speeds import Rate, Speeds
from sgl_droute.fleet.station import Station
from sgl_droute.fleet.worker import Worker

# Times that a scheduler may ask to be called again at once.
MOST_TICKS = 3


def url_of(name: str) -> str:
    return f"http://{name}:1"


def name_of(url: str) -> str:
    return url.removeprefix("http://").removesuffix(":1")


def able(pool: Pool, name: str, *tasks: str, model: str = "m", replicas: int = 1) -> None:
    """
    Have the worker *name* say what it serves, in SGLang's words.
    """
    info = {"model_path": model, "supported_task_types": list(tasks)}
    known = reported(info, None, {"dp_size": replicas})
    pool.record_capabilities(pool[url_of(name)], known)


@define(eq=False)
class Stage:
    """
    Work is told in seconds: while nothing is learned a job takes as long as its work says.

    Attributes:
        now: The time (seconds).
        homes: Where each job is or was, by id.
        dropped: Why jobs were let go, by id.
        order: The ids of the jobs in the order in which they went to workers.
        events: What the scheduler told.
    """

    scheduler: Scheduler
    now: float = 0.0
    homes: dict[str, str] = field(factory=dict, init=False)
    ends: dict[str, float] = field(factory=dict, init=False)
    bounds: dict[str, Bound] = field(factory=dict, init=False)
    dropped: dict[str, RouterError] = field(factory=dict, init=False)
    order: list[str] = field(factory=list, init=False)
    events: list[Event] = field(factory=list, init=False)

    @property
    def pool(self) -> Pool:
        return self.scheduler.pool

    def worker(self, name: str) -> Worker:
        return self.pool[url_of(name)]

    def station(self, name: str) -> Station:
        return self.scheduler.floor.stations[url_of(name)]

    def change(self, name: str, **facts: Any) -> None:
        """
        Change the record of a worker; what follows is decided with the next event.
        """
        self.pool.change(self.worker(name), lambda worker: evolve(worker, **facts))

    # What clients do.

    def submit(self, id: str, work: float | None = 1.0, *, want: Want = IMAGE, **facts: Any) -> str:
        """
        The name of the worker that the job goes to at once, empty if it waits.
        """
        job = Job(id=id, want=want, demand=Known(work), submitted=self.now, **facts)
        self.follow(self.scheduler.submit(job, self.now))
        return self.homes.get(id, "")

    def abandon(self, id: str) -> None:
        self.follow(self.scheduler.abandon(id, self.now))

    def cancel(self, id: str) -> None:
        self.follow(self.scheduler.cancel(id, self.now))

    # What workers do.

    def finish(self, id: str, *, took: float | None = None, well: bool = True) -> None:
        self.follow(self.scheduler.finish(id, self.now, took=took, well=well))

    def unreached(self, id: str) -> str:
        """
        The name of the worker that the job goes to now, empty if it waits.
        """
        self.homes.pop(id)
        self.follow(self.scheduler.unreached(id, self.now))
        return self.homes.get(id, "")

    def make(self, id: str, kind: str = "video") -> None:
        """
        The answer to a job is that it makes a thing, of the same id.
        """
        self.scheduler.made(id, (kind, id))
        self.finish(id)

    def thing_ended(self, id: str, kind: str = "video", *, took: float | None = None) -> None:
        self.follow(self.scheduler.thing_ended((kind, id), self.now, took=took))

    # Time.

    def wait(self, seconds: float) -> None:
        """
        Let time pass, with a tick whenever one is due.
        """
        until = self.now + seconds
        ticks = 0
        while (due := self.scheduler.due()) is not None and due <= until:
            ticks = 0 if due > self.now else ticks + 1
            assert ticks < MOST_TICKS, f"still due at {self.now}"
            self.now = max(self.now, due)
            self.follow(self.scheduler.tick(self.now))
        self.now = until

    def follow(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            id = decision.job.id
            if isinstance(decision, Bound):
                self.homes[id] = name_of(decision.worker.url)
                self.ends[id] = decision.end
                self.bounds[id] = decision
                self.order.append(id)
            else:
                self.dropped[id] = decision.error


def stage(
    *names: str, learned: Mapping[str, float] | None = None, samples: int = 8, **rules: Any
) -> Stage:
    """
    Workers that have said nothing, and a scheduler with those *rules*.

    Args:
        learned: Seconds for a unit of work by worker, of those whose speed is known for images.
        samples: Measurements behind that (count).
    """
    pool = Pool()
    speeds = Speeds(Rate(1.0))
    for name in names:
        worker = pool.add(url_of(name))
        if learned is not None and name in learned:
            for work in range(1, samples + 1):
                speeds.learn(worker, "image", Known(work), work * learned[name])
    made = Stage(Scheduler(pool, speeds, Rules(**{"random": Random(3), **rules})))
    made.scheduler.watch(made.events.append)
    return made


def here(play: Stage, name: str) -> list[str]:
    """
    The jobs that a worker has.
    """
    running = play.scheduler.floor.running.values()
    return [each.job.id for each in running if each.station is play.station(name)]
