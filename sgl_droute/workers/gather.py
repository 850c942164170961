"""
The same question to several workers at the same time.

It collects what they said and who said nothing; what is asked, and what to make of it, is known
to whoever asks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.web.http_headers import Headers

from sgl_droute.errors import RouterError, WorkerFailed
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.client import Answer, Call, WorkerClient

_LARGEST_ANSWER = 16 << 20

T = TypeVar("T")


@define(eq=False)
class Gathering:
    """
    Asks workers together, in one round or several. Who fails in one is not asked in the next, so
    that a hanging worker costs its time-out once.

    Attributes:
        workers: Those that have answered so far, in the order given.
        missing: Why each of the others did not, by its URL.
    """

    workers: list[Worker]
    missing: dict[str, RouterError] = field(factory=dict)

    @property
    def missing_urls(self) -> str:
        """The URLs in *missing* as one text, with commas in between."""
        return ", ".join(self.missing)

    async def ask(
        self, question: Callable[[Worker], Coroutine[Any, Any, T]]
    ) -> list[tuple[Worker, T]]:
        """
        Every worker that answered, with what *question* made of it.

        Args:
            question: Asks one worker; a `RouterError` is its way to say that no answer came.
        """
        answers = await self._all(question)
        answered: list[tuple[Worker, T]] = []
        for worker, answer in zip(self.workers, answers, strict=True):
            if isinstance(answer, RouterError):
                self.missing[worker.url] = answer
            else:
                answered.append((worker, answer))
        self.workers = [worker for worker, _ in answered]
        return answered

    async def _all(
        self, question: Callable[[Worker], Coroutine[Any, Any, T]]
    ) -> list[T | RouterError]:
        async def ask(worker: Worker) -> T | RouterError:
            try:
                return await question(worker)
            except RouterError as error:
                return error

        asking = [Deferred.fromCoroutine(ask(worker)) for worker in self.workers]
        try:
            return await gatherResults(asking, consumeErrors=True)
        except FirstError as stopped:
            stopped.subFailure.raiseException()


async def get(client: WorkerClient, worker: Worker, target: bytes) -> Answer:
    """
    The whole answer of *worker* to ``GET`` *target*.

    Raises:
        WorkerFailed: There was none, or it is larger than 16 MiB.
    """
    headers = Headers({b"Accept": [b"application/json"]})
    return await client.fetch(Call(b"GET", worker.url, target, headers), limit=_LARGEST_ANSWER)


def content(worker: Worker, answer: Answer) -> Any:
    """
    The JSON in an answer that has to be a 200.

    Raises:
        WorkerFailed: It is none, or not JSON.
    """
    if answer.status != 200:
        text = answer.body[:200].decode("utf-8", "replace")
        raise WorkerFailed(worker.url, f"answered {answer.status} {text}".rstrip())
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError) as problem:
        raise WorkerFailed(worker.url, "the answer is not JSON") from problem
