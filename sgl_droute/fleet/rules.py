"""
How jobs are scheduled: the options of `sgl_droute.fleet.scheduler`.
"""

from __future__ import annotations

from random import Random

from attrs import field, frozen

from sgl_droute.fleet.worker import Concurrency


@frozen(kw_only=True)
class Rules:
    """
    Options of a scheduler.

    Attributes:
        algorithm: A name in `sgl_droute.fleet.selection.ALGORITHMS`.
        random: Where the random algorithm gets its chances from.
        strict_model: Whether a model that nobody serves is an error instead of no wish at all.
        concurrency: Slots of a worker that has no number of its own; 0 for no limit.
        bind_ahead: Seconds before the predicted end of a job at which an ``auto`` limit lets the
            next one follow.
        max_running: Requests open to workers at once (count).
        queue_size: Jobs that may wait (count).
        fair: Whether clients take turns within a priority.
        group_margin: Jobs that the worker of a group may be ahead of the least loaded (count).
        longest: Seconds that no job is expected to exceed.
    """

    algorithm: str = "least-request"
    random: Random = field(factory=Random)
    strict_model: bool = False
    concurrency: Concurrency = 0
    bind_ahead: float = 1.0
    max_running: int = 1000
    queue_size: int = 10_000
    fair: bool = False
    group_margin: int = 2
    longest: float = 1800.0
