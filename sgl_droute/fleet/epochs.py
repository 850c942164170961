"""
The weights of the whole fleet: what each model is to have, and who may work with what it has.

It judges records and changes none: `sgl_droute.fleet.pool` asks it with every change of one, and
`sgl_droute.fleet.refits` tells it of updates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define, evolve, field

from sgl_droute.fleet.weights import Desired
from sgl_droute.fleet.worker import Worker

Model = str | None


UNKNOWN = "unknown"


def worked_at(then: Worker, now: Worker | None) -> str:
    """
    The weights epoch that a worker had while it did something, as a text: ``7``, ``7-8`` if it
    changed meanwhile, or `UNKNOWN` for either.

    Args:
        then: Its record when it was given the work.
        now: Its record when the work was done; None if it has left.
    """
    first = UNKNOWN if then.epoch is None else str(then.epoch)
    if now is None or now.incarnation != then.incarnation:
        return first
    if now.actual.calls == then.actual.calls:
        return first
    last = UNKNOWN if now.epoch is None else str(now.epoch)
    return first if first == last else f"{first}-{last}"


@define(eq=False)
class Epochs:
    """
    What is desired, by model. Workers that have not said yet what they serve count with every
    model, and have one of their own, None, that changes with any.

    Args:
        tolerant: Whether stale workers may get work.

    Attributes:
        number: That of the last change.
        updating: Serials of the workers that a change is on its way to.
        catching_up: Serials of the workers that are being brought up to date.
        pending: By serial, what those workers are to have whose turn is still to come.
        closed: Models whose workers get no work until an update has ended.
        inherited: What is desired of models of which nothing else is known.
    """

    tolerant: bool = False
    number: int = field(default=0, init=False)
    updating: set[int] = field(factory=set, init=False)
    catching_up: set[int] = field(factory=set, init=False)
    pending: dict[int, Desired] = field(factory=dict, init=False)
    closed: frozenset[Model] = field(default=frozenset(), init=False)
    inherited: Desired = field(factory=Desired, init=False)
    _desired: dict[Model, Desired] = field(factory=dict, init=False)

    def desired(self, model: Model) -> Desired:
        """
        What workers of *model* are to have.
        """
        return self._desired.get(model, self.inherited)

    def of(self, worker: Worker) -> Desired:
        """
        What *worker* is to have now.
        """
        return self.pending.get(worker.serial) or self.desired(worker.capabilities.model)

    def set(self, model: Model, desired: Desired) -> None:
        """
        Have workers of *model* need what is *desired*. Their records are not told.
        """
        self._desired[model] = desired

    def forget(self, serial: int) -> None:
        """
        Forget that the turn of a worker has come, or will; it is there no more.
        """
        self.updating.discard(serial)
        self.catching_up.discard(serial)
        self.pending.pop(serial, None)

    def next_number(self) -> int:
        """
        A number for a change.
        """
        self.number += 1
        return self.number

    def judged(self, worker: Worker) -> Worker:
        """
        *worker* with all that follows from what it has and what it is to have.
        """
        desired = self.of(worker)
        current = worker.actual.current(desired)
        catching_up = worker.serial in self.catching_up
        # What may have been restarted may have nothing, wherever that is noticed.
        stale = not current or catching_up or (worker.lapsed and desired.epoch > 0)
        updating = (
            worker.serial in self.updating
            or self._is_closed(worker)
            or (catching_up and self.tolerant)
        )
        actual, lacks = worker.actual, worker.lacks if stale else ""
        if current and actual.epoch != desired.epoch:
            actual = evolve(actual, epoch=desired.epoch)
        facets = (worker.stale, worker.updating, worker.lacks, worker.tolerated)
        if actual is worker.actual and facets == (stale, updating, lacks, self.tolerant):
            return worker
        return evolve(
            worker,
            stale=stale,
            updating=updating,
            lacks=lacks,
            actual=actual,
            tolerated=self.tolerant,
        )

    def models(self) -> list[Model]:
        """
        The models of which something is desired, those that nobody told of last.
        """
        return sorted(self._desired, key=lambda model: (model is None, model or ""))

    @property
    def highest(self) -> int:
        """The epoch of the model that is furthest."""
        return max((desired.epoch for desired in self._desired.values()), default=0)

    def saved(self) -> dict[str, Any]:
        """
        It as a JSON object.
        """
        return {
            "number": self.number,
            "inherited": self.inherited.saved(),
            "models": [[model, desired.saved()] for model, desired in self._desired.items()],
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """
        Know again what `saved` gave.
        """
        self.number = int(saved["number"])
        self.inherited = Desired.restored(saved["inherited"])
        self._desired = {model: Desired.restored(each) for model, each in saved["models"]}

    def _is_closed(self, worker: Worker) -> bool:
        if not self.closed:
            return False
        model = worker.capabilities.model
        return model is None or model in self.closed
