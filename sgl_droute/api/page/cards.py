"""
What the live page shows of workers and their jobs. Times are seconds on the reactor's clock.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

from attrs import define, field

from sgl_droute.api.worker_object import shown, worker_id_of
from sgl_droute.fleet.forecast import Prospect
from sgl_droute.fleet.jobs import OpenJob, OpenJobs
from sgl_droute.fleet.speeds import Speeds
from sgl_droute.fleet.station import Running, Station
from sgl_droute.fleet.worker import Worker

encoded: Callable[[Any], str] = partial(json.dumps, separators=(",", ":"))
"""What is given, as JSON."""


@define(eq=False)
class Cards:
    """
    The workers' cards, as JSON.

    What was learned of a worker is looked up when its record has changed, as it does with each
    request, and not whenever others have taught what is usual.

    Args:
        jobs: The video and mesh jobs.
        speeds: What was learned of workers.
    """

    jobs: OpenJobs
    speeds: Speeds
    _facts: dict[str, tuple[Worker, str]] = field(factory=dict, init=False)

    def of(self, workers: Iterable[Worker], stations: Mapping[str, Station]) -> dict[str, str]:
        """
        The cards of all *workers*, by id: each as the API shows it, with what it has before it.
        """
        before, self._facts = self._facts, {}
        found = {}
        for worker in workers:
            id = worker_id_of(worker.url)
            known = before.get(id)
            if known is None or known[0] is not worker:
                known = worker, encoded(shown(worker, self.speeds.shown(worker)))
            self._facts[id] = known
            found[id] = f"{known[1][:-1]},{encoded(self._work(stations[worker.url]))[1:]}"
        return found

    def _work(self, station: Station) -> dict[str, Any]:
        running = sum(1 for lane in station.lanes if len(lane))
        return {
            "order": station.worker.serial,
            "load": station.taken,
            "slots": station.limit or None,
            "current": _current(station, self.jobs),
            "queued": station.taken - running,
        }


def open_jobs(
    shown: Iterable[OpenJob], stations: Iterable[Station], jobs: OpenJobs
) -> list[dict[str, Any]]:
    """
    The video and mesh jobs *shown*, which are at *stations*.
    """
    ends = {
        running.thing: _end(running, start, end, jobs)
        for station in stations
        for running, start, end in _planned(station)
        if running.thing is not None
    }
    return [
        {
            "kind": job.kind,
            "id": job.id,
            "worker": job.worker,
            "status": _status(job),
            "progress": _progress(job),
            "created": moment(job.created),
            "end": moment(ends.get((job.kind, job.id))),
        }
        for job in shown
    ]


def turn(prospect: Prospect) -> dict[str, Any]:
    """
    A job in line.
    """
    job = prospect.job
    return {
        "id": job.id,
        "kind": job.kind,
        "position": prospect.position,
        "since": moment(job.submitted),
        "start": moment(prospect.start),
        "end": moment(prospect.end),
        "priority": job.priority,
        "client": job.client,
        "batch": job.batch,
        "why": prospect.why,
    }


def moment(when: float | None) -> float | None:
    """
    A time to the millisecond; None for one that nobody can tell.
    """
    return None if when is None or not math.isfinite(when) else round(when, 3)


def _current(station: Station, jobs: OpenJobs) -> dict[str, Any] | None:
    """
    The job that runs, on the first replica that has one.
    """
    for lane in station.lanes:
        for running, start, end in islice(lane.plan(), 1):
            thing = running.thing
            job = None if thing is None else jobs.get(*thing)
            return {
                "kind": running.job.kind,
                "job": running.job.id,
                "id": None if thing is None else thing[1],
                "client": running.job.client or None,
                "since": moment(start),
                "progress": None if job is None else _progress(job),
                "end": moment(_end(running, start, end, jobs)),
            }
    return None


def _planned(station: Station) -> Iterator[tuple[Running, float, float]]:
    for lane in station.lanes:
        yield from lane.plan()


def _end(running: Running, start: float, end: float, jobs: OpenJobs) -> float:
    """
    When a job will have ended: by the progress that its worker told, else as it was predicted. That
    prediction is not moved on when it has passed, so that a late job shows as one.
    """
    lane, thing = running.lane, running.thing
    if lane is None or lane.first is not running:
        return end
    job = None if thing is None else jobs.get(*thing)
    if job is not None and job.progress_since is not None:
        return job.predicted_end(running.seconds)
    return start + running.seconds


def _status(job: OpenJob) -> str:
    return "in_progress" if _unheard_of(job) else job.status


def _progress(job: OpenJob) -> int | None:
    """
    Percent; None where its worker has not told, or is not asked any more.
    """
    return None if job.deleted or _unheard_of(job) else job.progress


def _unheard_of(job: OpenJob) -> bool:
    """
    Whether it has begun, as its worker had nothing else to do, and was not asked about since.
    """
    return job.status == "queued" and job.started is not None
