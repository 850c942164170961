"""
All arms on all workloads and seeds, on several cores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from signal import SIG_DFL, SIGINT, signal

from attrs import frozen

from bench.harness.virtual import orders
from bench.harness.virtual.arms import Arm, scheduler, tasks
from bench.harness.virtual.engine import simulate
from bench.harness.virtual.figures import Figures, figures, mean
from bench.harness.virtual.workloads import Request, Workload


@frozen(kw_only=True)
class Result:
    """
    One workload; each figure is the mean over the seeds.

    Attributes:
        arms: The figures of each arm.
        references: Those of the orderings that are no scheduler's, by name; empty where there
            are none.
        runs: The figures of each arm for each seed, in order of the seeds.
    """

    workload: Workload
    arms: dict[Arm, Figures]
    references: dict[str, Figures]
    runs: dict[Arm, list[Figures]]

    def of(self, algorithm: str, slots: int, costs: str = "exact") -> Figures | None:
        """
        The figures of that arm; without any knowledge of costs where that makes no difference.
        """
        exact = self.arms.get(Arm(algorithm, slots, "exact"))
        return self.arms.get(Arm(algorithm, slots, costs), exact)


@frozen
class _Run:
    arms: dict[Arm, Figures]
    references: dict[str, Figures]


def study(
    workloads: Sequence[Workload],
    arms: Sequence[Arm],
    *,
    seeds: int,
    requests: int,
    processes: int,
    say: Callable[[str], None],
) -> list[Result]:
    """
    The means over *seeds* runs of about *requests* requests each.
    """
    # Ctrl-C reaches every process of the terminal: these end of it without a word.
    with ProcessPoolExecutor(processes, initializer=signal, initargs=(SIGINT, SIG_DFL)) as pool:
        asked = {
            workload.name: [
                pool.submit(_run, workload, tuple(arms), seed, requests) for seed in range(seeds)
            ]
            for workload in workloads
        }
        try:
            return [_put_together(each, _runs(asked, each, say)) for each in workloads]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _runs(
    asked: Mapping[str, Sequence[Future[_Run]]], workload: Workload, say: Callable[[str], None]
) -> list[_Run]:
    runs = [each.result() for each in asked[workload.name]]
    say(f"{workload.name}: done")
    return runs


def played(arm: Arm, workload: Workload, requests: Sequence[Request], seed: int) -> Figures:
    """
    The figures of one run.
    """
    made, machines = scheduler(arm, workload.speeds, seed)
    played = tasks(requests, arm.costs, seed)
    simulate(made, machines, played)
    return figures(
        requests,
        [task.ended for task in played],
        workload.speeds,
        left=sum(task.left for task in played),
        refused=sum(task.error is not None for task in played),
    )


def _run(workload: Workload, arms: Sequence[Arm], seed: int, count: int) -> _Run:
    requests = workload.made(seed, count)
    ends = orders.references(requests, workload.speeds) if workload.group == "a" else {}
    return _Run(
        {arm: played(arm, workload, requests, seed) for arm in arms},
        {name: figures(requests, each, workload.speeds) for name, each in ends.items()},
    )


def _put_together(workload: Workload, runs: Sequence[_Run]) -> Result:
    by_arm = {arm: [run.arms[arm] for run in runs] for arm in runs[0].arms}
    names = runs[0].references
    return Result(
        workload=workload,
        arms={arm: mean(several) for arm, several in by_arm.items()},
        references={name: mean([run.references[name] for run in runs]) for name in names},
        runs=by_arm,
    )
