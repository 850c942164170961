"""
Follows video and mesh jobs to their end, by asking workers now and then.

Clients' polls teach the same sooner; this is for jobs that nobody asks about. While others wait in
line for a worker, a job there that should have ended is asked about more often.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from sgl_droute.errors import RouterError, WorkerFailed
from sgl_droute.fleet.holdings import Holdings
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.station import Running
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.client import WorkerClient
from sgl_droute.workers.once import Once
from sgl_droute.workers.records import ask_for, says_unknown
from sgl_droute.workers.rounds import retime
from sgl_droute.workers.turns import Turns

log = Logger()

# Rounds in which a worker refused the connection, or a quarantined one did not answer, before its
# jobs are given up. One that is merely late goes on with them.
_REFUSALS = 3

# Seconds between looks at the jobs that should have ended; the shares of the time that one is late,
# and of all its time, after which it is asked about again; questions at one look (count).
_GLANCE = 0.25
_OF_LATENESS = 0.25
_OF_ALL = 0.05
_QUESTIONS = 50


@define(eq=False)
class JobWatch(Service):
    """
    Asks each worker about its oldest open jobs.

    Args:
        pool: The fleet.
        holdings: Which jobs are open; told what became of them.
        client: A client for quick questions.
        turns: Knows which jobs should have ended, while others wait.
        clock: Provides the time.
        interval: Seconds between rounds.
    """

    pool: Pool
    holdings: Holdings
    client: WorkerClient
    turns: Turns
    clock: IReactorTime
    interval: float
    _loop: LoopingCall = field(init=False)
    _glances: LoopingCall = field(init=False)
    _asking: Once[tuple[str, str], None] = field(factory=Once, init=False)
    _asked: dict[tuple[str, str], float] = field(factory=dict, init=False)
    _refused: Counter[int] = field(factory=Counter, init=False)
    _round: Deferred[Any] | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._loop = LoopingCall(self.look)
        self._glances = LoopingCall(self.glance)
        self._loop.clock = self._glances.clock = self.clock

    def startService(self) -> None:
        super().startService()
        self._loop.start(self.interval, now=False)
        self._glances.start(_GLANCE, now=False)

    def retime(self, interval: float) -> None:
        """
        Let *interval* seconds be between rounds from now on.
        """
        self.interval = interval
        retime(self._loop, interval)

    def stopService(self) -> Deferred[Any]:
        """
        Stop asking; the result comes when nothing is under way.
        """
        super().stopService()
        for loop in (self._loop, self._glances):
            if loop.running:
                loop.stop()
        ending = [self._asking.stop()]
        if self._round is not None:
            self._round.cancel()
            ending.append(self._round)
        return DeferredList(ending)

    def look(self) -> Deferred[Any]:
        """
        One round; the result comes when all have answered and is never a failure.
        """
        self.holdings.jobs.tick(self.holdings.now())
        busy = [worker for worker in self.pool if worker.jobs]
        serials = {worker.serial for worker in busy}
        self._refused = Counter({s: n for s, n in self._refused.items() if s in serials})
        asking = [Deferred.fromCoroutine(self._follow(worker)) for worker in busy]
        self._round = DeferredList(asking)
        return self._round

    def glance(self) -> None:
        """
        Ask about the jobs that should have ended: soon after that, and then less and less often.
        """
        now = self.clock.seconds()
        before, self._asked = self._asked, {}
        asking = 0
        for running, late in self.turns.scheduler.awaited(now):
            assert running.thing is not None
            last = before.get(running.thing, 0.0)
            pause = min(_OF_LATENESS * late, _OF_ALL * (now - running.bound), self.interval)
            if now - last >= pause and asking < _QUESTIONS:
                last, asking = now, asking + 1
                self._asking.run(running.thing, partial(self._ask_again, running))
            self._asked[running.thing] = last

    async def _ask_again(self, running: Running) -> None:
        assert running.thing is not None
        with suppress(RouterError, CancelledError):  # the next round tells what that means
            await self._ask(running.station.worker, *running.thing)

    async def _follow(self, worker: Worker) -> None:
        try:
            for job in self.holdings.jobs.front(worker.url, worker.serial):
                await self._ask(worker, job.kind, job.id)
            self._refused.pop(worker.serial, None)
        except WorkerFailed as failed:
            if worker.dead or failed.gone:
                self._not_reached(worker)
        except (RouterError, CancelledError):
            pass
        except Exception:
            log.failure("following the jobs of {url} broke", url=worker.url)

    async def _ask(self, worker: Worker, kind: str, id: str) -> None:
        status, fields = await ask_for(self.client, worker, kind, id)
        if says_unknown(kind, status, fields):
            self.holdings.lost(kind, id)
        elif status == 200:
            self.holdings.seen(kind, id, worker, fields)

    def _not_reached(self, worker: Worker) -> None:
        self._refused[worker.serial] += 1
        if self._refused[worker.serial] >= _REFUSALS:
            del self._refused[worker.serial]
            log.warn("the open jobs of {url} are given up: it is gone", url=worker.url)
            self.holdings.jobs.worker_lost(worker.url, worker.serial)
