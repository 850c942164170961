"""
What is compared: an algorithm, with slots or without, and how much it knows of the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random

from attrs import evolve, frozen

from bench.harness.virtual.engine import Machine, Task
from bench.harness.virtual.workloads import PACE, Request
from sgl_droute.fleet.capabilities import IMAGE, VIDEO
from sgl_droute.fleet.job import Demand, Job, Known
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.rules import Rules
from sgl_droute.fleet.scheduler import Scheduler
from sgl_droute.fleet.speeds import Rate, Speeds
from sgl_droute.fleet.worker import Worker

COSTS = ("exact", "30 % wrong", "learned")
SLOTS = (0, 1)
WRONG = 0.3
# In units of the cost rule, so that what a request of unknown work takes is within reason too.
_TRUE = Rate(PACE)
# Nothing is known in advance, so the first guess is far off.
_FIRST_GUESS = Rate(10 * PACE)
_WANTS = {want.kind: want for want in (IMAGE, VIDEO)}
_NO_LIMIT = 1_000_000


@frozen
class Arm:
    """
    Attributes:
        algorithm: A routing algorithm.
        slots: Generations a worker is given at once; 0 for any number.
        costs: One of `COSTS`.
    """

    algorithm: str
    slots: int
    costs: str

    @property
    def name(self) -> str:
        slots = f"{self.slots} slot" if self.slots else "no slots"
        return f"{self.algorithm}, {slots}, {self.costs}"


def arms(algorithms: Sequence[str], slots: Sequence[int] = SLOTS) -> list[Arm]:
    """
    Every combination; those that neither look at work nor hold requests back only once, since what
    is known of the work makes no difference to them.
    """
    return [
        Arm(algorithm, limit, costs)
        for limit in slots
        for algorithm in algorithms
        for costs in (COSTS if limit or algorithm == "least-work" else COSTS[:1])
    ]


class Fixed(Speeds):
    """
    Speeds that stay as they are told.
    """

    def learn(self, worker: Worker, kind: str, demand: Demand, seconds: float) -> None:
        """Nothing follows from a measurement."""


def scheduler(arm: Arm, speeds: Sequence[float], seed: int) -> tuple[Scheduler, dict[str, Machine]]:
    """
    A scheduler as *arm* has it, and the workers of these *speeds* in its pool.
    """
    pool = Pool()
    rules = Rules(
        algorithm=arm.algorithm,
        random=Random(f"choices {seed}"),
        concurrency=arm.slots,
        max_running=_NO_LIMIT,
        queue_size=_NO_LIMIT,
    )
    learned = arm.costs == "learned"
    made = Scheduler(pool, Speeds(_FIRST_GUESS) if learned else Fixed(_TRUE), rules)
    machines = {}
    for number, speed in enumerate(speeds):
        worker = pool.add(f"http://worker-{number}:30000")
        machines[worker.url] = Machine(speed)
        if speed != 1.0 and not learned:
            pool.change(worker, partial(evolve, speed=speed))
    return made, machines


def tasks(requests: Sequence[Request], costs: str, seed: int) -> list[Task]:
    """
    The requests as jobs whose work is known as well as *costs* says.
    """
    random = Random(f"guesses {seed}")
    return [
        _task(str(number), request, _known(request, costs, random))
        for number, request in enumerate(requests)
    ]


def _known(request: Request, costs: str, random: Random) -> Known:
    if costs == "learned":
        return Known(request.work)
    exact = request.seconds / _TRUE.pace
    return Known(exact if costs == "exact" else exact * random.uniform(1 - WRONG, 1 + WRONG))


def _task(id: str, request: Request, demand: Known) -> Task:
    accept = request.accept
    job = Job(
        id=id,
        want=_WANTS[request.kind],
        demand=demand,
        submitted=request.at,
        batch=request.batch,
        hand_over=None if accept is None else request.at + accept,
    )
    thing = None if accept is None else (request.kind, id)
    return Task(job, request.seconds, request.patience, thing)
