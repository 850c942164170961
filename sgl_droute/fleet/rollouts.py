"""
What became of rollout batches: how many of each batch wait, run and have ended.

It only counts what the scheduler tells. When a batch will have ended it does not know.
"""

from __future__ import annotations

from collections import OrderedDict

from attrs import define, field
from attrs.validators import ge

from sgl_droute.errors import NotFound
from sgl_droute.fleet.decisions import Event

_BEGUN = {"submitted": "waiting", "unreached": "waiting", "bound": "running"}
_ENDED = {"refused": "failed", "dropped": "failed", "cancelled": "cancelled"}
# Events that may be the first of a job.
_FIRST = ("submitted", "refused")
_STATES = ("waiting", "running", "done", "failed", "cancelled")


@define(eq=False)
class _Batch:
    expected: int | None = None
    counts: dict[str, int] = field(factory=lambda: dict.fromkeys(_STATES, 0))
    begun: dict[str, str] = field(factory=dict)

    def note(self, event: Event) -> None:
        id = event.job.id
        before = self.begun.get(id)
        if before is None and event.name not in _FIRST:
            return  # it has ended, as far as its batch is concerned, or was never of it
        after = _state_after(event, before)
        if after is None:
            return
        if before is not None:
            self.counts[before] -= 1
            del self.begun[id]
        self.counts[after] += 1
        if after in ("waiting", "running"):
            self.begun[id] = after


@define(eq=False)
class Rollouts:
    """
    The batches, as far as they are remembered; `note` is an observer for `Scheduler.watch`.

    A job that is refused, dropped from the line, or left by its client while it ran has failed; one
    that its client left while it waited was cancelled.

    Args:
        most: Batches remembered (count). Beyond that those without a job that waits or runs go
            first, the least recently used before the others.
    """

    most: int = field(default=1000, validator=ge(1))
    _batches: OrderedDict[str, _Batch] = field(factory=OrderedDict, init=False)

    def note(self, event: Event) -> None:
        """
        Count what happened to a job; jobs of no batch are ignored.
        """
        id = event.job.batch
        if id is None:
            return
        if id in self._batches or event.name in _FIRST:
            self._used(id).note(event)

    def expect(self, batch: str, size: int) -> None:
        """
        Remember that *batch* is to have *size* jobs (count); the last word counts.
        """
        self._used(batch).expected = size

    def shown(self, batch: str) -> dict[str, object]:
        """
        ``id``, ``expected`` (None if nobody said) and the counts ``waiting``, ``running``,
        ``done``, ``failed`` and ``cancelled``, whose sum is the number of jobs submitted so far.

        Raises:
            NotFound: The batch is not known, or no longer.
        """
        if batch not in self._batches:
            raise NotFound("Unknown rollout batch")
        known = self._used(batch)
        return {"id": batch, "expected": known.expected, **known.counts}

    def _used(self, id: str) -> _Batch:
        batch = self._batches.setdefault(id, _Batch())
        self._batches.move_to_end(id)
        if len(self._batches) > self.most:
            del self._batches[self._first_to_go()]
        return batch

    def _first_to_go(self) -> str:
        others = list(self._batches)[:-1]
        return next((id for id in others if not self._batches[id].begun), others[0])


def _state_after(event: Event, before: str | None) -> str | None:
    """
    What the job is after *event*, None if that changes nothing.
    """
    if event.name == "ended":
        return "done" if event.reason == "well" else "failed"
    if event.name == "abandoned":
        return "failed" if before == "running" else "cancelled"
    return _BEGUN.get(event.name) or _ENDED.get(event.name)
