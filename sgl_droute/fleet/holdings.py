"""
What the workers hold for clients: who has which id, and which jobs are still open.

It puts together `sgl_droute.fleet.owners` and `sgl_droute.fleet.jobs` from what passes through the
router; nothing is asked of workers here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import Factory, define, evolve, field

from sgl_droute.fleet.job import JOBS
from sgl_droute.fleet.jobs import OpenJobs
from sgl_droute.fleet.owners import Owners, keepable
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Worker, same_process


@define(eq=False)
class Holdings:
    """
    Learns from answers who holds what, and counts open jobs as load of their workers.

    Args:
        pool: The fleet; answers of workers that have left it teach nothing.
        owners: Which worker has an id.
        jobs: The jobs that count as load.
        now: The wall clock (seconds).
        on_restart: Called with a worker that must have been restarted: what it had is gone. By
            default the pool is told that another process may be there.
    """

    pool: Pool
    owners: Owners
    jobs: OpenJobs
    now: Callable[[], float]
    on_restart: Callable[[Worker], object] = field(
        default=Factory(lambda self: self.pool.record_lapse, takes_self=True)
    )

    def __attrs_post_init__(self) -> None:
        self.jobs.on_count = self._count
        self.pool.watch(self._worker_changed)

    def made(self, kind: str, worker: Worker, fields: Mapping[str, Any], epoch: str = "") -> None:
        """
        Learn from the top-level *fields* of *worker*'s answer to a creation.

        Args:
            worker: As it was when the request was sent.
            epoch: The weights epoch that the thing is made at, as ``X-Weights-Epoch`` tells it;
                empty when not known.
        """
        made = id_in(fields)
        if made is None or self.pool.still(worker) is None:
            return
        if kind in JOBS:
            self.jobs.created(kind, made, worker.url, worker.serial, self.now())
        self.seen(kind, made, worker, fields, epoch)

    def seen(
        self, kind: str, id: str, worker: Worker, fields: Mapping[str, Any], epoch: str = ""
    ) -> None:
        """
        Learn from what *worker*, as it was when it was asked, told of the thing with that *id*; of
        its epoch, as in `made`, nothing when that is empty.
        """
        now = self.pool.still(worker)
        if now is None:
            return
        life = _life(worker) if same_process(now, worker) else -1
        self.owners.learn(kind, id, worker.url, self.now(), epoch=epoch, life=life)
        if kind in JOBS:
            self.jobs.seen(kind, id, worker.url, worker.serial, fields, self.now())

    def row(self, kind: str, worker: Worker, fields: Mapping[str, Any]) -> None:
        """
        As `seen`, of a row in a list.
        """
        listed = id_in(fields)
        if listed is not None:
            self.seen(kind, listed, worker, fields)

    def epoch(self, kind: str, id: str) -> str:
        """
        The weights epoch that the thing was made at, as ``X-Weights-Epoch`` tells it; empty when
        not known.
        """
        entry = self.owners.entry(kind, id)
        return "" if entry is None else entry.epoch

    def deleting(self, kind: str, id: str) -> None:
        """
        Note that the worker is about to be told to forget the thing: that it does not know it then
        is no sign of a restart, whether or not its answer to that arrives.
        """
        self.owners.doubt(kind, id)

    def deleted(self, kind: str, id: str) -> None:
        """
        Note that the worker forgot the thing as it was told; a job runs on.
        """
        self.owners.forget(kind, id)
        self.jobs.deleted(kind, id, self.now())

    def lost(self, kind: str, id: str) -> None:
        """
        Note that its worker does not know the thing any more. If the very process that is there, as
        far as was known, once had it, then it was restarted: a process forgets nothing by itself.
        """
        restarted = self._last_with(kind, id)
        self.owners.forget(kind, id)
        self.jobs.lost(kind, id)
        if restarted is not None:
            self.on_restart(restarted)

    def _last_with(self, kind: str, id: str) -> Worker | None:
        """
        The worker whose present process had the thing; None if that was an earlier one, or nobody
        knows.
        """
        entry = self.owners.entry(kind, id)
        if entry is None or entry.worker not in self.pool:
            return None
        worker = self.pool[entry.worker]
        return worker if entry.life == _life(worker) else None

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


def _life(worker: Worker) -> int:
    """
    A number for the process met at a worker's URL: no two have the same, in all its registrations.
    """
    return worker.serial << 32 | worker.incarnation


def id_in(fields: Mapping[str, Any]) -> str | None:
    """
    The id in the top-level *fields* of a worker's answer; None if there is none that can be kept.
    """
    made = fields.get("id")
    return made if isinstance(made, str) and keepable(made) else None
