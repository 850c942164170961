"""
What of all that changes in the fleet is worth telling.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen

from sgl_droute.fleet.happenings import Happenings
from sgl_droute.fleet.jobs import EndedJob, OpenJobs
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.refit import Refit, Verdict
from sgl_droute.fleet.refits import Refits
from sgl_droute.fleet.worker import Worker

KINDS = (
    "worker.added",
    "worker.state",
    "worker.removed",
    "weights.update",
    "job.completed",
    "job.failed",
    "job.lost",
    "queue.above",
    "queue.below",
)

# Characters of a reason, and stale workers named, that are told at most.
_LONGEST_REASON = 300
_MOST_NAMED = 50

# A long line is short again when it has this share of the length that made it long.
_SHORT_AGAIN = 0.8


@frozen(eq=False)
class Alarm:
    """
    Tells when a line gets long and when it is short again, and not of each job around that.

    Attributes:
        threshold: Jobs that make a line long (count); 0 if none is.
    """

    threshold: int

    @property
    def low(self) -> int:
        """Jobs with which a long line is short again; fewer than the threshold."""
        return min(self.threshold - 1, int(self.threshold * _SHORT_AGAIN))

    def is_long(self, waiting: int, *, was_long: bool) -> bool:
        """
        Whether a line of *waiting* jobs counts as long.
        """
        if not self.threshold:
            return False
        return waiting > self.low if was_long else waiting >= self.threshold


@define(eq=False)
class Reporter:
    """
    Watches the fleet from its creation on, and tells of it.

    Args:
        happenings: Told.
        pool: Its workers.
        refits: The updates of their weights.
        jobs: Their video and mesh jobs.
        waiting: How many requests wait in line (count).
        alarm: Tells what is a long line.
    """

    happenings: Happenings
    pool: Pool
    refits: Refits
    jobs: OpenJobs
    waiting: Callable[[], int]
    alarm: Alarm
    _refit: Refit | None = field(default=None, init=False)
    _is_long: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.pool.watch(self._worker_changed)
        self.refits.watch(self._weights_changed)
        self.jobs.watch(self._job_ended)

    def look(self) -> None:
        """
        Look at the line; to be called once a second.
        """
        waiting = self.waiting()
        was_long, self._is_long = self._is_long, self.alarm.is_long(waiting, was_long=self._is_long)
        if self._is_long != was_long:
            kind = "queue.above" if self._is_long else "queue.below"
            limit = self.alarm.threshold if self._is_long else self.alarm.low
            self.happenings.add(kind, {"waiting": waiting, "threshold": limit})

    def _worker_changed(self, before: Worker | None, now: Worker | None) -> None:
        if before is None or now is None:
            worker = now or before
            assert worker is not None
            kind = "worker.removed" if now is None else "worker.added"
            self.happenings.add(kind, {"worker": worker.url, "state": worker.state})
            return
        was, state = before.state, now.state
        if was != state:
            fields = {"worker": now.url, "from": was, "to": state, "reason": _reason(now, state)}
            self.happenings.add("worker.state", fields)

    def _weights_changed(self) -> None:
        before, now = self._refit, self.refits.under_way
        if now is before:
            return
        self._refit = now
        if before is not None:
            self.happenings.add("weights.update", self._ended(before))
        if now is not None:
            self.happenings.add("weights.update", {"state": "begun", **_named(now)})

    def _ended(self, refit: Refit) -> dict[str, Any]:
        stale = [worker.url for worker in self.pool if worker.stale]
        results = Counter((each or Verdict.LOST).value for each in refit.outcomes.values())
        return {
            "state": "ended",
            **_named(refit),
            "seconds": None if refit.seconds is None else round(refit.seconds, 3),
            "epoch": self.pool.epochs.highest,
            "results": dict(results),
            "consistent": not stale,
            "stale": len(stale),
            "stale_workers": stale[:_MOST_NAMED],
        }

    def _job_ended(self, ended: EndedJob) -> None:
        kind = f"job.{ended.how}"
        if kind not in KINDS:
            return
        job = ended.job
        fields = {
            "kind": job.kind,
            "id": job.id,
            "worker": job.worker,
            "seconds": round(max(0.0, self.happenings.now() - job.created), 3),
            "worker_seconds": ended.took,
        }
        self.happenings.add(kind, fields)


def _named(refit: Refit) -> dict[str, Any]:
    models = sorted(model for model in refit.models if model is not None)
    return {"path": refit.path, "mode": refit.mode, "models": models}


def _reason(worker: Worker, state: str) -> str | None:
    """
    Why *worker* is in that *state*; None if that says it all, or nobody knows.
    """
    reasons = {
        "dead": worker.last_error,
        "suspect": worker.last_error,
        "stale": worker.lacks or worker.last_error,
    }
    return reasons.get(state, "")[:_LONGEST_REASON] or None
