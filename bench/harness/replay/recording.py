"""
Recorded traffic: which jobs came when, and which workers were there. Pure.

How it is read from files is the business of `bench.harness.replay.reader`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from attrs import define, field, frozen

from sgl_droute.fleet.capabilities import Capabilities, Want
from sgl_droute.fleet.worker import Concurrency


class NoRecording(Exception):
    """What was to be read is no recording, or one without jobs."""


@define(eq=False)
class Asked:
    """
    One job, as it was recorded. Times are seconds after its arrival unless said otherwise.

    Attributes:
        at: When it arrived (seconds since the first job).
        work: By model; the empty name stands for an unknown one.
        length: Seconds that the router expected it to take on a usual worker; 0 if it did not.
        left: When its client left or somebody cancelled it; None when nobody did.
        worker: URL of the worker that it was given to last; None when it never was.
        predicted: Seconds that it was expected to take there.
        took: Seconds of GPU time that the worker told.
    """

    id: str
    at: float
    want: Want
    work: Mapping[str, float]
    length: float = 0.0
    priority: int = 0
    client: str = ""
    batch: str | None = None
    group: str | None = None
    deadline: float | None = None
    expires: float | None = None
    hand_over: float | None = None
    left: float | None = None
    worker: str | None = None
    predicted: float | None = None
    took: float | None = None


@frozen
class Present:
    """
    A worker as it was from some time on.
    """

    url: str
    capabilities: Capabilities
    concurrency: Concurrency | None = None
    speed: float | None = None
    eligible: bool = True


@frozen
class Change:
    """
    At *at* (seconds since the first job, negative before it) a worker came or changed; with None it
    went.
    """

    at: float
    url: str
    now: Present | None


@define(eq=False)
class Recording:
    """
    What was recorded, in order of time.

    Attributes:
        jobs: Those that take GPU time.
        rules: What the scheduler was told, last.
        passed_over: How many lines of what sort are not used.
    """

    jobs: list[Asked] = field(factory=list)
    changes: list[Change] = field(factory=list)
    rules: Mapping[str, Any] = field(factory=dict)
    passed_over: Counter[str] = field(factory=Counter)

    def models(self) -> dict[str, str | None]:
        """
        The model of each worker, by URL, as it was last.
        """
        return {c.url: c.now.capabilities.model for c in self.changes if c.now is not None}
