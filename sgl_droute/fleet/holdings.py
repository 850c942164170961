"""
What the workers hold for clients: who has which id, and which jobs are still open.

It puts together `sgl_droute.fleet.owners` and `sgl_droute.fleet.jobs` from what passes through the
router; nothing is asked of workers here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, evolve

from sgl_droute.fleet.job import JOBS
from sgl_droute.fleet.jobs import OpenJobs
from sgl_droute.fleet.owners import Owners, keepable
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Worker


@define(eq=False)
class Holdings:
    """
    Learns from answers who holds what, and counts open jobs as load of their workers.

    Args:
        pool: The fleet; answers of workers that have left it teach nothing.
        owners: Which worker has an id.
        jobs: The jobs that count as load.
        now: The wall clock (seconds).
    """

    pool: Pool
    owners: Owners
    jobs: OpenJobs
    now: Callable[[], float]

    def __attrs_post_init__(self) -> None:
        self.jobs.on_count = self._count
        self.pool.watch(self._worker_changed)

    def made(self, kind: str, worker: Worker, fields: Mapping[str, Any]) -> None:
        """
        Learn from the top-level *fields* of *worker*'s answer to a creation.
        """
        made = id_in(fields)
        if made is None or self.pool.still(worker) is None:
            return
        if kind in JOBS:
            self.jobs.created(kind, made, worker.url, worker.serial, self.now())
        self.seen(kind, made, worker, fields)

    def seen(self, kind: str, id: str, worker: Worker, fields: Mapping[str, Any]) -> None:
        """
        Learn from what *worker* told of the thing with that *id*.
        """
        if self.pool.still(worker) is None:
            return
        self.owners.learn(kind, id, worker.url, self.now())
        if kind in JOBS:
            self.jobs.seen(kind, id, worker.url, worker.serial, fields, self.now())

    def row(self, kind: str, worker: Worker, fields: Mapping[str, Any]) -> None:
        """
        As `seen`, of a row in a list.
        """
        listed = id_in(fields)
        if listed is not None:
            self.seen(kind, listed, worker, fields)

    def deleted(self, kind: str, id: str) -> None:
        """
        Note that the worker forgot the thing as it was told; a job runs on.
        """
        self.owners.forget(kind, id)
        self.jobs.deleted(kind, id, self.now())

    def lost(self, kind: str, id: str) -> None:
        """
        Note that its worker does not know the thing any more.
        """
        self.owners.forget(kind, id)
        self.jobs.lost(kind, id)

    def _count(self, url: str, serial: int, count: int) -> None:
        worker = self.pool.holder(url)
        if worker is not None and worker.serial == serial:
            self.pool.change(worker, lambda now: evolve(now, jobs=count))

    def _worker_changed(self, before: Worker | None, now: Worker | None) -> None:
        if before is None:
            self.owners.clear_unknown()  # somebody new may know
        elif now is None:
            self.jobs.worker_lost(before.url, before.serial)
        elif now.incarnation != before.incarnation and before.incarnation:
            self.jobs.restarted(now.url, now.serial)


def id_in(fields: Mapping[str, Any]) -> str | None:
    """
    The id in the top-level *fields* of a worker's answer; None if there is none that can be kept.
    """
    made = fields.get("id")
    return made if isinstance(made, str) and keepable(made) else None
