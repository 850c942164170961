"""
Gets workers ready for work: learns what they serve, and has them brought up to date.

When a worker is looked after follows from its health checks and from operators' calls; what it
needs is written in its record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from attrs import define, evolve, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.weights import Desired
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.catchup import Behind, CatchUp
from sgl_droute.workers.client import WorkerClient
from sgl_droute.workers.discovery import discover
from sgl_droute.workers.once import Once

log = Logger()

# Seconds after which a worker is asked again what it serves.
_FRESH = 60.0

# Seconds until a worker that could not be brought up to date is tried again: at first, and at most.
_PAUSE = 1.0
_LONGEST_PAUSE = 300.0
# And if it seems to have been restarted since.
_LEAST_PAUSE = 10.0


@frozen
class Failure:
    """
    A worker that could not be brought up to date.

    Attributes:
        problem: Why.
        desired: What it was to have.
        incarnation: Which process it was.
        pause: Seconds until it is tried again.
        since: When that began.
        until: When it ends.
    """

    problem: str
    desired: Desired
    incarnation: int
    pause: float
    since: float
    until: float


@define(eq=False)
class Readiness(Service):
    """
    Looks after one worker at a time or many; each of them once at a time.

    Args:
        pool: The fleet.
        probes: A client for quick questions.
        catch_up: Brings workers up to date.
        clock: Provides the time.
    """

    pool: Pool
    probes: WorkerClient
    catch_up: CatchUp
    clock: IReactorTime
    _asked: dict[int, float] = field(factory=dict, init=False)
    _failures: dict[int, Failure] = field(factory=dict, init=False)
    _once: Once[int, None] = field(factory=Once, init=False)
    _asking: Once[int, None] = field(factory=Once, init=False)
    _held: frozenset[int] = field(default=frozenset(), init=False)

    def __attrs_post_init__(self) -> None:
        self.pool.watch(self._forget)

    def stopService(self) -> Deferred[Any]:
        """
        Stop what is under way; the result comes when it has ended.
        """
        super().stopService()
        return DeferredList([self._once.stop(), self._asking.stop()])

    def answered_well(self, before: Worker, now: Worker) -> None:
        """
        Look after a worker that answered its health check well.
        """
        if before.lapsed:
            self._asked.pop(now.serial, None)
        if self._out_of_date(now) or self._behind(now):
            self.look_after(now)

    def look_after(self, worker: Worker) -> Deferred[None]:
        """
        Ask *worker* what it serves and have it brought up to date; fires when that was tried, and
        never fails.
        """
        return self._once.run(worker.serial, lambda: self._look_after(worker))

    def ask_again(self, worker: Worker) -> Deferred[None]:
        """
        Ask *worker* what it serves, however lately it was asked; fires when that was tried.
        """
        self._asked.pop(worker.serial, None)
        return self._asking.run(worker.serial, lambda: self._ask(worker))

    def asked(self, worker: Worker) -> bool:
        """
        Whether *worker* has told what it serves since it was last to be asked.
        """
        return worker.serial in self._asked

    def settled(self, worker: Worker) -> Deferred[None]:
        """
        Fires when *worker* is not being looked after.
        """
        return self._once.settled(worker.serial)

    @contextmanager
    def hold(self, workers: Iterable[Worker]) -> Iterator[None]:
        """
        A block in which nobody begins to bring *workers* up to date; whoever is behind at its end
        is looked after, unless it was cancelled: then the router stops. One at a time.
        """
        self._held = frozenset(worker.serial for worker in workers)
        stopping = False
        try:
            yield
        except CancelledError:
            stopping = True
            raise
        finally:
            self._held = frozenset()
            for worker in self.pool:
                if self._behind(worker) and not stopping:
                    self.look_after(worker)

    def _forget(self, before: Worker | None, now: Worker | None) -> None:
        if before is not None and now is None:
            self._asked.pop(before.serial, None)
            self._failures.pop(before.serial, None)

    def _out_of_date(self, worker: Worker) -> bool:
        asked = self._asked.get(worker.serial)
        capabilities = worker.capabilities
        known = capabilities.abilities is not None and capabilities.names
        return not known or asked is None or self.clock.seconds() - asked >= _FRESH

    def _behind(self, worker: Worker) -> bool:
        missing = worker.stale and worker.takes_orders and not worker.lapsed
        return missing and worker.serial not in self._held and not self._pausing(worker)

    def _pausing(self, worker: Worker) -> bool:
        failure = self._failures.get(worker.serial)
        if failure is None or failure.desired is not self.pool.epochs.of(worker):
            return False
        now = self.clock.seconds()
        # A new process has a better chance, but what breaks connections looks like one.
        return now < failure.until and (
            failure.incarnation == worker.incarnation or now < failure.since + _LEAST_PAUSE
        )

    async def _look_after(self, worker: Worker) -> None:
        try:
            await self._bring_up(worker)
        except CancelledError:
            pass
        except Exception:
            log.failure("looking after {url} broke", url=worker.url)

    async def _bring_up(self, worker: Worker) -> None:
        now = self.pool.still(worker)
        if now is not None and self._out_of_date(now):
            await self._asking.run(worker.serial, lambda: self._ask(worker))
        if not self.asked(worker):
            return  # what it is to have depends on its model
        now = self.pool.still(worker)
        while now is not None and self._behind(now):
            try:
                await self.catch_up.bring(now)
            except Behind as problem:
                self._failed(now, str(problem))
            now = self.pool.still(worker)

    async def _ask(self, worker: Worker) -> None:
        found = await discover(self.probes, worker)
        if found is not None and self.pool.record_capabilities(worker, found) is not None:
            self._asked[worker.serial] = self.clock.seconds()

    def _failed(self, worker: Worker, problem: str) -> None:
        now = self.pool.change(worker, partial(evolve, lacks=problem))
        if now is None:
            return
        before = self._failures.get(worker.serial)
        desired = self.pool.epochs.of(now)
        pause = _PAUSE
        if before is not None and before.desired is desired:
            pause = min(2 * before.pause, _LONGEST_PAUSE)
        since = self.clock.seconds()
        failure = Failure(problem, desired, worker.incarnation, pause, since, since + pause)
        self._failures[worker.serial] = failure
        if before is None or before.problem != problem:
            log.warn("worker {url} gets no work: {problem}", url=worker.url, problem=problem)
