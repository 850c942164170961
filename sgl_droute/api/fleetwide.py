"""
Calls that go to the whole fleet: any call, and those that put it to sleep and wake it.

Once begun each runs to its end, also when its client hangs up. What a call means for a worker's
place in the fleet is decided in `sgl_droute.fleet`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from functools import partial
from io import BytesIO
from typing import Any, TypeVar

from attrs import define, evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Cooperator
from twisted.logger import Logger
from twisted.web.server import Request

from sgl_droute.api.forwarded import spooled_body, worker_headers
from sgl_droute.api.replies import reply
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Worker, released, resumed
from sgl_droute.workers.bodies import Spool, fields_of
from sgl_droute.workers.broadcast import Broadcasts, Result
from sgl_droute.workers.client import Call
from sgl_droute.workers.gate import Gate
from sgl_droute.workers.outstanding import Outstanding
from sgl_droute.workers.readiness import Readiness

log = Logger()

# Calls of this kind are small JSON objects; what is larger is passed on unread.
_LARGEST_READ = 1 << 20

Ready = Callable[[Worker], Deferred[None]]
T = TypeVar("T")


@define(eq=False)
class FleetWide:
    """
    Sends one request to all workers, and keeps what follows from their answers.

    Args:
        pool: The fleet.
        broadcasts: Sends to many.
        readiness: Looks after workers that lack adapters.
        outstanding: Tells when a worker has answered what it was sent.
        cooperator: Reads large request bodies in steps.
        turn: Given to one call at a time that changes all workers.
    """

    pool: Pool
    broadcasts: Broadcasts
    readiness: Readiness
    outstanding: Outstanding
    cooperator: Cooperator
    turn: Gate

    async def to_all(self, request: Request) -> bytes:
        """
        Send the request to every worker that is neither quarantined nor asleep, and answer with all
        results.

        Raises:
            NoWorker: There is none.
        """
        workers = self.pool.order_takers()
        return _told(
            request, await self.run(request, lambda spool: self._send(request, workers, spool))
        )

    async def release_memory(self, request: Request) -> bytes:
        """
        Put all workers to sleep that are neither quarantined nor asleep; they get no work from the
        moment of the call on.
        """
        return await self.run(request, lambda spool: self._put_to_sleep(request, spool))

    async def resume_memory(self, request: Request) -> bytes:
        """
        Wake the sleeping workers, quarantined ones too.
        """
        return await self.run(request, lambda spool: self._wake(request, spool))

    async def _put_to_sleep(self, request: Request, spool: Spool) -> bytes:
        async with self.turn.turn():
            asked = [w for w in self.pool if not w.dead and not (w.asleep and w.sleep_known)]
            if not asked and any(worker.asleep for worker in self.pool):
                return _nothing_to_do(request, "All workers are already sleeping")
            if not asked:
                self.pool.order_takers()  # says why there is nobody
            for worker in asked:
                self.pool.change(worker, lambda now: evolve(now, asleep=True))
            # What the router has sent comes first, on whatever connection it travels.
            results = await self._send(request, asked, spool, self.outstanding.none)
            for worker, result in zip(asked, results, strict=True):
                end = partial(
                    released,
                    then=worker,
                    answered=result.answered,
                    asleep=result.took or result.unknown,
                )
                self.pool.change(worker, end)
            return _told(request, results)

    async def _wake(self, request: Request, spool: Spool) -> bytes:
        async with self.turn.turn():
            sleepers = [worker for worker in self.pool if worker.asleep]
            # To a router that was restarted its workers seem awake, and may sleep all the same.
            unsure = [worker for worker in self.pool if not (worker.dead or worker.sleep_known)]
            asked = sleepers or unsure
            if not asked:
                self.pool.order_takers()  # says why there is nobody
            results = await self._send(request, asked, spool)
            for worker, result in zip(asked, results, strict=True):
                if result.took:
                    self.pool.change(worker, partial(resumed, then=worker))
                    self.readiness.look_after(worker)
            if sleepers or any(_woke(result) for result in results):
                return _told(request, results)
            return _nothing_to_do(request, "All workers are already active", results)

    def run(self, request: Request, work: Callable[[Spool], Coroutine[Any, Any, T]]) -> Deferred[T]:
        """
        What *work* with the request's body returns; cancelling the wait for it does not reach it.
        """
        # A request closes its file when its client hangs up; this one is still to be read then.
        spool = spooled_body(request)
        request.content = BytesIO()

        async def run() -> T:
            with closing(spool.file):
                return await work(spool)

        return self.to_the_end(run())

    def to_the_end(self, work: Coroutine[Any, Any, T]) -> Deferred[T]:
        """
        What *work* returns; cancelling the wait for it does not reach it.
        """
        return self.broadcasts.to_the_end(work)

    def call(self, request: Request, worker: Worker, spool: Spool) -> Call:
        """
        The request with the body in *spool*, for *worker*.
        """
        headers = worker_headers(request)
        body = spool.producer(self.cooperator)
        return Call(request.method, worker.url, request.uri, headers, body)

    async def _send(
        self, request: Request, workers: Sequence[Worker], spool: Spool, ready: Ready | None = None
    ) -> list[Result]:
        name = request.path.decode("ascii", "replace")

        async def ask(worker: Worker) -> Result:
            if ready is not None:
                await ready(worker)
            return await self.broadcasts.ask(self.call(request, worker, spool))

        return await self.broadcasts.send(name, workers, ask)


def _told(request: Request, results: Sequence[Result]) -> bytes:
    return reply(request, {"results": [result.shown() for result in results]})


def _nothing_to_do(request: Request, message: str, results: Sequence[Result] = ()) -> bytes:
    return reply(request, {"message": message, "results": [each.shown() for each in results]})


def _woke(result: Result) -> bool:
    return result.took and "already" not in str(result.body)


def fields_in(spool: Spool) -> dict[str, Any] | None:
    """
    The JSON object in a body; empty if it holds none, None if it is too large to be read.
    """
    return fields_of(spool.read()) if spool.length <= _LARGEST_READ else None
