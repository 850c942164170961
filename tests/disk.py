"""
A store for tests, of which only what was written outlives its router.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from sgl_droute.fleet.webhook import Webhook
from sgl_droute.state.database import StateError
from sgl_droute.state.saved import Saved, SavedOwner, SavedWorker
from sgl_droute.state.store import MemoryStore
from tests.run import WRITING, Run

# Seconds between writes that nobody waits for.
_INTERVAL = 0.5


@define
class Disk:
    """
    What is written; nothing more once it is `full`.
    """

    saved: Saved = field(factory=Saved)
    full: bool = False


@define(eq=False)
class DiskStore(MemoryStore):
    """
    Writes to *disk* while its run is alive.
    """

    durable = True

    disk: Disk
    clock: IReactorTime
    run: Run
    _workers: dict[str, SavedWorker] = field(factory=dict, init=False)
    _owners: dict[tuple[str, str], SavedOwner] = field(factory=dict, init=False)
    _speeds: dict[str, str] = field(factory=dict, init=False)
    _weights: str = field(default="", init=False)
    _webhooks: dict[tuple[str, str], Webhook] = field(factory=dict, init=False)
    _before: list[Callable[[bool], None]] = field(factory=list, init=False)
    _loop: LoopingCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._loop = LoopingCall(self._write)
        self._loop.clock = self.clock

    def startService(self) -> None:
        super().startService()
        self._loop.start(_INTERVAL, now=False)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self._loop.stop()
        self._write(last=True)
        return succeed(None)

    def load(self) -> Saved:
        saved = self.disk.saved
        self._workers = {each.url: each for each in saved.workers}
        self._owners = {(each.kind, each.id): each for each in saved.owners}
        self._speeds = dict(saved.speeds)
        self._weights = saved.weights
        self._webhooks = {each.key: each for each in saved.webhooks}
        return saved

    def put_worker(self, worker: SavedWorker) -> None:
        self._workers[worker.url] = worker

    def drop_worker(self, url: str) -> None:
        self._workers.pop(url, None)

    def put_owner(self, owner: SavedOwner) -> None:
        self._owners[owner.kind, owner.id] = owner

    def drop_owner(self, kind: str, owner_id: str) -> None:
        self._owners.pop((kind, owner_id), None)

    def put_weights(self, text: str) -> None:
        self._weights = text

    def put_speeds(self, url: str, text: str) -> None:
        self._speeds[url] = text

    def drop_speeds(self, url: str) -> None:
        self._speeds.pop(url, None)

    def put_webhook(self, webhook: Webhook) -> None:
        self._webhooks[webhook.key] = webhook

    def drop_webhook(self, kind: str, job_id: str) -> None:
        self._webhooks.pop((kind, job_id), None)

    def before_writing(self, put: Callable[[bool], None]) -> None:
        self._before.append(put)

    async def _written(self) -> None:
        if not self.run.step("before", WRITING):
            await Deferred[None]()
        self._write()
        if not self.run.step("after", WRITING):
            await Deferred[None]()
        if self.disk.full:
            raise StateError("memory", "the disk is full")

    def written(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._written())

    def _write(self, last: bool = False) -> None:
        if not self.run.alive or self.disk.full:
            return
        for put in self._before:
            put(last)
        self.disk.saved = Saved(
            tuple(self._workers.values()),
            tuple(self._owners.values()),
            (),
            tuple(self._speeds.items()),
            self._weights,
            tuple(self._webhooks.values()),
        )
