"""
What clients are told whose job is not let in line, or leaves it unserved.
"""

from __future__ import annotations

from sgl_droute.errors import Cancelled, DeadlinePassed, NotWaiting, Refused, TooLate
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
