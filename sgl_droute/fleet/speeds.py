"""
How long work takes on each worker, learned from what it took.

Seconds are pace times work plus a fixed part. What is known of a worker is judged by its own latest
measurements, and by those of all workers of its model while they are few. Knows nothing of
requests: how much work one is, its `Demand` says.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache

from attrs import define, field

from sgl_droute.fleet.demand import Asked
from sgl_droute.fleet.fit import Sample, middle
from sgl_droute.fleet.job import KINDS, UNKNOWN, Demand
from sgl_droute.fleet.measured import (
    SHARED,
    Known,
    Own,
    Rate,
    Shared,
    measurement,
    restored,
    saved,
    short,
    times,
)
from sgl_droute.fleet.worker import Worker

__all__ = ["LEARNED", "Rate", "Speeds"]

LEARNED = 5
"""Measurements from which on a prediction may be relied upon (count)."""

# Measurements that a worker adds to those of its model when they are restored and many.
_RESTORED = 4
_MOST_WORKERS = 10_000
_MOST_MODELS = 256
# Work of a request of which nothing is known and never was: an image of 1024x1024 and 50 steps.
_USUAL_WORK = 2.6e5
_PRIOR = Rate(2.6e-5)
# A told speed is taken for one between these.
_SLOWEST, _FASTEST = 1e-3, 1e3


@lru_cache(maxsize=4096)
def _told(usual: Rate, speed: float) -> Rate:
    return times(usual, 1 / _within(speed))


def _within(speed: float) -> float:
    return min(max(speed, _SLOWEST), _FASTEST)


@lru_cache(maxsize=1024)
def _default_work(model: str | None, kind: str) -> float:
    """
    Work of a request of that kind that names nothing but its prompt.
    """
    return Asked(kind, {}).work(model) or _USUAL_WORK


@define(eq=False)
class Speeds:
    """
    Predicts what requests take.

    Args:
        prior: What is believed while nothing is known. Its default is FLUX.1-dev on one H100: 6.7 s
            for an image of 1024x1024 and 50 steps.
        on_change: Called with the worker's URL and the kind when something was learned of it.
    """

    prior: Rate = _PRIOR
    on_change: Callable[[str, str], object] = lambda url, kind: None
    _workers: dict[str, Known] = field(factory=dict, init=False)
    _models: OrderedDict[str | None, dict[str, Shared]] = field(factory=OrderedDict, init=False)
    _latest: dict[str, Shared] = field(factory=dict, init=False)

    def rate(self, worker: Worker, kind: str) -> Rate:
        """
        The rate of *worker*: what an operator says its speed is, else what was measured.
        """
        usual = self._usual(worker.capabilities.model, kind)
        if worker.speed is not None:
            return _told(usual, worker.speed)
        own = self._own(worker, kind)
        return usual if own is None else own.rate(usual)

    def work(self, model: str | None, kind: str, demand: Demand) -> float:
        """
        Work of *demand* on a worker of that model, in units of that model; that of an average
        request of the kind where it cannot be told.
        """
        amount = demand.work(model)
        if amount is not None and 0 < amount < math.inf:
            return amount
        shared = self._shared(model, kind) or self._latest.get(kind)
        return _default_work(model, kind) if shared is None else shared.average

    def seconds(self, worker: Worker, kind: str, demand: Demand) -> float:
        """
        Seconds that *worker* takes for *demand*.
        """
        return self.rate(worker, kind).seconds(self.work(worker.capabilities.model, kind, demand))

    def length(self, model: str | None, kind: str, demand: Demand) -> float:
        """
        Seconds that *demand* takes on a usual worker of that model, or of the model that made the
        kind last if nothing is known of that one.
        """
        latest = self._latest.get(kind)
        if latest is not None and model not in self._models:
            model = latest.model
        return self._usual(model, kind).seconds(self.work(model, kind, demand))

    def usual(self, worker: Worker, kind: str) -> float:
        """
        Seconds that an average request of that kind takes on *worker*.
        """
        return self.seconds(worker, kind, UNKNOWN)

    def learn(self, worker: Worker, kind: str, demand: Demand, seconds: float) -> None:
        """
        Take note that *worker* worked on *demand* for so many seconds.

        Ignored: what is no time, and requests of unknown work where others tell more.
        """
        if not 0 < seconds < math.inf:
            return
        model = worker.capabilities.model
        shared = self._shared(model, kind)
        amount = demand.work(model)
        exact = amount is not None and 0 < amount < math.inf
        if not exact and shared is not None and shared.exact:
            return
        work = self.work(model, kind, demand)
        known = self._known(worker)
        own = known.kinds.setdefault(kind, Own())
        if shared is not None:
            own.errors.append(abs(self.rate(worker, kind).seconds(work) / seconds - 1))
        sample = measurement(work, seconds)
        self._share(model, kind, [sample], worker.speed, exact)
        own.samples.append(sample)
        own.fit(self._usual(model, kind))
        self.on_change(worker.url, kind)

    def learned(self, worker: Worker, kind: str) -> bool:
        """
        Whether predictions for *worker* rest on at least 5 measurements: its own, or with a speed
        that an operator told those of its model.
        """
        if worker.speed is None:
            own = self._own(worker, kind)
            return own is not None and len(own.samples) >= LEARNED
        shared = self._shared(worker.capabilities.model, kind)
        return shared is not None and len(shared.samples) >= LEARNED

    def measured(self, worker: Worker, kind: str) -> bool:
        """
        Whether anything was measured of workers like *worker* that made that kind.
        """
        return self._shared(worker.capabilities.model, kind) is not None

    def error(self, worker: Worker) -> float | None:
        """
        By how much of what was measured the latest predictions for *worker* were off: the median;
        None before there are any.
        """
        known = self._workers.get(worker.url)
        if known is None or known.model != worker.capabilities.model:
            return None
        errors = [error for own in known.kinds.values() for error in own.errors]
        return middle(errors) if errors else None

    def shown(self, worker: Worker) -> dict[str, object]:
        """
        What was learned of *worker*, by kind, for people to read.

        ``relative_speed`` is 1 for the usual speed of its model and 2 for twice that.
        """
        found: dict[str, object] = {}
        for kind in KINDS:
            own = self._own(worker, kind)
            if own is None:
                continue
            rate = self.rate(worker, kind)
            usual = self._usual(worker.capabilities.model, kind)
            average = self.work(worker.capabilities.model, kind, UNKNOWN)
            found[kind] = {
                "samples": len(own.samples),
                "seconds_per_unit": short(rate.pace),
                "fixed_seconds": short(rate.fixed),
                "relative_speed": short(usual.seconds(average) / rate.seconds(average)),
                "error": short(middle(own.errors)) if own.errors else None,
            }
        return found

    def forget(self, url: str) -> None:
        """
        Note that the worker at *url* has left.
        """
        self._workers.pop(url, None)

    def saved(self, url: str) -> str | None:
        """
        What to keep of the worker at *url* over a restart, as JSON of at most 2000 characters;
        None if there is nothing.
        """
        known = self._workers.get(url)
        return None if known is None else saved(known)

    def restore(self, url: str, text: str) -> None:
        """
        Take over what was `saved` of the worker at *url*, unless something newer is known of it;
        what cannot be read is ignored.
        """
        known = restored(text)
        if known is None or url in self._workers:
            return
        self._add(url, known)
        for kind, own in known.kinds.items():
            shared = self._shared(known.model, kind)
            samples = list(own.samples)
            if shared is not None and len(shared.samples) == SHARED:
                samples = samples[-_RESTORED:]
            self._share(known.model, kind, samples, known.speed, exact=True)
            own.fit(self._usual(known.model, kind))

    def _own(self, worker: Worker, kind: str) -> Own | None:
        known = self._workers.get(worker.url)
        if known is None or known.model != worker.capabilities.model:
            return None
        return known.kinds.get(kind)

    def _known(self, worker: Worker) -> Known:
        """
        What is known of *worker* and is to be added to; nothing at first, and with another model.
        """
        known = self._workers.get(worker.url)
        if known is None or known.model != worker.capabilities.model:
            known = Known(worker.capabilities.model)
            self._add(worker.url, known)
        known.speed = worker.speed
        return known

    def _add(self, url: str, known: Known) -> None:
        self._workers[url] = known
        if len(self._workers) > _MOST_WORKERS:
            del self._workers[next(iter(self._workers))]

    def _shared(self, model: str | None, kind: str) -> Shared | None:
        kinds = self._models.get(model)
        return None if kinds is None else kinds.get(kind)

    def _usual(self, model: str | None, kind: str) -> Rate:
        """
        The rate of a usual worker of that model: for the kind, for another one, of another model
        that makes it, or as believed in the beginning.
        """
        kinds = self._models.get(model)
        if kinds is not None:
            shared = kinds.get(kind)
            if shared is not None:
                return shared.rate
            return max(kinds.values(), key=lambda each: len(each.samples)).rate
        latest = self._latest.get(kind)
        return self.prior if latest is None else latest.rate

    def _share(
        self,
        model: str | None,
        kind: str,
        samples: Sequence[Sample],
        speed: float | None,
        exact: bool,
    ) -> None:
        shared = self._shared(model, kind)
        if shared is None:
            shared = Shared(model, self._usual(model, kind), _USUAL_WORK)
            self._models.setdefault(model, {})[kind] = shared
        shared.exact = shared.exact or exact
        shared.add(samples, 1.0 if speed is None else _within(speed))
        self._latest[kind] = shared
        self._models.move_to_end(model)
        if len(self._models) > _MOST_MODELS:
            self._models.popitem(last=False)
