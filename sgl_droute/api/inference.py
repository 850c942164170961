"""
Requests that go to one worker: their turn in line, and the worker's answer relayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define, field
from twisted.web.iweb import IResponse
from twisted.web.server import Request

from sgl_droute.api.admission import Admission, named
from sgl_droute.api.carrier import Carrier
from sgl_droute.api.fields.file_fields import FileFields
from sgl_droute.api.stamps import stamps_of
from sgl_droute.api.telemetry.account import account_of
from sgl_droute.fleet.capabilities import ANYTHING, Want
from sgl_droute.fleet.excerpt import inference_time
from sgl_droute.fleet.holdings import Holdings, id_in
from sgl_droute.fleet.job import JOBS
from sgl_droute.workers.attempts import Turn, with_worker
from sgl_droute.workers.lesson import Lesson
from sgl_droute.workers.outstanding import Outstanding
from sgl_droute.workers.parking import Parking
from sgl_droute.workers.turns import Turns
from sgl_droute.workers.webhooks import Webhooks


@define(eq=False)
class Inference:
    """
    Sends client requests to workers.

    Args:
        turns: Gives each its worker.
        admission: Makes jobs of them.
        holdings: Told of what workers made.
        outstanding: Told of the requests that wait for an answer.
        carrier: Carries requests and answers.
        webhooks: Calls who wants to be called when a job ends.
        file_fields: Keeps them from naming files on workers.
    """

    turns: Turns
    admission: Admission
    holdings: Holdings
    outstanding: Outstanding
    carrier: Carrier
    webhooks: Webhooks
    file_fields: FileFields
    _parking: Parking = field(factory=Parking, init=False)

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
            Forbidden: It names a file on a worker, which its key may not.
            NoWorker: Nobody can take the request now.
            BadRequest: No worker is able to serve it, or a header makes no sense.
            NotFound: It names a model that nobody serves, and that matters.
            Refused: It was not let in line, or taken out of it.
            WorkerFailed: The worker gave no usable answer, or its answer was cut.
        """
        await self.file_fields.check(request)
        hook = self.webhooks.wanted(request) if makes in JOBS else None
        job = await self.admission.job(request, want)
        path = target or request.uri
        account = account_of(request)
        account.of_job(job)

        async def attempt(turn: Turn) -> None:
            account.sent(turn.worker.url, turn.since, turn.bound.end - turn.since)
            response = await self._send(request, turn, path)
            account.answered = self.turns.now()
            account.epoch = turn.epoch if want.slot else ""
            becomes_job = makes in JOBS and response.code < 300
            seconds = self.turns.now() - turn.since if becomes_job else turn.answered()
            turn.well = response.code < 400
            lesson = self._lesson(response, turn, makes, hook)
            stamps = stamps_of(turn, seconds)
            await self.carrier.answer(request, turn.worker, response, lesson, stamps)

        with named(job):
            await with_worker(self.turns, job, attempt, lambda: self._parking.parked(request))

    async def _send(self, request: Request, turn: Turn, target: bytes) -> IResponse:
        with self.outstanding.request(turn.worker):
            response = await self.carrier.send(request, turn.worker, target)
            turn.seen()
        self.turns.pool.record_answer(turn.worker)
        return response

    def _lesson(
        self, response: IResponse, turn: Turn, makes: str | None, hook: str | None
    ) -> Lesson | None:
        if response.code >= 300 or not turn.job.want.slot:
            return None

        def learn(fields: Mapping[str, Any]) -> None:
            assert makes is not None
            id = id_in(fields)
            if makes in JOBS and id is not None:
                turn.made(makes, id)
                if hook is not None:
                    self.webhooks.expect(makes, id, hook)
            self.holdings.made(makes, turn.worker, fields, turn.epoch)

        def told(fields: Mapping[str, Any]) -> None:
            turn.took = inference_time(fields)

        return Lesson.of(
            response, None if makes is None else learn, None if makes in JOBS else told
        )
