"""
A scheduler and a model of its workers in virtual time: no reactor, no sockets, no waiting.

A worker is one line, first in first out, before as many servers as it has replicas; it cannot
cancel, and what it was given runs to its end whether anybody waits for it or not.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

from attrs import Factory, define, field

from sgl_droute.errors import RouterError
from sgl_droute.fleet.decisions import Decision, Dropped
from sgl_droute.fleet.job import Job

# At one moment: what ended makes room before workers change, clients leave and new requests come.
_ANSWER, _FINISH, _CHANGE, _LEAVE, _ARRIVE = range(5)

# What becomes of a request.
DONE, REFUSED, DROPPED, LEFT = "done", "refused", "dropped", "left"

Thing = tuple[str, str]
Act = Callable[[float], Iterable[Decision]]


class Stuck(Exception):
    """The scheduler neither lets time pass nor ends what it holds."""


class Driven(Protocol):
    """What the simulation calls of `sgl_droute.fleet.scheduler.Scheduler`."""

    def submit(self, job: Job, now: float) -> list[Decision]: ...

    def finish(self, id: str, now: float, *, took: float | None = None) -> list[Decision]: ...

    def abandon(self, id: str, now: float) -> list[Decision]: ...

    def made(self, id: str, thing: Thing) -> None: ...

    def thing_ended(
        self, thing: Thing, now: float, *, took: float | None = None
    ) -> list[Decision]: ...

    def tick(self, now: float) -> list[Decision]: ...

    def due(self) -> float | None: ...


@define(eq=False)
class Task:
    """
    A job and what happens to it.

    Attributes:
        job: As the scheduler gets it, at `job.submitted`.
        seconds: It really takes on a worker of speed 1.
        patience: Seconds after which its client leaves; None for one that stays.
        thing: The video that it makes; its worker answers at once and makes it afterwards. None for
            what is made before it is answered.
        given: When a worker had it; None while it waits.
        took: Seconds that its worker works on it; None while it waits.
        ended: When its answer was there; None until then, and for good if it never is.
        fate: ``done``, ``refused`` at once, ``dropped`` from the line, or ``left`` by its client;
            None until then, and for good if it waits for ever.
        error: Why the scheduler did not take it, or let it go.
    """

    job: Job
    seconds: float
    patience: float | None = None
    thing: Thing | None = None
    given: float | None = None
    took: float | None = None
    ended: float | None = None
    fate: str | None = None
    error: RouterError | None = None

    @property
    def left(self) -> bool:
        return self.fate == LEFT


@define(eq=False)
class Machine:
    """
    A worker.

    Attributes:
        speed: Where 1 is usual.
        replicas: Generations it works on at once (count), at first.
    """

    speed: float = 1.0
    replicas: int = 1
    _free: list[float] = field(
        init=False, default=Factory(lambda self: [0.0] * self.replicas, takes_self=True)
    )

    @property
    def free(self) -> float:
        """When all that it was given has ended; 0 if that is nothing."""
        return max(self._free)

    def seconds(self, task: Task) -> float:
        """How long *task* takes here."""
        return task.seconds / self.speed

    def end(self, now: float, seconds: float) -> float:
        """When it has done a job of so many seconds that it is given *now*."""
        end = max(now, self._free[0]) + seconds
        heapq.heapreplace(self._free, end)
        return end

    def resize(self, replicas: int) -> None:
        """Have so many replicas for what comes; those that are idle, or first will be, go first."""
        more = [0.0] * (replicas - len(self._free))
        self._free = sorted([*more, *self._free])[-replicas:]


def simulate(scheduler: Driven, machines: Mapping[str, Machine], tasks: Sequence[Task]) -> int:
    """
    Bring all *tasks* to their ends, which they then tell; the number of events it took.

    Args:
        machines: By the URL of the scheduler's worker.

    Raises:
        Stuck: Jobs wait for ever, or a moment never ends.
    """
    events = Simulation(scheduler, machines, tasks).run()
    waiting = [task.job.id for task in tasks if task.fate is None]
    if waiting:
        raise Stuck(f"nothing is due and {len(waiting)} jobs wait: {waiting[:5]}")
    return events


class Simulation:
    """
    One run; to be used once.

    Args:
        machines: By the URL of the scheduler's worker.
        changes: What is to be done to the workers, and when; it returns what the scheduler decided.
    """

    def __init__(
        self,
        scheduler: Driven,
        machines: Mapping[str, Machine],
        tasks: Sequence[Task],
        changes: Iterable[tuple[float, Act]] = (),
    ) -> None:
        self._scheduler = scheduler
        self._machines = machines
        self._tasks = {task.job.id: task for task in tasks}
        self._events: list[tuple[float, int, int, Act]] = []
        self._number = 0
        self._now = 0.0
        self._ticked = False
        for at, act in changes:
            self._plan(at, _CHANGE, act)
        # One at a time: what is planned stays little, and so does the cost of keeping it in order.
        self._coming = iter(sorted(tasks, key=lambda task: task.job.submitted))
        self._expect()

    def run(self) -> int:
        """
        Let all happen, until nothing more would; the number of events. A task without a fate then
        waits for ever.

        Raises:
            Stuck: A moment never ends.
        """
        events = 0
        while True:
            due = self._scheduler.due()
            if self._events and (due is None or self._events[0][0] <= due):
                self._next()
            elif due is not None and (self._events or self._waiting()):
                self._tick(due)
            else:
                return events
            events += 1

    def _waiting(self) -> bool:
        return any(task.fate is None for task in self._tasks.values())

    def _tick(self, due: float) -> None:
        ticked, self._ticked = self._ticked and due <= self._now, True
        self._now = max(self._now, due)
        decisions = self._scheduler.tick(self._now)
        if ticked and not decisions:
            raise Stuck(f"due again at {self._now}, where a tick had changed nothing")
        self._follow(decisions, self._now)

    def _next(self) -> None:
        self._now, _, _, act = heapq.heappop(self._events)
        self._ticked = False
        self._follow(act(self._now), self._now)

    # What happens.

    def _expect(self) -> None:
        task = next(self._coming, None)
        if task is not None:
            self._plan(task.job.submitted, _ARRIVE, partial(self._arrive, task))

    def _arrive(self, task: Task, now: float) -> list[Decision]:
        self._expect()
        if task.patience is not None:
            self._plan(now + task.patience, _LEAVE, partial(self._leave, task))
        try:
            return self._scheduler.submit(task.job, now)
        except RouterError as error:
            task.fate, task.error = REFUSED, error
            return []

    def _leave(self, task: Task, now: float) -> list[Decision]:
        if task.fate is not None or (task.thing is not None and task.given is not None):
            return []
        task.fate = LEFT
        return self._scheduler.abandon(task.job.id, now)

    def _answer(self, task: Task, now: float) -> list[Decision]:
        assert task.thing is not None
        self._scheduler.made(task.job.id, task.thing)
        return self._scheduler.finish(task.job.id, now)

    def _finish(self, task: Task, now: float) -> list[Decision]:
        if task.fate is not None:
            return []
        task.fate, task.ended = DONE, now
        if task.thing is not None:
            return self._scheduler.thing_ended(task.thing, now, took=task.took)
        return self._scheduler.finish(task.job.id, now, took=task.took)

    # What the scheduler decides.

    def _follow(self, decisions: Iterable[Decision], now: float) -> None:
        for decision in decisions:
            task = self._tasks[decision.job.id]
            if isinstance(decision, Dropped):
                task.fate, task.error = DROPPED, decision.error
            elif task.given is not None or task.fate is not None:
                raise Stuck(
                    f"job {decision.job.id} was given to a worker though it was not in line"
                )
            else:
                self._give(task, self._machines[decision.worker.url], now)

    def _give(self, task: Task, machine: Machine, now: float) -> None:
        task.given, task.took = now, machine.seconds(task)
        if task.thing is not None:
            self._plan(now, _ANSWER, partial(self._answer, task))
        self._plan(machine.end(now, task.took), _FINISH, partial(self._finish, task))

    def _plan(self, at: float, what: int, act: Act) -> None:
        self._number += 1
        heapq.heappush(self._events, (at, what, self._number, act))
