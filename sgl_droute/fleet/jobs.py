"""
Video and mesh jobs that are not finished: the load that no open request shows.

A worker runs its jobs one at a time in the order of their creation, so that of each worker the
first open job runs and the others wait. Workers with several replicas (``dp_size``) are taken for
such workers too: there a deleted job may stop counting somewhat early or late.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import define, evolve, field, frozen
from attrs.validators import ge

from sgl_droute.fleet.excerpt import inference_time

# No worker's time is later.
_MOST_SECONDS = 1e11

# Seconds that a job takes where nobody knows better.
USUAL_DURATION = 120.0

_Key = tuple[str, str]
_Registration = tuple[str, int]


@frozen(kw_only=True)
class OpenJob:
    """
    A job that its worker has before it.

    Attributes:
        worker: URL of its worker.
        serial: Registration number of its worker.
        created: When it was created (seconds).
        status: "queued", "in_progress" or "deleted"; after its deletion the worker still runs it.
        started: When it began, as far as is known (seconds); None while it waits.
        first_progress: Progress that was shown when it was first seen running (percent).
        progress: Progress that was shown last (percent).
        progress_since: When that was shown first (seconds).
    """

    kind: str
    id: str
    worker: str
    serial: int
    created: float
    status: str = "queued"
    started: float | None = None
    first_progress: int = 0
    progress: int = 0
    progress_since: float | None = None

    @property
    def deleted(self) -> bool:
        return self.status == "deleted"

    def predicted_end(self, duration: float) -> float:
        """
        When it will end if it has started; *duration* is what such jobs take (seconds).

        Its own progress since it was first seen running is the better measure where there is one.
        """
        start = self.created if self.started is None else self.started
        left = 100 - self.progress
        done = self.progress - self.first_progress
        if self.progress_since is not None and done > 0 and self.progress_since > start:
            return self.progress_since + (self.progress_since - start) * left / done
        return start + duration * (100 - self.first_progress) / 100


@frozen(kw_only=True)
class EndedJob:
    """
    A job that is over for whoever asked for it.

    Attributes:
        job: What was known of it.
        how: "completed", "failed", "lost" (its worker is gone or does not know it any more) or
            "deleted" (by a client; its worker works on).
        took: Seconds of GPU time, if its worker told them.
        fields: What its worker told of it last, if that told its end.
    """

    job: OpenJob
    how: str
    took: float | None = None
    fields: Mapping[str, Any] = field(factory=dict)


@define(eq=False)
class OpenJobs:
    """
    The jobs that count as load, by kind ("video", "mesh") and id.

    Times are wall-clock seconds, as in the workers' ``created_at``.

    Args:
        on_count: Called with worker, serial and number of open jobs when that number changed.
        on_change: Called with kind and id of a job that was opened or ended.
        on_open: Called with the job that was opened.
        on_end: Called with kind and id of a job that ended, the seconds that its worker told it
            took if any, and whether it was done.
        expected: Tells the seconds that a job of that kind and id takes; None if it cannot.
        most: Jobs kept (count); beyond that the one known for longest ends.
    """

    on_count: Callable[[str, int, int], object] = lambda worker, serial, count: None
    on_change: Callable[[str, str], object] = lambda kind, id: None
    on_open: Callable[[OpenJob], object] = lambda job: None
    on_end: Callable[[str, str, float | None, bool], object] = lambda kind, id, took, done: None
    expected: Callable[[str, str], float | None] = lambda kind, id: None
    most: int = field(default=100_000, validator=ge(1))
    _jobs: dict[_Key, OpenJob] = field(factory=dict, init=False)
    _lines: dict[_Registration, list[_Key]] = field(factory=dict, init=False)
    _observers: list[Callable[[EndedJob], object]] = field(factory=list, init=False)

    def watch(self, observer: Callable[[EndedJob], object]) -> None:
        """
        Have *observer* told once of each job that is over for its client, when that is known; a
        deleted one counts as load for longer.
        """
        self._observers.append(observer)

    def created(self, kind: str, id: str, worker: str, serial: int, now: float) -> None:
        """
        Note that the worker accepted the job; it runs at once if there is no other.
        """
        if self._known(kind, id, worker, serial) is not None:
            return
        started = None if self.count(worker, serial) else now
        self._open(
            OpenJob(kind=kind, id=id, worker=worker, serial=serial, created=now, started=started)
        )

    def seen(
        self, kind: str, id: str, worker: str, serial: int, fields: Mapping[str, Any], now: float
    ) -> None:
        """
        Note what the worker told of the job; fields with values that make no sense are ignored.

        A job that was not known is opened when it waits or runs.
        """
        job = self._known(kind, id, worker, serial)
        status = fields.get("status")
        if status in ("completed", "failed"):
            if job is not None:
                self._finished(job, fields, now, done=status == "completed")
        elif status in ("queued", "in_progress"):
            if job is None:
                created = _created(fields, now)
                job = OpenJob(kind=kind, id=id, worker=worker, serial=serial, created=created)
                self._open(job)
            self._keep(_shown(job, status, _progress(fields), now))
            if status == "in_progress":
                self._overtake(job, now)

    def deleted(self, kind: str, id: str, now: float) -> None:
        """
        Note that the job was deleted: it counts until its predicted end, as the worker works on.
        """
        job = self._jobs.get((kind, id))
        if job is not None:
            self._keep(evolve(job, status="deleted"))
            self._start_first((job.worker, job.serial), now)
            if not job.deleted:
                self._over(EndedJob(job=job, how="deleted"))

    def lost(self, kind: str, id: str) -> None:
        """
        Note that its worker does not know the job any more; of a deleted one that is no news.
        """
        job = self._jobs.get((kind, id))
        if job is not None and not job.deleted:
            self._close(job, None)
            self._over(EndedJob(job=job, how="lost"))

    def restarted(self, worker: str, serial: int) -> None:
        """
        Note that another process may answer for that registration: it works on no deleted job. The
        others are asked about, and it says itself if it does not know them.
        """
        for key in list(self._lines.get((worker, serial), ())):
            if self._jobs[key].deleted:
                self._close(self._jobs[key], None)

    def worker_lost(self, worker: str, serial: int) -> None:
        """
        Note that this registration of the worker ended or lost its memory: its jobs are gone.
        """
        line = self._lines.pop((worker, serial), [])
        for key in line:
            job = self._jobs.pop(key)
            self.on_change(*key)
            self.on_end(*key, None, False)
            if not job.deleted:
                self._over(EndedJob(job=job, how="lost"))
        if line:
            self.on_count(worker, serial, 0)

    def tick(self, now: float) -> None:
        """
        End the deleted jobs whose predicted end has come; to be called every now and then.
        """
        for registration in list(self._lines):
            while registration in self._lines:
                first = self._start_first(registration, now)
                expected = self.expected(first.kind, first.id)
                end = first.predicted_end(USUAL_DURATION if expected is None else expected)
                if not first.deleted or end > now:
                    break
                self._close(first, end)

    def count(self, worker: str, serial: int) -> int:
        """
        How many jobs that registration of the worker has before it.
        """
        return len(self._lines.get((worker, serial), ()))

    def front(self, worker: str, serial: int, n: int = 4) -> list[OpenJob]:
        """
        The first *n* of them that can be asked about, in order of creation.
        """
        found: list[OpenJob] = []
        for key in self._lines.get((worker, serial), ()):
            if len(found) == n:
                break
            if not self._jobs[key].deleted:
                found.append(self._jobs[key])
        return found

    def get(self, kind: str, id: str) -> OpenJob | None:
        """
        The job if it is open.
        """
        return self._jobs.get((kind, id))

    def __iter__(self) -> Iterator[OpenJob]:
        """The open jobs, those known for longest first."""
        return iter(self._jobs.values())

    def __len__(self) -> int:
        return len(self._jobs)

    def _known(self, kind: str, id: str, worker: str, serial: int) -> OpenJob | None:
        """
        The open job, which is gone from wherever else it was.
        """
        job = self._jobs.get((kind, id))
        if job is not None and (job.worker, job.serial) != (worker, serial):
            self._close(job, None)
            return None
        return job

    def _finished(self, job: OpenJob, fields: Mapping[str, Any], now: float, *, done: bool) -> None:
        if done:
            self._overtake(job, now)
        took = (inference_time(fields) or None) if done else None
        self._close(job, now, took, done=done)
        if not job.deleted:
            how = "completed" if done else "failed"
            self._over(EndedJob(job=job, how=how, took=took, fields=fields))

    def _over(self, ended: EndedJob) -> None:
        for observer in self._observers:
            observer(ended)

    def _overtake(self, job: OpenJob, now: float) -> None:
        """
        End the deleted jobs before *job*, which runs or ran: theirs is over.
        """
        line = self._lines[job.worker, job.serial]
        for key in line[: line.index((job.kind, job.id))]:
            if self._jobs[key].deleted:
                self._close(self._jobs[key], now)

    def _start_first(self, registration: _Registration, now: float) -> OpenJob:
        """
        The first job of that worker, which runs by *now* at the latest.
        """
        first = self._jobs[self._lines[registration][0]]
        if first.started is None:
            first = self._keep(evolve(first, started=now))
        return first

    def _keep(self, job: OpenJob) -> OpenJob:
        self._jobs[job.kind, job.id] = job
        return job

    def _open(self, job: OpenJob) -> None:
        self._keep(job)
        line = self._lines.setdefault((job.worker, job.serial), [])
        insort(line, (job.kind, job.id), key=lambda key: self._jobs[key].created)
        self._tell(job)
        self.on_open(job)
        if len(self._jobs) > self.most:
            self._close(next(iter(self._jobs.values())), None)

    def _close(
        self,
        job: OpenJob,
        ended: float | None,
        took: float | None = None,
        *,
        done: bool = False,
    ) -> None:
        """
        *job* is over, and the next one started when it *ended*; None if that is not known.
        """
        registration = job.worker, job.serial
        line = self._lines[registration]
        ran = line[0] == (job.kind, job.id)
        line.remove((job.kind, job.id))
        del self._jobs[job.kind, job.id]
        if not line:
            del self._lines[registration]
        elif ran and ended is not None:
            self._start_first(registration, ended)
        self._tell(job)
        self.on_end(job.kind, job.id, took, done)

    def _tell(self, job: OpenJob) -> None:
        self.on_change(job.kind, job.id)
        self.on_count(job.worker, job.serial, self.count(job.worker, job.serial))


def _shown(job: OpenJob, status: str, progress: int | None, now: float) -> OpenJob:
    """
    *job* after an answer that showed this status and progress.
    """
    if status == "queued":
        # It is first in line and yet waits, for instance for an image.
        return job if job.started is None or job.deleted else evolve(job, started=now)
    if job.status == "queued":
        # Before the router had seen it waiting it may have run for any time.
        job = evolve(
            job,
            status=status,
            started=now if job.started is None else job.started,
            first_progress=(progress or 0) if job.started is None else 0,
        )
    if progress is not None and progress > job.progress:
        job = evolve(job, progress=progress, progress_since=now)
    return job


def _progress(fields: Mapping[str, Any]) -> int | None:
    progress = fields.get("progress")
    return progress if type(progress) is int and 0 <= progress <= 99 else None


def _created(fields: Mapping[str, Any], now: float) -> float:
    """
    When the job was created by its worker's clock, which may go ahead of the router's.
    """
    created = _number(fields.get("created_at"))
    return now if created is None else min(created, now)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value < _MOST_SECONDS else None
