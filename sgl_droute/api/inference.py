"""
Requests that go to one worker: chosen, sent, and its answer relayed.
"""

from __future__ import annotations

from attrs import define, evolve
from twisted.web.iweb import IResponse
from twisted.web.server import Request

from sgl_droute.api.carrier import Carrier
from sgl_droute.api.forwarded import spooled_body
from sgl_droute.api.model_name import named_model
from sgl_droute.fleet.capabilities import ANYTHING, Want
from sgl_droute.fleet.holdings import Holdings
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.attempts import with_worker
from sgl_droute.workers.gate import Gate
from sgl_droute.workers.lesson import Lesson
from sgl_droute.workers.outstanding import Outstanding


@define(eq=False)
class Inference:
    """
    Sends client requests to workers.

    Args:
        pool: Who may take them.
        holdings: Told of what workers made.
        outstanding: Told of the requests that wait for an answer.
        carrier: Carries requests and answers.
        gate: Requests in flight at once; more wait, first come first served.
    """

    pool: Pool
    holdings: Holdings
    outstanding: Outstanding
    carrier: Carrier
    gate: Gate

    async def forward(
        self,
        request: Request,
        want: Want = ANYTHING,
        *,
        target: bytes | None = None,
        makes: str | None = None,
    ) -> None:
        """
        Answer *request* with a worker's answer.

        Args:
            want: What the worker must be able to do.
            target: Raw path and query for the worker; the request's own if None.
            makes: The kind of thing whose id the answer tells.

        Raises:
            NoWorker: Nobody can take the request now.
            BadRequest: No worker is able to serve it.
            NotFound: It names a model that nobody serves, and that matters.
            WorkerFailed: The worker gave no usable answer, or its answer was cut.
        """
        want = await self._with_model(request, want)
        path = target or request.uri

        async def attempt(worker: Worker) -> None:
            response = await self._send(request, worker, path)
            lesson = self._lesson(response, worker, makes)
            await self.carrier.answer(request, worker, response, lesson)

        async with self.gate.turn():
            await with_worker(self.pool, want, attempt)

    async def _with_model(self, request: Request, want: Want) -> Want:
        if want == ANYTHING or not self.pool.several_models:
            return want
        content_type = request.getHeader(b"content-type")
        text = None if content_type is None else content_type.decode("latin-1")
        model = await named_model(spooled_body(request), text, self.carrier.cooperator)
        return evolve(want, model=model)

    async def _send(self, request: Request, worker: Worker, target: bytes) -> IResponse:
        with self.outstanding.request(worker):
            response = await self.carrier.send(request, worker, target)
        self.pool.record_answer(worker)
        return response

    def _lesson(self, response: IResponse, worker: Worker, makes: str | None) -> Lesson | None:
        if makes is None or response.code >= 300:
            return None
        return Lesson.of(response, lambda fields: self.holdings.made(makes, worker, fields))
