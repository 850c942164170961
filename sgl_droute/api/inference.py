"""
Requests that go to one worker: chosen, sent, and its answer relayed.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator
from twisted.logger import Logger
from twisted.web.server import Request

from sgl_droute.api.forwarded import client_headers, spooled_body, worker_headers
from sgl_droute.errors import NotConnected, NoWorker
from sgl_droute.fleet.pool import Pool
from sgl_droute.workers.client import Call, WorkerClient
from sgl_droute.workers.gate import Gate
from sgl_droute.workers.relay import relay

log = Logger()


@define(eq=False)
class Inference:
    """
    Sends client requests to workers.

    Args:
        pool: Who may take them.
        client: A client for this traffic only.
        cooperator: Reads large request bodies in steps.
        clock: Provides the time.
        idle_timeout: Seconds of silence after which an answer is cut.
        max_connections: Requests in flight at once (count); more wait, first come first served.
    """

    pool: Pool
    client: WorkerClient
    cooperator: Cooperator
    clock: IReactorTime
    idle_timeout: float
    max_connections: int
    _gate: Gate = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._gate = Gate(self.max_connections)

    async def forward(self, request: Request, target: bytes | None = None) -> None:
        """
        Answer *request* with a worker's answer.

        Args:
            target: Raw path and query for the worker; the request's own if None.

        Raises:
            NoWorker: Nobody can take the request.
            WorkerFailed: The worker gave no usable answer, or its answer was cut.
        """
        await self._gate.acquire()
        try:
            await self._try_workers(request, target or request.uri)
        finally:
            self._gate.release()

    async def _try_workers(self, request: Request, target: bytes) -> None:
        """
        Send to one worker after the other until one is connected: it alone may see the request.
        """
        tried: set[str] = set()
        unreached: NotConnected | None = None
        while True:
            try:
                with self.pool.lease(tried) as worker:
                    call = self._call(request, worker.url, target)
                    response = await self.client.send(call)
                    self.pool.record_answer(worker)
                    await relay(
                        response,
                        request,
                        client_headers(request, response.headers, worker.url),
                        worker=worker.url,
                        clock=self.clock,
                        idle_timeout=self.idle_timeout,
                    )
                    return
            except NotConnected as failed:
                log.info("{failed}; trying the next worker", failed=failed)
                tried.add(failed.worker)
                unreached = failed
            except NoWorker as nobody:
                raise unreached or nobody from None

    def _call(self, request: Request, worker: str, target: bytes) -> Call:
        body = spooled_body(request).producer(self.cooperator)
        return Call(request.method, worker, target, worker_headers(request), body)
