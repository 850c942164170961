"""
The state in an SQLite file, written behind the callers' backs by a thread of its own.

Changes wait in memory, one per row, and go to the file together twice a second, or at once where
somebody waits for it. A file that cannot be written costs one line in the log and nothing else: the
changes wait until it can.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock, fail
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from sgl_droute.fleet.webhook import Webhook
from sgl_droute.state import tables
from sgl_droute.state.database import Database, StateError
from sgl_droute.state.saved import Saved, SavedOwner, SavedWorker
from sgl_droute.state.store import Store
from sgl_droute.state.tables import Change, Key

log = Logger()

_INTERVAL = 0.5  # seconds between writes: with the time of a write, well within a second
_PATIENCE = 0.25  # seconds a write waits for a lock
_LAST_PATIENCE = 5.0  # seconds the first read and the last write wait for one

_T = TypeVar("_T")


class Thread(Protocol):
    """
    A thread that calls one function after the other.
    """

    def start(self) -> None: ...

    def run(self, function: Callable[[], _T]) -> Deferred[_T]: ...

    def stop(self) -> None:
        """
        End the thread; nothing is running in it.
        """


@define(eq=False)
class OneThread:
    """
    A `Thread` whose results arrive in the thread of *reactor*.
    """

    reactor: Any
    _pool: ThreadPool = field(init=False)

    def start(self) -> None:
        self._pool = ThreadPool(minthreads=0, maxthreads=1, name="state")
        self._pool.start()

    def run(self, function: Callable[[], _T]) -> Deferred[_T]:
        return deferToThreadPool(self.reactor, self._pool, function)

    def stop(self) -> None:
        self._pool.stop()


@define(eq=False)
class SqliteStore(Store):
    """
    Keeps the state in *database*. When it stops, the result comes when all is written, or a last
    attempt has failed.

    Args:
        database: The file.
        clock: Provides the time; its ``seconds()`` are those of `SavedOwner.used`.
        thread: Where the file is written.
        job_ttl: Seconds after its last use that an owner is forgotten, when loaded.
        max_owners: Most owners that are loaded (count); the least recently used ones go.
    """

    durable: ClassVar[bool] = True

    database: Database
    clock: IReactorTime
    thread: Thread
    job_ttl: float
    max_owners: int
    _places: dict[str, int] = field(factory=dict, init=False)
    _next_place: int = field(default=0, init=False)
    _pending: dict[Key, Change] = field(factory=dict, init=False)
    _batch: dict[Key, Change] = field(factory=dict, init=False)
    _filed: set[Key] = field(factory=set, init=False)
    _before: list[Callable[[bool], None]] = field(factory=list, init=False)
    _waiting: list[Deferred[None]] = field(factory=list, init=False)
    _one_at_a_time: DeferredLock = field(factory=DeferredLock, init=False)
    _failing: bool = field(default=False, init=False)
    _loop: LoopingCall = field(init=False)
    _stopped: Deferred[LoopingCall] | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._loop = LoopingCall(self._flush)
        self._loop.clock = self.clock

    @property
    def place(self) -> str:
        return self.database.path

    def load(self) -> Saved:
        contents = self.database.read(patience=_LAST_PATIENCE)
        self._places = dict(contents.places)
        self._next_place = max(self._places.values(), default=-1) + 1
        self._filed = contents.keys()
        expiry = self.clock.seconds() - self.job_ttl
        excess = len(contents.owners) - self.max_owners
        owners = []
        for index, owner in enumerate(contents.owners):
            if index < excess or owner.used < expiry:
                self.drop_owner(owner.kind, owner.id)
            else:
                owners.append(owner)
        return Saved(
            contents.workers,
            tuple(owners),
            contents.loras,
            contents.speeds,
            contents.weights,
            contents.webhooks,
        )

    def put_worker(self, worker: SavedWorker) -> None:
        if worker.url not in self._places:
            self._places[worker.url] = self._next_place
            self._next_place += 1
        self._put(tables.put_worker(worker, self._places[worker.url]))

    def drop_worker(self, url: str) -> None:
        self._places.pop(url, None)
        self._drop(tables.drop_worker(url))

    def put_owner(self, owner: SavedOwner) -> None:
        # Half a surrogate pair fits in no URL, so nobody can ask for this id; nor in the file.
        if _is_text(owner.id):
            self._put(tables.put_owner(owner))

    def drop_owner(self, kind: str, owner_id: str) -> None:
        self._drop(tables.drop_owner(kind, owner_id))

    def put_weights(self, text: str) -> None:
        text.encode()  # a text that cannot be written would keep all others from it too
        self._put(tables.put_weights(text))

    def put_speeds(self, url: str, text: str) -> None:
        if _is_text(text):
            self._put(tables.put_speeds(url, text))

    def drop_speeds(self, url: str) -> None:
        self._drop(tables.drop_speeds(url))

    def put_webhook(self, webhook: Webhook) -> None:
        if _is_text(webhook.id):
            self._put(tables.put_webhook(webhook))

    def drop_webhook(self, kind: str, job_id: str) -> None:
        self._drop(tables.drop_webhook(kind, job_id))

    def before_writing(self, put: Callable[[bool], None]) -> None:
        self._before.append(put)

    def written(self) -> Deferred[None]:
        if not self.running:
            return fail(StateError(self.database.path, "is not in use"))
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:  # the write that the first one asks for is that of all
            self._flush()
        return waiting

    def startService(self) -> None:
        """
        Begin to write.
        """
        super().startService()
        self.thread.start()
        self._stopped = self._loop.start(_INTERVAL, now=False)

    def stopService(self) -> Deferred[None]:
        """
        Write what is left; the result comes when that has ended, well or not.
        """
        super().stopService()
        stopped, self._stopped = self._stopped, None
        return Deferred.fromCoroutine(self._close(stopped))

    def _put(self, change: Change) -> None:
        self._pending[change.key] = change

    def _drop(self, change: Change) -> None:
        # Rows that never reached the file need no drop: else the drops of short-lived ids would
        # pile up while it cannot be written.
        if change.key in self._filed or change.key in self._batch:
            self._pending[change.key] = change
        else:
            self._pending.pop(change.key, None)

    async def _close(self, stopped: Deferred[LoopingCall] | None) -> None:
        if stopped is None:
            return
        self._loop.stop()
        await stopped
        await self._flush(last=True)
        await self.thread.run(self.database.close)
        self.thread.stop()
        if self._pending:
            log.warn("{count} changes of the state were not saved", count=len(self._pending))

    def _flush(self, *, last: bool = False) -> Deferred[None]:
        return self._one_at_a_time.run(self._write_and_tell, last)

    async def _write_and_tell(self, last: bool) -> None:
        waiting, self._waiting = self._waiting, []
        problem = await self._write(last)
        for each in waiting:
            if problem is None:
                each.callback(None)
            else:
                each.errback(problem)

    async def _write(self, last: bool) -> StateError | None:
        """
        Why not all that is to be kept could be written; None when it was.
        """
        missing = self._gather(last)
        if not self._pending:
            return missing
        patience = _LAST_PATIENCE if last else _PATIENCE
        self._batch, self._pending = self._pending, {}
        changes = tuple(self._batch.values())
        try:
            await self.thread.run(lambda: self.database.write(changes, patience=patience))
        except StateError as problem:
            self._failed()
            if not self._failing:
                log.warn("The state is not being saved, traffic goes on: {reason}", reason=problem)
            self._failing = True
            return problem
        except Exception as problem:
            self._failed()
            if not self._failing:
                log.failure("The state is not being saved, traffic goes on")
            self._failing = True
            return StateError(self.database.path, f"was not written: {problem!r}")
        self._succeeded()
        return missing

    def _gather(self, last: bool) -> StateError | None:
        missing = None
        for put in self._before:
            try:
                put(last)
            except Exception as problem:  # nothing would ever be written again
                log.failure("Some of the state was not put")
                missing = StateError(self.database.path, f"was not told all: {problem!r}")
        return missing

    def _failed(self) -> None:
        batch, self._batch = self._batch, {}
        self._pending = {
            key: change
            for key, change in {**batch, **self._pending}.items()
            if not change.drops or key in self._filed
        }

    def _succeeded(self) -> None:
        batch, self._batch = self._batch, {}
        for key, change in batch.items():
            if change.drops:
                self._filed.discard(key)
            else:
                self._filed.add(key)
        if self._failing:
            log.info("The state is saved again in {path}", path=self.database.path)
        self._failing = False


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
