"""
Keeps the fleet's memory in a store: brings it back at start, and hands on what changes.

Of a worker only what operators and quarantine decided is kept, and what was learned of its speed;
how it is otherwise shows when it is asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from operator import attrgetter
from typing import Protocol

from attrs import Factory, define, evolve, field
from twisted.logger import Logger

from sgl_droute.errors import BadRequest
from sgl_droute.fleet.holdings import Holdings
from sgl_droute.fleet.loras import LoraSet
from sgl_droute.fleet.owners import Entry
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.refits import Refits
from sgl_droute.fleet.webhook import Webhook
from sgl_droute.fleet.webhooks import PendingWebhooks
from sgl_droute.fleet.worker import Worker, quarantined
from sgl_droute.state.database import StateError
from sgl_droute.state.saved import Saved, SavedOwner, SavedWorker
from sgl_droute.state.store import Store

log = Logger()

# Seconds that what is learned of a worker's speed waits for more of it, before it is written.
_LESSONS = 30.0

_kept = attrgetter(
    "dead", "proven", "barred", "draining", "leaving", "disabled", "asleep", "concurrency", "speed"
)

# What reading JSON comes to that another shape has than the one that was written.
_UNREADABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class Speeds(Protocol):
    """
    What is learned of the speed of workers, each known by its URL.

    Attributes:
        on_change: To be called with the URL, and a kind of work, when something was learned.
    """

    on_change: Callable[[str, str], object]

    def saved(self, url: str, /) -> str | None:
        """What is to be kept of a worker; None for nothing."""

    def restore(self, url: str, text: str, /) -> object:
        """Know again what `saved` gave as *text*; what cannot be read is ignored."""


@define(eq=False)
class Keeper:
    """
    Between the fleet and a store.

    Args:
        store: What is written and read.
        pool: Empty until `begin`.
        holdings: Empty until `begin`.
        speeds: Knows nothing until `begin`; None if nothing is learned.
        refits: Knows nothing until `begin`.
        webhooks: Empty until `begin`.
    """

    store: Store
    pool: Pool
    holdings: Holdings
    speeds: Speeds | None = None
    refits: Refits = field(default=Factory(lambda self: Refits(self.pool), takes_self=True))
    webhooks: PendingWebhooks = field(factory=PendingWebhooks)
    _weights_due: bool = field(default=True, init=False)
    _learned: dict[str, float] = field(factory=dict, init=False)  # when each URL is to be written

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
        # What is brought back is written back too: without what is dropped on the way.
        self._restore(saved)
        self.refits.all_back()
        self.refits.watch(self._weights_changed)
        self.store.before_writing(self._put_weights)
        self.webhooks.restore(saved.webhooks)
        self.webhooks.on_change = self._webhook_changed
        if self.speeds is not None:
            self._restore_speeds(self.speeds, saved)
            self.speeds.on_change = self._speed_learned
            self.store.before_writing(self._put_speeds)

    def _restore(self, saved: Saved) -> None:
        self._restore_weights(saved)
        for worker in saved.workers:
            try:
                self.pool.add(worker.url)
            except BadRequest as problem:
                log.warn("a saved worker is left out: {problem}", problem=problem)
                self.store.drop_worker(worker.url)
        self.holdings.owners.restore(
            (owner.kind, owner.id, Entry(owner.worker, owner.used, owner.epoch))
            for owner in saved.owners
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

    def _restore_weights(self, saved: Saved) -> None:
        try:
            if saved.weights:
                self.refits.restore(json.loads(saved.weights))
            elif saved.loras:
                self.refits.inherit(LoraSet.restored(saved.loras))
        except _UNREADABLE as problem:
            reason = f"is damaged: its weights cannot be read: {problem!r}"
            raise StateError(self.store.place, reason) from problem

    def _restore_speeds(self, speeds: Speeds, saved: Saved) -> None:
        for url, text in saved.speeds:
            if url in self.pool:
                speeds.restore(url, text)
            else:
                self.store.drop_speeds(url)

    def _worker_changed(self, before: Worker | None, now: Worker | None) -> None:
        if now is None:
            assert before is not None
            self.store.drop_worker(before.url)
            self.store.drop_speeds(before.url)
            self._learned.pop(before.url, None)
        elif now.lasting and (before is None or _kept(before) != _kept(now)):
            self.store.put_worker(
                SavedWorker(
                    url=now.url,
                    dead=now.dead and now.proven,
                    barred=now.barred,
                    draining=now.draining,
                    leaving=now.leaving,
                    disabled=now.disabled,
                    asleep=now.asleep,
                    concurrency=now.concurrency,
                    speed=now.speed,
                )
            )

    def _weights_changed(self) -> None:
        # Many changes together: the text is made when it is written.
        self._weights_due = True

    def _put_weights(self, last: bool) -> None:
        if self._weights_due or last:
            self.store.put_weights(json.dumps(self.refits.saved(going_on=not last)))
            self._weights_due = False

    def _speed_learned(self, url: str, kind: str) -> None:
        # With every answered request: the text is made when it is written.
        if url in self.pool and self.pool[url].lasting:
            self._learned.setdefault(url, self.holdings.now() + _LESSONS)

    def _put_speeds(self, last: bool) -> None:
        assert self.speeds is not None
        now = self.holdings.now()
        due = [url for url, time in self._learned.items() if last or time <= now]
        for url in due:
            del self._learned[url]
            text = self.speeds.saved(url)
            if text is not None:
                self.store.put_speeds(url, text)

    def _owner_changed(self, kind: str, id: str, entry: Entry | None) -> None:
        if entry is None:
            self.store.drop_owner(kind, id)
        else:
            self._put_owner(kind, id, entry)

    def _job_changed(self, kind: str, id: str) -> None:
        entry = self.holdings.owners.entry(kind, id)
        if entry is not None:
            self._put_owner(kind, id, entry)

    def _webhook_changed(self, kind: str, id: str, webhook: Webhook | None) -> None:
        if webhook is None:
            self.store.drop_webhook(kind, id)
        else:
            self.store.put_webhook(webhook)

    def _put_owner(self, kind: str, id: str, entry: Entry) -> None:
        is_open = self.holdings.jobs.get(kind, id) is not None
        self.store.put_owner(
            SavedOwner(
                kind=kind,
                id=id,
                worker=entry.worker,
                used=entry.used,
                open=is_open,
                epoch=entry.epoch,
            )
        )


def _flags_of(saved: SavedWorker) -> Callable[[Worker], Worker]:
    """
    The transition that gives a worker what was saved of it.
    """

    def flagged(worker: Worker) -> Worker:
        if saved.dead:
            reason = "quarantined before the router was restarted"
            worker = quarantined(worker, reason, barred=saved.barred)
        return evolve(
            worker,
            draining=saved.draining,
            leaving=saved.leaving,
            disabled=saved.disabled,
            asleep=saved.asleep,
            concurrency=saved.concurrency,
            speed=saved.speed,
        )

    return flagged
