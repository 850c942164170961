"""
A job's way to a worker: its turn in line, then one worker after the other until one is reached.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import TypeVar

from attrs import define
from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from sgl_droute.errors import NotConnected, NoWorker, WorkerTimeout
from sgl_droute.fleet.decisions import Bound
from sgl_droute.fleet.epochs import worked_at
from sgl_droute.fleet.job import Job
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.turns import Turns, Waiting

log = Logger()

T = TypeVar("T")


@define(eq=False)
class Turn:
    """
    A job's stay at a worker.

    Attributes:
        bound: The decision that sent it there.
        since: When that was (seconds).
        took: Seconds of GPU time that the worker told; None so far.
        well: Whether the worker did it; to be set by whoever sees the answer.
        epoch: The weights epoch that it was done at, as of `sgl_droute.fleet.epochs.worked_at`;
            empty until `seen`.
    """

    turns: Turns
    bound: Bound
    since: float
    took: float | None = None
    well: bool = False
    epoch: str = ""

    @property
    def job(self) -> Job:
        """What is to be done."""
        return self.bound.job

    @property
    def worker(self) -> Worker:
        """Who is to do it."""
        return self.bound.worker

    def seen(self) -> None:
        """
        Its worker has answered; to be told before that is sent anything else.
        """
        self.epoch = worked_at(self.worker, self.turns.pool.still(self.worker))

    def answered(self) -> float:
        """
        The GPU is done with it: another job may come. Returns the seconds that it was there.
        """
        self.turns.answered(self.job)
        return self.turns.now() - self.since

    def made(self, kind: str, id: str) -> None:
        """
        It makes the video or mesh with that id, and lasts as long as that.
        """
        self.turns.made(self.job, kind, id)


async def with_worker(
    turns: Turns,
    job: Job,
    attempt: Callable[[Turn], Awaitable[T]],
    waiting: Waiting = nullcontext,
) -> T:
    """
    What *attempt* gives with the first worker that it can connect to: that one alone may see the
    request. Until then the job waits for its turn.

    Args:
        attempt: Fails with `NotConnected` as long as its worker has seen nothing.
        waiting: Makes a context in which the job waits, if it has to.

    Raises:
        NotConnected: Nobody was reached.
        NoWorker: Nobody can take the request now.
        BadRequest: No worker is able to serve it.
        NotFound: It names a model that nobody serves, and that matters.
        Refused: It was not let in line, or taken out of it.
    """
    bound = await turns.submitted(job, waiting)
    while True:
        turn = Turn(turns, bound, turns.now())
        try:
            result = await attempt(turn)
        except NotConnected as failed:
            turns.pool.record_unreached(turn.worker)
            log.debug("{failed}; trying the next worker", failed=failed)
            try:
                bound = await turns.once_more(job, waiting)
            except NoWorker:
                raise failed from None
        except (CancelledError, WorkerTimeout):
            turns.abandon(job)  # the worker may be at it, and works on
            raise
        except Exception:
            turns.finish(job, took=turn.took, well=False)
            raise
        else:
            turns.finish(job, took=turn.took, well=turn.well)
            return result
