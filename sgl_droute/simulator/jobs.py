"""
The video and mesh jobs of one worker, and how lists of them are cut into pages.

Pure: time comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from attrs import Factory, define, evolve, frozen

MOST_PER_PAGE = 100
ROUNDING = 1e-6


@frozen(kw_only=True)
class Job:
    """
    One asynchronous generation.

    Attributes:
        paths: Where the outputs will be, one per output.
        about: Fields that only this kind of job shows, in the worker's order.
        started: When the GPU took it (seconds of the worker's clock), None before.
        duration: Seconds that the GPU needs for it, known once started.
    """

    id: str
    model: str
    created: float
    paths: tuple[Path, ...]
    about: dict[str, object] = Factory(dict)
    status: str = "queued"
    started: float | None = None
    duration: float = 0.0
    completed: float | None = None
    error: str | None = None
    inference_time: float | None = None
    peak_memory_mb: float | None = None

    def progress(self, now: float) -> int:
        """
        Percent done: 0 while queued, at most 99 before the end.
        """
        if self.status == "completed":
            return 100
        if self.started is None or self.status == "failed":
            return 0
        if not self.duration:
            return 99
        return min(99, int(100 * (now - self.started) / self.duration + ROUNDING))

    def output(self, variant: int | None) -> Path | None:
        """
        The file of *variant*; without one, of the only or first output.
        """
        if self.status != "completed":
            return None
        number = 0 if variant is None else variant
        return self.paths[number] if 0 <= number < len(self.paths) else None


def started(job: Job, now: float, duration: float) -> Job:
    return evolve(job, status="in_progress", started=now, duration=duration)


def completed(job: Job, now: float, inference_time: float, peak_memory_mb: float) -> Job:
    return evolve(
        job,
        status="completed",
        completed=now,
        inference_time=inference_time,
        peak_memory_mb=peak_memory_mb,
    )


def failed(job: Job, message: str) -> Job:
    return evolve(job, status="failed", error=message)


@define
class Jobs:
    """
    The jobs that a worker remembers, in order of arrival. Only :meth:`forget` drops one.
    """

    _jobs: dict[str, Job] = Factory(dict)

    def __getitem__(self, job_id: str) -> Job:
        return self._jobs[job_id]

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    def put(self, job: Job) -> None:
        self._jobs[job.id] = job

    def change(self, job: Job) -> None:
        """
        Take the new state of a job, unless it has been forgotten.
        """
        if job.id in self._jobs:
            self._jobs[job.id] = job

    def forget(self, job_id: str) -> Job:
        return self._jobs.pop(job_id)

    def page(self, after: str | None, limit: int, *, newest_first: bool) -> tuple[list[Job], bool]:
        """
        At most *limit* jobs behind *after*, and whether more follow.

        Ordered by whole seconds; jobs of one second keep their order of arrival in both directions.
        An unknown *after* gives an empty page.
        """
        ordered = sorted(self, key=lambda job: int(job.created), reverse=newest_first)
        if after is not None:
            place = next((i for i, job in enumerate(ordered) if job.id == after), len(ordered))
            ordered = ordered[place + 1 :]
        return ordered[:limit], len(ordered) > limit
