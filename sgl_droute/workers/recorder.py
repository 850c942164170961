"""
The flight recorder: has what was asked, decided and done written to a file, for `bench/replay.py`.

A thread makes the lines and writes them. A file that cannot be written costs two lines in the log
and what happened meanwhile; traffic knows nothing of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from attrs import asdict, define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from sgl_droute.fleet.decisions import Event
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.rules import Rules
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.tape import Anew, Changed, Entry, Tape

log = Logger()

_INTERVAL = 1.0  # seconds between writes
_MOST_WAITING = 50_000  # lines that wait for a disk; some 50 MB

InThread = Callable[[Callable[[], None]], Deferred[None]]


@define(eq=False)
class Recorder(Service):
    """
    Writes what happens to *tape*, at most once per second. When it stops, the result comes when all
    is written, or a last attempt has failed.

    Args:
        tape: The file.
        clock: Provides the time; the same as that of the events.
        in_thread: Calls a function in a thread; the result fires in this one.
        most_waiting: Lines that wait to be written (count); what happens beyond is lost, which the
            file tells.
    """

    tape: Tape
    clock: IReactorTime
    in_thread: InThread
    most_waiting: int = _MOST_WAITING
    _workers: Iterable[Worker] = field(default=(), init=False)
    _waiting: list[Entry] = field(factory=list, init=False)
    _lost: int = field(default=0, init=False)
    _failing: bool = field(default=False, init=False)
    _loop: LoopingCall = field(init=False)
    _stopped: Deferred[LoopingCall] | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._loop = LoopingCall(self._flush)
        self._loop.clock = self.clock

    def follow(self, pool: Pool) -> None:
        """
        Record the workers of *pool* from now on; to be called once.
        """
        self._workers = pool
        self._waiting.append(self._anew(0))
        pool.watch(self.changed)

    def note(self, event: Event) -> None:
        """
        Record what happened to a job; an observer for `Scheduler.watch`. Those that take no GPU
        time are passed over.
        """
        # Twice a job and more: all work on it is the thread's.
        if event.job.want.slot:
            self._keep(event)

    def changed(self, before: Worker | None, now: Worker | None) -> None:
        """
        Record a worker that comes, goes or changes in what a replay must know; an observer for
        `Pool.watch`.
        """
        if before is not None and now is not None and _alike(before, now):
            return
        self._keep(Changed(self.clock.seconds(), before, now))

    def adopt(self, rules: Rules) -> None:
        """
        Note that the scheduler goes by other rules: the recording begins anew with them.
        """
        self.tape.rules = _told(rules)
        self._keep(self._anew(0))

    def startService(self) -> None:
        """
        Begin to write.
        """
        super().startService()
        self._stopped = self._loop.start(_INTERVAL)

    def stopService(self) -> Deferred[None]:
        """
        Write what is left; the result comes when that has ended, well or not.
        """
        super().stopService()
        stopped, self._stopped = self._stopped, None
        return Deferred.fromCoroutine(self._close(stopped))

    def _keep(self, entry: Entry) -> None:
        if len(self._waiting) < self.most_waiting:
            self._waiting.append(entry)
        else:
            self._lost += 1

    async def _close(self, stopped: Deferred[LoopingCall] | None) -> None:
        if stopped is None:
            return
        self._loop.stop()
        await stopped
        await self._flush()
        lost = _lines(self._waiting)
        if lost:
            log.warn("{count} lines were not recorded", count=lost)

    async def _flush(self) -> None:
        entries, self._waiting = self._waiting, []
        if self._lost:
            entries.append(self._anew(self._lost))
            self._lost = 0
        if not entries:
            return
        try:
            await self.in_thread(partial(self.tape.write, entries))
        except OSError as problem:
            if not self._failing:
                log.warn("Nothing is being recorded, traffic goes on: {reason}", reason=problem)
            self._failed(entries)
        except Exception:
            if not self._failing:
                log.failure("Nothing is being recorded, traffic goes on")
            self._failed(entries)
        else:
            if self._failing:
                log.info("Recording goes on in {path}", path=self.tape.path)
            self._failing = False

    def _failed(self, entries: Sequence[Entry]) -> None:
        # How far it came is not known, so what came meanwhile has to stand on its own feet.
        self._waiting.insert(0, self._anew(_lines(entries)))
        self._failing = True

    def _anew(self, lost: int) -> Anew:
        return Anew(self.clock.seconds(), tuple(self._workers), lost)


def open_recorder(path: Path, reactor: Any, rules: Rules) -> Recorder:
    """
    A recorder that appends to *path* from a thread of *reactor*.

    Args:
        rules: Those of the scheduler: a replay starts from them.
    """
    offset = time.time() - reactor.seconds()
    in_thread = partial(deferToThreadPool, reactor, reactor.getThreadPool())
    return Recorder(Tape(path, offset, _told(rules)), reactor, in_thread)


def _told(rules: Rules) -> dict[str, object]:
    return asdict(rules, filter=lambda attribute, value: attribute.name != "random")


def _alike(before: Worker, now: Worker) -> bool:
    """
    Whether they are the same to a replay.
    """
    return (
        before.eligible == now.eligible
        and before.concurrency == now.concurrency
        and before.speed == now.speed
        and (before.capabilities is now.capabilities or before.capabilities == now.capabilities)
    )


def _lines(entries: Sequence[Entry]) -> int:
    """
    Lines that the file lacks without *entries* (count).
    """
    return sum(entry.lost if isinstance(entry, Anew) else 1 for entry in entries)
