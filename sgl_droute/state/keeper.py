"""
Keeps the fleet's memory in a store: brings it back at start, and hands on what changes.

Of a worker only what operators and quarantine decided is kept; how it is otherwise shows when it is
asked.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

from attrs import define, evolve
from twisted.logger import Logger

from sgl_droute.errors import BadRequest
from sgl_droute.fleet.holdings import Holdings
from sgl_droute.fleet.loras import LoraSet
from sgl_droute.fleet.owners import Entry
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Worker, quarantined
from sgl_droute.state.saved import Saved, SavedOwner, SavedWorker
from sgl_droute.state.store import Store

log = Logger()

_kept = attrgetter("dead", "proven", "draining", "leaving", "disabled", "asleep")


@define(eq=False)
class Keeper:
    """
    Between the fleet and a store.

    Args:
        store: What is written and read.
        pool: Empty until `begin`.
        holdings: Empty until `begin`.
    """

    store: Store
    pool: Pool
    holdings: Holdings

    def begin(self) -> None:
        """
        Bring back what the store holds, and hand on every change from now on.

        Raises:
            ValueError: The state cannot be had; one sentence says where and why.
        """
        saved = self.store.load()
        self.holdings.owners.on_change = self._owner_changed
        self.holdings.jobs.on_change = self._job_changed
        self.pool.watch(self._worker_changed)
        self.pool.watch_loras(lambda loras: self.store.put_loras(loras.saved()))
        # What is brought back is written back too: without what is dropped on the way.
        self._restore(saved)

    def _restore(self, saved: Saved) -> None:
        if saved.loras:
            self.pool.record_loras(LoraSet.restored(saved.loras))
        for worker in saved.workers:
            try:
                self.pool.add(worker.url)
            except BadRequest as problem:
                log.warn("a saved worker is left out: {problem}", problem=problem)
                self.store.drop_worker(worker.url)
        self.holdings.owners.restore(
            (owner.kind, owner.id, Entry(owner.worker, owner.used)) for owner in saved.owners
        )
        for owner in saved.owners:
            if owner.open and owner.worker in self.pool:
                serial = self.pool[owner.worker].serial
                self.holdings.jobs.created(
                    owner.kind, owner.id, owner.worker, serial, self.holdings.now()
                )
        for worker in saved.workers:
            if worker.url in self.pool:
                self.pool.change(self.pool[worker.url], _flags_of(worker))

    def _worker_changed(self, before: Worker | None, now: Worker | None) -> None:
        if now is None:
            assert before is not None
            self.store.drop_worker(before.url)
        elif now.lasting and (before is None or _kept(before) != _kept(now)):
            self.store.put_worker(
                SavedWorker(
                    url=now.url,
                    dead=now.dead and now.proven,
                    draining=now.draining,
                    leaving=now.leaving,
                    disabled=now.disabled,
                    asleep=now.asleep,
                )
            )

    def _owner_changed(self, kind: str, id: str, entry: Entry | None) -> None:
        if entry is None:
            self.store.drop_owner(kind, id)
        else:
            self._put_owner(kind, id, entry)

    def _job_changed(self, kind: str, id: str) -> None:
        entry = self.holdings.owners.entry(kind, id)
        if entry is not None:
            self._put_owner(kind, id, entry)

    def _put_owner(self, kind: str, id: str, entry: Entry) -> None:
        is_open = self.holdings.jobs.get(kind, id) is not None
        self.store.put_owner(
            SavedOwner(kind=kind, id=id, worker=entry.worker, used=entry.used, open=is_open)
        )


def _flags_of(saved: SavedWorker) -> Callable[[Worker], Worker]:
    """
    The transition that gives a worker the flags that were saved.
    """

    def flagged(worker: Worker) -> Worker:
        if saved.dead:
            worker = quarantined(worker, "quarantined before the router was restarted")
        return evolve(
            worker,
            draining=saved.draining,
            leaving=saved.leaving,
            disabled=saved.disabled,
            asleep=saved.asleep,
        )

    return flagged
