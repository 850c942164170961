"""
A client's request to one worker, and that worker's answer back to the client.

Which worker it is, and what its answer teaches, is decided by whoever sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from attrs import define
from twisted.internet.task import Cooperator
from twisted.web.iweb import IResponse
from twisted.web.server import Request

from sgl_droute.api.forwarded import client_headers, spooled_body, worker_headers
from sgl_droute.errors import WorkerFailed
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.client import Call, WorkerClient
from sgl_droute.workers.lesson import Lesson
from sgl_droute.workers.relay import relay


class NotReached(Protocol):
    def __call__(self, worker: Worker, *, restarted: bool) -> None: ...


NO_STAMPS: Mapping[bytes, bytes] = {}


@define(eq=False)
class Carrier:
    """
    Carries requests and answers.

    Args:
        client: A client for this traffic only.
        not_reached: Told of a worker that refused a connection or broke it, and whether it must
            have been restarted since.
        cooperator: Reads large request bodies in steps.
        idle_timeout: Seconds of silence after which an answer is cut.
    """

    client: WorkerClient
    not_reached: NotReached
    cooperator: Cooperator
    idle_timeout: float

    async def send(self, request: Request, worker: Worker, target: bytes) -> IResponse:
        """
        The head of *worker*'s answer to *request*, asked for *target*; to be given to `answer`.

        Raises:
            WorkerFailed: There is no usable answer.
        """
        body = spooled_body(request).producer(self.cooperator)
        call = Call(request.method, worker.url, target, worker_headers(request), body)
        try:
            return await self.client.send(call)
        except WorkerFailed as failed:
            self.note(worker, failed)
            raise

    async def answer(
        self,
        request: Request,
        worker: Worker,
        response: IResponse,
        lesson: Lesson | None,
        stamps: Mapping[bytes, bytes] = NO_STAMPS,
    ) -> None:
        """
        Answer *request* with *response*; returns when the last byte is written.

        Args:
            stamps: Headers that the router adds.

        Raises:
            WorkerFailed: The answer was cut.
            RequestTimeout: The client took no byte for too long.
        """
        headers = client_headers(request, response.headers, worker.url)
        for name, value in stamps.items():
            headers.addRawHeader(name, value)
        try:
            await relay(
                response,
                request,
                headers,
                worker=worker.url,
                deadlines=self.client.deadlines,
                idle_timeout=self.idle_timeout,
                lesson=lesson,
            )
        except WorkerFailed as failed:
            self.note(worker, failed)
            raise

    def note(self, worker: Worker, failed: WorkerFailed) -> None:
        """
        Take note of a failure that *worker* may be to blame for.
        """
        if failed.gone:
            self.not_reached(worker, restarted=failed.refused)
