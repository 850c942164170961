"""
Gets workers ready for work: learns what they serve, and brings their adapters up to date.

When a worker is looked after follows from its health checks and from operators' calls; what it
needs is written in its record.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from typing import Any

from attrs import define, evolve, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator
from twisted.logger import Logger
from twisted.web.http_headers import Headers

from sgl_droute.errors import RouterError, WorkerFailed
from sgl_droute.fleet.loras import LoraCall, has_no_loras
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.bodies import Spool
from sgl_droute.workers.client import Call, WorkerClient
from sgl_droute.workers.discovery import discover
from sgl_droute.workers.once import Once

log = Logger()

# Seconds after which a worker is asked again what it serves.
_FRESH = 60.0
_LARGEST_ANSWER = 1 << 20


@define(eq=False)
class Readiness(Service):
    """
    Looks after one worker at a time or many; each of them once at a time.

    Args:
        pool: The fleet.
        probes: A client for quick questions.
        control: A client for calls that wait in a worker's queue.
        cooperator: Sends bodies.
        clock: Provides the time.
    """

    pool: Pool
    probes: WorkerClient
    control: WorkerClient
    cooperator: Cooperator
    clock: IReactorTime
    _asked: dict[int, float] = field(factory=dict, init=False)
    _complaints: dict[int, str] = field(factory=dict, init=False)
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
        Ask *worker* what it serves and give it the adapters that it lacks; fires when that was
        tried, and never fails.
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
        A block in which no replay begins for *workers*; whoever lacks adapters at its end is looked
        after. One at a time.
        """
        self._held = frozenset(worker.serial for worker in workers)
        try:
            yield
        finally:
            self._held = frozenset()
            for worker in self.pool:
                if self._behind(worker):
                    self.look_after(worker)

    def _forget(self, before: Worker | None, now: Worker | None) -> None:
        if before is not None and now is None:
            self._asked.pop(before.serial, None)
            self._complaints.pop(before.serial, None)

    def _out_of_date(self, worker: Worker) -> bool:
        asked = self._asked.get(worker.serial)
        capabilities = worker.capabilities
        known = capabilities.abilities is not None and capabilities.names
        return not known or asked is None or self.clock.seconds() - asked >= _FRESH

    def _behind(self, worker: Worker) -> bool:
        missing = worker.stale and worker.takes_orders and not worker.lapsed
        return missing and worker.serial not in self._held

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
        now = self.pool.still(worker)
        while now is not None and self._behind(now) and await self._replayed(now):
            now = self.pool.still(worker)

    async def _ask(self, worker: Worker) -> None:
        found = await discover(self.probes, worker)
        if found is not None and self.pool.record_capabilities(worker, found) is not None:
            self._asked[worker.serial] = self.clock.seconds()

    async def _replayed(self, worker: Worker) -> bool:
        loras = self.pool.loras
        for call in loras.calls:
            problem = await self._problem(worker, call)
            if problem:
                self._complain(worker, f"{call.path} failed: {problem}")
                return False
        self._complaints.pop(worker.serial, None)
        self.pool.record_caught_up(worker, loras)
        log.info("worker {url} has the fleet's LoRA set", url=worker.url)
        return True

    def _complain(self, worker: Worker, problem: str) -> None:
        self.pool.change(worker, partial(evolve, last_error=problem))
        if self._complaints.get(worker.serial) != problem:
            self._complaints[worker.serial] = problem
            log.warn("worker {url} gets no work: {problem}", url=worker.url, problem=problem)

    async def _problem(self, worker: Worker, lora: LoraCall) -> str:
        body = json.dumps(dict(lora.body)).encode()
        call = Call(
            b"POST",
            worker.url,
            lora.path.encode("ascii"),
            Headers({b"Content-Type": [b"application/json"]}),
            Spool.of(BytesIO(body)).producer(self.cooperator),
        )
        try:
            answer = await self.control.fetch(call, limit=_LARGEST_ANSWER)
        except RouterError as error:
            if isinstance(error, WorkerFailed):
                return error.reason
            return str(error)
        text = f"{answer.status} {answer.body[:300].decode('utf-8', 'replace')}"
        return "" if 200 <= answer.status < 300 or has_no_loras(text) else text
