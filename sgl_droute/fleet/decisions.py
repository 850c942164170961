"""
What the scheduler decides, and what it tells of it.
"""

from __future__ import annotations

from attrs import frozen

from sgl_droute.errors import RouterError
from sgl_droute.fleet.job import Job
from sgl_droute.fleet.worker import Worker


@frozen
class Candidate:
    """
    A worker that a job could have gone to.

    Attributes:
        url: Its URL.
        jobs: What it had before it (count).
        room: Whether it had room for one more.
        start: When it would have begun with the job, as predicted (seconds).
        end: When the job would have ended there, as predicted (seconds).
    """

    url: str
    jobs: int
    room: bool
    start: float
    end: float


@frozen
class Bound:
    """
    *job* goes to *worker* now.

    Attributes:
        start: When its worker will begin with it, as predicted (seconds).
        end: When it will have ended, as predicted (seconds).
        candidates: Whom it was chosen among, if the job asks for that.
    """

    job: Job
    worker: Worker
    start: float
    end: float
    candidates: tuple[Candidate, ...] = ()


@frozen
class Dropped:
    """
    *job* leaves the line unserved, for the reason that *error* tells its client.
    """

    job: Job
    error: RouterError


Decision = Bound | Dropped


@frozen
class Event:
    """
    Something that happened to a job.

    Attributes:
        name: ``submitted``, ``bound``, ``refused``, ``dropped``, ``cancelled``, ``unreached``,
            ``abandoned`` or ``ended``.
        time: When (seconds).
        worker: URL of its worker; None while it has none.
        start: When its worker begins with it, as predicted; of one that is bound.
        end: When it will have ended, as predicted; of one that is bound.
        took: GPU time that its worker told, or that was seen (seconds); of one that ended.
        reason: Of one that ended ``well`` or ``failed``, else why.
    """

    name: str
    time: float
    job: Job
    worker: str | None = None
    start: float | None = None
    end: float | None = None
    took: float | None = None
    reason: str = ""
