"""
One request to many workers at once, carried to its end.

It sends and collects; who is asked, and what the answers mean for the fleet, is decided elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from sgl_droute.errors import NotConnected, RouterError, WorkerFailed
from sgl_droute.fleet.loras import has_no_loras
from sgl_droute.fleet.refit import Verdict
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.client import Answer, Call, WorkerClient

log = Logger()

T = TypeVar("T")

_LARGEST_ANSWER = 16 << 20


@frozen
class Result:
    """
    What one worker made of a broadcast.

    Attributes:
        worker_url: Base URL of the worker.
        status_code: Its HTTP status; 502 when there was no usable answer.
        body: Its JSON; ``{"raw": text}`` when it is none; ``{"error": text}`` without an answer.
        answered: Whether the worker answered; otherwise the status is the router's.
        unknown: Whether it may have done it without an answer, or may do it yet.
    """

    worker_url: str
    status_code: int
    body: Any
    answered: bool = True
    unknown: bool = False

    @classmethod
    def of(cls, worker: str, answer: Answer) -> Result:
        """
        The result that the *worker* at this URL gave with its *answer*.
        """
        return cls(worker, answer.status, _parsed(answer.body))

    @property
    def took(self) -> bool:
        """Whether the worker did what it was told."""
        refused = isinstance(self.body, dict) and self.body.get("success") is False
        return 200 <= self.status_code < 300 and not refused

    @property
    def verdict(self) -> Verdict:
        """What it says of a worker that was told to change its weights or adapters."""
        if self.took:
            return Verdict.TOOK
        text = str(self.body)
        if has_no_loras(text):
            return Verdict.EXEMPT
        if not self.answered:
            return Verdict.LOST if self.unknown else Verdict.REFUSED
        asleep = self.status_code == 500 and "is sleeping" in text
        return Verdict.REFUSED if asleep or 400 <= self.status_code < 500 else Verdict.FAILED

    def shown(self) -> dict[str, Any]:
        """What a client is told of it."""
        return {
            "worker_url": self.worker_url,
            "status_code": self.status_code,
            "body": self.body,
        }


@define(eq=False)
class Broadcasts(Service):
    """
    Runs calls that go to several workers. Once begun they run to their end, also when the client
    who asked hangs up: half a fleet with new weights is worse than either.

    Args:
        client: A client for control calls.
    """

    client: WorkerClient
    _running: dict[Deferred[Any], None] = field(factory=dict, init=False)

    def stopService(self) -> Deferred[Any]:
        """
        Cancel what is running; the result comes when it has ended.
        """
        super().stopService()
        running = list(self._running)
        for each in reversed(running):  # whoever waits for another's end is not to begin at it
            each.cancel()
        return DeferredList(running)

    def to_the_end(self, work: Coroutine[Any, Any, T]) -> Deferred[T]:
        """
        What *work* returns; cancelling the wait for it does not reach *work*.
        """
        waiting: Deferred[T] = Deferred()
        running = Deferred.fromCoroutine(work)
        self._running[running] = None

        def ended(result: T | Failure) -> None:
            self._running.pop(running, None)
            if isinstance(result, Failure):
                waiting.errback(result)
            else:
                waiting.callback(result)

        running.addBoth(ended)
        return waiting

    async def send(
        self,
        name: str,
        workers: Iterable[Worker],
        ask: Callable[[Worker], Coroutine[Any, Any, Result]],
    ) -> list[Result]:
        """
        The results of all *workers*, in their order; logged as well.

        Args:
            name: What is sent, for the log.
            ask: Asks one of them.
        """
        collected: list[Result] = []

        async def collect(worker: Worker) -> Result:
            result = await ask(worker)
            collected.append(result)
            return result

        asking = [Deferred.fromCoroutine(collect(worker)) for worker in workers]
        try:
            return _results(await DeferredList(asking, consumeErrors=True))
        finally:
            log.info(
                "{name}: taken by {took} of {asked} workers: {statuses}",
                name=name,
                took=sum(result.took for result in collected),
                asked=len(asking),
                statuses={result.worker_url: result.status_code for result in collected},
            )

    async def ask(self, call: Call) -> Result:
        """
        What came of one *call*.
        """
        try:
            answer = await self.client.fetch(call, limit=_LARGEST_ANSWER)
        except RouterError as error:
            unknown = isinstance(error, WorkerFailed) and not isinstance(error, NotConnected)
            return Result(call.worker, 502, {"error": str(error)}, answered=False, unknown=unknown)
        return Result.of(call.worker, answer)


def _results(ended: Sequence[tuple[bool, Any]]) -> list[Result]:
    """
    What all gave; the first failure is raised, once all have ended.
    """
    for well, result in ended:
        if not well:
            result.raiseException()
    return [result for _, result in ended]


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return {"raw": body.decode("utf-8", "replace")}
