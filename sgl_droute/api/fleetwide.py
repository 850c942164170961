"""
Calls that go to the whole fleet: weights, LoRA adapters, sleep.

Once begun each runs to its end, also when its client hangs up. What a call means for a worker's
place in the fleet is decided in `sgl_droute.fleet`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from functools import partial
from io import BytesIO
from typing import Any, TypeVar

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Cooperator
from twisted.logger import Logger
from twisted.web.server import Request

from sgl_droute.api.forwarded import spooled_body, worker_headers
from sgl_droute.api.replies import reply
from sgl_droute.errors import BodyTooLarge
from sgl_droute.fleet.loras import LoraCall, has_no_loras
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Worker, released, resumed, same_process
from sgl_droute.workers.bodies import Spool, fields_of
from sgl_droute.workers.broadcast import Broadcasts, Result
from sgl_droute.workers.client import Call
from sgl_droute.workers.gate import Gate
from sgl_droute.workers.outstanding import Outstanding
from sgl_droute.workers.readiness import Readiness

log = Logger()

# LoRA calls and weight updates are small JSON objects; what is larger is passed on unread.
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
    """

    pool: Pool
    broadcasts: Broadcasts
    readiness: Readiness
    outstanding: Outstanding
    cooperator: Cooperator
    # Calls that change the same thing go one after the other, so that all workers get them in the
    # same order.
    _lora_turn: Gate = field(factory=lambda: Gate(1), init=False)
    _weights_turn: Gate = field(factory=lambda: Gate(1), init=False)
    _sleep_turn: Gate = field(factory=lambda: Gate(1), init=False)

    async def to_all(self, request: Request) -> bytes:
        """
        Send the request to every worker that is neither quarantined nor asleep, and answer with all
        results.

        Raises:
            NoWorker: There is none.
        """
        workers = self.pool.order_takers()
        return _told(
            request, await self._run(request, lambda spool: self._send(request, workers, spool))
        )

    async def update_weights(self, request: Request) -> bytes:
        """
        As `to_all`, noting which weights the workers took.
        """
        results = await self._run(request, lambda spool: self._update(request, spool))
        return _told(request, results)

    async def change_loras(self, request: Request, path: str) -> bytes:
        """
        As `to_all`, for a call that changes the adapters. A worker that failed it, or was not
        asked, while others took it gets no work until it has caught up.

        Raises:
            NoWorker: There is nobody to send it to.
            BodyTooLarge: It is too large to be kept.
        """
        if spooled_body(request).length > _LARGEST_READ:
            raise BodyTooLarge(f"A LoRA call is kept, and has at most {_LARGEST_READ} bytes")
        results = await self._run(request, lambda spool: self._adapt(request, path, spool))
        return _told(request, results)

    async def release_memory(self, request: Request) -> bytes:
        """
        Put all workers to sleep that are neither quarantined nor asleep; they get no work from the
        moment of the call on.
        """
        return await self._run(request, lambda spool: self._put_to_sleep(request, spool))

    async def resume_memory(self, request: Request) -> bytes:
        """
        Wake the sleeping workers, quarantined ones too.
        """
        return await self._run(request, lambda spool: self._wake(request, spool))

    async def _update(self, request: Request, spool: Spool) -> list[Result]:
        async with self._weights_turn.turn():
            workers = self.pool.order_takers()
            results = await self._send(request, workers, spool)
            path = _text(_fields(spool).get("model_path"))
            for worker, result in zip(workers, results, strict=True):
                now = self.pool.still(worker)
                if result.took and now is not None and same_process(now, worker):
                    self.pool.change(now, partial(evolve, weights=path))
        return results

    async def _adapt(self, request: Request, path: str, spool: Spool) -> list[Result]:
        async with self._lora_turn.turn():
            workers = self.pool.order_takers()
            with self.readiness.hold(workers):
                results = await self._send(request, workers, spool, self.readiness.settled)
                self._note_loras(LoraCall(path, _fields(spool)), workers, results)
                return results

    def _note_loras(
        self, call: LoraCall, workers: Sequence[Worker], results: Sequence[Result]
    ) -> None:
        pairs = list(zip(workers, results, strict=True))
        if any(result.took for result in results):
            loras = self.pool.loras.after(call)
            if loras is not self.pool.loras:
                took = [worker for worker, result in pairs if result.took or _no_loras(result)]
                self.pool.record_loras(loras, took)
            return
        for worker, result in pairs:
            if result.unknown and self.pool.loras:
                # It may take the call yet: what the fleet has is replayed behind that.
                self.pool.change(worker, lambda now: evolve(now, stale=True))

    async def _put_to_sleep(self, request: Request, spool: Spool) -> bytes:
        async with self._sleep_turn.turn():
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
        async with self._sleep_turn.turn():
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

    def _run(
        self, request: Request, work: Callable[[Spool], Coroutine[Any, Any, T]]
    ) -> Deferred[T]:
        # A request closes its file when its client hangs up; this one is still to be read then.
        spool = spooled_body(request)
        request.content = BytesIO()

        async def run() -> T:
            with closing(spool.file):
                return await work(spool)

        return self.broadcasts.to_the_end(run())

    async def _send(
        self, request: Request, workers: Sequence[Worker], spool: Spool, ready: Ready | None = None
    ) -> list[Result]:
        name = request.path.decode("ascii", "replace")
        return await self.broadcasts.send(
            name, workers, lambda worker: self._call(request, worker, spool), ready
        )

    def _call(self, request: Request, worker: Worker, spool: Spool) -> Call:
        headers = worker_headers(request)
        body = spool.producer(self.cooperator)
        return Call(request.method, worker.url, request.uri, headers, body)


def _told(request: Request, results: Sequence[Result]) -> bytes:
    return reply(request, {"results": [result.shown() for result in results]})


def _nothing_to_do(request: Request, message: str, results: Sequence[Result] = ()) -> bytes:
    return reply(request, {"message": message, "results": [each.shown() for each in results]})


def _no_loras(result: Result) -> bool:
    return has_no_loras(str(result.body))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _woke(result: Result) -> bool:
    return result.took and "already" not in str(result.body)


def _fields(spool: Spool) -> dict[str, Any]:
    return fields_of(spool.read()) if spool.length <= _LARGEST_READ else {}
