"""
What an algorithm made of recorded traffic. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

from bench.harness.replay.recording import Change
from bench.harness.virtual.engine import DONE, DROPPED, LEFT, REFUSED, Machine, Task

STUCK = "stuck"
FATES = (DONE, REFUSED, DROPPED, LEFT, STUCK)


@frozen(kw_only=True)
class Outcome:
    """
    What an algorithm made of the traffic.

    Attributes:
        makespan: Seconds from the first arrival until no worker had anything left to do.
        latencies: Of the jobs that were done, ascending (seconds).
        fates: How many jobs were done, refused, dropped from the line, left by their clients, or
            stuck in the line at the end.
        idle: Share of the time of all replicas of eligible workers in which they did nothing; None
            if there was none.
    """

    algorithm: str
    makespan: float
    latencies: tuple[float, ...]
    fates: Mapping[str, int]
    idle: float | None


def outcome(
    algorithm: str, tasks: Sequence[Task], machines: Iterable[Machine], changes: Sequence[Change]
) -> Outcome:
    """
    The outcome of a run that has ended.

    Args:
        tasks: In order of arrival.
        changes: Of the workers, in order of time.
    """
    ends = [machine.free for machine in machines]
    makespan = max([tasks[-1].job.submitted, *ends])
    busy = sum(task.took for task in tasks if task.took is not None)
    offered = _offered(changes, makespan)
    latencies = (task.ended - task.job.submitted for task in tasks if task.ended is not None)
    return Outcome(
        algorithm=algorithm,
        makespan=makespan,
        latencies=tuple(sorted(latencies)),
        fates=Counter(task.fate or STUCK for task in tasks),
        idle=max(0.0, 1 - busy / offered) if offered else None,
    )


def _offered(changes: Sequence[Change], makespan: float) -> float:
    """
    Seconds that the replicas of eligible workers have until *makespan*, summed up.
    """
    replicas: dict[str, int] = {}
    offered = before = 0.0
    for change in changes:
        at = min(max(0.0, change.at), makespan)
        offered += (at - before) * sum(replicas.values())
        before = at
        now = change.now
        replicas[change.url] = now.capabilities.replicas if now and now.eligible else 0
    return offered + (makespan - before) * sum(replicas.values())
