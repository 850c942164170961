"""
The scheduler on recorded traffic, in virtual time, with the workers as they came and went.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from attrs import define, evolve, field, frozen

from bench.harness.replay.outcome import Outcome, outcome
from bench.harness.replay.recording import Asked, Change, Present, Recording
from bench.harness.replay.truth import Truth
from bench.harness.virtual.engine import Machine, Simulation, Task
from sgl_droute.fleet.decisions import Decision
from sgl_droute.fleet.job import JOBS, Job
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.rules import Rules
from sgl_droute.fleet.scheduler import Scheduler
from sgl_droute.fleet.speeds import Speeds


@frozen
class Recorded:
    """
    The `sgl_droute.fleet.job.Demand` of a recorded job.
    """

    by_model: Mapping[str, float]

    def work(self, model: str | None) -> float | None:
        return self.by_model.get(model or "")


@define(eq=False)
class _Replayed(Task):
    """
    A job that was recorded.
    """

    asked: Asked = field(kw_only=True)


@define(eq=False)
class _Measured(Machine):
    """
    A worker that takes as long for each job as *truth* says.
    """

    url: str = field(kw_only=True)
    truth: Truth = field(kw_only=True)

    def seconds(self, task: Task) -> float:
        assert isinstance(task, _Replayed)
        return self.truth.seconds(task.asked, self.url)


@define(eq=False)
class Replay:
    """
    One run; to be used once.
    """

    recording: Recording
    truth: Truth
    rules: Rules
    scheduler: Scheduler = field(init=False)
    _pool: Pool = field(factory=Pool, init=False)
    _machines: dict[str, Machine] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.scheduler = Scheduler(self._pool, Speeds(), self.rules)

    def run(self) -> Outcome:
        """
        Let all happen.
        """
        recording = self.recording
        tasks = [self._task(str(number), asked) for number, asked in enumerate(recording.jobs)]
        changes = [(max(0.0, each.at), partial(self._change, each)) for each in recording.changes]
        Simulation(self.scheduler, self._machines, tasks, changes).run()
        return outcome(self.rules.algorithm, tasks, self._machines.values(), recording.changes)

    def _task(self, id: str, asked: Asked) -> Task:
        kind = asked.want.kind
        return _Replayed(
            _job(id, asked),
            self.truth.known(asked).seconds,
            patience=asked.left,
            thing=(kind, id) if kind in JOBS else None,
            asked=asked,
        )

    def _change(self, change: Change, now: float) -> list[Decision]:
        if change.now is None:
            self._pool.remove(change.url)
        else:
            self._present(change.now)
        return self.scheduler.tick(now)

    def _present(self, now: Present) -> None:
        machine = self._machines.setdefault(now.url, _Measured(url=now.url, truth=self.truth))
        machine.resize(now.capabilities.replicas)
        worker = self._pool.add(now.url)
        self._pool.record_capabilities(worker, now.capabilities)
        self._pool.change(
            worker,
            lambda record: evolve(
                record, concurrency=now.concurrency, speed=now.speed, disabled=not now.eligible
            ),
        )


def _job(id: str, asked: Asked) -> Job:
    def then(seconds: float | None) -> float | None:
        return None if seconds is None else asked.at + seconds

    return Job(
        id=id,
        want=asked.want,
        demand=Recorded(asked.work),
        submitted=asked.at,
        priority=asked.priority,
        client=asked.client,
        batch=asked.batch,
        group=asked.group,
        deadline=then(asked.deadline),
        expires=then(asked.expires),
        hand_over=then(asked.hand_over),
    )
