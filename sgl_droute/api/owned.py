"""
Requests for a thing that one worker holds: a job, its file, an image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define
from twisted.web.iweb import IResponse
from twisted.web.server import Request

from sgl_droute.api.carrier import NO_STAMPS, Carrier
from sgl_droute.api.stamps import EPOCH
from sgl_droute.api.telemetry.account import account_of
from sgl_droute.errors import NoWorker, WorkerFailed
from sgl_droute.fleet.holdings import Holdings
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.finder import Finder
from sgl_droute.workers.gate import Gate
from sgl_droute.workers.lesson import Lesson
from sgl_droute.workers.records import record_target, says_unknown


@define(eq=False)
class Owned:
    """
    Sends requests for an id to the worker that holds it, eligible or not.

    Args:
        pool: The fleet.
        holdings: Told of what answers show.
        finder: Tells who holds an id.
        records: Carries requests for records, which a worker answers at once.
        files: Carries requests for files.
        gate: Requests in flight at once; more wait, first come first served.
        now: The reactor's clock (seconds).
    """

    pool: Pool
    holdings: Holdings
    finder: Finder
    records: Carrier
    files: Carrier
    gate: Gate
    now: Callable[[], float]

    async def record(self, request: Request, kind: str, id: str) -> None:
        """
        Answer a request for the record of a job, its deletion included.

        Raises:
            NotFound: Every worker said that it does not know the id.
            NoWorker: Its worker does not answer, or nobody is known to hold it and not all answer.
        """
        await self._forward(self.records, request, kind, id, record_target(kind, id))

    async def content(self, request: Request, kind: str, id: str) -> None:
        """
        As `record`, for a file.
        """
        await self._forward(self.files, request, kind, id, request.uri)

    async def _forward(
        self, carrier: Carrier, request: Request, kind: str, id: str, target: bytes
    ) -> None:
        worker = await self.finder.holder(kind, id)
        if request.method == b"DELETE":
            self.holdings.deleting(kind, id)
        async with self.gate.turn():
            with self.pool.visit(worker):
                account = account_of(request)
                account.sent(worker.url, self.now())
                try:
                    response = await carrier.send(request, worker, target)
                except WorkerFailed as failed:
                    holder = f"Worker {worker.url}, which holds {kind}_id {id}"
                    why = f"{holder}, does not answer: {failed.why}"
                    raise NoWorker(why, reason=failed.reason) from failed
                account.answered = self.now()
                self.pool.record_answer(worker)
                lesson = self._lesson(request, response, worker, kind, id)
                epoch = self.holdings.epoch(kind, id)
                stamps = {EPOCH: epoch.encode("ascii")} if epoch else NO_STAMPS
                await carrier.answer(request, worker, response, lesson, stamps)

    def _lesson(
        self, request: Request, response: IResponse, worker: Worker, kind: str, id: str
    ) -> Lesson | None:
        status = response.code
        if request.method == b"HEAD":
            return None  # without a body it does not tell a forgotten job from an unfinished one

        def learn(fields: Mapping[str, Any]) -> None:
            if says_unknown(kind, status, fields):
                self.holdings.lost(kind, id)
            elif status == 200 and request.method == b"DELETE":
                self.holdings.deleted(kind, id)
            elif status == 200:
                self.holdings.seen(kind, id, worker, fields)

        return Lesson.of(response, learn)
