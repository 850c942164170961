"""
How long jobs wait: when something is to be done about one that is still in line.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from attrs import define, field

from sgl_droute.fleet.job import Job
from sgl_droute.fleet.line import Line

# The limits of a job, by the names of its attributes.
LIMITS = ("deadline", "expires", "hand_over")


@define(eq=False)
class Patience:
    """
    The limits of the jobs in *line*, in the order in which they come.
    """

    line: Line
    _limits: list[tuple[float, int, str, Job]] = field(factory=list, init=False)
    _set: int = field(default=0, init=False)

    def watch(self, job: Job) -> None:
        """
        Mind the limits of *job*, if it waits.
        """
        if job.id not in self.line:
            return
        for limit in LIMITS:
            when: float | None = getattr(job, limit)
            if when is not None:
                self.set(job, limit, when)

    def set(self, job: Job, limit: str, when: float) -> None:
        """
        Have *limit* of *job* come at *when* (seconds).
        """
        self._set += 1
        heapq.heappush(self._limits, (when, self._set, limit, job))
        if len(self._limits) > 2 * len(LIMITS) * len(self.line) + 64:
            self._sweep()

    def passed(self, now: float) -> Iterator[tuple[Job, str]]:
        """
        The jobs in line of which a limit has come, and which; each once.
        """
        while self._limits and self._limits[0][0] <= now:
            _, _, limit, job = heapq.heappop(self._limits)
            if self.line.get(job.id) is job:
                yield job, limit

    @property
    def next(self) -> float | None:
        """
        When the next limit comes, or came; None if there is none.
        """
        return self._limits[0][0] if self._limits else None

    def _sweep(self) -> None:
        # Far limits of jobs that have left would be kept for as long as clients say.
        self._limits = [each for each in self._limits if self.line.get(each[3].id) is each[3]]
        heapq.heapify(self._limits)

    def __len__(self) -> int:
        return len(self._limits)
