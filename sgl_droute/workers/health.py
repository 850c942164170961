"""
The health checks: a `LoopingCall` that asks every worker at once.

It learns how a check went; what follows from that is decided in `sgl_droute.fleet.worker`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from sgl_droute.errors import NoSockets, WorkerFailed
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Probe, Worker
from sgl_droute.workers.client import Call, WorkerClient
from sgl_droute.workers.once import Once
from sgl_droute.workers.rounds import retime

log = Logger()

_LARGEST_ANSWER = 1 << 16
_BACK = "register it again to bring it back"
_ON = "it joins when it answers"


@define(eq=False)
class HealthMonitor(Service):
    """
    Asks ``GET /health`` of all workers that may come back by themselves.

    Args:
        pool: Whose workers are asked, and what is told.
        client: A client whose connections carry health checks only.
        clock: Provides the time.
        interval: Seconds between rounds.
        threshold: Checks failed in a row that quarantine a worker (count).
        readmit: Good checks in a row that bring it back (count); 0 for never.
        well: Told of every worker that answered well, as it was before and as it is now.
    """

    pool: Pool
    client: WorkerClient
    clock: IReactorTime
    interval: float
    threshold: int
    readmit: int = 0
    well: Callable[[Worker, Worker], None] = lambda before, now: None
    _loop: LoopingCall = field(init=False)
    _stopped: Deferred[LoopingCall] | None = field(default=None, init=False)
    _checks: Once[int, None] = field(factory=Once, init=False)
    _observers: list[Callable[[Worker, Probe], object]] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._loop = LoopingCall(self.check_all)
        self._loop.clock = self.clock

    def watch(self, observer: Callable[[Worker, Probe], object]) -> None:
        """
        Have *observer* told of each check: of whom, as it was before, and how it went.
        """
        self._observers.append(observer)

    def startService(self) -> None:
        """
        Begin with a round at once.
        """
        super().startService()
        self._stopped = self._loop.start(self.interval, now=True)

    def retime(self, interval: float) -> None:
        """
        Let *interval* seconds be between rounds from now on.
        """
        self.interval = interval
        retime(self._loop, interval)

    def stopService(self) -> Deferred[Any]:
        """
        Stop the loop and the checks under way; the result comes when both have ended.
        """
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        ending: list[Deferred[Any]] = [self._checks.stop()]
        if self._stopped is not None:
            ending.append(self._stopped)
        return DeferredList(ending)

    def check_all(self) -> Deferred[Any]:
        """
        One round; the result comes when every check has ended and is never a failure, since a
        `LoopingCall` whose function fails once stops for good.
        """
        checks = [self.check(worker) for worker in self.pool if self._probed(worker)]
        return DeferredList(checks)

    def check(self, worker: Worker) -> Deferred[None]:
        """
        Check *worker* now, unless a check of it is under way; never fails. Cancelling the wait for
        a check does not reach the check.
        """
        return self._checks.run(worker.serial, lambda: self._check(worker))

    def check_anew(self, worker: Worker) -> Deferred[None]:
        """
        As `check`, instead of a check under way, which may still ask the process that was there
        before; whoever waits for that waits for this one.
        """
        return self._checks.again(worker.serial, lambda: self._check(worker))

    def not_reached(self, worker: Worker, *, restarted: bool = False) -> None:
        """
        Note that a request could not reach *worker*, and check it at once.

        Args:
            restarted: What answers next must be a new process.
        """
        now = self.pool.still(worker)
        if now is None or (now.lapsed and (now.restarted or not restarted)):
            return
        self.pool.record_lapse(now, restarted=restarted)
        if self.running and now.probed:
            self.check(now)

    def _probed(self, worker: Worker) -> bool:
        return worker.probed or bool(self.readmit and worker.recoverable)

    async def _check(self, worker: Worker) -> None:
        try:
            self._note(worker, await self._ask(worker))
        except NoSockets as problem:
            log.warn("worker {url} was not checked: {problem}", url=worker.url, problem=problem)
        except CancelledError:
            pass
        except Exception:
            log.failure("health check of {url} broke", url=worker.url)

    def _note(self, worker: Worker, probe: Probe) -> None:
        for observer in self._observers:
            observer(worker, probe)
        before = self.pool.still(worker)
        now = self.pool.record_probe(worker, probe, threshold=self.threshold, readmit=self.readmit)
        if now is None or before is None:
            return
        self._tell(before, now, probe)
        if probe.healthy:
            self.well(before, now)

    async def _ask(self, worker: Worker) -> Probe:
        call = Call(b"GET", worker.url, b"/health")
        try:
            answer = await self.client.fetch(call, limit=_LARGEST_ANSWER)
        except WorkerFailed as failed:
            return Probe(
                healthy=False,
                silent=True,
                gone=failed.gone,
                refused=failed.refused,
                reason=failed.why,
            )
        if answer.status == 200:
            return Probe(healthy=True)
        return Probe(healthy=False, gone=True, reason=_reason(answer.status, answer.body))

    def _tell(self, before: Worker, now: Worker, probe: Probe) -> None:
        if now.dead and not before.dead:
            log.warn(
                "worker {url} quarantined after {failures} failed health checks: {reason}; {hope}",
                url=now.url,
                failures=now.failures,
                reason=probe.reason,
                hope=self._hope(now),
            )
        elif now.proven and not before.proven:
            log.info("worker {url} is in service", url=now.url)
        elif before.dead and not now.dead:
            log.info("worker {url} is back from quarantine", url=now.url)
        elif now.failures and not now.dead:
            log.info(
                "worker {url} failed health check {failures}: {reason}",
                url=now.url,
                failures=now.failures,
                reason=probe.reason,
            )

    def _hope(self, worker: Worker) -> str:
        if not worker.proven:
            return _ON
        return f"it is back after {self.readmit} good ones in a row" if self.readmit else _BACK


def _reason(status: int, body: bytes) -> str:
    text = body[:200].decode("utf-8", "replace")
    return f"/health answered {status} {text}".rstrip()
