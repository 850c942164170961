"""
What clients are told whose job is not let in line, or leaves it unserved.
"""

from __future__ import annotations

from collections.abc import Iterable

from sgl_droute.errors import (
    Cancelled,
    DeadlinePassed,
    NotWaiting,
    PreconditionFailed,
    Refused,
    TooLate,
)
from sgl_droute.fleet.capabilities import RequiredEpoch
from sgl_droute.fleet.job import Job


def queue_full(waiting: int, drained: float) -> Refused:
    """
    *waiting* jobs are in line, which will be empty in *drained* seconds.
    """
    sentence = f"{waiting} requests wait, and no more may"
    return Refused(sentence, "queue_full", position=waiting + 1, retry_after=drained)


def too_late(job: Job, end: float, position: int, now: float) -> TooLate:
    """
    *job* would end at *end*, behind its deadline.
    """
    assert job.deadline is not None
    late = end - job.deadline
    sentence = f"It would end in {end - now:.1f} s, {late:.1f} s behind its deadline"
    return TooLate(sentence, "deadline", position=position, retry_after=late)


def deadline_passed(job: Job, position: int, now: float) -> DeadlinePassed:
    """
    The deadline of *job* came while it waited.
    """
    sentence = f"It waited {now - job.submitted:.1f} s, and its deadline came"
    return DeadlinePassed(sentence, "deadline", position=position)


def waited_too_long(job: Job, position: int, drained: float, now: float) -> Refused:
    """
    *job* waited longer than any may, in a line that will be empty in *drained* seconds.
    """
    sentence = f"It waited {now - job.submitted:.1f} s, longer than any request may"
    return Refused(sentence, "queue_timeout", position=position, retry_after=drained)


def epoch_passed(required: RequiredEpoch, epochs: Iterable[int]) -> PreconditionFailed:
    """
    The *required* epoch has passed in models that are at *epochs*.
    """
    sentence = f"It requires the weights epoch {shown(required)}, and {_at(epochs)}"
    return PreconditionFailed(sentence, "epoch")


def epoch_not_reached(
    job: Job, position: int, epochs: Iterable[int], now: float
) -> PreconditionFailed:
    """
    *job* waited as long as it may for an epoch that no worker has; the models are at *epochs*.
    """
    assert job.want.epoch is not None
    waited = f"It waited {now - job.submitted:.1f} s for the weights epoch {shown(job.want.epoch)}"
    return PreconditionFailed(f"{waited}, and {_at(epochs)}", "epoch", position=position)


def shown(required: RequiredEpoch) -> str:
    """
    *required* as its client wrote it.
    """
    return f"{'=' if required.exact else '>='}{required.number}"


def cancelled(id: str) -> Cancelled:
    """
    Somebody took the job out of the line.
    """
    return Cancelled(f"Job {id} was cancelled while it waited", "cancelled")


def at_its_worker(id: str) -> NotWaiting:
    """
    Somebody wants the job out of the line, and it is there no more.
    """
    return NotWaiting(f"Job {id} is at its worker, and workers cannot cancel", "running")


def _at(epochs: Iterable[int]) -> str:
    return f"the fleet is at {' and '.join(str(epoch) for epoch in epochs)}"
